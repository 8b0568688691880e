"""A restart with 100,000 jobs in the journal against reading and json-parsing the same documents.

Ours: from opening the file (and checking it) until the registry is filled and the last job's document is answered.
Theirs: `SELECT doc` and `json.loads` of each, keeping nothing.  Each in a fresh process, alternating, both from a
warm page cache; the start of Python is in neither.  Two journals: every job queued, none of them mirrored yet; and
1,000 active ones beside 99,000 that have finished.  Writes benchmarks/results/restart.json, and exits with 1 when
a ratio is out of its range (benchmarks/ranges.toml).
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from benchmarks.journal_bench import _a_queued_job as a_queued_job
from benchmarks.record import write
from scheduler.adapters.journal import SqliteJournal
from scheduler.core.lifecycle import Admit, Event, RunEnded, apply, record
from scheduler.core.model import Allocation, Job, NodeId
from scheduler.engine.periodic import SystemClock
from scheduler.engine.service import Engine
from scheduler.engine.spec_validation import SpecValidator
from scheduler.ports import Change
from scheduler.server import collector
from scheduler.settings import Settings
from scheduler.testing.fake_runner import COMPLETED, FakeRunner

PAIRS = 7
JOBS = 100_000
FINISHED = {"all queued": 0, "1,000 active": JOBS - 1_000}
BATCH = 1_000


def main(pairs: int = PAIRS) -> int:
    limit = tomllib.loads(Path(__file__).with_name("ranges.toml").read_text())["restart"]["max_ratio"]
    with tempfile.TemporaryDirectory() as folder:
        results = {name: _measure(Path(folder, f"{FINISHED[name]}.db"), name, pairs) for name in FINISHED}
    within = all(result["ratio"] <= limit for result in results.values())
    write("restart", {"jobs": JOBS, "limit_ratio": limit, "within": within, "journals": results})
    return 0 if within else 1


def _measure(path: Path, name: str, pairs: int) -> dict[str, Any]:
    _child("fill", path, name)
    _child("parse", path, name)
    rows = [
        {"restart": _child("restart", path, name), "parse": _child("parse", path, name)} for _ in range(pairs)
    ]
    took = {side: statistics.median(row[side]["seconds"] for row in rows) for side in ("restart", "parse")}
    ratio = statistics.median(row["restart"]["seconds"] / row["parse"]["seconds"] for row in rows)
    return {
        "ratio": round(ratio, 2),
        "restart_s": round(took["restart"], 3),
        "parse_s": round(took["parse"], 3),
        "file_bytes": path.stat().st_size,
        "pairs": rows,
    }


def _child(what: str, path: Path, name: str) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.restart", what, str(path), name]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout or "{}")


async def restart(path: Path) -> dict[str, float]:
    """Seconds in all, and in which part; as the scheduler actor does it, without Ray and without a database."""
    began_s = time.perf_counter()
    journal = await SqliteJournal.open(path)
    opened_s = time.perf_counter()
    service = Engine(
        journal=journal,
        runner=FakeRunner(),
        clock=SystemClock(),
        settings=Settings(),
        validator=SpecValidator([], []),
    )
    with collector.set_aside():
        await service.recover()
    recovered_s = time.perf_counter()
    document = await service.queries.status(service.registry.active()[-1].id)
    answered_s = time.perf_counter()
    assert document.status == "queued", document
    await journal.close()
    return {
        "seconds": answered_s - began_s,
        "open_s": opened_s - began_s,
        "recover_s": recovered_s - opened_s,
        "answer_s": answered_s - recovered_s,
    }


def parse(path: Path) -> dict[str, float]:
    began_s = time.perf_counter()
    with closing(sqlite3.connect(path)) as file:
        count = sum(1 for (doc,) in file.execute("SELECT doc FROM jobs") if json.loads(doc))
    took_s = time.perf_counter() - began_s
    assert count == JOBS, count
    return {"seconds": took_s}


async def fill(path: Path, finished: int) -> None:
    """*finished* jobs that ran to their end and are mirrored, then queued ones that are not."""
    journal = await SqliteJournal.open(path)
    for start in range(0, JOBS, BATCH):
        jobs = [a_queued_job(number) for number in range(start, start + BATCH)]
        await journal.commit([Change(job=job, event=record(None, job, None), before=0) for job in jobs])
        if start < finished:
            jobs = await _step(journal, jobs, _admission)
            await _step(journal, jobs, _end)
            await journal.forget([row.seq for row in await journal.outbox(3 * BATCH)])
    await journal.close()


async def _step(journal: SqliteJournal, jobs: list[Job], event_of: Callable[[Job], Event]) -> list[Job]:
    changes = [_change(job, event_of(job)) for job in jobs]
    await journal.commit(changes)
    return [change.job for change in changes]


def _change(job: Job, event: Event) -> Change:
    after, _ = apply(job, event)
    return Change(job=after, event=record(job, after, event), before=job.version)


def _admission(job: Job) -> Admit:
    allocation = Allocation(ranks=((NodeId("0" * 56), job.spec.resources.num_ranks),))
    return Admit(at=job.created_at, by="scheduler", allocation=allocation)


def _end(job: Job) -> RunEnded:
    return RunEnded(at=job.created_at, by="scheduler", fence=job.fence, outcome=COMPLETED)


def _run_child(what: str, path: Path, name: str) -> None:
    match what:
        case "fill":
            asyncio.run(fill(path, FINISHED[name]))
        case "restart":
            print(json.dumps(asyncio.run(restart(path))))
        case "parse":
            print(json.dumps(parse(path)))


if __name__ == "__main__":
    if len(sys.argv) > 2:
        _run_child(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
    else:
        sys.exit(main(*map(int, sys.argv[1:])))
