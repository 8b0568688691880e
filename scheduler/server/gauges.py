"""What stands where: read off the service every few seconds, for whoever fetches metrics."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from scheduler.api.health import PoolHealth
from scheduler.api.serialize import is_overdue
from scheduler.core.model import Status
from scheduler.core.node_usage import Use, cpu_use, gpu_use, holdings
from scheduler.engine import telemetry
from scheduler.engine.periodic import PeriodicTask
from scheduler.engine.service import Engine
from scheduler.engine.telemetry import Measure, Telemetry
from scheduler.server.health import problems

EVERY_S = 5.0


class Gauges:
    """One pass costs some 20 ms with 100,000 waiting jobs, most of it to find those that run."""

    def __init__(
        self, service: Engine, telemetry: Telemetry, pool: Callable[[], PoolHealth | None] = lambda: None
    ) -> None:
        self._service, self._telemetry, self._pool = service, telemetry, pool
        self._told: dict[tuple[str, str], float] = {}

    def loop(self) -> PeriodicTask:
        return PeriodicTask("telemetry", EVERY_S, self.once, self._service.clock)

    async def once(self) -> None:
        pool = self._pool()
        await self._jobs()
        self._line()
        self._cluster()
        await self._mirror()
        self._loops()
        self._prepared(pool)
        self._telemetry.set(telemetry.PROBLEMS, len(problems(self._service)))

    async def _jobs(self) -> None:
        counts = await self._service.journal.counts()
        for status in Status:
            self._telemetry.set(telemetry.JOBS, counts.get(status, 0), status=status.value)

    def _line(self) -> None:
        waiting = [job for job in self._service.registry.queued(telemetry.LOOKED_AT) if not job.held]
        now = self._service.clock.now()
        since = min((job.queued_at for job in waiting if job.queued_at), default=None)
        gangs = [job.spec.resources for job in waiting]
        overdue = sum(is_overdue(job, now, self._service.settings.overdue_after_s) for job in waiting)
        self._telemetry.set(telemetry.JOBS_OVERDUE, overdue)
        self._telemetry.set(telemetry.QUEUE_OLDEST_WAIT, self._age_s(since))
        self._telemetry.set(telemetry.QUEUED_GPUS, sum(gang.fewest * gang.gpus_per_rank for gang in gangs))

    def _cluster(self) -> None:
        nodes = self._service.nodes
        draining = sum(node.draining for node in nodes)
        self._telemetry.set(telemetry.NODES, len(nodes) - draining, state="live")
        self._telemetry.set(telemetry.NODES, draining, state="draining")
        held = holdings(self._service.registry.running())
        self._use(telemetry.CPUS, cpu_use(nodes, held))
        self._use(telemetry.GPUS, gpu_use(nodes, held))

    def _use(self, measure: Measure, use: Use) -> None:
        for state, value in (("held", use.held), ("free", use.free), ("other", use.other)):
            self._telemetry.set(measure, value, state=state)

    async def _mirror(self) -> None:
        journal = self._service.journal
        oldest = await journal.outbox(1)
        self._telemetry.set(telemetry.OUTBOX_ROWS, await journal.outbox_size())
        self._telemetry.set(telemetry.MIRROR_LAG, self._age_s(oldest[0].event.at if oldest else None))
        notifier = self._service.sync.notifier
        self._telemetry.set(telemetry.NOTICES_REFUSED, notifier.refused, state="retried")
        self._telemetry.set(telemetry.NOTICES_REFUSED, notifier.given_up, state="given_up")
        self._count_up(telemetry.EVENTS_PRUNED, self._service.sync.pruner.events)
        newest = await journal.repairs(1)
        self._count_on(telemetry.REPAIRS, newest[0][0] if newest else 0)

    def _loops(self) -> None:
        for loop in self._service.loops:
            health, name = loop.health(), loop.name
            self._count_up(telemetry.LOOP_PASSES, health.passes, loop=name)
            self._count_up(telemetry.LOOP_ERRORS, health.errors, loop=name)
            self._telemetry.set(telemetry.LOOP_INTERVAL, health.every_s, loop=name)
            if health.last_success_at:
                at_s = health.last_success_at.timestamp()
                self._telemetry.set(telemetry.LOOP_LAST_SUCCESS, at_s, loop=name)
        self._count_up(telemetry.BACKGROUND_ERRORS, self._service.background.errors)

    def _prepared(self, pool: PoolHealth | None) -> None:
        if pool:
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

    def _age_s(self, since: datetime | None) -> float:
        return max(0.0, (self._service.clock.now() - since).total_seconds()) if since else 0.0
