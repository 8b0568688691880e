"""Write the golden journal of this schema version, once: `python tests/golden/make_journal.py`."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from scheduler.adapters.journal import SqliteJournal
from scheduler.adapters.journal.files import SCHEMA_VERSION
from scheduler.adapters.journal.tables import REPAIR
from scheduler.core.contender import SHARE, Share
from scheduler.core.model import ATTEMPT, EVENT, JOB, Reason, Status
from scheduler.testing import a_change, a_full_job, a_job, a_repair, a_spec, advanced
from scheduler.testing.attempts import a_full_attempt, admitted, run_lost, telling
from scheduler.testing.clock import NOON

FOLDER = Path(__file__).parent
NOTED = "ledger"


async def write(path: Path) -> dict:
    """Make a journal with a job in every status and something of all else it keeps; return what it must tell."""
    jobs = [
        a_job(
            status, spec=a_spec(name=f"a {status} job", config={"lr": 1e-4, "deep": {"list": [1, None, "é"]}})
        )
        for status in Status
    ]
    keyed = a_job(
        idempotency_key="first", spec=a_spec(user="bob", project="p", labels={"team": "a"}, max_runtime_s=9.5)
    )
    lost = Reason(code="lost", message="its node is gone", detail="Traceback ...")
    retried = advanced(keyed, reason=lost, progress={"step": 3, "loss": 0.25}, losses=1)
    full, resumed = a_full_job(Status.QUEUED), a_job("running")
    again = [admitted(retried)]
    again.append(run_lost(again[0].job))
    again.append(admitted(again[1].job))
    journal = await SqliteJournal.open(path)
    try:
        await journal.commit([a_change(job) for job in [*jobs, keyed, full]])
        await journal.commit([a_change(retried, before=keyed, is_news=True)], [a_repair(retried)])
        await journal.commit([*again, telling(a_full_attempt(), resumed)])
        await journal.commit([], [a_repair(full, decided="mirror", why="the row said something else")])
        first, *_ = await journal.outbox(1)
        await journal.forget([first.seq])
        await journal.set_project("vision é/1", Share(weight=2.5, quota=8.0, limit=16.5))
        await journal.set_project("speech", Share())
        await journal.note(NOTED, {"losses": [{"at_s": 1.5, "price": 60.0}], "é": None})
        await journal.vouch(NOON)
        return await contents(journal) | {"last_vouched_at": str(NOON)}
    finally:
        await journal.close()


async def contents(journal: SqliteJournal) -> dict:
    """Everything that a journal tells, as JSON."""
    rows = await journal.outbox(1000)
    jobs = {row.job.id: await journal.get(row.job.id) for row in rows} | {
        job.id: job for job in await journal.active()
    }
    return {
        "jobs": {job_id: JOB.dump_python(job, mode="json") for job_id, job in sorted(jobs.items()) if job},
        "events": {
            job_id: [EVENT.dump_python(event, mode="json") for event in await journal.events(job_id)]
            for job_id in sorted(jobs)
        },
        "attempts": {
            job_id: [ATTEMPT.dump_python(run, mode="json") for run in await journal.attempts(job_id)]
            for job_id in sorted(jobs)
        },
        "outbox": [[row.seq, row.job.id, row.job.version] for row in rows],
        "counts": dict(sorted((await journal.counts()).items())),
        "notices": [[row.seq, row.job.id, row.job.version] for row in await journal.notices(1000)],
        "repairs": [
            [number, REPAIR.dump_python(repair, mode="json")]
            for number, repair in await journal.repairs(1000)
        ],
        "projects": {
            name: SHARE.dump_python(share, mode="json") for name, share in (await journal.projects()).items()
        },
        "noted": await journal.noted(NOTED),
        "last_vouched_at": journal.last_vouched_at and str(journal.last_vouched_at),
    }


if __name__ == "__main__":
    golden = FOLDER / f"journal-{SCHEMA_VERSION}.db"
    if golden.exists():
        raise SystemExit(f"{golden} is there: a golden journal is kept as it was released")
    told = asyncio.run(write(golden))
    golden.with_suffix(".json").write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n", "utf-8")
