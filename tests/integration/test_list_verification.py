"""What users see of the comparison: the API over PostgreSQL and PostgREST, with a whole service behind it."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from scheduler.adapters.supabase.mirror import SupabaseMirror
from scheduler.api.jobs import JobDocument, JobPage
from scheduler.api.repairs import ReconcileAnswer, RepairPage
from scheduler.core.commands import JobAction
from scheduler.core.model import Cause, Ending, Fence, Gang, JobId, JobSpec, Node, NodeId, Outcome, Reason
from scheduler.engine.periodic import SystemClock
from scheduler.engine.service import Engine
from scheduler.engine.spec_validation import SpecValidator
from scheduler.settings import Settings
from scheduler.testing.fake_runner import FakeRunner
from scheduler.testing.memory import MemoryJournal
from serve_app.app import create_app
from tests.stack import Stack
from tests.unit.served import registry_of

BASE = "/api/training"
WAITS = JobSpec(loop="tests:any", resources=Gang(num_ranks=4))


@dataclass
class System:
    """A service that was started and does nothing by itself, and its API."""

    service: Any
    registry: Any
    stack: Stack
    client: httpx.AsyncClient

    async def submit(self) -> str:
        job, _ = await self.service.commands.submit(str(uuid.uuid4()), WAITS, None)
        return job.job_id

    async def tell_the_database(self) -> None:
        await self.service.sync.relay.once()

    async def list(self, query: str = "") -> JobPage:
        return JobPage.model_validate_json(await self._content("GET", f"{BASE}/jobs{query}"))

    async def shown(self, job_id: str) -> JobDocument:
        return next(job for job in (await self.list()).jobs if job.job_id == job_id)

    async def reconcile(self, query: str = "") -> ReconcileAnswer:
        return ReconcileAnswer.model_validate_json(await self._content("POST", f"{BASE}/reconcile{query}"))

    async def repairs(self) -> RepairPage:
        return RepairPage.model_validate_json(await self._content("GET", f"{BASE}/repairs"))

    def by_hand(self, status: str, age_s: float = 0.0) -> str:
        job_id = str(uuid.uuid4())
        self.stack.sql(
            "insert into training_jobs (id, name, status, spec, created_at, updated_at) values (%s, 'by hand', %s,"
            " '{\"loop\": \"tests:any\"}', now() - %s * interval '1 s', now() - %s * interval '1 s')",
            job_id,
            status,
            age_s,
            age_s,
        )
        return job_id

    async def _content(self, method: str, path: str) -> bytes:
        response = await self.client.request(method, path)
        assert response.status_code == 200, response.text
        return response.content


@pytest.fixture
async def system(fresh_stack: Stack, tmp_path: Path) -> AsyncIterator[System]:
    settings = Settings(list_budget_s=0.7, list_pause_s=0.2)
    mirror, database = [
        SupabaseMirror(fresh_stack.url, fresh_stack.service_key, settings.cluster) for _ in "ab"
    ]
    service = Engine(
        journal=MemoryJournal(),
        runner=FakeRunner(),
        clock=SystemClock(),
        settings=settings,
        validator=SpecValidator(("tests:*",), (tmp_path,)),
        mirror=mirror,
    )
    await service.recover()
    await database.check()  # the first call opens it, which may take longer than a list
    registry = registry_of(service)
    transport = httpx.ASGITransport(create_app(registry, settings, database))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as client:
        yield System(service, registry, fresh_stack, client)
    await asyncio.gather(mirror.close(), database.close())


def silent(system: System) -> None:
    async def never(*_: Any) -> Any:
        await asyncio.Event().wait()

    system.registry.jobs = system.registry.status = never


async def test_rows_that_lie_are_marked_until_they_are_put_right(system: System) -> None:
    """L6, L10, R7, P1: the row set to `running` by hand, the row deleted, and those that no scheduler knows."""
    lies, deleted, honest = [await system.submit() for _ in range(3)]
    await system.tell_the_database()
    page = await system.list()
    assert [job.job_id for job in page.jobs] == [honest, deleted, lies]
    assert not any(job.stale for job in page.jobs)
    assert (page.verified, page.note) == (True, None)

    system.stack.sql("update training_jobs set status = 'running' where id = %s", lies)
    system.stack.sql("delete from training_jobs where id = %s", deleted)
    stranger, old = system.by_hand("running"), system.by_hand("running", age_s=9999)
    jobs = {job.job_id: job for job in (await system.list()).jobs}
    assert {job_id: (job.status, job.stale, job.database_status) for job_id, job in jobs.items()} == {
        lies: ("queued", True, "running"),
        deleted: ("queued", True, None),
        honest: ("queued", False, None),
        stranger: ("running", True, "running"),
        old: ("running", True, "running"),
    }
    assert {job_id for job_id, job in jobs.items() if not job.verified} == {stranger, old}
    assert {job.job_id for job in (await system.list("?status=running")).jobs} == {lies, stranger, old}

    foretold = await system.reconcile("?dry_run=true")
    assert {repair.job_id for repair in foretold.repairs} == {lies, deleted, old}
    assert (await system.list()).jobs[0].job_id in jobs, "a dry run changes nothing"
    assert (await system.shown(lies)).stale
    done = await system.reconcile()
    assert {repair.job_id for repair in done.repairs} == {lies, deleted, old}
    await system.tell_the_database()
    assert {job.job_id for job in (await system.list()).jobs if job.stale} == {stranger}
    assert (await system.shown(old)).reason.code == "stale"
    assert {repair.job_id for repair in (await system.repairs()).repairs} == {lies, deleted, old}
    assert (await system.reconcile()).repairs == []


async def test_while_the_registry_is_silent_the_database_is_served_as_unverified(system: System) -> None:
    """L6, L9: the rows as they are, and that nobody vouches for them; the states stay with their proof."""
    job_id = await system.submit()
    await system.tell_the_database()
    silent(system)
    page = await system.list("?limit=1")
    assert [(job.job_id, job.status, job.verified) for job in page.jobs] == [(job_id, "queued", False)]
    assert not page.verified
    assert "the registry did not answer within 0." in (page.note or "")
    assert page.next_cursor is not None
    assert (await system.list(f"?limit=1&cursor={page.next_cursor}")).jobs == []
    job = JobDocument.model_validate_json((await system.client.get(f"{BASE}/status/{job_id}")).content)
    assert (job.status, job.verified, job.spec) == ("queued", False, WAITS)


@pytest.mark.parametrize("kind", ["hang", "refuse", "500", "429", "reset"])
async def test_while_the_database_is_away_the_registry_is_believed(system: System, kind: Any) -> None:
    """L6, P6: true states, in time, with what could not be compared and why; and compared again afterwards."""
    job_id = await system.submit()
    await system.tell_the_database()
    system.stack.gateway.fault(kind)
    page = await system.list()
    assert [(job.job_id, job.verified, job.stale) for job in page.jobs] == [(job_id, True, False)]
    assert (page.verified, (page.note or "")[:31]) == (True, "not compared with the database:")
    system.stack.gateway.clear()
    async with asyncio.timeout(30):
        while (await system.list()).note is not None:  # one that hung is asked again in the background
            await asyncio.sleep(0.05)


async def test_a_job_that_moved_is_not_stale_while_that_is_on_its_way(system: System) -> None:
    """L6: neither before the relay has told it, nor while it does, nor after; a lie is one at any time."""
    job_id, other = await system.submit(), await system.submit()
    assert not (await system.shown(job_id)).stale, "its row is not there yet"
    await system.tell_the_database()
    await system.service.commands.act(job_id, JobAction.CANCEL, "ann")
    seen = await system.shown(job_id)
    assert (seen.status, seen.stale, seen.unmirrored) == ("cancelled", False, True)
    _, *pages = await asyncio.gather(system.tell_the_database(), *(system.list() for _ in range(8)))
    assert not any(job.stale for page in pages for job in page.jobs)
    seen = await system.shown(job_id)
    assert (seen.stale, seen.unmirrored) == (False, False)
    await system.service.commands.act(other, JobAction.CANCEL, "ann")
    system.stack.sql("update training_jobs set status = 'running', version = 2 where id = %s", other)
    assert (await system.shown(other)).stale
    system.stack.sql("update training_jobs set status = 'queued', version = 1 where id = %s", job_id)
    assert (await system.shown(job_id)).stale, "nothing of it is on its way any more"


async def test_a_finished_row_that_was_altered_is_shown_and_put_right(system: System) -> None:
    """P1, L10: `cancelled` made `completed` by hand, its version, its copy; each recorded, and done once."""
    altered, spoiled, honest = [await system.submit() for _ in range(3)]
    for job_id in (altered, spoiled, honest):
        await system.service.commands.act(job_id, JobAction.CANCEL, "ann")
    await system.tell_the_database()
    assert (await system.reconcile()).repairs == []
    system.stack.sql("update training_jobs set status = 'completed' where id = %s", altered)
    system.stack.sql('update training_jobs set job = \'{"status": "?"}\' where id = %s', spoiled)
    assert (await system.shown(altered)).database_status == "completed"
    assert {repair.job_id for repair in (await system.reconcile()).repairs} == {altered, spoiled}
    rows = system.stack.sql("select status, job ->> 'status' as copy, version from training_jobs")
    assert [(row["status"], row["copy"], row["version"]) for row in rows] == [
        ("cancelled", "cancelled", 2)
    ] * 3
    assert {repair.job_id for repair in (await system.repairs()).repairs} == {altered, spoiled}
    assert (await system.reconcile()).repairs == []


async def test_values_that_are_hard_to_hold_reach_the_database_or_wait_alone(system: System) -> None:
    """B2, R6: NUL, halves of pairs, huge numbers, depth: whatever a run said, every other job's row is written."""
    deep: Any = "end"
    for _ in range(60):
        deep = {"a": [deep]}
    said = [
        {"t": "\0 \ud83d \u202e"},
        {"n": 10**900, "m": -(10**1000)},
        {"loss": float("nan")},
        deep,
        {1: {2: 3}},
    ]
    system.service.runner.nodes_now = (Node(id=NodeId("node-1"), name="node-1", cpus=64.0),)
    await system.service.scheduling.once()
    jobs = [JobId(await system.submit()) for _ in said]
    await system.service.scheduling.once()
    await system.tell_the_database()
    async with asyncio.timeout(30):
        while len(await system.service.runner.live()) < len(jobs):
            await asyncio.sleep(0.01)
    for job_id, words in zip(jobs, said, strict=True):
        reason = Reason(code="loop_failed", message=str(words.get("t", "it")), detail="\0\udc00")
        outcome = Outcome(
            ending=Ending.FAILED,
            cause=Cause.USER,
            reason=reason,
            progress=words,
            result={"metrics": words},
            evidence={"logs": words},
        )
        system.service.runner.end((job_id, Fence(1)), outcome)
    async with asyncio.timeout(30):
        while system.service.registry.running():
            await asyncio.sleep(0.01)
    await system.tell_the_database()
    assert await system.service.journal.outbox_size() == 0
    rows = system.stack.sql("select id::text, status, progress from training_jobs")
    assert {row["id"]: row["status"] for row in rows} == dict.fromkeys(jobs, "failed")
    assert not any(job.stale for job in (await system.list()).jobs)
