"""How long a page of a list takes beside 100,000 jobs: the page for people, and the API with filters, orders, searches.

The real service, journal and API in one process, asked over HTTP one request at a time.  Before each request the
journal is written to, so that nothing counted before may be told again.  Writes benchmarks/results/list_page.json.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx

from benchmarks.journal_bench import _a_queued_job as a_queued_job
from benchmarks.record import write
from scheduler.core.model import Job, Status
from scheduler.journal import SqliteJournal
from scheduler.testing import a_change
from tests.unit.served import Served, scheduler_at

JOBS = 100_000
REQUESTS = 30
MAX_P50_MS = 50.0
ENDED = (Status.COMPLETED,) * 16 + (Status.FAILED,) * 2 + (Status.CANCELLED,)
ASKED = {
    "page": "/training",
    "page, failed": "/training?status=failed",
    "all": "/api/training/jobs",
    "failed": "/api/training/jobs?status=failed",
    "user": "/api/training/jobs?user=user3",
    "user, queued": "/api/training/jobs?user=user3&status=queued",
    "by name": "/api/training/jobs?sort=name",
    "completed, by update": "/api/training/jobs?status=completed&sort=-updated",
    "search, many": "/api/training/jobs?search=tuning",
    "search, one": "/api/training/jobs?search=99997",
    "search, none": "/api/training/jobs?search=nothing-like-it",
    "search, by name": "/api/training/jobs?search=team%3Dteam3&sort=name",
}


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        asyncio.run(fill(Path(name) / "journal.db", JOBS))
        with scheduler_at(Path(name)) as served, httpx.Client(base_url=served.url, timeout=60) as client:
            p50_ms = {what: _median_ms(served, client, path) for what, path in ASKED.items()}
    write(
        "list_page",
        {
            "jobs": JOBS,
            "targets": {"max_p50_ms": MAX_P50_MS},
            "p50_ms": p50_ms,
            "worst_p50_ms": max(p50_ms.values()),
        },
    )


def _median_ms(served: Served, client: httpx.Client, path: str) -> float:
    seconds: list[float] = []
    for _ in range(REQUESTS):
        served.call(served.service.journal.vouch(datetime.now(UTC)))
        began_s = time.perf_counter()
        client.get(path).raise_for_status()
        seconds.append(time.perf_counter() - began_s)
    return round(statistics.median(seconds) * 1000, 2)


async def fill(path: Path, count: int) -> None:
    """A journal of *count* jobs: 95 of 100 have ended, the others wait for more GPUs than there are."""
    journal = await SqliteJournal.open(path)
    for start in range(0, count, 1000):
        await journal.commit([a_change(_a_job(number)) for number in range(start, min(start + 1000, count))])
    await journal.close()


def _a_job(number: int) -> Job:
    job = a_queued_job(number)
    at = job.created_at - timedelta(seconds=JOBS - number)
    job = replace(job, created_at=at, queued_at=at, updated_at=at)
    if number % 20 == 0:
        return job
    return replace(job, status=ENDED[number % 20 - 1], queue_seq=None, finished_at=at)


if __name__ == "__main__":
    main()
