"""The policy `fair` in the engine: who is preempted for whom, what is kept, and what a restart finds again."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from scheduler.core.commands import JobAction
from scheduler.core.events import Keep
from scheduler.core.hangs import Pace
from scheduler.core.invariants import violations
from scheduler.core.model import (
    Allocation,
    Fence,
    Gang,
    Job,
    JobId,
    JobSpec,
    Node,
    NodeId,
    Reason,
    ShippedCode,
    Status,
    StopKind,
)
from scheduler.core.reckoning import read
from scheduler.engine.loop_habits import REMEMBERED, LoopHabits
from scheduler.engine.policies import NOTE, Fair
from scheduler.engine.service import Engine
from scheduler.engine.spec_validation import SpecValidator
from scheduler.ports import Run
from scheduler.settings import Settings
from scheduler.testing.clock import ManualClock
from scheduler.testing.fake_runner import COMPLETED, LOST, STOPPED, FakeRunner
from scheduler.testing.memory import Disk, MemoryJournal
from scheduler.testing.reckonings import faults

LOOP = "tests.loops:quick"
FOUR_CPUS = Node(id=NodeId("node-1"), name="node-1", cpus=4.0)


class World:
    """What survives a crash of the scheduler."""

    def __init__(self, **settings: Any) -> None:
        self.disk, self.runner, self.clock = Disk(), FakeRunner(), ManualClock()
        self.runner.nodes_now = (FOUR_CPUS,)
        self.settings = Settings(**{"policy": "fair", "retry_backoff_s": 0.0} | settings)
        self.engine: Engine

    async def life(self) -> Engine:
        self.engine = Engine(
            journal=MemoryJournal(self.disk),
            runner=self.runner,
            clock=self.clock,
            settings=self.settings,
            validator=SpecValidator(["tests.loops:*"], [Path("/tmp")]),
        )
        await self.engine.recover()
        return self.engine

    def knows_that_it_stops(self) -> None:
        """An earlier life saw that the loop stops and saves when it is asked."""
        habit = {"start_s": 5.0, "save_s": 2.0, "stops": True, "saves": True}
        note = {"at_s": self.clock.now().timestamp(), "ledger": {}, "usage": [], "habits": {LOOP: habit}}
        self.disk.notes[NOTE] = json.dumps(note).encode()

    async def submit(self, ranks: int = 1, **fields: Any) -> JobId:
        name = fields.pop("name", f"job-{len(self.disk.jobs)}")
        spec = JobSpec(loop=LOOP, name=name, resources=Gang(num_ranks=ranks), **fields)
        document, _ = await self.engine.commands.submit(name.rjust(36, "0"), spec, None)
        return JobId(document.job_id)

    async def settle(self) -> None:
        for _ in range(6):
            await self.engine.scheduling.once()
            await self.engine.monitor.once()
            await asyncio.sleep(0.001)

    async def passes(self, seconds: float) -> None:
        self.clock.advance(seconds)
        await self.settle()

    def job(self, job_id: JobId) -> Job:
        job = self.engine.registry.get(job_id)
        assert job
        return job

    def tells(self, run: Run, step: int, total: int, step_s: float = 1.0) -> None:
        self.runner.tells[run] = {
            "progress": {"step": step, "total_steps": total},
            "pace": Pace(steps=9, typical_s=step_s, longest_s=2 * step_s),
            "stepped_at": self.clock.now(),
        }

    async def events(self, job_id: JobId) -> list[str]:
        return [event.kind for event in (await self.engine.queries.events(job_id)).events]


@pytest.fixture
async def world() -> World:
    world = World()
    world.knows_that_it_stops()
    await world.life()
    return world


async def with_a_long_run(world: World, **fields: Any) -> Run:
    """It holds the whole node, has saved, and tells that it takes hours."""
    run = (await world.submit(4, name="long", **fields), Fence(1))
    await world.settle()
    world.tells(run, 1000, 20_000)
    world.runner.save(run, 1000, world.clock.now())
    await world.passes(600)
    world.tells(run, 1600, 20_000)
    await world.settle()
    return run


async def test_a_long_run_is_preempted_for_a_short_job_and_goes_on_after_it(world: World) -> None:
    """S2, S3, N7: the nodes are kept before anybody is stopped; the choice can be made again from its record."""
    world.runner.deaf = True
    long, _ = await with_a_long_run(world)
    short = await world.submit(1, name="short")
    await world.settle()
    stop = world.job(long).stop
    assert stop and stop.kind is StopKind.PREEMPT and stop.why
    assert stop.why.code == "preempted_for"
    assert stop.why.message.startswith(f"preempted for short ({short}), which has much less left")
    told = read((stop.evidence or {})["reckoning"])
    assert (told.newcomer, told.chosen) == (short, (long,))
    assert faults(told, long) == []
    assert world.job(short).kept == told.allocation
    seen = await world.engine.queries.status(short)
    assert seen.status == "queued"
    assert "preempted for it have saved and stopped" in seen.reason.message
    world.runner.deaf = False
    world.runner.end((long, Fence(1)), STOPPED)
    await world.settle()
    assert (world.job(short).status, world.job(long).status) == (Status.RUNNING, Status.QUEUED)
    assert world.job(short).kept is None
    assert world.job(long).preemptions == 1
    assert await world.events(short) == ["Submitted", "Keep", "Admit"]
    attempts = (await world.engine.queries.attempts(long)).attempts
    assert attempts[0].cause == "preemption"
    assert attempts[0].evidence and read(attempts[0].evidence["reckoning"]) == told
    world.runner.end((short, Fence(1)), COMPLETED)
    await world.settle()
    assert (world.job(long).status, world.job(long).fence) == (Status.RUNNING, 2)
    assert violations(world.engine.registry.active(), world.runner.nodes_now) == []


async def test_nobody_else_gets_what_is_kept(world: World) -> None:
    """S3: the room that a victim leaves is for the one for whom it was stopped."""
    world.runner.deaf = True
    long, _ = await with_a_long_run(world)
    gang = await world.submit(4, name="gang")
    await world.settle()
    assert world.job(gang).kept
    late = await world.submit(1, name="late", priority=900)
    await world.settle()
    world.runner.deaf = False
    world.runner.end((long, Fence(1)), STOPPED)
    await world.settle()
    assert (world.job(gang).status, world.job(late).status) == (Status.RUNNING, Status.QUEUED)


async def test_a_restart_in_the_middle_finds_what_is_kept(world: World) -> None:
    world.runner.deaf = True
    long, _ = await with_a_long_run(world)
    short = await world.submit(1, name="short")
    await world.settle()
    await world.life()
    assert world.job(short).kept
    await world.settle()
    assert world.job(long).stop
    world.runner.deaf = False
    world.runner.end((long, Fence(1)), STOPPED)
    await world.settle()
    assert world.job(short).status is Status.RUNNING


async def test_what_is_kept_and_never_freed_is_given_up(world: World) -> None:
    """A crash after the first of the two steps: the place is kept, and nobody was told to stop."""
    await with_a_long_run(world)
    short = await world.submit(1, name="short", start_after=world.clock.now() + timedelta(hours=9))
    here = Allocation(ranks=((FOUR_CPUS.id, 1),))
    reason = Reason(code="place_kept", message="kept")
    kept = Keep(at=world.clock.now(), by="scheduler", allocation=here, reason=reason)
    await world.engine.store.apply(world.job(short), kept)
    assert world.job(short).kept == here
    await world.passes(30)
    assert world.job(short).kept == here
    await world.passes(61)
    assert world.job(short).kept is None
    assert world.job(short).reason.code == "place_given_up"


@pytest.mark.parametrize("how", ["gone", "draining"])
async def test_what_is_kept_on_a_node_that_goes_is_given_up_at_once(world: World, how: str) -> None:
    world.runner.deaf = True
    await with_a_long_run(world)
    short = await world.submit(1, name="short")
    await world.settle()
    assert world.job(short).kept
    other = Node(id=NodeId("node-2"), name="node-2", cpus=1.0)
    there = Node(id=FOUR_CPUS.id, name="node-1", cpus=4.0, draining=True)
    world.runner.nodes_now = (other,) if how == "gone" else (other, there)
    await world.settle()
    assert world.job(short).status is Status.RUNNING
    assert await world.events(short) == ["Submitted", "Keep", "Keep", "Admit"]


@pytest.mark.parametrize("action", [JobAction.PAUSE, JobAction.CANCEL])
async def test_who_is_withdrawn_or_held_keeps_nothing(world: World, action: JobAction) -> None:
    world.runner.deaf = True
    await with_a_long_run(world)
    short = await world.submit(1, name="short")
    await world.settle()
    await world.engine.commands.act(short, action, "ann")
    assert world.job(short).kept is None


class TestWhoIsPreempted:
    async def test_not_a_run_that_has_saved_nothing(self, world: World) -> None:
        run = (await world.submit(4, name="long"), Fence(1))
        await world.settle()
        world.tells(run, 1000, 20_000)
        await world.passes(600)
        await world.submit(1, name="short")
        await world.settle()
        assert world.job(run[0]).stop is None

    async def test_not_a_loop_that_was_never_seen_to_stop(self) -> None:
        """And one that was, from then on: a person paused it."""
        world = World()
        await world.life()
        long, _ = await with_a_long_run(world)
        short = await world.submit(1, name="short")
        await world.settle()
        assert world.job(long).stop is None
        await world.engine.commands.act(long, JobAction.PAUSE, "ann")
        await world.settle()
        assert world.job(short).status is Status.RUNNING
        world.runner.end((short, Fence(1)), COMPLETED)
        await world.engine.commands.act(long, JobAction.RESUME, "ann")
        await world.settle()
        world.tells((long, Fence(2)), 1600, 20_000)
        await world.passes(600)
        await world.submit(1, name="next")
        await world.settle()
        assert world.job(long).preemptions == 1

    async def test_not_one_that_had_to_be_killed_when_it_was_asked(self, world: World) -> None:
        world.runner.deaf = True
        long, _ = await with_a_long_run(world)
        await world.engine.commands.act(long, JobAction.PREEMPT, "ann")
        world.runner.deaf = False
        world.runner.end((long, Fence(1)), LOST)
        await world.settle()
        world.tells((long, Fence(2)), 1600, 20_000)
        await world.passes(600)
        await world.submit(1, name="short")
        await world.settle()
        assert world.job(long).stop is None
        assert world.job(long).fence == 2

    async def test_not_one_that_must_not_be(self, world: World) -> None:
        await world.engine.projects.set("vision", {"quota": 4.0})
        long, _ = await with_a_long_run(world, project="vision", preemptible=False)
        await world.submit(1, name="short")
        await world.settle()
        assert world.job(long).stop is None

    @pytest.mark.parametrize(("priority", "gives_way"), [(0, False), (1, True)])
    async def test_for_a_higher_priority_alone_where_the_rules_say_so(
        self, priority: int, gives_way: bool
    ) -> None:
        world = World(policy_rules="preempt=class")
        world.knows_that_it_stops()
        await world.life()
        long, _ = await with_a_long_run(world)
        await world.submit(1, name="short", priority=priority)
        await world.settle()
        assert (world.job(long).preemptions > 0) is gives_way

    async def test_nobody_under_fifo(self) -> None:
        world = World(policy="fifo")
        world.knows_that_it_stops()
        await world.life()
        long, _ = await with_a_long_run(world)
        short = await world.submit(1, name="short", priority=1000)
        await world.settle()
        assert world.job(long).stop is None
        seen = await world.engine.queries.status(short)
        assert (seen.reason.code, seen.queue_position) == ("waiting_for_resources", 1)


async def test_a_project_within_its_quota_gets_it_back(world: World) -> None:
    """S1: what is lent is asked back at a checkpoint, from who borrowed it."""
    await world.engine.projects.set("vision", {"quota": 2.0})
    borrowed = [await world.submit(1, name=f"speech-{i}", project="speech") for i in range(4)]
    await world.settle()
    for number, job_id in enumerate(borrowed):
        world.tells((job_id, Fence(1)), 100, 20_000)
        world.runner.save((job_id, Fence(1)), 100, world.clock.now())
        assert world.job(job_id).status is Status.RUNNING, number
    await world.passes(600)
    mine = [await world.submit(1, name=f"vision-{i}", project="vision") for i in range(3)]
    await world.settle()
    assert [world.job(one).status for one in mine[:2]] == [Status.RUNNING] * 2
    back = [world.job(one) for one in borrowed if world.job(one).preemptions]
    assert len(back) == len([one for one in mine if world.job(one).status is Status.RUNNING])
    attempts = (await world.engine.queries.attempts(back[0].id)).attempts
    assert attempts[0].reason and "within the share of its project" in attempts[0].reason.message


async def test_a_project_never_holds_more_than_its_limit(world: World) -> None:
    await world.engine.projects.set("vision", {"limit": 1.0})
    first, second = [await world.submit(1, name=f"v{i}", project="vision") for i in range(2)]
    await world.settle()
    assert world.job(first).status is Status.RUNNING
    seen = await world.engine.queries.status(second)
    assert (seen.status, seen.reason.code) == ("queued", "quota")
    assert "vision may hold 1 CPUs at once and holds 1" in seen.reason.message


async def test_positions_are_those_of_the_turns(world: World) -> None:
    """S2, S10: who has less left stands before who came earlier."""
    world.runner.nodes_now = ()
    ids = [await world.submit(1, name=name) for name in ("first", "second")]
    world.runner.nodes_now = (FOUR_CPUS,)
    await world.settle()
    for job_id in ids:
        world.tells((job_id, Fence(1)), 10, 20_000 if job_id == ids[0] else 200)
    await world.passes(60)
    for job_id in ids:
        await world.engine.commands.act(job_id, JobAction.PREEMPT, "ann")
    world.runner.nodes_now = (Node(id=NodeId("node-1"), name="node-1", cpus=0.5),)
    await world.settle()
    seen = [await world.engine.queries.status(job_id) for job_id in ids]
    assert [one.queue_position for one in seen] == [2, 1]
    assert [job.id for job in world.engine.registry.line(5)] == ids[::-1]


async def test_usage_and_budgets_survive_a_restart(world: World) -> None:
    """S1: whoever had much of late does not begin anew because the scheduler did."""
    job_id = await world.submit(4, name="vision", project="vision", user="ann")
    await world.settle()
    await world.passes(3600)
    policy = (await world.life()).policy
    assert isinstance(policy, Fair)
    await world.passes(3600)
    scene = policy.scene([], {}, world.clock.now())
    assert scene.usage["vision", "ann"] == pytest.approx(4 * 7200, rel=0.05)
    world.runner.end((job_id, Fence(1)), COMPLETED)
    await world.settle()
    await world.passes(24 * 3600)
    assert policy.scene([], {}, world.clock.now()).usage["vision", "ann"] == pytest.approx(2 * 7200, rel=0.05)


async def test_losses_of_the_last_hour_survive_a_restart(world: World) -> None:
    await with_a_long_run(world)
    await world.submit(1, name="short")
    await world.settle()
    policy = (await world.life()).policy
    assert isinstance(policy, Fair)
    assert policy.scene([], {}, world.clock.now()).ledger.lost(world.clock.now().timestamp()) > 0


@pytest.mark.parametrize(
    "note",
    [
        b"{}",
        b'{"at_s": "x", "ledger": 3}',
        b'{"at_s": "x", "ledger": {}, "usage": [], "habits": {}}',
        b'{"at_s": 1, "ledger": {}, "usage": 1}',
    ],
)
async def test_a_note_that_cannot_be_read_is_as_none(world: World, note: bytes) -> None:
    world.disk.notes[NOTE] = note
    await world.life()
    job_id = await world.submit()
    await world.settle()
    assert world.job(job_id).status is Status.RUNNING


async def test_a_forecast_follows_the_turns(world: World) -> None:
    """S10: by the very decision of the scheduler, played forward."""
    long, _ = await with_a_long_run(world)
    world.runner.deaf = True
    short = await world.submit(1, name="short", max_runtime_s=300)
    told = await world.engine.queries.explain(short)
    assert told.forecast and told.forecast.position == 1
    assert told.forecast.starts_in_s == 0.0
    again = await world.engine.queries.effect(long, "preempt")
    assert again.forecast
    assert again.forecast.message == "position 2, behind short; starts in about 5 min"


def test_functions_that_were_sent_along_are_told_apart_by_their_code() -> None:
    """Two people call theirs `train`: what one of them has shown says nothing about the other."""
    habits = LoopHabits()

    def spec(code: str) -> JobSpec:
        return JobSpec(loop="shipped:train", code=ShippedCode(pickle=code, python="3.11"))

    habits._learn(spec("aaaa"), stops=True)
    assert habits.of(spec("aaaa")).stops
    assert not habits.of(spec("bbbb")).stops


def test_only_so_many_loops_are_remembered() -> None:
    habits = LoopHabits()
    for number in range(2 * REMEMBERED):
        habits._learn(JobSpec(loop=f"mine:{number}"), start_s=float(number))
    assert len(habits.to_remember()) == REMEMBERED
    assert habits.of(JobSpec(loop=f"mine:{2 * REMEMBERED - 1}")).start_s == 2 * REMEMBERED - 1
