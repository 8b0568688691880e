"""How long a page of a list takes beside 100,000 jobs: the page for people, and the API with filters, orders, searches.

The real service, journal and API in one process, asked over HTTP one request at a time.  Before each request the
journal is written to, so that nothing counted before may be told again.  Then a real browser: from the click to the first
paint, and from a change in the scheduler to the word on the screen.  Writes benchmarks/results/list_page.json.
"""

from __future__ import annotations

import asyncio
import shutil
import statistics
import tempfile
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
from playwright.sync_api import Page, sync_playwright

from benchmarks.journal_bench import _a_queued_job as a_queued_job
from benchmarks.record import write
from scheduler.adapters.journal import SqliteJournal
from scheduler.core.commands import JobAction
from scheduler.core.model import Job, Status
from scheduler.testing import a_change
from tests.unit.served import Served, scheduler_at

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
]
JOBS = 100_000
REQUESTS = 30
MAX_P50_MS = 50.0
MAX_FIRST_PAINT_MS = 300.0
MAX_ON_SCREEN_S = 1.0
VIEWS = 7
FIRST_PAINT = "() => performance.getEntriesByName('first-contentful-paint')[0].startTime"
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
            _wait_until_calm(served)
            p50_ms = {what: _median_ms(served, client, path) for what, path in ASKED.items()}
            seen = _in_a_browser(served)
    write(
        "list_page",
        {
            "jobs": JOBS,
            "targets": {
                "max_p50_ms": MAX_P50_MS,
                "max_first_paint_ms": MAX_FIRST_PAINT_MS,
                "max_on_screen_s": MAX_ON_SCREEN_S,
            },
            "p50_ms": p50_ms,
            "worst_p50_ms": max(p50_ms.values()),
            **seen,
        },
    )


def _wait_until_calm(served: Served) -> None:
    """A journal that was filled in a minute has as many changes to forget: what no other start has to do."""
    while served.call(served.service.journal.outbox_size()):
        time.sleep(0.2)


def _median_ms(served: Served, client: httpx.Client, path: str) -> float:
    seconds: list[float] = []
    for _ in range(REQUESTS):
        served.call(served.service.journal.vouch(datetime.now(UTC)))
        began_s = time.perf_counter()
        client.get(path).raise_for_status()
        seconds.append(time.perf_counter() - began_s)
    return round(statistics.median(seconds) * 1000, 2)


def _in_a_browser(served: Served) -> dict[str, dict[str, float]]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        page = browser.new_page(base_url=served.url)
        paints_ms = [_first_paint_ms(page) for _ in range(VIEWS)]
        page.goto("/training?status=queued")
        changes_s = [_until_on_screen_s(served, page) for _ in range(VIEWS)]
        browser.close()
    return {"first_paint_ms": _summary(paints_ms), "change_on_screen_s": _summary(changes_s)}


def _first_paint_ms(page: Page) -> float:
    page.goto("/training")
    page.wait_for_function("() => performance.getEntriesByName('first-contentful-paint').length")
    return page.evaluate(FIRST_PAINT)


def _until_on_screen_s(served: Served, page: Page) -> float:
    """A queued job is given up; the page, open all the while, says `failed` in its row."""
    row = page.locator("tbody tr", has=page.locator(".status.queued")).first
    job_id = row.get_attribute("data-job")
    began_s = time.perf_counter()
    served.call(served.service.commands.act(job_id, JobAction.FAIL, "benchmark"))
    page.locator(f"tbody tr[data-job='{job_id}'] .status.failed").wait_for()
    return time.perf_counter() - began_s


def _summary(values: list[float]) -> dict[str, float]:
    return {"median": round(statistics.median(values), 3), "worst": round(max(values), 3)}


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
