"""Nodes that are kept for a job while others are stopped for it, and how that ends."""

from __future__ import annotations

from datetime import datetime

from scheduler.core.bin_packing import open_nodes
from scheduler.core.events import Keep
from scheduler.core.model import Allocation, Job, JobId, NodeId, Reason, Status
from scheduler.core.policy import Start
from scheduler.engine.cluster import Cluster
from scheduler.engine.job_store import JobStore
from scheduler.engine.periodic import all_of
from scheduler.engine.registry import Registry
from scheduler.ports import Clock

FREE_WITHIN_S = 60.0
"""Once nobody is being stopped there any more, Ray has so long to say that the nodes are free."""


class KeptPlaces:
    """In the journal with the job: a restart in the middle finds them again."""

    def __init__(self, registry: Registry, store: JobStore, cluster: Cluster, clock: Clock) -> None:
        self._registry, self._store, self._cluster, self._clock = registry, store, cluster, clock
        self._quiet_since_s: dict[JobId, float] = {}
        """Since when nobody is being stopped on the nodes that are kept for this job."""

    def is_kept_for(self, job_id: JobId) -> bool:
        job = self._registry.get(job_id)
        return job is not None and job.kept is not None

    async def keep(self, job_id: JobId, start: Start, now: datetime) -> None:
        job = self._registry.get(job_id)
        if job is None:
            return
        runs = "a run is" if len(start.after) == 1 else f"{len(start.after)} runs are"
        reason = Reason(
            code="place_kept",
            message=f"{runs} preempted for it ({', '.join(start.after[:3])}{', ...' if len(start.after) > 3 else ''}); "
            "it starts on the nodes that this frees",
        )
        await self._store.apply(job, Keep(at=now, by="scheduler", allocation=start.allocation, reason=reason))

    async def give_up_in_vain(self, now: datetime) -> None:
        """Where a node has gone, or does not become free, the job waits for its turn like all others."""
        waiting = self._registry.with_kept_places()
        self._quiet_since_s = {
            job.id: self._quiet_since_s[job.id] for job in waiting if job.id in self._quiet_since_s
        }
        vain = [(job, why) for job in waiting if (why := self._why_in_vain(job))]
        await all_of(
            self._store.apply(
                job,
                Keep(
                    at=now, by="scheduler", allocation=None, reason=Reason(code="place_given_up", message=why)
                ),
            )
            for job, why in vain
        )

    def _why_in_vain(self, job: Job) -> str | None:
        assert job.kept
        kept = {node for node, _ in job.kept.ranks}
        there = {node.id for node in open_nodes(self._cluster.nodes)}
        if not kept <= there:
            return "a node that was kept for it is gone, is being drained or is set aside; it waits for its turn again"
        if self._is_anybody_stopping_on(kept):
            self._quiet_since_s.pop(job.id, None)
            return None
        now_s = self._clock.monotonic_s()
        if now_s - self._quiet_since_s.setdefault(job.id, now_s) <= FREE_WITHIN_S:
            return None
        return "the nodes that were kept for it are in use by something else; it waits for its turn again"

    def _is_anybody_stopping_on(self, nodes: set[NodeId]) -> bool:
        return any(
            job.stop and _stands_on(job.allocation, nodes)
            for job in self._registry.running()
            if job.status is Status.RUNNING
        )


def _stands_on(allocation: Allocation | None, nodes: set[NodeId]) -> bool:
    return allocation is not None and any(node in nodes for node, _ in allocation.ranks)
