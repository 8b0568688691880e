"""How things stand, read off the engine every few seconds, for whoever fetches metrics."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from scheduler.api.health import PoolHealth
from scheduler.api.serialize import is_overdue
from scheduler.api.shadow import ShadowDocument
from scheduler.core.model import Status
from scheduler.core.node_usage import Use, cpu_use, gpu_use, holdings
from scheduler.engine import telemetry
from scheduler.engine.periodic import PeriodicTask
from scheduler.engine.service import Engine
from scheduler.engine.state import EngineState
from scheduler.engine.telemetry import Measure, Telemetry

EVERY_S = 5.0


class Pool(Protocol):
    def health(self) -> PoolHealth: ...


class Gauges:
    """One pass costs some 20 ms with 100,000 waiting jobs, most of it to find those that run."""

    def __init__(self, engine: Engine, telemetry: Telemetry, pool: Pool | None = None) -> None:
        self._engine, self._telemetry, self._pool = engine, telemetry, pool
        self._told: dict[tuple[str, str], float] = {}

    def task(self) -> PeriodicTask:
        return PeriodicTask("telemetry", EVERY_S, self.once, self._engine.clock)

    async def once(self) -> None:
        state = await self._engine.state()
        for status in Status:
            self._telemetry.set(telemetry.JOBS, state.jobs.get(status, 0), status=status.value)
        self._queue(state)
        self._cluster(state)
        self._mirror(state)
        self._tasks(state)
        if state.shadow:
            self._shadow(state.shadow)
        if self._pool:
            self._prepared(self._pool.health())
        self._telemetry.set(telemetry.PROBLEMS, len(state.problems))

    def _queue(self, state: EngineState) -> None:
        waiting = [job for job in state.next_queued if not job.held]
        since = min((job.queued_at for job in waiting if job.queued_at), default=None)
        gangs = [job.spec.resources for job in waiting]
        overdue = sum(is_overdue(job, state.at, state.settings.overdue_after_s) for job in waiting)
        self._telemetry.set(telemetry.JOBS_OVERDUE, overdue)
        self._telemetry.set(telemetry.QUEUE_OLDEST_WAIT, _age_s(since, state.at))
        self._telemetry.set(telemetry.QUEUED_GPUS, sum(gang.fewest * gang.gpus_per_rank for gang in gangs))

    def _cluster(self, state: EngineState) -> None:
        nodes = state.nodes
        draining = sum(node.draining for node in nodes)
        aside = sum(node.set_aside and not node.draining for node in nodes)
        self._telemetry.set(telemetry.NODES, len(nodes) - draining - aside, state="live")
        self._telemetry.set(telemetry.NODES, aside, state="set_aside")
        self._telemetry.set(telemetry.NODES, draining, state="draining")
        held = holdings(state.running)
        self._use(telemetry.CPUS, cpu_use(nodes, held))
        self._use(telemetry.GPUS, gpu_use(nodes, held))

    def _use(self, measure: Measure, use: Use) -> None:
        for state, value in (("held", use.held), ("free", use.free), ("other", use.other)):
            self._telemetry.set(measure, value, state=state)

    def _mirror(self, state: EngineState) -> None:
        self._telemetry.set(telemetry.OUTBOX_ROWS, state.unmirrored)
        self._telemetry.set(telemetry.MIRROR_LAG, _age_s(state.oldest_unmirrored_at, state.at))
        self._telemetry.set(telemetry.NOTICES_REFUSED, state.notices_refused, state="retried")
        self._telemetry.set(telemetry.NOTICES_REFUSED, state.notices_given_up, state="given_up")
        self._count_up(telemetry.EVENTS_PRUNED, state.pruned_events)
        self._count_on(telemetry.REPAIRS, state.repairs)

    def _tasks(self, state: EngineState) -> None:
        for name, health in state.tasks:
            self._count_up(telemetry.LOOP_PASSES, health.passes, loop=name)
            self._count_up(telemetry.LOOP_ERRORS, health.errors, loop=name)
            self._telemetry.set(telemetry.LOOP_INTERVAL, health.every_s, loop=name)
            if health.last_success_at:
                at_s = health.last_success_at.timestamp()
                self._telemetry.set(telemetry.LOOP_LAST_SUCCESS, at_s, loop=name)
        self._count_up(telemetry.BACKGROUND_ERRORS, state.background_errors)

    def _shadow(self, shadow: ShadowDocument) -> None:
        self._count_up(telemetry.SHADOW_FAULTS, shadow.faults)
        for kind, count in shadow.differences.items():
            self._count_up(telemetry.SHADOW_DIFFERENCES, count, kind=kind)

    def _prepared(self, pool: PoolHealth) -> None:
        self._telemetry.set(telemetry.PREPARED_RUNS, pool.ready)
        self._count_up(telemetry.RUN_STARTS, pool.hits, start="warm")
        self._count_up(telemetry.RUN_STARTS, pool.misses, start="cold")

    def _count_up(self, measure: Measure, total: float, **tags: str) -> None:
        """Count on to *total*, which began at 0 with this life of the scheduler."""
        key = (measure.name, ",".join(tags.values()))
        self._telemetry.add(measure, max(0.0, total - self._told.get(key, 0.0)), **tags)
        self._told[key] = total

    def _count_on(self, measure: Measure, total: float) -> None:
        """Count on to *total*, which outlives us: what earlier lives have counted is not counted again."""
        self._told.setdefault((measure.name, ""), total)
        self._count_up(measure, total)


def _age_s(since: datetime | None, now: datetime) -> float:
    return max(0.0, (now - since).total_seconds()) if since else 0.0
