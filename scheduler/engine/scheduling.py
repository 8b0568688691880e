"""The tick: who is first, who fits, who waits and why, and the starts that follow."""

from __future__ import annotations

from datetime import datetime

from scheduler.core import lifecycle, ordering, placement
from scheduler.core.model import JobId, Status
from scheduler.engine import dependencies
from scheduler.engine.change_feed import WATCHED_PLACES, ChangeFeed, QueuePositions
from scheduler.engine.cluster import Cluster
from scheduler.engine.found_runs import FoundRuns
from scheduler.engine.job_store import JobStore
from scheduler.engine.periodic import all_of
from scheduler.engine.queries.job_view import PLANNED_AT_ONCE, JobViews
from scheduler.engine.registry import Registry
from scheduler.engine.run_times import RunTimes
from scheduler.engine.shutdown import Shutdown
from scheduler.ports import Clock


class Scheduling:
    """Decides by the queue and the nodes as they are at that moment; every start is journalled before it is made."""

    def __init__(
        self,
        registry: Registry,
        store: JobStore,
        cluster: Cluster,
        found: FoundRuns,
        shutdown: Shutdown,
        views: JobViews,
        feed: ChangeFeed,
        times: RunTimes,
        clock: Clock,
    ) -> None:
        self._registry, self._store, self._cluster = registry, store, cluster
        self._found, self._shutdown = found, shutdown
        self._views, self._feed, self._times, self._clock = views, feed, times, clock
        self._positions = QueuePositions()

    async def once(self) -> placement.Plan:
        await self._cluster.look()
        now = self._clock.now()
        waiting = self._registry.queued(PLANNED_AT_ONCE)
        parents = await dependencies.parents_of(self._store, waiting)
        queue = ordering.order(waiting, now=now, parents=parents)  # 1. who is first
        plan = placement.plan(queue.ready, self._cluster.snapshot())  # 2. who fits, who waits and why
        self._publish(queue, plan, now)  # 3. reasons, for whoever asks or watches
        if self._shutdown.is_on:
            await self._shutdown.preempt_all()  # a start that was under way is one too many
        else:
            await all_of(self._admit(job_id, plan, now) for job_id in plan.start)  # 4. journal it, do it
            await dependencies.fail_in_vain(self._store, waiting, parents, now)
        return plan

    def _publish(self, queue: ordering.QueueOrder, plan: placement.Plan, now: datetime) -> None:
        waits = {**queue.paused, **plan.blocked}
        if self._shutdown.is_on:
            waits |= self._shutdown.reasons(job for job in queue.ready if job.id in plan.start)
        self._views.planned(waits, now)
        head = [job.id for job in self._registry.queued(WATCHED_PLACES)]
        self._feed.tell(self._positions.moved(head, self._views.blocked))

    async def _admit(self, job_id: JobId, plan: placement.Plan, now: datetime) -> None:
        job = self._registry.get(job_id)
        if job is None or self._found.is_unexplained(job_id):
            return
        newest = await self._found.catch_up(job, by="scheduler")
        job = self._registry.get(job_id)
        if job and job.status is Status.QUEUED:
            admit = lifecycle.Admit(at=now, by="scheduler", allocation=plan.start[job_id], after=newest)
            admitted = await self._store.apply(job, admit)
            self._times.begins((job_id, admitted.fence))
