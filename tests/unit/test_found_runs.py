"""A journal that was lost, or restored from an older backup, beside runs that live: without a database."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from scheduler.core.commands import JobAction
from scheduler.core.lifecycle import start_of
from scheduler.core.model import Fence, JobId, Status
from scheduler.core.reconcile import is_over
from scheduler.engine.found_runs import SHOWN_FOR
from scheduler.ports import Run
from scheduler.testing.builders import a_job
from scheduler.testing.fake_runner import COMPLETED, LOST
from scheduler.testing.memory import Disk
from tests.unit.test_service import World, a_loop


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World(retry_backoff_s=0.0)
    await world.life()
    yield world


async def running(world: World, **fields: object) -> Run:
    job_id = await world.submit(a_loop(**fields))
    await world.settle()
    assert await world.status(job_id) == "running"
    return JobId(job_id), Fence(1)


def problems(world: World) -> str:
    return " ".join(world.service.problems())


async def test_a_run_that_a_lost_journal_knew_goes_on_and_completes(world: World) -> None:
    """R1, P1: nobody's run is ended on a guess; its job is there again, with all that its user asked for."""
    run = await running(world, name="precious", max_failures=3, labels={"team": "a"})
    before = world.service.registry.get(run[0])
    world.disk = Disk()
    await world.life()
    assert world.runner.stopped == []
    job = world.service.registry.get(run[0])
    assert job is not None
    assert before is not None
    assert (job.status, job.fence, job.allocation) == (Status.RUNNING, 1, before.allocation)
    assert (job.spec, job.queue_seq, job.created_at) == (before.spec, before.queue_seq, before.created_at)
    world.runner.end(run, COMPLETED)
    await world.settle()
    assert await world.status(run[0]) == "completed"
    assert len(world.runner.started) == 1, "it was not started again"


async def test_what_was_found_is_told_until_somebody_looked_or_it_ended(world: World) -> None:
    """L9: at three in the morning, a person reads what happened, what was done, and what may be missing."""
    run = await running(world)
    assert problems(world) == ""
    world.disk = Disk()
    await world.life()
    assert "1 run was found that the journal did not know" in problems(world)
    assert run[0] in problems(world)
    repair = (await world.service.queries.repairs(None, 10)).repairs[0]
    assert (repair.job_id, repair.in_database) == (run[0], "in the journal: no such job")
    assert "run 1 is alive" in repair.in_reality
    await world.life()
    assert "1 run was found" in problems(world), "a restart does not hide it"
    world.clock.advance(SHOWN_FOR.total_seconds())
    assert problems(world) == ""


async def test_a_job_that_was_taken_back_is_tried_again_like_any_other(world: World) -> None:
    """R5: what is left of its budget came with it."""
    run = await running(world)
    world.disk = Disk()
    await world.life()
    world.runner.end(run, LOST)
    await world.settle()
    job = world.service.registry.get(run[0])
    assert job is not None
    assert (job.status, job.fence, job.losses) == (Status.RUNNING, 2, 1)


async def test_a_restored_backup_catches_up_with_the_runs_that_came_after_it(world: World) -> None:
    """The job waits in the backup: its live run is newer, and no fence is given twice."""
    world.runner.nodes_now, nodes = (), world.runner.nodes_now
    job_id = await world.submit()
    await world.settle()
    backup = copy.deepcopy(world.disk)
    world.runner.nodes_now = nodes
    await world.settle()
    world.runner.end((JobId(job_id), Fence(1)), LOST)
    await world.settle()
    assert (JobId(job_id), Fence(2)) in await world.runner.live()
    world.disk = backup
    await world.life()
    await world.settle()
    job = world.service.registry.get(JobId(job_id))
    assert job is not None
    assert (job.status, job.fence, world.runner.stopped) == (Status.RUNNING, 2, [])
    assert "attempt 0" in (await world.service.queries.repairs(None, 10)).repairs[0].in_database


@pytest.mark.parametrize("known_as", ["queued", "running"])
async def test_the_final_record_of_a_newer_run_wins_over_a_backup(world: World, known_as: str) -> None:
    """A job that is done is not done again because the journal is old."""
    nodes = world.runner.nodes_now
    world.runner.nodes_now = () if known_as == "queued" else nodes
    job_id = JobId(await world.submit())
    await world.settle()
    backup = copy.deepcopy(world.disk)
    world.runner.nodes_now = nodes
    await world.settle()
    world.runner.end((job_id, Fence(1)), LOST)
    await world.settle()
    world.runner.end((job_id, Fence(2)), COMPLETED)
    await world.settle()
    world.disk = backup
    await world.life()
    await world.settle()
    assert await world.status(job_id) == "completed"
    assert [start.fence for start in world.runner.started] == [1, 2]
    attempts = (await world.service.queries.attempts(job_id)).attempts
    assert all(attempt.ended_at for attempt in attempts)
    kinds = [event.kind for event in (await world.service.queries.events(job_id)).events]
    assert kinds.count("Admit") == (known_as == "running"), "no fence was given again"


async def test_the_end_of_an_older_run_does_not_end_a_job_that_was_started_again() -> None:
    """The backup has it running; it failed, a person started it again, and then it completed."""
    world = World(retry_backoff_s=0.0, max_losses=0)
    await world.life()
    run = await running(world)
    backup = copy.deepcopy(world.disk)
    world.runner.end(run, LOST)
    await world.settle()
    await world.service.commands.act(run[0], JobAction.FORCE_START, "ann")
    await world.settle()
    world.runner.end((run[0], Fence(2)), COMPLETED)
    await world.settle()
    world.disk = backup
    await world.life()
    await world.settle()
    assert await world.status(run[0]) == "completed"


async def test_a_fence_that_a_silent_run_had_is_not_given_again(world: World) -> None:
    """A folder of an older release says nothing but its number; two runs in one folder would mix."""
    start = start_of(a_job("running", id=JobId("22222222-2222-4222-8222-222222222222"), fence=Fence(5)))
    await world.runner.start(replace(start, job=None))
    world.runner.end((start.job_id, start.fence), LOST)
    await world.service.commands.submit(start.job_id, a_loop(), None)
    await world.settle()
    job = world.service.registry.get(start.job_id)
    assert job is not None
    assert (job.status, job.fence) == (Status.RUNNING, 6)


async def test_a_finished_job_of_a_backup_that_was_started_again_runs(world: World) -> None:
    run = await world.ended_run()
    failed = await running(world)
    world.runner.end(failed, LOST)
    await world.settle()
    world.runner.end((failed[0], Fence(2)), LOST)
    await world.settle()
    assert await world.status(failed[0]) == "failed"
    backup = copy.deepcopy(world.disk)
    await world.service.commands.act(failed[0], JobAction.FORCE_START, "ann")
    await world.settle()
    world.disk = backup
    await world.life()
    job = world.service.registry.get(failed[0])
    assert job is not None
    assert (job.status, job.fence) == (Status.RUNNING, 3)
    assert await world.status(run[0]) == "completed"


async def test_a_run_that_keeps_nothing_is_left_alone_and_shown(world: World) -> None:
    """Begun by an older release: what it is cannot be known, so nobody ends it."""
    run = (JobId("11111111-1111-4111-8111-111111111111"), Fence(4))
    world.runner.adopt(run)
    for _ in range(2):
        await world.service.supervisor.once()
    assert run in await world.runner.live()
    assert f"run 4 of job {run[0]} lives" in problems(world)
    world.runner.end(run, COMPLETED)
    await world.service.supervisor.once()
    assert problems(world) == ""


async def test_a_job_beside_such_a_run_is_not_started_twice(world: World) -> None:
    """Two runs of one job would write over each other's checkpoints."""
    world.runner.nodes_now, nodes = (), world.runner.nodes_now
    job_id = JobId(await world.submit())
    world.runner.adopt((job_id, Fence(7)))
    await world.service.supervisor.once()
    world.runner.nodes_now = nodes
    await world.settle()
    assert (await world.status(job_id), world.runner.started) == ("queued", [])


async def test_a_key_that_was_given_away_meanwhile_is_left_to_its_new_owner(world: World) -> None:
    """The journal forgot the key; a client used it again before the run was found."""
    job_id = JobId(await world.submit(key="nightly"))
    await world.settle()
    run = (job_id, Fence(1))
    world.runner.hidden.add(run)
    world.disk = Disk()
    live, world.runner.live = world.runner.live, no_runs
    await world.life()
    other = await world.submit(key="nightly")
    world.runner.live = live
    await world.service.supervisor.once()
    jobs = {one: world.service.registry.get(JobId(one)) for one in (job_id, other)}
    assert [job and job.idempotency_key for job in jobs.values()] == [None, "nightly"]


async def test_one_run_that_cannot_be_taken_back_keeps_no_other_out(world: World) -> None:
    """B2: one job's data never disturbs another."""
    bad, good = await running(world), await running(world)
    world.disk = Disk()
    recall = world.runner.recall

    async def sometimes(run: Run) -> object:
        if run == bad:
            raise OSError("stale file handle")
        return await recall(run)

    world.runner.recall = sometimes  # type: ignore[method-assign, assignment]
    with pytest.raises(OSError, match="stale"):
        await world.life()
    job = world.service.registry.get(good[0])
    assert job is not None
    assert job.status is Status.RUNNING
    assert world.runner.stopped == []


async def no_runs() -> frozenset[Run]:
    return frozenset()


async def test_what_is_kept_with_a_run_is_all_of_its_job() -> None:
    job = a_job("running")
    start = start_of(job)
    assert start.job == job
    assert start == replace(start, job=None), "two starts of one run are one"


@pytest.mark.parametrize(
    ("known", "fence", "over"),
    [
        (None, 1, False),
        (a_job("queued"), 1, False),
        (a_job("running"), 1, False),
        (a_job("running"), 2, False),
        (a_job("completed"), 2, False),
        (a_job("completed"), 1, True),
        (a_job("cancelled"), 1, True),
        (a_job("paused"), 1, True),
        (a_job("running", fence=Fence(3)), 2, True),
        (a_job("queued", fence=Fence(2)), 2, True),
    ],
)
def test_a_run_is_over_when_the_journal_saw_it_end_or_a_newer_one_begin(
    known: object, fence: int, over: bool
) -> None:
    assert is_over((JobId("x"), Fence(fence)), known) is over  # type: ignore[arg-type]
