"""Everything that can happen between the scheduler and Supabase, while jobs come, move and go.

The real service on the real journal, the real client, PostgREST and PostgreSQL; only the runs are scripted.
"""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from scheduler.adapters.journal.sqlite import SqliteJournal
from scheduler.adapters.supabase.mirror import SupabaseMirror
from scheduler.core.commands import JobAction
from scheduler.core.model import JOB, JobId, JobSpec
from scheduler.engine.periodic import SystemClock
from scheduler.engine.service import Engine
from scheduler.engine.spec_validation import SpecValidator
from scheduler.errors import SchedulerError
from scheduler.ports import JobQuery
from scheduler.settings import Settings
from scheduler.testing.fake_runner import COMPLETED, LOST, FakeRunner, failed
from tests.stack import KINDS, Stack
from tests.stack.faults import Kind

MIXTURES: list[dict[Kind, float]] = [
    {"lose": 0.2, "twice": 0.2, "reset": 0.2},
    {"500": 0.2, "429": 0.1, "refuse": 0.2, "slow": 0.2},
    {"hang": 0.05, "lose": 0.15, "reset": 0.1, "500": 0.1, "twice": 0.2, "refuse": 0.1},
]
TIMEOUT_S = 0.4


@dataclass
class World:
    service: Engine
    runner: FakeRunner
    stack: Stack
    cluster: str
    acknowledged: list[str]

    async def moves(self, number: int, seed: int) -> None:
        """Submits, cancels, ends of runs and rows of front ends, with a little time in between."""
        chance = random.Random(seed)
        for _ in range(number):
            with suppress(SchedulerError):
                await chance.choice([self._submit, self._submit, self._cancel, self._end, self._insert])(
                    chance
                )
            await asyncio.sleep(0.01)

    async def _submit(self, _: random.Random) -> None:
        spec = JobSpec(loop="tests.loops:quick")
        document, _ = await self.service.commands.submit(str(uuid.uuid4()), spec, None)
        self.acknowledged.append(document.job_id)

    async def _cancel(self, chance: random.Random) -> None:
        if self.acknowledged:
            await self.service.commands.act(chance.choice(self.acknowledged), JobAction.CANCEL, "test")

    async def _end(self, chance: random.Random) -> None:
        if live := sorted(await self.runner.live()):
            self.runner.end(chance.choice(live), chance.choice([COMPLETED, LOST, failed()]))

    async def _insert(self, _: random.Random) -> None:
        rows = self.stack.sql(
            "insert into training_jobs (spec, cluster) values (%s, %s) returning id::text",
            '{"loop": "tests.loops:quick"}',
            self.cluster,
        )
        self.acknowledged.append(rows[0]["id"])


@pytest.fixture
async def world(supabase_stack: Stack, tmp_path: Path) -> AsyncIterator[World]:
    cluster = f"faults-{uuid.uuid4().hex[:8]}"
    runner = FakeRunner()
    settings = Settings(
        cluster=cluster,
        state_dir=tmp_path,
        storage_path=tmp_path,
        max_losses=1,
        retry_backoff_s=0.05,
        tick_every_s=0.05,
        inbox_every_s=0.1,
        vouch_every_s=0.1,
        reconcile_every_s=0.3,
        relay_backoff_s=0.05,
        relay_backoff_max_s=0.2,
        relay_batch=5,
    )
    service = Engine(
        journal=await SqliteJournal.open(tmp_path / "journal.db"),
        runner=runner,
        clock=SystemClock(),
        settings=settings,
        validator=SpecValidator(["tests.loops:*"], [tmp_path]),
        mirror=SupabaseMirror(supabase_stack.url, supabase_stack.service_key, cluster, TIMEOUT_S),
    )
    watch_versions(supabase_stack)
    await service.recover()
    loops = asyncio.create_task(service.run_forever())
    yield World(service, runner, supabase_stack, cluster, [])
    supabase_stack.gateway.clear()
    loops.cancel()
    await asyncio.wait([loops])
    await service.journal.close()  # type: ignore[attr-defined]


def watch_versions(stack: Stack) -> None:
    """The database itself writes down every version that goes backwards."""
    stack.sql(
        "create schema if not exists watch;"
        "create table if not exists watch.backwards (id uuid, was bigint, became bigint);"
        "create or replace function watch.look() returns trigger language plpgsql security definer as $$ begin"
        " if new.version < old.version then insert into watch.backwards values (old.id, old.version, new.version);"
        " end if; return new; end $$;"
        "create or replace trigger watch before update on training_jobs for each row execute function watch.look()"
    )


@pytest.mark.parametrize("kind", KINDS)
async def test_after_every_fault_the_two_tables_agree(world: World, kind: Kind) -> None:
    """R6: refused, hanging, failing, slow, cut, doubled, lost: it is only late."""
    await world.moves(10, seed=1)
    world.stack.gateway.fault(kind)
    await world.moves(25, seed=2)
    await asyncio.sleep(TIMEOUT_S)
    world.stack.gateway.clear()
    await agreement(world)


@pytest.mark.parametrize("mixture", range(len(MIXTURES)))
async def test_after_any_mixture_of_faults_the_two_tables_agree(world: World, mixture: int) -> None:
    """R6: also when each request meets a fault of its own."""
    world.stack.gateway.mixture(MIXTURES[mixture], seed=mixture)
    await world.moves(80, seed=mixture)
    world.stack.gateway.clear()
    await agreement(world)


async def agreement(world: World) -> None:
    """Nothing acknowledged is missing, no version went backwards, every change has its event."""
    await until(lambda: everything_is_mirrored(world))
    jobs = {job.id: job for job in await world.service.journal.page(JobQuery(limit=1000))}
    assert set(world.acknowledged) <= jobs.keys()
    rows = world.stack.sql("select * from training_jobs where cluster = %s", world.cluster)
    assert {str(row["id"]) for row in rows} == jobs.keys()
    for row in rows:
        job = jobs[JobId(str(row["id"]))]
        assert (row["status"], row["version"], row["attempt"]) == (job.status, job.version, job.attempt)
        assert JOB.validate_python(row["job"]) == job
        assert await events_of(world, job.id) == list(range(1, job.version + 1))
    assert world.stack.sql("select * from watch.backwards") == []
    assert (await world.service.sync.reconcile(dry_run=True)).repairs == []


async def everything_is_mirrored(world: World) -> bool:
    waiting = world.stack.sql(
        "select 1 from training_jobs where cluster = %s and status = 'pending'", world.cluster
    )
    return not waiting and await world.service.journal.outbox_size() == 0


async def events_of(world: World, job_id: str) -> list[int]:
    events = world.stack.sql(
        "select version from training_job_events where job_id = %s order by version", job_id
    )
    assert [event["version"] for event in events] == [e.version for e in await journal_events(world, job_id)]
    return [event["version"] for event in events]


async def journal_events(world: World, job_id: str) -> list[Any]:
    return await world.service.journal.events(JobId(job_id))


async def until(there: Callable[[], Awaitable[bool]], within_s: float = 15.0) -> None:
    since = datetime.now(UTC)
    while not await there():
        assert (datetime.now(UTC) - since).total_seconds() < within_s, "it does not come to rest"
        await asyncio.sleep(0.05)
