"""Looking at each run: does it answer, is it in time, does it make steps, and is its node going away?"""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import replace

from scheduler.core.lifecycle import NODE_LOST, AskStop, StopRun
from scheduler.core.model import Job, Json, NodeId, Phase, Reason, StopKind
from scheduler.core.observation import ReportedTimes, Sighting, take_moments
from scheduler.core.plain_values import EVIDENCE, METRICS, plain_dict
from scheduler.core.post_mortem_budget import within_budget
from scheduler.engine.change_feed import ChangeFeed
from scheduler.engine.cluster import Cluster
from scheduler.engine.job_store import JobStore
from scheduler.engine.periodic import all_of
from scheduler.engine.queries.job_view import JobViews
from scheduler.engine.registry import Registry
from scheduler.engine.run_metrics import RunMetrics
from scheduler.engine.run_times import NodeClocks, RunTimes, in_our_time
from scheduler.engine.sync.heartbeat import Heartbeat
from scheduler.errors import RunUnreachable
from scheduler.ports import Clock, Observation, Run, Runner
from scheduler.settings import Settings

log = logging.getLogger(__name__)


class UnreachableTimer:
    """Adds up the time between passes.  A pass that comes late counts as one in time: a scheduler that was frozen,
    or a machine that slept, has heard nothing of anybody, and that is no sign against a run."""

    def __init__(self, at_s: float, longest_pass_s: float) -> None:
        """*at_s* is monotonic, here and below."""
        self._listened_at_s, self._longest_pass_s = at_s, longest_pass_s
        self._silent_s: dict[Run, float] = {}

    def listen(self, runs: Collection[Run], at_s: float) -> float:
        """A pass over these *runs* begins; others are forgotten.  Returns the seconds that it stands for."""
        since_s, self._listened_at_s = at_s - self._listened_at_s, at_s
        self._silent_s = {run: silent_s for run, silent_s in self._silent_s.items() if run in runs}
        return min(max(since_s, 0.0), self._longest_pass_s)

    def unheard(self, run: Run, for_s: float) -> float:
        """It did not answer in this pass.  Returns how long it has been silent in all, in seconds."""
        self._silent_s[run] = self._silent_s.get(run, 0.0) + for_s
        return self._silent_s[run]

    def heard(self, run: Run) -> None:
        self._silent_s.pop(run, None)


class RunMonitor:
    """One pass looks at every run: proof of life, progress, time limit, hangs, drained nodes.

    What it finds wrong it asks the store to stop; it ends nothing itself but the unreachable."""

    def __init__(
        self,
        runner: Runner,
        registry: Registry,
        store: JobStore,
        cluster: Cluster,
        views: JobViews,
        feed: ChangeFeed,
        heartbeat: Heartbeat,
        metrics: RunMetrics,
        times: RunTimes,
        clock: Clock,
        settings: Settings,
    ) -> None:
        self._runner, self._registry, self._store, self._cluster = runner, registry, store, cluster
        self._views, self._feed, self._metrics = views, feed, metrics
        self._heartbeat, self._times, self._clock = heartbeat, times, clock
        self._lost_after_s = settings.lost_after_s
        self._names: dict[NodeId, str] = {}
        self.clocks = NodeClocks(clock, settings.max_clock_skew_s)
        self._silence = UnreachableTimer(
            clock.monotonic_s(), settings.observe_every_s + 2 * settings.observe_timeout_s
        )

    async def once(self) -> None:
        """Fetch progress and proof of life from every run."""
        running = self._registry.running()
        runs = {(job.id, job.fence) for job in running}
        self._times.keep(runs)
        pass_s = self._silence.listen(runs, self._clock.monotonic_s())
        await all_of(self._look(job, pass_s) for job in running)
        self._metrics.look(self._registry)

    async def _look(self, job: Job, pass_s: float) -> None:
        if not job.stop and (asked := self._drained(job)):
            await self._store.apply(job, asked)
        run, asked_at, asked_s = (job.id, job.fence), self._clock.now(), self._clock.monotonic_s()
        try:
            answer = await self._runner.observe(run)
            answer = replace(answer, progress=plain_dict(answer.progress, METRICS)[0] or None)
        except RunUnreachable:
            self._feed.tell([job.id])
            seen = self._registry.sighting(job)
            if await self._is_ended_for_its_node(job, seen.observation.phase if seen else None):
                return
            # Unknown is not dead: only past the deadline is the run killed, and its death then is a fact.  Nothing is
            # journalled before that, so a life that has been replaced, and could not hear it, must find out here.
            if (
                self._silence.unheard(run, pass_s) > self._lost_after_s
                and await self._heartbeat.is_in_charge()
            ):
                await self._runner.stop(StopRun(job_id=job.id, fence=job.fence, kind=StopKind.CANCEL))
        else:
            self._silence.heard(run)
            raw, told = take_moments(answer)
            took_s = self._clock.monotonic_s() - asked_s
            ahead_s = self.clocks.measure(_node_of(job), told.now_s, asked_at, took_s)
            moved_s = self._times.moved_s(run, raw, told, asked_s)
            if await self._is_ended_for_its_node(job, raw.phase):
                return
            self._see(job, Sighting(job.fence, in_our_time(raw, ahead_s), self._clock.now(), moved_s))
            if not job.stop and (asked := self._out_of_time(job, told)):
                await self._store.apply(job, asked)
            await self._judge(job, asked_s)

    def _see(self, job: Job, sighting: Sighting) -> None:
        before = self._registry.sighting(job)
        self._registry.see(job.id, sighting)
        if before is None or _shown(before.observation) != _shown(sighting.observation):
            self._feed.tell([job.id])

    async def _is_ended_for_its_node(self, job: Job, phase: Phase | None) -> bool:
        """A gang that is not up yet never will be when one of its nodes is gone: Ray Train would wait a minute for it.

        Once all ranks are up, a dead one ends the run by itself, which knows more about it.
        """
        self._names |= {node.id: node.name for node in self._cluster.nodes}
        gone = self._gone(job) if phase in (None, Phase.RESERVING, Phase.STARTING) else []
        if not gone or not await self._heartbeat.is_in_charge():
            return False
        message = f"node {' and '.join(gone)} was gone before the run had started there"
        stop = StopRun(
            job_id=job.id,
            fence=job.fence,
            kind=StopKind.CANCEL,
            why=Reason(code=NODE_LOST, message=message),
        )
        await self._runner.stop(stop)
        return True

    def _gone(self, job: Job) -> list[str]:
        """Nodes that the run holds and that Ray does not count among the living."""
        alive = {node.id for node in self._cluster.nodes}
        held = [node for node, _ in job.allocation.ranks] if job.allocation else []
        return [self._names.get(node) or node for node in held if node not in alive] if alive else []

    def _out_of_time(self, job: Job, told: ReportedTimes) -> AskStop | None:
        """Judged only when the run answers: of one that began before this life, it knows best how long ago."""
        limit = job.spec.max_runtime_s
        if limit is None or self._times.going_s(job, told) <= limit:
            return None
        return self._ask(job, StopKind.TIMEOUT, Reason(code="timeout", message="it reached its time limit"))

    def _drained(self, job: Job) -> AskStop | None:
        draining = {node.id: node.name for node in self._cluster.nodes if node.draining}
        held = [node for node, _ in job.allocation.ranks if node in draining] if job.allocation else []
        if not held:
            return None
        message = f"node {draining[held[0]] or held[0]} is being drained"
        return self._ask(job, StopKind.PREEMPT, Reason(code="node_drained", message=message))

    async def _judge(self, job: Job, asked_s: float) -> None:
        """A run that hangs is looked into before anything is touched.

        What it had not done when it was asked counts, not how long its answer lay here unread: a scheduler that was
        frozen meanwhile would else take every run for one that hangs.
        """
        silence = self._views.silence(job, asked_s)
        if job.stop or silence is None or silence.verdict != "hung":
            return
        evidence = await self._examine((job.id, job.fence))
        hung = Reason(code="hung", message=f"it hung: {silence.words}")
        await self._store.apply(job, self._ask(job, StopKind.HUNG, hung, evidence))

    async def _examine(self, run: Run) -> Json:
        try:
            return plain_dict(within_budget(await self._runner.examine(run)) or {}, EVIDENCE)[0]
        except Exception as error:
            log.exception("the stacks of run %s of job %s could not be taken", run[1], run[0])
            return {"note": f"the stacks could not be taken: {type(error).__name__}: {error}"}

    def _ask(self, job: Job, kind: StopKind, why: Reason, evidence: Json | None = None) -> AskStop:
        return AskStop(
            at=self._clock.now(), by="scheduler", kind=kind, why=why, evidence=evidence, fence=job.fence
        )


def _node_of(job: Job) -> NodeId:
    """Where the actor of its run is, and rank 0."""
    return job.allocation.node_of_each_rank[0] if job.allocation else NodeId("")


def _shown(said: Observation) -> tuple[object, ...]:
    """What of it a person sees; the rest moves with every look."""
    return said.phase, said.progress, said.resumed, said.saved, said.stop_seen_at
