"""The shell: decide, commit, act; and what is left when it dies in between."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from scheduler.api.cursors import place_of_cursor
from scheduler.core.commands import JobAction
from scheduler.core.hangs import Pace
from scheduler.core.invariants import violations
from scheduler.core.model import Fence, Gang, JobId, JobSpec, Node, NodeId, Phase, Status
from scheduler.engine.service import Engine
from scheduler.engine.spec_validation import SpecValidator
from scheduler.errors import CheckpointNotFound, InvalidSpec, JobNotFound, JournalUnwritable, NotAllowed
from scheduler.ports import JobQuery, Observation, Run
from scheduler.settings import Settings
from scheduler.testing.clock import ManualClock
from scheduler.testing.fake_runner import COMPLETED, LOST, FakeRunner, failed
from scheduler.testing.memory import Disk, MemoryJournal


class World:
    """What survives a crash of the scheduler: the disk, the runs, the time."""

    def __init__(self, **settings: Any) -> None:
        self.disk, self.runner, self.clock = Disk(), FakeRunner(), ManualClock()
        self.settings = Settings(**{"max_losses": 1, "retry_backoff_s": 5.0} | settings)
        self.service: Engine

    async def life(self) -> Engine:
        """A new life of the scheduler; whatever the old one had in memory is forgotten."""
        door = SpecValidator(["tests.loops:*"], [Path("/tmp")])
        journal = MemoryJournal(self.disk)
        self.service = Engine(
            journal=journal, runner=self.runner, clock=self.clock, settings=self.settings, validator=door
        )
        await self.service.recover()
        return self.service

    async def submit(self, spec: JobSpec | None = None, key: str | None = None) -> str:
        document, _ = await self.service.commands.submit(str(uuid.uuid4()), spec or a_loop(), key)
        return document.job_id

    async def settle(self) -> None:
        """Everything that can happen by itself, happens."""
        for _ in range(5):
            await self.service.scheduling.once()
            await asyncio.sleep(0)
            await asyncio.sleep(0.001)

    async def ended_run(self) -> Run:
        """A run of a job that is completed."""
        run = (JobId(await self.submit()), Fence(1))
        await self.settle()
        self.runner.end(run, COMPLETED)
        await self.settle()
        return run

    async def status(self, job_id: str) -> str:
        return (await self.service.queries.status(job_id)).status


def a_loop(**fields: Any) -> JobSpec:
    return JobSpec(loop="tests.loops:quick", **fields)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    await world.life()
    yield world
    assert violations(world.service.registry.active(), world.runner.nodes_now) == []


async def test_a_submit_is_on_disk_before_it_is_answered(world: World) -> None:
    """L1"""
    job_id = await world.submit()
    later = await world.life()
    assert (await later.queries.status(job_id)).status == "queued"


async def test_what_a_job_measured_is_told_while_it_runs_and_after(world: World) -> None:
    """U2"""
    job_id = await world.submit()
    assert (await world.service.queries.metrics(job_id, 100)).total_points == 0
    await world.settle()
    run = (JobId(job_id), Fence(1))
    world.runner.said[run] = [{"time": 5.0, "step": step, "loss": 1 / step} for step in range(1, 11)]
    for _ in range(2):
        said = await world.service.queries.metrics(job_id, 2)
        assert (said.job_id, said.step, said.total_points) == (job_id, [1, 10], 10)
        assert said.series["loss"][-1] == 0.1
        if run in await world.runner.live():
            world.runner.end(run, COMPLETED)
            await world.settle()
    assert await world.status(job_id) == "completed"
    with pytest.raises(JobNotFound):
        await world.service.queries.metrics(str(uuid.uuid4()), 4)


async def test_trends_are_told_of_known_jobs_only(world: World) -> None:
    """The ids of a page; whoever guesses the name of a folder learns nothing."""
    job_id = await world.submit()
    await world.settle()
    for known in (job_id, "../other"):
        world.runner.said[JobId(known), Fence(1)] = [{"loss": 2.0}, {"loss": 1.0}]
    silent = await world.submit()
    assert await world.service.queries.trends([job_id, silent, "../other"], 32) == {job_id: [2.0, 1.0]}


async def test_a_disk_that_refuses_accepts_nothing(world: World) -> None:
    """L1: an error must mean that nothing was half-accepted."""
    world.disk.fail_next = JournalUnwritable("disk full")
    with pytest.raises(JournalUnwritable):
        await world.submit()
    assert (await world.service.queries.jobs(JobQuery(limit=10))).jobs == []
    assert world.service.registry.active() == []


async def test_one_key_makes_one_job_even_at_once(world: World) -> None:
    """L1: the second caller gets the first one's job."""
    answers = await asyncio.gather(
        *(world.service.commands.submit(str(uuid.uuid4()), a_loop(user="ana"), "key") for _ in range(8))
    )
    assert len({document.job_id for document, _ in answers}) == 1
    assert sorted(created for _, created in answers) == [False] * 7 + [True]


async def test_the_same_id_again_returns_the_first_job_even_after_a_restart(world: World) -> None:
    job_id = str(uuid.uuid4())
    await world.service.commands.submit(job_id, a_loop(name="first"), None)
    await world.life()
    document, created = await world.service.commands.submit(job_id, a_loop(name="second"), None)
    assert (document.name, created) == ("first", False)


async def test_a_batch_is_taken_whole_or_not_at_all(world: World) -> None:
    good, bad = a_loop(), JobSpec(loop="nobody:knows")
    with pytest.raises(InvalidSpec) as refused:
        await world.service.commands.submit_batch([(str(uuid.uuid4()), good), (str(uuid.uuid4()), bad)])
    assert refused.value.problems[0].field == "jobs.1.loop"
    assert world.service.registry.active() == []
    jobs = await world.service.commands.submit_batch([(str(uuid.uuid4()), good) for _ in range(3)])
    assert [job.queue_position for job in jobs] == [1, 2, 3]


async def test_jobs_start_first_in_first_out_and_the_others_say_why_not(world: World) -> None:
    """L2, L5"""
    ids = [await world.submit(a_loop(resources=Gang(num_ranks=3))) for _ in range(3)]
    await world.settle()
    documents = [await world.service.queries.status(job_id) for job_id in ids]
    assert [job.status for job in documents] == ["running", "queued", "queued"]
    assert [job.queue_position for job in documents] == [None, 1, 2]
    assert "3 ranks" in documents[1].reason.message
    world.runner.end((JobId(ids[0]), Fence(1)), COMPLETED)
    await world.settle()
    assert [await world.status(job_id) for job_id in ids] == ["completed", "running", "queued"]


async def test_a_restart_attaches_to_what_lives_and_keeps_the_line(world: World) -> None:
    """R1, R2"""
    ids = [await world.submit(a_loop(resources=Gang(num_ranks=4))) for _ in range(3)]
    await world.settle()
    await world.life()
    await world.settle()
    documents = [await world.service.queries.status(job_id) for job_id in ids]
    assert [(job.status, job.queue_position) for job in documents] == [
        ("running", None),
        ("queued", 1),
        ("queued", 2),
    ]
    assert len(world.runner.started) == 1, "no second run"


async def test_a_run_that_ended_while_the_scheduler_was_away_is_believed(world: World) -> None:
    """The run's own final record wins."""
    job_id = await world.submit()
    await world.settle()
    world.runner.end((JobId(job_id), Fence(1)), COMPLETED)
    await world.life()
    await world.settle()
    assert await world.status(job_id) == "completed"


async def test_a_crash_between_commit_and_start_starts_the_run_once(world: World) -> None:
    """Decide, commit, act: the intention in the journal is taken up again."""
    job_id = await world.submit()
    world.runner.start = _never(world.runner.start)  # type: ignore[method-assign]
    await world.settle()
    assert world.runner.started == []
    del world.runner.start
    await world.life()
    await world.settle()
    assert [start.job_id for start in world.runner.started] == [job_id]
    assert (await world.service.queries.status(job_id)).attempt == 1


def _never(_: Callable[..., object]) -> Callable[..., object]:
    async def start(action: object) -> None:
        await asyncio.sleep(3600)

    return start


async def test_a_lost_run_is_tried_again_after_a_pause_and_then_fails_with_what_was_seen(
    world: World,
) -> None:
    """R5"""
    job_id = await world.submit()
    await world.settle()
    world.runner.end((JobId(job_id), Fence(1)), LOST)
    await world.settle()
    waiting = await world.service.queries.status(job_id)
    assert (waiting.status, waiting.reason.code) == ("queued", "retry_pause")
    world.clock.advance(10)
    await world.settle()
    assert (await world.service.queries.status(job_id)).attempt == 2
    world.runner.end((JobId(job_id), Fence(2)), LOST)
    await world.settle()
    job = await world.service.queries.status(job_id)
    assert job.status == "failed"
    assert "actor of the run died" in job.reason.message


async def test_the_users_own_failures_have_their_own_budget(world: World) -> None:
    job_id = await world.submit(a_loop(max_failures=0))
    await world.settle()
    world.runner.end((JobId(job_id), Fence(1)), failed())
    await world.settle()
    assert await world.status(job_id) == "failed"


async def test_a_run_that_cannot_be_started_counts_as_lost(world: World) -> None:
    world.runner.refuses = RuntimeError("no such runtime environment")
    job_id = await world.submit()
    await world.settle()
    job = await world.service.queries.status(job_id)
    assert job.status == "queued"
    assert "no such runtime environment" in job.reason.message


async def test_cancel_is_written_before_the_signal_and_again_after_a_crash(world: World) -> None:
    """L7; an intention survives."""
    job_id = await world.submit()
    await world.settle()
    world.runner.stop = _never(world.runner.stop)  # type: ignore[method-assign]
    assert (await world.service.commands.act(job_id, JobAction.CANCEL, "ana")).status == "running", (
        "not cancelled before it is gone"
    )
    del world.runner.stop
    await world.life()
    await world.settle()
    job = await world.service.queries.status(job_id)
    assert (job.status, job.reason.message[:16]) == ("cancelled", "cancelled by ana")


async def test_an_orphan_is_stopped_and_a_second_pass_finds_nothing(world: World) -> None:
    """R7: level-triggered.  The journal saw this run end: that is the proof."""
    run = await world.ended_run()
    world.runner.adopt(run)
    plan = await world.service.supervisor.once()
    assert len(plan.orphans) == 1
    await asyncio.sleep(0.001)
    again = await world.service.supervisor.once()
    assert not again.orphans
    assert await world.runner.live() == frozenset()


async def test_a_scheduler_that_slept_holds_its_own_silence_against_no_run(world: World) -> None:
    """A suspended machine, or a frozen process, would else kill every run that misses one answer on waking up."""
    job_id = await world.submit()
    await world.settle()
    await world.service.monitor.once()
    world.runner.hidden.add((JobId(job_id), Fence(1)))
    for _ in range(3):
        world.clock.advance(10 * world.settings.lost_after_s)
        await world.service.monitor.once()
    assert world.runner.stopped == []
    assert (await world.service.queries.status(job_id)).liveness == "unknown"


async def test_a_silent_run_is_unknown_until_the_deadline_and_then_killed(world: World) -> None:
    """Unknown is not dead."""
    job_id = await world.submit()
    await world.settle()
    await world.service.monitor.once()
    seen = await world.service.queries.status(job_id)
    assert (seen.liveness, seen.evidence) == ("alive", "step 1, 0 s ago")
    world.runner.hidden.add((JobId(job_id), Fence(1)))
    for _ in range(30):
        world.clock.advance(world.settings.lost_after_s / 30)
        await world.service.monitor.once()
    assert await world.status(job_id) == "running"
    unseen = await world.service.queries.status(job_id)
    assert unseen.liveness == "unknown"
    assert unseen.evidence == "not verified for 5 min: the run does not answer; last seen: step 1"
    world.clock.advance(2)
    await world.service.monitor.once()
    await world.settle()
    assert (await world.service.queries.status(job_id)).reason.code == "retry_pause"


async def test_a_run_past_its_time_limit_is_stopped_and_failed(world: World) -> None:
    job_id = await world.submit(a_loop(max_runtime_s=60.0))
    await world.settle()
    world.clock.advance(61)
    await world.service.monitor.once()
    await world.settle()
    job = await world.service.queries.status(job_id)
    assert (job.status, job.reason.code) == ("failed", "timeout")


@pytest.mark.parametrize("status", ["running", "completed"])
async def test_force_start_is_refused_in_words(world: World, status: str) -> None:
    """L4"""
    job_id = await world.submit()
    await world.settle()
    if status == "completed":
        world.runner.end((JobId(job_id), Fence(1)), COMPLETED)
        await world.settle()
    with pytest.raises(NotAllowed, match=r"pause and resume|cannot be restarted"):
        await world.service.commands.act(job_id, JobAction.FORCE_START, "ana")


async def test_force_start_twice_queues_once(world: World) -> None:
    """L3, L4"""
    world.runner.nodes_now = ()
    first, second = await world.submit(), await world.submit()
    await world.service.commands.act(first, JobAction.CANCEL, "ana")
    answer = await world.service.commands.act(first, JobAction.FORCE_START, "ana")
    again = await world.service.commands.act(first, JobAction.FORCE_START, "ana")
    assert (answer.previous_status, answer.new_status, answer.queue_position) == ("cancelled", "queued", 2)
    assert answer.message == "Job queued successfully (position 2)"
    assert (again.previous_status, again.queue_position) == ("queued", 2)
    assert [job.id for job in world.service.registry.queued()] == [second, first]


async def test_force_start_refuses_a_spec_that_is_no_longer_valid(world: World) -> None:
    """L4: a loop that was allowed then, and is not now."""
    job_id = await world.submit()
    await world.service.commands.act(job_id, JobAction.CANCEL, "ana")
    vars(world.service.validator).update(vars(SpecValidator([], [])))
    with pytest.raises(NotAllowed, match=r"stored spec is not valid now: loop: .* is not allowed here"):
        await world.service.commands.act(job_id, JobAction.FORCE_START, "ana")
    assert await world.status(job_id) == "cancelled"


async def test_unknown_ids_are_said_to_be_unknown(world: World) -> None:
    with pytest.raises(JobNotFound, match="no job"):
        await world.service.queries.status(str(uuid.uuid4()))


async def test_a_job_larger_than_every_node_is_refused_at_the_door(world: World) -> None:
    await world.service.scheduling.once()
    with pytest.raises(InvalidSpec, match="resources"):
        await world.submit(a_loop(resources=Gang(num_ranks=1, gpus_per_rank=1)))


async def test_old_jobs_are_read_from_disk_when_memory_forgot_them() -> None:
    world = World(finished_in_memory=1)
    await world.life()
    ids = [await world.submit() for _ in range(3)]
    for job_id in ids:
        await world.service.commands.act(job_id, JobAction.CANCEL, "ana")
    assert [await world.status(job_id) for job_id in ids] == ["cancelled"] * 3
    page = await world.service.queries.jobs(JobQuery(statuses=frozenset({Status.CANCELLED}), limit=2))
    after = place_of_cursor(page.next_cursor)
    rest = await world.service.queries.jobs(
        JobQuery(statuses=frozenset({Status.CANCELLED}), after=after, limit=2)
    )
    assert {job.job_id for job in [*page.jobs, *rest.jobs]} == set(ids)


async def test_a_node_that_leaves_is_not_planned_on(world: World) -> None:
    world.runner.nodes_now = ()
    job_id = await world.submit()
    await world.settle()
    assert await world.status(job_id) == "queued"
    world.runner.nodes_now = (Node(id=NodeId("new"), name="new", cpus=1.0),)
    await world.settle()
    assert await world.status(job_id) == "running"


@pytest.mark.parametrize("phase", ["reserving", "starting"])
async def test_a_node_that_vanishes_while_its_run_starts_ends_it_at_once(world: World, phase: str) -> None:
    """R5: Ray Train would wait a minute for ranks that can never come."""
    one, other = Node(id=NodeId("node-1"), name="a", cpus=1.0), Node(id=NodeId("node-2"), name="b", cpus=1.0)
    world.runner.nodes_now = (one, other)
    await world.service.scheduling.once()
    job_id = await world.submit(a_loop(resources=Gang(num_ranks=2)))
    await world.settle()
    world.runner.tells[JobId(job_id), Fence(1)] = {"phase": Phase(phase)}
    await world.service.monitor.once()
    world.runner.nodes_now = (one,)
    await world.settle()
    await world.service.monitor.once()
    await world.settle()
    (attempt,) = (await world.service.queries.attempts(job_id)).attempts
    assert attempt.reason
    assert (attempt.ending, attempt.cause, attempt.reason.code) == ("lost", "infrastructure", "node_lost")
    assert attempt.reason.message == "node b was gone before the run had started there"


async def test_a_run_that_is_under_way_tells_itself_that_a_node_is_gone(world: World) -> None:
    """It knows which rank died, and its last words."""
    job_id = await world.submit()
    await world.settle()
    world.runner.nodes_now = (Node(id=NodeId("node-9"), name="other", cpus=1.0),)
    await world.settle()
    await world.service.monitor.once()
    assert world.runner.stopped == []
    assert await world.status(job_id) == "running"


async def test_who_stands_far_down_the_line_says_so_without_a_pass_over_all(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pass over an endless line would keep everybody else from being answered."""
    monkeypatch.setattr("scheduler.engine.scheduling.PLANNED_AT_ONCE", 2)
    monkeypatch.setattr("scheduler.engine.queries.job_view.PLANNED_AT_ONCE", 2)
    world.runner.nodes_now = ()
    ids = [await world.submit() for _ in range(3)]
    await world.settle()
    assert (
        await world.service.queries.status(ids[2])
    ).reason.message == "waits behind the 2 jobs before it in the queue"
    assert [world.service.views.waits(JobId(one)) is None for one in ids] == [False, False, True]


async def test_a_running_job_is_not_marked_as_failed(world: World) -> None:
    """L7: `fail` is for jobs that wait."""
    job_id = await world.submit()
    await world.settle()
    with pytest.raises(NotAllowed, match="running"):
        await world.service.commands.act(job_id, JobAction.FAIL, "ana")


# What people do with a job that waits, runs or has ended


async def run_and_save(world: World, job_id: str, fence: int, *steps: int) -> None:
    """The job gets its nodes, and its run completes a checkpoint at each of *steps*."""
    await world.settle()
    for step in steps:
        world.runner.save((JobId(job_id), Fence(fence)), step)


async def pause_and_settle(world: World, job_id: str) -> None:
    await world.service.commands.act(job_id, JobAction.PAUSE, "ana")
    await world.settle()


def origins(world: World) -> list[tuple[str | None, int]]:
    """Where each run was told to begin: the checkpoint chosen, and the attempt after which others count."""
    return [(start.origin.checkpoint, start.origin.after) for start in world.runner.started]


async def test_a_job_that_is_paused_in_the_line_starts_when_it_is_let_go(world: World) -> None:
    """L7; the one behind it does not wait for it."""
    world.runner.nodes_now = ()
    held, other = await world.submit(), await world.submit()
    document = await world.service.commands.act(held, JobAction.PAUSE, "ana")
    assert (document.status, document.queue_position) == ("queued", 1)
    world.runner.nodes_now = (Node(id=NodeId("new"), name="new", cpus=4.0),)
    await world.life()
    await world.settle()
    waits = await world.service.queries.status(held)
    assert (waits.status, waits.reason.code) == ("queued", "held")
    assert await world.status(other) == "running"
    await world.service.commands.act(held, JobAction.RESUME, "ana")
    await world.settle()
    assert await world.status(held) == "running"


async def test_paused_and_resumed_a_job_goes_on_from_its_newest_checkpoint(world: World) -> None:
    """L7"""
    job_id = await world.submit()
    await run_and_save(world, job_id, 1, 10, 20)
    await pause_and_settle(world, job_id)
    paused = await world.service.queries.status(job_id)
    assert (paused.status, paused.last_checkpoint and paused.last_checkpoint.checkpoint) == ("paused", "1.2")
    resumed = await world.service.commands.act(job_id, JobAction.RESUME, "ana")
    assert resumed.reason.message == "resumed by ana; goes on from checkpoint 1.2 (step 20)"
    await world.settle()
    await world.service.monitor.once()
    running = await world.service.queries.status(job_id)
    assert (running.resumed and running.resumed.checkpoint, running.attempt) == ("1.2", 2)


async def test_a_chosen_checkpoint_leaves_the_later_ones_behind_also_after_a_loss(world: World) -> None:
    """L8: else the retry would go on from what the person wanted to leave."""
    job_id = await world.submit()
    await run_and_save(world, job_id, 1, 10, 20)
    await pause_and_settle(world, job_id)
    await world.service.commands.act(job_id, JobAction.RESUME, "ana", "1.1")
    await world.settle()
    world.runner.end((JobId(job_id), Fence(2)), LOST)
    await world.settle()
    world.clock.advance(10)
    await world.life()
    await world.settle()
    assert origins(world) == [(None, 0), ("1.1", 1), ("1.1", 1)]
    attempts = (await world.service.queries.attempts(job_id)).attempts
    assert [one.resumed and one.resumed.checkpoint for one in attempts] == [None, "1.1", None]


async def test_a_checkpoint_that_is_not_there_cannot_be_chosen(world: World) -> None:
    job_id = await world.submit()
    await run_and_save(world, job_id, 1, 10)
    await pause_and_settle(world, job_id)
    with pytest.raises(CheckpointNotFound, match=r"no complete checkpoint '9.9'; there is: 1.1"):
        await world.service.commands.act(job_id, JobAction.RESUME, "ana", "9.9")
    assert await world.status(job_id) == "paused"


async def test_a_restarted_job_begins_at_the_beginning_and_keeps_its_checkpoints(world: World) -> None:
    """L8; they can be chosen later."""
    job_id = await world.submit()
    await run_and_save(world, job_id, 1, 10)
    await pause_and_settle(world, job_id)
    await world.service.commands.act(job_id, JobAction.RESTART, "ana")
    await world.settle()
    assert origins(world) == [(None, 0), (None, 1)]
    page = await world.service.queries.checkpoints(job_id)
    assert [(one.checkpoint, one.next) for one in page.checkpoints] == [("1.1", False)]
    await pause_and_settle(world, job_id)
    await world.service.commands.act(job_id, JobAction.RESUME, "ana", "1.1")
    await world.settle()
    assert origins(world)[-1] == ("1.1", 2)


async def test_a_preempted_job_gives_way_and_comes_back_before_those_behind_it(world: World) -> None:
    """It goes on where it was, as soon as there is room."""
    first = await world.submit(a_loop(resources=Gang(num_ranks=4)))
    second = await world.submit(a_loop(resources=Gang(num_ranks=4)))
    await run_and_save(world, first, 1, 10)
    world.runner.nodes_now = ()
    await world.service.commands.act(first, JobAction.PREEMPT, "ana")
    await world.settle()
    assert [job.id for job in world.service.registry.queued()] == [first, second]
    world.runner.nodes_now = (Node(id=NodeId("new"), name="new", cpus=4.0),)
    await world.settle()
    assert (await world.status(first), await world.status(second)) == ("running", "queued")
    attempts = (await world.service.queries.attempts(first)).attempts
    assert [(one.ending, one.cause) for one in attempts] == [("stopped", "preemption"), (None, None)]
    assert (await world.service.queries.status(first)).attempt == 2


async def test_an_operator_who_stops_the_scheduler_costs_no_job_anything(world: World) -> None:
    """B3: what ran gives way and goes on in the next life; nothing starts meanwhile, and that is said."""
    jobs = [await world.submit(a_loop(resources=Gang(num_ranks=4))) for _ in range(2)]
    await world.settle()
    answer = await world.service.commands.shutdown(save=True, by="ann")
    assert (answer.running, answer.grace_s) == (1, world.settings.stop_grace_s)
    await world.settle()
    assert [await world.status(job_id) for job_id in jobs] == ["queued", "queued"]
    assert await world.runner.live() == frozenset(), "nothing started again"
    assert any("being stopped" in words for words in world.service.problems())
    first = await world.service.queries.status(jobs[0])
    assert (first.reason.code, first.queue_position) == ("operator_down", 1)

    await world.life()
    await world.settle()
    assert (await world.service.queries.status(jobs[0])).attempt == 2
    job = world.service.registry.get(JobId(jobs[0]))
    assert job is not None and (job.losses, job.preemptions, job.failures) == (0, 0, 0)


async def test_a_stop_that_is_written_down_and_not_carried_out_is_known_to_the_next_life(
    world: World,
) -> None:
    """B3: `down` may be killed in the middle, and the run with it, before it saved."""
    job_id = await world.submit()
    await world.settle()
    world.runner.deaf = True
    await world.service.commands.shutdown(save=False, by="ann")
    world.runner.end((JobId(job_id), Fence(1)), LOST)
    await world.life()
    await world.settle()
    job = world.service.registry.get(JobId(job_id))
    assert job is not None and (job.status, job.fence, job.losses) == (Status.RUNNING, 2, 0)


async def test_a_scheduler_that_nobody_ends_after_all_goes_on(world: World) -> None:
    job_id = await world.submit()
    await world.settle()
    await world.service.commands.shutdown(save=True, by="ann")
    await world.settle()
    assert await world.status(job_id) == "queued"
    world.clock.advance(world.settings.stop_grace_s + 61)
    await world.settle()
    assert await world.status(job_id) == "running"
    assert world.service.problems() == []


async def test_a_run_that_hangs_is_looked_into_and_tried_again(world: World) -> None:
    """P1: alive by its heartbeat, and not getting on."""
    job_id = await world.submit()
    await world.settle()
    pace = Pace(steps=50, typical_s=1.0, longest_s=2.0)
    world.runner.tells[JobId(job_id), Fence(1)] = {"pace": pace, "stepped_at": world.clock.now()}
    await world.service.monitor.once()
    world.clock.advance(world.settings.hang_floor_s - 1)
    await world.service.monitor.once()
    await world.settle()
    suspect = await world.service.queries.status(job_id)
    assert (suspect.status, suspect.reason.code) == ("running", "suspect")
    world.clock.advance(2)
    await world.service.monitor.once()
    await world.settle()
    job = await world.service.queries.status(job_id)
    assert (job.status, job.reason.code) == ("queued", "retry_pause")
    (attempt,) = (await world.service.queries.attempts(job_id)).attempts
    assert attempt.reason
    assert attempt.reason.code == "hung"
    assert attempt.evidence == await world.runner.examine((JobId(job_id), Fence(1)))


def hanging(world: World) -> dict[str, Any]:
    """What a run says that makes its last step now."""
    return {"pace": Pace(steps=50, typical_s=1.0, longest_s=2.0), "stepped_at": world.clock.now()}


async def test_an_answer_that_lay_unread_while_the_scheduler_was_frozen_is_no_hang(world: World) -> None:
    """It tells of steps long ago, because it was given long ago."""
    job_id = await world.submit()
    await world.settle()
    run, observe = (JobId(job_id), Fence(1)), world.runner.observe

    async def frozen_meanwhile(run: Run) -> Observation:
        answer = await observe(run)
        world.clock.advance(10 * world.settings.hang_floor_s)
        return answer

    world.runner.tells[run] = hanging(world)
    world.runner.observe = frozen_meanwhile  # type: ignore[method-assign]
    await world.service.monitor.once()
    await world.settle()
    assert world.runner.stopped == []


async def test_while_a_hanging_run_is_looked_into_it_may_end_and_the_next_one_is_left_alone(
    world: World,
) -> None:
    job_id = await world.submit()
    await world.settle()
    run, examine = (JobId(job_id), Fence(1)), world.runner.examine

    async def slowly(run: Run) -> Any:
        world.runner.end(run, LOST)
        await world.settle()
        world.clock.advance(60)
        await world.settle()
        return await examine(run)

    world.runner.tells[run] = hanging(world)
    world.runner.examine = slowly  # type: ignore[method-assign]
    await world.service.monitor.once()
    world.clock.advance(world.settings.hang_floor_s + 1)
    await world.service.monitor.once()
    await world.settle()
    assert world.runner.stopped == []
    assert (await world.service.queries.status(job_id)).attempt == 2


async def test_a_node_that_is_being_drained_is_left_and_not_used_again(world: World) -> None:
    job_id = await world.submit()
    await world.settle()
    (node,) = world.runner.nodes_now
    world.runner.nodes_now = (replace(node, draining=True),)
    await world.service.scheduling.once()
    await world.service.monitor.once()
    await world.settle()
    job = await world.service.queries.status(job_id)
    assert job.status == "queued"
    (attempt,) = (await world.service.queries.attempts(job_id)).attempts
    assert attempt.reason
    assert attempt.reason.message.startswith("node node-1 is being drained; ")
    world.runner.nodes_now = (node,)
    await world.settle()
    assert await world.status(job_id) == "running"


async def test_a_loop_that_fails_at_once_in_the_same_way_is_not_tried_for_ever(world: World) -> None:
    job_id = await world.submit(a_loop(max_failures=100))
    for fence in range(1, world.settings.max_repeats + 1):
        await world.settle()
        world.runner.end((JobId(job_id), Fence(fence)), replace(failed(), signature="ValueError: boom"))
        await world.settle()
        world.clock.advance(100)
    job = await world.service.queries.status(job_id)
    assert (job.status, job.attempt) == ("failed", 3)
    assert "in the same way 3 times in a row before it saved anything" in job.reason.message
