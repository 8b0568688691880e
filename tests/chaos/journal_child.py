"""The process that is killed: 8 submitters of one service tell what they begin and what was acknowledged."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import count
from multiprocessing.connection import Connection
from pathlib import Path
from uuid import NAMESPACE_OID, uuid4, uuid5

from scheduler.adapters.journal import SqliteJournal
from scheduler.core.commands import JobAction
from scheduler.core.lifecycle import GiveUp
from scheduler.core.model import JobSpec, Reason
from scheduler.engine.periodic import SystemClock
from scheduler.engine.service import Engine
from scheduler.engine.spec_validation import SpecValidator
from scheduler.settings import Settings
from scheduler.testing import a_job, a_repair
from scheduler.testing.fake_runner import FakeRunner

SUBMITTERS = 8
ROW = "-row"
"""Ends the keys of jobs that are not submitted but taken in, as from a row that only the database knows."""
ROW_VERSION = 7
SPEC = JobSpec(loop="tests.loops:quick", user="ann", config={"text": "x" * 300})


async def submit(service: Engine, key: str) -> str:
    """Returns when the job is acknowledged."""
    if key.endswith(ROW):
        return await take_in(service, key)
    document, _ = await service.commands.submit(str(uuid4()), SPEC, key)
    return document.job_id


async def take_in(service: Engine, key: str) -> str:
    """As the reconciler fails a stale row: job, event, notice and repair in one commit.  Safe to repeat."""
    job = a_job(id=str(uuid5(NAMESPACE_OID, key)), version=ROW_VERSION, spec=SPEC, idempotency_key=key)
    reason = Reason(code="stale", message="nobody vouched for it")
    event = GiveUp(at=service.clock.now(), by="reconciler", reason=reason)
    return (await service.store.adopt(job, event, a_repair(job))).id


async def go_on(service: Engine, job_id: str) -> None:
    await service.commands.act(job_id, JobAction.CANCEL, "ann")


async def submitter(service: Engine, reports: Connection, name: str, again: Sequence[str]) -> None:
    fresh = (f"{name}-{number}{ROW if number % 3 == 1 else ''}" for number in count())
    for key in (key for keys in (again, fresh) for key in keys):
        reports.send_bytes(f"begun {key}".encode())
        job_id = await submit(service, key)
        reports.send_bytes(f"done {key} {job_id}".encode())
        if key.endswith("3"):
            await go_on(service, job_id)


async def work(path: Path, reports: Connection, name: str, again: Sequence[str]) -> None:
    journal = await SqliteJournal.open(path, busy_timeout_s=20)
    service = Engine(
        journal=journal,
        runner=FakeRunner(nodes_now=()),
        clock=SystemClock(),
        settings=Settings(),
        validator=SpecValidator(["tests.loops:*"], []),
    )
    await service.recover()
    async with asyncio.TaskGroup() as group:
        for number in range(SUBMITTERS):
            group.create_task(
                submitter(service, reports, f"{name}-{number}", again[number::SUBMITTERS]), name=f"{number}"
            )


def main(path: Path, reports: Connection, name: str, again: Sequence[str]) -> None:
    asyncio.run(work(path, reports, name, again))
