"""What the metrics say of a scheduler, read off it in one pass."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import pytest

from scheduler.api.health import PoolHealth
from scheduler.core.commands import JobAction
from scheduler.engine import telemetry
from scheduler.engine.service import Engine
from scheduler.engine.spec_validation import SpecValidator
from scheduler.engine.telemetry import ALL, Measure
from scheduler.errors import MirrorUnavailable
from scheduler.ports import Run
from scheduler.server import health
from scheduler.server.gauges import Gauges
from scheduler.settings import Settings
from scheduler.testing import Disk, ManualClock, MemoryJournal, a_node, a_repair, a_spec
from scheduler.testing.fake_runner import COMPLETED, FakeRunner
from scheduler.testing.memory_telemetry import MemoryTelemetry


class Measured:
    """A scheduler on two nodes, one of which is being drained, and what it says of itself."""

    def __init__(self) -> None:
        self.clock, self.runner, self.disk = ManualClock(), FakeRunner(), Disk()
        self.runner.nodes_now = (
            a_node("node-1", cpus=8.0, gpus=4.0, available_gpus=3.0),
            a_node("node-2", cpus=4.0, draining=True),
        )
        self.pool = PoolHealth(size=1, ready=1, hits=0, misses=0)

    async def life(self) -> Measured:
        self.telemetry = MemoryTelemetry()
        self.service = Engine(
            journal=MemoryJournal(self.disk),
            runner=self.runner,
            clock=self.clock,
            settings=Settings(),
            validator=SpecValidator(["tests.loops:*"], [Path("/tmp")]),
            telemetry=self.telemetry,
        )
        self.gauges = Gauges(self.service, self.telemetry, self)
        await self.service.recover()
        return self

    def health(self) -> PoolHealth:
        """Of the pool."""
        return self.pool

    async def submit(self, **fields: object) -> str:
        spec = a_spec(**{"loop": "tests.loops:quick", **fields})
        document, _ = await self.service.commands.submit(str(uuid4()), spec, None)
        return document.job_id

    async def start(self) -> None:
        await self.service.scheduling.once()

    async def started(self) -> Run:
        """The first run, once it has been started."""
        while not self.runner.started:
            await asyncio.sleep(0)
        return self.runner.started[0].job_id, self.runner.started[0].fence

    async def value(self, measure: Measure, **tags: str) -> float | None:
        await self.gauges.once()
        return self.telemetry.value(measure, **tags)


@pytest.fixture
async def measured() -> AsyncIterator[Measured]:
    yield await Measured().life()


async def test_jobs_are_counted_in_each_status_also_where_there_are_none(measured: Measured) -> None:
    """A status that is left out would keep the number it had."""
    await measured.submit()
    assert await measured.value(telemetry.JOBS, status="queued") == 1
    await measured.start()
    assert await measured.value(telemetry.JOBS, status="queued") == 0
    assert await measured.value(telemetry.JOBS, status="running") == 1


async def test_gpus_are_held_free_or_somebody_elses(measured: Measured) -> None:
    await measured.submit(gpus=0.5, ranks=2)
    await measured.start()
    for state, expected in (("held", 1), ("free", 3), ("other", 0)):
        assert await measured.value(telemetry.GPUS, state=state) == expected
    assert await measured.value(telemetry.NODES, state="live") == 1
    assert await measured.value(telemetry.NODES, state="draining") == 1


async def test_health_and_metrics_agree_about_what_is_free(measured: Measured) -> None:
    """A node of which Ray does not tell what is available is not full: our own runs are all that is known of it.
    And what they hold is not free, also while Ray still says so."""
    measured.runner.nodes_now = (
        a_node("node-1", cpus=8.0, gpus=4.0, available_cpus=None, available_gpus=None),
        a_node("node-2", cpus=4.0, available_cpus=3.0),
    )
    await measured.submit(cpus=2.0, gpus=1.0, ranks=2)
    await measured.start()
    said = health.health(await measured.service.state(), started_at=measured.clock.now(), pool=None)
    assert [(node.free_cpus, node.free_gpus) for node in said.nodes] == [(4, 2), (3, 0)]
    assert said.gpu_info == [{"node": "node-1", "gpus": 4, "free": 2}]
    assert await measured.value(telemetry.CPUS, state="free") == 7


async def test_the_line_tells_its_longest_wait_and_the_gpus_it_needs(measured: Measured) -> None:
    """Without those that a person holds back: nothing is wrong when they wait."""
    await measured.submit(gpus=1.0, ranks=3)
    held = await measured.submit(gpus=1.0)
    await measured.service.commands.act(held, JobAction.PAUSE, "ann")
    measured.clock.advance(60)
    assert await measured.value(telemetry.QUEUED_GPUS) == 3
    assert await measured.value(telemetry.QUEUE_OLDEST_WAIT) == 60
    assert await measured.value(telemetry.JOBS_OVERDUE) == 0
    measured.clock.advance(measured.service.settings.overdue_after_s)
    assert await measured.value(telemetry.JOBS_OVERDUE) == 1


async def test_the_lag_is_the_age_of_the_oldest_change_that_waits(measured: Measured) -> None:
    await measured.submit()
    measured.clock.advance(30)
    await measured.submit()
    assert await measured.value(telemetry.MIRROR_LAG) == 30
    assert await measured.value(telemetry.OUTBOX_ROWS) == 2
    await measured.service.sync.relay.once()
    assert await measured.value(telemetry.MIRROR_LAG) == 0
    assert await measured.value(telemetry.OUTBOX_ROWS) == 0


async def test_passes_of_loops_are_counted_on_and_never_twice(measured: Measured) -> None:
    await measured.service.tick.pass_once()
    assert await measured.value(telemetry.LOOP_PASSES, loop="tick") == 1
    assert await measured.value(telemetry.LOOP_PASSES, loop="tick") == 1
    await measured.service.tick.pass_once()
    assert await measured.value(telemetry.LOOP_PASSES, loop="tick") == 2
    succeeded_s = await measured.value(telemetry.LOOP_LAST_SUCCESS, loop="tick")
    assert succeeded_s == measured.clock.now().timestamp()


async def test_a_loop_that_fails_is_counted_and_its_last_success_stays(
    measured: Measured, monkeypatch: pytest.MonkeyPatch
) -> None:
    await measured.service.tick.pass_once()
    succeeded_s = measured.clock.now().timestamp()
    measured.clock.advance(100)

    async def away() -> None:
        raise MirrorUnavailable("away")

    monkeypatch.setattr(measured.service.tick, "_once", away)
    await measured.service.tick.pass_once()
    assert await measured.value(telemetry.LOOP_ERRORS, loop="tick") == 1
    assert await measured.value(telemetry.LOOP_LAST_SUCCESS, loop="tick") == succeeded_s
    assert await measured.value(telemetry.PROBLEMS) == 1


async def test_repairs_of_earlier_lives_are_not_counted_again(measured: Measured) -> None:
    """The journal keeps them; a restart would look like a night of repairs."""
    await measured.service.journal.commit([], [a_repair()])
    assert await measured.value(telemetry.REPAIRS) == 0
    await measured.service.journal.commit([], [a_repair(), a_repair()])
    assert await measured.value(telemetry.REPAIRS) == 2
    later = await measured.life()
    assert await later.value(telemetry.REPAIRS) == 0


async def test_prepared_processes_are_shown_with_hits_and_misses(measured: Measured) -> None:
    measured.pool = PoolHealth(size=1, ready=0, hits=3, misses=1)
    assert await measured.value(telemetry.RUN_STARTS, start="warm") == 3
    assert await measured.value(telemetry.RUN_STARTS, start="cold") == 1
    assert await measured.value(telemetry.PREPARED_RUNS) == 0


async def test_a_run_is_counted_through_the_service_from_submit_to_end(measured: Measured) -> None:
    """Whoever moves jobs tells the meter; nothing is counted beside it."""
    await measured.submit()
    measured.clock.advance(5)
    await measured.start()
    assert measured.telemetry.observed(telemetry.QUEUE_WAIT) == [5.0]
    run = await measured.started()
    noon_s = measured.clock.now().timestamp()
    measured.runner.tells[run] = {"phases": {"starting": noon_s, "loading": noon_s + 2}}
    await measured.service.monitor.once()
    assert measured.telemetry.observed(telemetry.START_PHASE, phase="starting") == [2.0]
    measured.runner.end(run, COMPLETED)
    while measured.service.registry.running():
        await asyncio.sleep(0)
    assert measured.telemetry.value(telemetry.RUNS_ENDED, ending="completed", cause="nobody") == 1


async def test_health_tells_who_holds_which_node(measured: Measured) -> None:
    """And which one is being drained."""
    job_id = await measured.submit(name="big", user="ann", gpus=2.0, cpus=3.0)
    await measured.start()
    now = measured.clock.now() - timedelta(hours=1)
    nodes = health.health(await measured.service.state(), started_at=now, pool=None).nodes
    assert [(node.name, node.draining) for node in nodes] == [("node-1", False), ("node-2", True)]
    assert [one.model_dump() for one in nodes[0].held_by] == [
        {"job_id": job_id, "name": "big", "user": "ann", "ranks": 1, "cpus": 3.0, "gpus": 2.0}
    ]
    assert nodes[1].held_by == []


def test_no_tag_holds_what_users_choose() -> None:
    """A series for each job or user would fill Prometheus."""
    allowed = {"status", "phase", "start", "ending", "cause", "code", "state", "loop", "kind"}
    assert {tag for measure in ALL for tag in measure.tags} <= allowed
    assert all(measure.name.startswith("scheduler_") for measure in ALL)
    assert len({measure.name for measure in ALL}) == len(ALL)
