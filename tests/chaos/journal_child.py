"""The process that is killed: 8 submitters on one journal tell what they begin and what was acknowledged."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import count
from multiprocessing.connection import Connection
from pathlib import Path
from uuid import uuid4

from scheduler.core.model import Status
from scheduler.journal import SqliteJournal
from scheduler.ports import Journal
from scheduler.testing import a_change, a_job, a_spec, advanced

SUBMITTERS = 8


async def submit(journal: Journal, key: str) -> str:
    """What a scheduler does with a submit; returns when the job is acknowledged."""
    if known := await journal.find_by_key("ann", key):
        return known.id
    job = a_job(id=str(uuid4()), spec=a_spec(config={"text": "x" * 300}), idempotency_key=key)
    await journal.commit([a_change(job)])
    return job.id


async def go_on(journal: Journal, job_id: str) -> None:
    job = await journal.get(job_id)
    if job and job.version == 1:
        running = advanced(job, status=Status.RUNNING)
        ended = advanced(running, status=Status.COMPLETED)
        await journal.commit([a_change(running, before=job), a_change(ended, before=running)])


async def submitter(journal: Journal, reports: Connection, name: str, again: Sequence[str]) -> None:
    fresh = (f"{name}-{number}" for number in count())
    for key in (key for keys in (again, fresh) for key in keys):
        reports.send_bytes(f"begun {key}".encode())
        job_id = await submit(journal, key)
        reports.send_bytes(f"done {key} {job_id}".encode())
        if key.endswith("3"):
            await go_on(journal, job_id)


async def work(path: Path, reports: Connection, name: str, again: Sequence[str]) -> None:
    journal = await SqliteJournal.open(path, busy_timeout_s=20)
    async with asyncio.TaskGroup() as group:
        for number in range(SUBMITTERS):
            group.create_task(
                submitter(journal, reports, f"{name}-{number}", again[number::SUBMITTERS]), name=f"{number}"
            )


def main(path: Path, reports: Connection, name: str, again: Sequence[str]) -> None:
    asyncio.run(work(path, reports, name, again))
