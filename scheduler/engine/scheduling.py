"""The tick: whose turn it is, who fits, who gives way to whom, why each of the others waits; and what follows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

from scheduler.core.events import Admit, AskStop
from scheduler.core.model import Job, JobId, Reason, Status, StopKind
from scheduler.core.policy import Decision, Start
from scheduler.core.reckoning import Reckoning, written
from scheduler.engine import dependencies
from scheduler.engine.bad_nodes import BadNodes
from scheduler.engine.change_feed import WATCHED_PLACES, ChangeFeed, QueuePositions
from scheduler.engine.cluster import Cluster
from scheduler.engine.found_runs import FoundRuns
from scheduler.engine.job_store import JobStore
from scheduler.engine.kept_places import KeptPlaces
from scheduler.engine.periodic import all_of
from scheduler.engine.policies import PolicyInCharge
from scheduler.engine.queries.job_view import PLANNED_AT_ONCE, JobViews
from scheduler.engine.registry import Registry
from scheduler.engine.run_times import RunTimes
from scheduler.engine.shadow import NoShadow, Shadow
from scheduler.engine.shutdown import Shutdown
from scheduler.ports import Clock

PREEMPTED_FOR = "preempted_for"


class Scheduling:
    """Decides by the queue and the nodes as they are at that moment; every step is journalled before it is made."""

    def __init__(
        self,
        registry: Registry,
        store: JobStore,
        cluster: Cluster,
        found: FoundRuns,
        shutdown: Shutdown,
        policy: PolicyInCharge,
        views: JobViews,
        feed: ChangeFeed,
        times: RunTimes,
        bad_nodes: BadNodes,
        clock: Clock,
        shadow: Shadow | NoShadow,
    ) -> None:
        self._registry, self._store, self._cluster = registry, store, cluster
        self._bad_nodes = bad_nodes
        self._found, self._shutdown, self._policy = found, shutdown, policy
        self._views, self._feed, self._times, self._clock = views, feed, times, clock
        self._kept = KeptPlaces(registry, store, cluster, clock)
        self._positions = QueuePositions()
        self._shadow = shadow

    async def once(self) -> Decision:
        await self._cluster.look()
        await self._bad_nodes.once()
        now = self._clock.now()
        await self._kept.give_up_in_vain(now)  # 1. places that are kept and will not be free
        waiting = self._registry.queued(PLANNED_AT_ONCE)
        parents = await dependencies.parents_of(self._store, waiting)
        decision = self._policy.decide(waiting, parents, now)  # 2. who starts, who gives way, why others wait
        self._shadow.look(waiting, parents, decision, now)
        self._publish(decision, waiting, now)  # 3. places and reasons, for whoever asks or watches
        if self._shutdown.is_on:
            await self._shutdown.preempt_all()  # a start that was under way is one too many
        else:
            await self._carry_out(decision, now)  # 4. journal it, do it
            await dependencies.fail_in_vain(self._store, waiting, parents, now)
        return decision

    def _publish(self, decision: Decision, waiting: Iterable[Job], now: datetime) -> None:
        waits: Mapping[JobId, Reason] = decision.reasons
        if self._shutdown.is_on:
            could_start = (job for job in waiting if job.id in decision.starts)
            waits = {**waits, **self._shutdown.reasons(could_start)}
        self._views.planned(waits, now, decision.turns)
        if self._policy.ranks:
            cleared = [job_id for job_id, start in decision.starts.items() if start.after]
            self._registry.line_up([*cleared, *decision.reasons])
        head = [job.id for job in self._registry.line(WATCHED_PLACES)]
        self._feed.tell(self._positions.moved(head, self._views.waits))

    async def _carry_out(self, decision: Decision, now: datetime) -> None:
        """Nodes are kept for a job before anybody is stopped for it: no run is stopped for nothing."""
        starts = decision.starts
        await self._policy.spend(decision, now)
        cleared = {job_id: start for job_id, start in starts.items() if start.after}
        await all_of(self._kept.keep(job_id, start, now) for job_id, start in cleared.items())
        await all_of(
            self._preempt(job_id, reckoning, now)
            for job_id, reckoning in decision.stops.items()
            if self._kept.is_kept_for(reckoning.newcomer)
        )
        await all_of(
            self._admit(job_id, start, now) for job_id, start in starts.items() if job_id not in cleared
        )

    async def _preempt(self, job_id: JobId, reckoning: Reckoning, now: datetime) -> None:
        job = self._registry.get(job_id)
        if job is None or job.allocation is None or job.stop:
            return
        newcomer = self._registry.get(reckoning.newcomer)
        names = {reckoning.newcomer: f"{newcomer.spec.name} ({newcomer.id})"} if newcomer else {}
        why = Reason(code=PREEMPTED_FOR, message=reckoning.sentence(names))
        await self._store.apply(
            job,
            AskStop(
                at=now,
                by="scheduler",
                kind=StopKind.PREEMPT,
                why=why,
                evidence={"reckoning": written(reckoning)},
                fence=job.fence,
            ),
        )

    async def _admit(self, job_id: JobId, start: Start, now: datetime) -> None:
        job = self._registry.get(job_id)
        if job is None or self._found.is_unexplained(job_id):
            return
        newest = await self._found.catch_up(job, by="scheduler")
        job = self._registry.get(job_id)
        if job and job.status is Status.QUEUED:
            admitted = await self._store.apply(
                job,
                Admit(
                    at=now,
                    by="scheduler",
                    allocation=start.allocation,
                    after=newest,
                    is_due=start.due,
                    loan_of=start.loan_of,
                ),
            )
            self._times.begins((job_id, admitted.fence))
