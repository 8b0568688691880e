"""Clocks that are wrong, or are set while runs go on: nothing is stopped because of it, and it is told."""

from __future__ import annotations

import pickle
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from scheduler.core import ordering
from scheduler.core.hangs import Pace
from scheduler.core.model import CheckpointId, Fence, JobId, NodeId, Phase, Saved
from scheduler.core.observation import moments, take_moments
from scheduler.engine.run_times import NodeClocks, in_our_time
from scheduler.ports import Observation, Run
from scheduler.testing.builders import a_job
from scheduler.testing.clock import NOON, ManualClock
from tests.unit.test_service import World, a_loop

PACE = Pace(steps=50, typical_s=1.0, longest_s=2.0)
AHEAD = [-3600.0, -900.0, 0.0, 900.0, 3600.0]
NODE = NodeId("node-1")


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    await world.life()
    yield world


class NodeClock:
    """What a run tells whose node's clock is *ahead_s* ahead of the scheduler's first one."""

    def __init__(self, world: World, run: Run, ahead_s: float = 0.0, *, is_old: bool = False) -> None:
        self._world, self._run, self._is_old = world, run, is_old
        self.ahead_s = ahead_s
        self._began_s = self._stepped_s = self._real_s()

    def _real_s(self) -> float:
        return self._world.clock.monotonic_s()

    def tell(self, *, step: bool) -> None:
        if step:
            self._stepped_s = self._real_s()
        real_s = self._real_s()
        phases = {Phase.STARTING.value: self._wall_s(self._began_s)}
        if not self._is_old:
            up_s, quiet_s = real_s - self._began_s, real_s - self._stepped_s
            phases |= moments(self._wall_s(real_s), up_s, quiet_s)
        stepped_at = datetime.fromtimestamp(self._wall_s(self._stepped_s), UTC)
        self._world.runner.tells[self._run] = {"pace": PACE, "stepped_at": stepped_at, "phases": phases}

    def _wall_s(self, real_s: float) -> float:
        return NOON.timestamp() + real_s + self.ahead_s


async def a_run(world: World, **fields: Any) -> Run:
    job_id = await world.submit(a_loop(**fields))
    await world.settle()
    return JobId(job_id), Fence(1)


async def look(world: World, clock: NodeClock, seconds: float, *, step: bool, every_s: float = 30.0) -> None:
    """So much time passes, with a look at the run now and then."""
    for _ in range(int(seconds / every_s)):
        world.clock.advance(every_s)
        clock.tell(step=step)
        await world.service.monitor.once()
    await world.settle()


@pytest.mark.parametrize("is_old", [False, True], ids=["new actor", "old actor"])
@pytest.mark.parametrize("ahead_s", AHEAD)
async def test_a_run_that_gets_on_is_no_hang_whatever_its_nodes_clock_says(
    world: World, ahead_s: float, is_old: bool
) -> None:
    """P1: a head 15 min ahead of its nodes would else stop every running job, after an upgrade too."""
    run = await a_run(world, max_runtime_s=7200.0)
    clock = NodeClock(world, run, ahead_s, is_old=is_old)
    await look(world, clock, 1200, step=True)
    await world.life()
    await look(world, clock, 1200, step=True)
    assert world.runner.stopped == []
    assert (await world.service.queries.status(run[0])).reason.code == "running"


@pytest.mark.parametrize("ahead_s", AHEAD)
async def test_a_run_that_hangs_is_one_whatever_its_nodes_clock_says(world: World, ahead_s: float) -> None:
    run = await a_run(world)
    clock = NodeClock(world, run, ahead_s)
    await look(world, clock, 60, step=True)
    await look(world, clock, 300, step=False)
    assert (await world.service.queries.status(run[0])).reason.code == "suspect"
    await look(world, clock, 360, step=False)
    attempt = (await world.service.queries.attempts(run[0])).attempts[0]
    assert attempt.reason
    assert attempt.reason.code == "hung"


async def test_a_restart_does_not_forget_how_long_a_run_has_hung(world: World) -> None:
    """What was before this life is carried over from the run's own monotonic clock."""
    run = await a_run(world)
    clock = NodeClock(world, run, 3600.0)
    await look(world, clock, 60, step=True)
    await look(world, clock, 500, step=False, every_s=20.0)
    await world.life()
    await look(world, clock, 140, step=False, every_s=20.0)
    assert [stop.kind for stop in world.runner.stopped] == ["hung"]


@pytest.mark.parametrize("jump_s", [-3600.0, 3600.0])
@pytest.mark.parametrize("restarts", [False, True])
async def test_setting_the_schedulers_clock_ends_no_run_before_its_time(
    world: World, jump_s: float, restarts: bool
) -> None:
    """`max_runtime_s` is time that passed, also over a restart, and a clock that is set back gives none away."""
    run = await a_run(world, max_runtime_s=1800.0)
    clock = NodeClock(world, run)
    await look(world, clock, 600, step=True)
    world.clock.jump(jump_s)
    if restarts:
        await world.life()
    await look(world, clock, 1140, step=True)
    assert world.runner.stopped == []
    await look(world, clock, 180, step=True)
    job = await world.service.queries.status(run[0])
    assert (job.status, job.reason.code) == ("failed", "timeout")


async def test_what_people_see_is_in_the_schedulers_time(world: World) -> None:
    """ "The last step was 15 min from now" is no answer."""
    run = await a_run(world)
    clock = NodeClock(world, run, 900.0)
    await look(world, clock, 120, step=True)
    job = await world.service.queries.status(run[0])
    assert job.phases == {"starting": NOON}
    sighting = world.service.registry.sighting(world.service.registry.running()[0])
    assert sighting
    assert sighting.observation.stepped_at == world.clock.now()


async def test_a_clock_that_is_off_is_a_problem_with_its_node_and_its_remedy(world: World) -> None:
    """L9"""
    run = await a_run(world)
    clock = NodeClock(world, run, -900.0)
    await look(world, clock, 30, step=True)
    (words,) = world.service.problems()
    assert "the clock of node node-1 is 900 s behind that of the scheduler's node" in words
    assert "chronyc makestep" in words
    clock.ahead_s = 20.0
    await look(world, clock, 30, step=True)
    assert world.service.problems() == []


def test_a_slow_answer_says_little_about_a_clock() -> None:
    """A round trip of 40 s proves a skew of no more than the rest."""
    clocks = NodeClocks(ManualClock(), 30.0)
    asked_s = NOON.timestamp()
    assert clocks.measure(NODE, asked_s + 40.0, NOON, took_s=40.0) == 0.0
    assert clocks.problems({}) == []
    assert clocks.measure(NODE, asked_s + 100.0, NOON, took_s=0.2) == pytest.approx(99.9)
    assert len(clocks.problems({})) == 1
    assert clocks.measure(NODE, asked_s + 110.0, NOON, took_s=20.0) == pytest.approx(99.9), (
        "the better one counts"
    )


def test_a_node_that_is_not_heard_of_any_more_is_no_problem() -> None:
    clock = ManualClock()
    clocks = NodeClocks(clock, 30.0)
    clocks.measure(NODE, NOON.timestamp() + 100.0, NOON, took_s=0.2)
    clock.advance(clocks.FORGOTTEN_S)
    assert clocks.problems({}) == []


def test_all_times_of_an_observation_move_together() -> None:
    late = NOON + timedelta(seconds=900)
    saved = Saved(checkpoint=CheckpointId("1.1"), step=1, at=late)
    phases = {Phase.RESERVING.value: 5.0, Phase.STARTING.value: 905.0}
    seen = Observation(phase=Phase.TRAINING, phases=phases, saved=saved, stop_seen_at=late, stepped_at=late)
    here = in_our_time(seen, 900.0)
    assert here.phases == {Phase.RESERVING: 5.0, Phase.STARTING: 5.0}
    assert (here.stepped_at, here.stop_seen_at) == (NOON, NOON)
    assert here.saved
    assert here.saved.at == NOON


def test_an_older_actor_says_nothing_of_its_clock_and_is_understood() -> None:
    """Its answers unpickle: what is new stands in the dictionary of the phases, and in no new field."""
    seen = pickle.loads(pickle.dumps(Observation(phase=Phase.TRAINING, phases={"starting": 1.0})))
    shown, told = take_moments(seen)
    assert shown == seen
    assert (told.now_s, told.up_s, told.quiet_s) == (None, None, None)
    assert [*Observation.__slots__] == [
        "phase", "phases", "progress", "ranks", "resumed", "saved", "stop_seen_at", "pace", "stepped_at",
    ], "another field breaks the answers of actors that are alive across an upgrade"  # fmt: skip


def test_a_pause_of_seconds_does_not_become_an_hour_when_the_clock_is_set_back() -> None:
    job = a_job("queued", retry_at=NOON + timedelta(seconds=60), queued_at=NOON)
    assert ordering.order([job], now=NOON + timedelta(seconds=59)).paused
    assert ordering.order([replace(job)], now=NOON - timedelta(seconds=3600)).ready
