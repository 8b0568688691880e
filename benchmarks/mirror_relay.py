"""The relay's rows per second against a raw bulk upsert of the same rows, and how soon all is well after an outage.

Both through the same real PostgREST, in batches of the same size, alternating.  The relay reads its rows from the
journal, writes their events too, and forgets them.  Writes benchmarks/results/mirror_relay.json.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx

from benchmarks.journal_bench import _a_queued_job as a_queued_job
from benchmarks.record import write
from scheduler.adapters.journal.sqlite import SqliteJournal
from scheduler.adapters.supabase.mirror import SupabaseMirror
from scheduler.core.model import JOB, Job, JobId
from scheduler.engine.job_store import JobStore
from scheduler.engine.periodic import Backoff, PeriodicTask, SystemClock
from scheduler.engine.queries.job_view import JobViews
from scheduler.engine.registry import Registry
from scheduler.engine.sync.heartbeat import Heartbeat
from scheduler.engine.sync.relay import Relay
from scheduler.engine.sync.session import MirrorSession
from scheduler.settings import Settings
from scheduler.testing.builders import a_change
from tests.stack.stack import Stack

PAIRS = 5
JOBS = 10_000
BATCH = 1_000
OUTAGE_S = 60.0
CHANGED = 5_000


async def main() -> None:
    with Stack.start() as stack, tempfile.TemporaryDirectory() as folder:
        journal = await SqliteJournal.open(Path(folder) / "journal.db")
        mirror = SupabaseMirror(stack.url, stack.service_key, "bench", 60.0)
        session, registry = MirrorSession(mirror, journal), Registry(0)
        store = JobStore(journal, registry, session, Settings().retries())
        heartbeat = Heartbeat(journal, session, SystemClock(), JobViews(registry, SystemClock(), Settings()))
        relay = Relay(journal, session, store, registry, heartbeat, BATCH)
        jobs = [a_queued_job(number) for number in range(JOBS)]
        await journal.commit([a_change(job) for job in jobs])
        await relay.once()
        pairs = []
        for _ in range(PAIRS):
            raw_per_s = JOBS / await _raw_upsert(stack, jobs)
            jobs = await _change(journal, jobs)
            stack.gateway.forget()
            began_s = time.perf_counter()
            assert await relay.once() == JOBS
            relay_per_s = JOBS / (time.perf_counter() - began_s)
            requests = len(stack.gateway.requests)
            pairs.append({"raw_per_s": raw_per_s, "relay_per_s": relay_per_s, "requests": requests})
            print(pairs[-1], flush=True)
        outage = await _outage(stack, journal, relay, jobs, statistics.median(p["raw_per_s"] for p in pairs))
        await journal.close()
    write(
        "mirror_relay",
        {
            "targets": {"ratio_at_least": 0.7, "rows_per_request_at_least": 500, "outage_ratio_at_most": 1.5},
            "ratio": statistics.median(pair["relay_per_s"] / pair["raw_per_s"] for pair in pairs),
            "rows_per_request": JOBS / max(pair["requests"] for pair in pairs),
            "outage": outage,
            "pairs": pairs,
        },
    )


async def _change(journal: SqliteJournal, jobs: list[Job]) -> list[Job]:
    changed = [replace(job, version=job.version + 1) for job in jobs]
    for start in range(0, len(jobs), 1000):
        both = zip(jobs[start : start + 1000], changed[start : start + 1000], strict=True)
        await journal.commit([a_change(after, before=before) for before, after in both])
    return changed


async def _raw_upsert(stack: Stack, jobs: list[Job]) -> float:
    """Seconds for PostgREST's own bulk upsert of the columns that the relay writes; documents made beforehand."""
    rows = [_row(replace(job, id=JobId(str(uuid4())))) for job in jobs]
    headers = {
        "apikey": stack.service_key,
        "Authorization": f"Bearer {stack.service_key}",
        "Prefer": "resolution=merge-duplicates,return=minimal",
    }
    url = f"{stack.url}/rest/v1/training_jobs?on_conflict=id"
    async with httpx.AsyncClient(headers=headers, timeout=60) as client:
        for timed in (False, True):  # the second time the rows are there: an update, as the relay's
            began_s = time.perf_counter()
            for start in range(0, len(rows), BATCH):
                (await client.post(url, json=rows[start : start + BATCH])).raise_for_status()
            if timed:
                took_s = time.perf_counter() - began_s
    stack.sql("delete from training_jobs where cluster = 'raw'")
    return took_s


def _row(job: Job) -> dict[str, Any]:
    document = json.loads(JOB.dump_json(job))
    same = ("id", "status", "spec", "reason", "progress", "version", "created_at", "queued_at")
    return {name: document[name] for name in same} | {
        "name": job.spec.name,
        "attempt": job.attempt,
        "priority": job.spec.priority,
        "queue_position": job.queue_seq,
        "cluster": "raw",
        "verified_at": document["updated_at"],
        "incarnation": 1,
        "job": document,
    }


async def _outage(
    stack: Stack, journal: SqliteJournal, relay: Relay, jobs: list[Job], raw_per_s: float
) -> dict[str, float]:
    """The database refuses for a minute while jobs change; then: seconds until the outbox is empty."""
    loop = PeriodicTask(
        "relay",
        30.0,
        relay.once,
        SystemClock(),
        backoff=Backoff(first_s=1.0, max_s=300.0, chance=lambda: 0.99),
    )
    stack.gateway.fault("refuse")
    running = asyncio.create_task(loop.run_forever())
    changed = jobs[:CHANGED]
    for _ in range(3):
        changed = await _change(journal, changed)
        loop.wake()
        await asyncio.sleep(OUTAGE_S / 3)
    next_try = loop.health().next_run_at
    assert next_try is not None
    backoff_s = max(0.0, (next_try - SystemClock().now()).total_seconds())
    stack.gateway.clear()
    began_s = time.perf_counter()
    while await journal.outbox_size():
        await asyncio.sleep(0.05)
    took_s = time.perf_counter() - began_s
    running.cancel()
    return {
        "outage_s": OUTAGE_S,
        "changed_rows": 3 * CHANGED,
        "backoff_left_s": backoff_s,
        "converged_s": took_s,
        "ratio": (took_s - backoff_s) / (3 * CHANGED / raw_per_s),
    }


if __name__ == "__main__":
    asyncio.run(main())
