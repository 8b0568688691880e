"""What seeds have found, each played again by hand with the few steps that it takes."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest

from scheduler.core.commands import JobAction
from scheduler.core.lifecycle import StartRun
from scheduler.core.model import Fence, Gang, JobId, JobSpec, Status
from scheduler.core.reconcile import Row, oldest_first
from scheduler.engine.periodic import PeriodicTask
from scheduler.engine.service import Engine
from scheduler.engine.spec_validation import SpecValidator
from scheduler.errors import MirrorRefused, NotAllowed, RunUnreachable, Superseded
from scheduler.ports import MirrorChange
from scheduler.settings import Settings
from scheduler.testing.builders import a_job
from scheduler.testing.clock import NOON, ManualClock
from scheduler.testing.fake_runner import COMPLETED, FakeRunner
from scheduler.testing.memory import Disk, MemoryJournal
from scheduler.testing.memory_mirror import Database, MemoryMirror

SPEC = JobSpec(loop="tests.loops:quick", user="ann")
A_LARGE_ONE = JobSpec(loop="tests.loops:quick", user="ann", resources=Gang(num_ranks=4))
STALE_S = 600.0


class ModestMirror(MemoryMirror):
    """Does not take the jobs it is told not to take."""

    refused: Collection[str] = ()

    async def apply(self, changes: Collection[MirrorChange], *, forced: bool = False) -> None:
        if {change.job.id for change in changes} & set(self.refused):
            raise MirrorRefused("a row was not taken")
        await super().apply(changes, forced=forced)


class World:
    """Disk, database, runs and time: what outlives the scheduler."""

    def __init__(self) -> None:
        self.disk, self.runner, self.clock = Disk(), FakeRunner(), ManualClock()
        self.database = Database(self.clock)
        self.mirror: ModestMirror

    async def life(self) -> Engine:
        self.mirror = ModestMirror(self.database)
        service = Engine(
            journal=MemoryJournal(self.disk),
            runner=self.runner,
            clock=self.clock,
            settings=Settings(stale_after_s=STALE_S),
            validator=SpecValidator(["tests.loops:*"], [Path("/tmp")]),
            mirror=self.mirror,
        )
        await service.recover()
        return service

    def lose_journal(self) -> None:
        self.disk = Disk()

    def database_is(self, *, away: bool) -> None:
        self.database.fault = lambda _method: "unavailable" if away else None


@pytest.fixture
def world() -> World:
    return World()


async def submit(service: Engine, spec: JobSpec = SPEC, key: str | None = None) -> JobId:
    document, _ = await service.commands.submit(str(uuid.uuid4()), spec, key)
    return JobId(document.job_id)


async def settle(service: Engine) -> None:
    """What can happen by itself happens, and the database hears of it."""
    for _ in range(3):
        await service.scheduling.once()
        await asyncio.sleep(0.001)
    await service.sync.relay.once()


async def status(service: Engine, job_id: JobId) -> Status:
    return (await service.queries.status(job_id)).status


# After the journal was lost


async def test_a_key_that_was_given_away_since_does_not_keep_a_job_out(world: World) -> None:
    """Else one such row would end every pass of the reconciler, and none of the others would come back."""
    first = await world.life()
    old = await submit(first, key="nightly")
    await first.sync.relay.once()
    world.lose_journal()
    world.database_is(away=True)
    second = await world.life()
    new = await submit(second, key="nightly")
    world.database_is(away=False)
    await second.sync.reconcile(dry_run=False)
    assert {old, new} <= {job.id for job in second.registry.active()}
    assert await submit(second, key="nightly") == new


async def test_a_run_that_is_long_gone_does_not_keep_the_scheduler_from_starting(world: World) -> None:
    """R2: the row says `running` and has its nodes; nobody vouched for it, so it is failed like any other."""
    first = await world.life()
    job_id = await submit(first)
    await settle(first)
    world.lose_journal()
    world.runner = FakeRunner()
    world.clock.advance(STALE_S + 1)
    second = await world.life()
    assert (await second.queries.status(job_id)).reason.code == "stale"


async def test_a_scheduler_does_not_vouch_for_rows_that_it_does_not_know(world: World) -> None:
    """R3: else such a row would stay `running` for as long as the scheduler is well."""
    first = await world.life()
    job_id = await submit(first)
    await settle(first)
    world.database.set(job_id, job={"unreadable": True})
    world.lose_journal()
    world.runner = FakeRunner()
    second = await world.life()
    for _ in range(7):
        world.clock.advance(STALE_S / 6)
        await second.sync.heartbeat.once()
    await second.sync.reconcile(dry_run=False)
    assert (await second.queries.status(job_id)).reason.code == "stale"


async def test_a_sign_of_life_before_the_first_look_makes_no_row_younger(world: World) -> None:
    """R2: the age of a row counts from the last sign of the scheduler that knew it."""
    first = await world.life()
    job_id = await submit(first)
    await settle(first)
    await first.sync.heartbeat.once()
    world.lose_journal()
    world.runner = FakeRunner()
    world.clock.advance(STALE_S + 1)
    world.database_is(away=True)
    second = await world.life()
    world.database_is(away=False)
    await second.sync.heartbeat.once()
    await second.sync.reconcile(dry_run=False)
    assert (await second.queries.status(job_id)).reason.code == "stale"


async def test_a_fence_is_not_handed_out_again_though_the_copy_cannot_be_read(world: World) -> None:
    """Else the next run would take the final record of an earlier one for its own."""
    first = await world.life()
    job_id = await submit(first)
    await settle(first)
    world.database.set(job_id, job={"unreadable": True})
    world.lose_journal()
    world.runner.end((job_id, Fence(1)), COMPLETED)
    world.clock.advance(STALE_S + 1)
    second = await world.life()
    await second.commands.act(job_id, JobAction.FORCE_START, "ann")
    await settle(second)
    assert [start.fence for start in world.runner.started] == [1, 2]


async def test_jobs_that_come_back_stand_before_those_that_came_since(world: World) -> None:
    """R2: two jobs must not have one place in the queue."""
    first = await world.life()
    old = [await submit(first, A_LARGE_ONE) for _ in range(3)]
    await first.sync.relay.once()
    world.lose_journal()
    world.database_is(away=True)
    world.clock.advance(1)
    second = await world.life()
    new = [await submit(second, A_LARGE_ONE) for _ in range(3)]
    world.database_is(away=False)
    await second.sync.reconcile(dry_run=False)
    assert [job.id for job in second.registry.queued()] == old + new


def test_what_runs_comes_back_before_anybody_is_placed_on_its_nodes() -> None:
    """Else a job that waits could be started on nodes that only the next row says are taken."""
    waits, runs = a_job("queued", queue_seq=1), a_job("running", queue_seq=2)
    rows = [
        Row(
            id=job.id,
            status=job.status,
            version=1,
            name="",
            spec=None,
            job=job,
            created_at=NOON,
            updated_at=NOON,
        )
        for job in (waits, runs)
    ]
    assert [row.id for row in oldest_first(rows)] == [runs.id, waits.id]


async def test_a_dry_run_does_not_make_runs_of_unknown_jobs_orphans(world: World) -> None:
    """It has read the database, and taken nothing from it."""
    first = await world.life()
    job_id = await submit(first)
    await settle(first)
    world.lose_journal()
    world.database_is(away=True)
    second = await world.life()
    world.database_is(away=False)
    await second.sync.reconcile(dry_run=True)
    await second.supervisor.once()
    await asyncio.sleep(0.001)
    assert (job_id, Fence(1)) in await world.runner.live()


async def test_a_job_that_a_person_held_is_held_still(world: World) -> None:
    """R2: what is started after an outage is what was to be started before it."""
    first = await world.life()
    job_id = await submit(first)
    await first.commands.act(job_id, JobAction.PAUSE, "ann")
    await first.sync.relay.once()
    world.lose_journal()
    second = await world.life()
    await settle(second)
    assert (await status(second, job_id), world.runner.started) == (Status.QUEUED, [])


async def test_a_run_that_outlived_its_journal_has_an_attempt_in_the_new_one(world: World) -> None:
    """Else the list of its attempts would be empty for as long as it runs."""
    first = await world.life()
    job_id = await submit(first)
    await settle(first)
    world.lose_journal()
    second = await world.life()
    (attempt,) = (await second.queries.attempts(job_id)).attempts
    assert (attempt.attempt, attempt.ended_at) == (1, None)


# While people ask for this and that


async def test_a_pause_that_was_answered_beats_a_start_that_was_planned_before(world: World) -> None:
    """The tick decides on the line as it is, and by the time it writes that down somebody has paused a job."""
    service = await world.life()
    job_id = await submit(service)
    disk_answers, commit = asyncio.Event(), service.journal.commit

    async def commit_slowly(*changes: Any) -> None:
        await disk_answers.wait()
        await commit(*changes)

    service.journal.commit = commit_slowly  # type: ignore[method-assign]
    pausing = asyncio.create_task(service.commands.act(job_id, JobAction.PAUSE, "ann"))
    await asyncio.sleep(0.001)
    ticking = asyncio.create_task(service.scheduling.once())
    await asyncio.sleep(0.001)
    disk_answers.set()
    await asyncio.gather(pausing, ticking)
    assert (await status(service, job_id), world.runner.started) == (Status.QUEUED, [])


async def test_a_row_that_claims_to_wait_is_not_held_before_it_was_looked_at(world: World) -> None:
    """It has no place in the queue, and its spec may be none."""
    service = await world.life()
    job_id = JobId(str(uuid.uuid4()))
    world.database.insert(job_id, spec={"loop": 7}, status="queued")
    with pytest.raises(NotAllowed, match="not accepted into the queue yet"):
        await service.commands.act(job_id, JobAction.PAUSE, "ann")


# While something refuses


async def test_a_job_that_the_database_refuses_does_not_keep_others_from_being_mended(world: World) -> None:
    """R3: the pass goes on with everything else."""
    service = await world.life()
    bad, good = await submit(service), await submit(service)
    await service.sync.relay.once()
    world.mirror.refused = {bad}
    await service.commands.act(bad, JobAction.CANCEL, "ann")
    world.database.delete(good)
    await service.sync.reconcile(dry_run=False)
    assert good in world.database.rows


async def test_a_run_that_lives_is_not_started_again_after_a_restart(world: World) -> None:
    """R1: a start that cannot be asked for would end it."""
    first = await world.life()
    job_id = await submit(first)
    await settle(first)
    world.runner.refuses = RunUnreachable("Ray does not answer")
    second = await world.life()
    await asyncio.sleep(0.001)
    assert (job_id, Fence(1)) in await world.runner.live()
    assert await status(second, job_id) is Status.RUNNING


class LostAnswer(FakeRunner):
    """Starts runs, and does not get to say so."""

    async def start(self, action: StartRun) -> None:
        await super().start(action)
        self.end((action.job_id, action.fence), COMPLETED)
        raise RunUnreachable("no answer")


async def test_the_final_record_wins_over_a_start_that_was_not_answered(world: World) -> None:
    """A run that completed is not tried again because nobody heard that it had begun."""
    world.runner = LostAnswer()
    service = await world.life()
    job_id = await submit(service)
    await settle(service)
    assert await status(service, job_id) is Status.COMPLETED


# While it stops


async def test_a_life_that_wakes_up_late_ends_no_run_of_its_successor(world: World) -> None:
    """What it does not know is not nobody's: it has to learn first that it was superseded."""
    old = await world.life()
    new = await world.life()
    job_id = await submit(new)
    await settle(new)
    with pytest.raises(Superseded):
        await old.supervisor.once()
    await asyncio.sleep(0.001)
    assert (job_id, Fence(1)) in await world.runner.live()


async def test_a_loop_that_is_told_to_end_while_it_is_woken_ends() -> None:
    """Else a scheduler that was superseded went on to place jobs, for ever."""
    passes = 0

    async def once() -> None:
        nonlocal passes
        passes += 1

    loop = PeriodicTask("tick", 10.0, once, ManualClock())
    task = asyncio.create_task(loop.run_forever())
    await asyncio.sleep(0.001)
    loop.wake()
    await asyncio.sleep(0)
    task.cancel()
    done, _ = await asyncio.wait([task], timeout=1.0)
    assert done, f"it goes on, after {passes} passes"
