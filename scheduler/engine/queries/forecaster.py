"""Forecasts from what the scheduler sees: the line, the nodes, the pace of each run, and how long others took."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import datetime, timedelta

from scheduler.api.forecasts import Forecast, JobRef
from scheduler.api.serialize import progress_of
from scheduler.core import ordering
from scheduler.core.forecast import MAX_LINE, Hold, Scene, Start, Usual, left_s, play, sentence
from scheduler.core.model import Job, Status, StopKind
from scheduler.engine import dependencies
from scheduler.engine.cluster import Cluster
from scheduler.engine.job_store import JobStore
from scheduler.engine.registry import Registry
from scheduler.ports import Clock, JobQuery, Journal
from scheduler.settings import Settings

END_OF_LINE = 2**62
"""A place behind everybody, for a job that only might wait."""
MAX_AHEAD = 10
_PAST_RUNS = 500
_REMEMBERED_FOR = timedelta(seconds=30)


class Forecaster:
    """Reads; changes nothing.  The same question gets the same answer until something happens."""

    def __init__(
        self,
        journal: Journal,
        registry: Registry,
        store: JobStore,
        cluster: Cluster,
        clock: Clock,
        settings: Settings,
    ) -> None:
        self._journal, self._registry, self._store = journal, registry, store
        self._clock, self._cluster = clock, cluster
        self._stop_grace_s = settings.stop_grace_s
        self._usual: Usual | None = None
        self._usual_at = clock.now()
        self._playing = asyncio.Lock()

    async def of(self, job: Job) -> Forecast:
        """When *job* would start, if it stood as it is given here: in the queue, or running and about to be preempted.

        It may be one that does not exist, or stand otherwise than it does now.
        """
        waiting = replace(job, status=Status.QUEUED)
        position = self._registry.position(waiting) or 1
        first = [one for one in self._registry.queued(MAX_AHEAD + 1) if one.id != job.id]
        ahead = first[: min(position - 1, MAX_AHEAD)]
        start = await self._start(job, position)
        return Forecast(
            position=position,
            ahead=[JobRef(job_id=one.id, name=one.spec.name) for one in ahead],
            num_ahead=position - 1,
            starts_in_s=start.after_s,
            message=sentence(position, [one.spec.name for one in ahead], start),
        )

    def left_s(self, job: Job, now: datetime) -> float | None:
        """How much longer a running job will have its nodes; None: nobody can tell."""
        seen = self._registry.sighting(job)
        if job.stop:
            return self._until_stopped_s(job, now)
        said = seen.observation if seen else None
        return left_s(
            job,
            progress=progress_of(job, seen),
            pace=said.pace if said else None,
            stepped_at=said.stepped_at if said else None,
            now=now,
        )

    def _until_stopped_s(self, job: Job, now: datetime) -> float:
        """At its next step, as far as that is known; at the latest when it is made to."""
        assert job.stop is not None
        if job.stop.kind is StopKind.CANCEL:
            return 0.0
        seen = self._registry.sighting(job)
        pace = seen.observation.pace if seen else None
        patience_s = max(0.0, self._stop_grace_s - (now - job.stop.at).total_seconds())
        return min(patience_s, pace.longest_s) if pace else patience_s

    async def _start(self, job: Job, position: int) -> Start:
        if position > MAX_LINE:
            return Start(why=f"it is not known when, with more than {MAX_LINE:,} jobs before it")
        async with self._playing:  # one at a time: however many ask, the loop of the scheduler keeps its turn
            scene = await self._scene(job, await self._usually())
            return await asyncio.to_thread(play, job.id, scene)

    async def _scene(self, job: Job, usual: Usual) -> Scene:
        now = self._clock.now()
        others = [one for one in self._registry.queued(MAX_LINE) if one.id != job.id]
        waiting = [job] if job.status is Status.QUEUED else []
        running = [one for one in self._registry.running() if one.id != job.id]
        running += [job] if job.status is Status.RUNNING else []
        return Scene(
            now=now,
            nodes=self._cluster.nodes,
            holds=tuple(hold for one in running if (hold := self._hold(one, now))),
            line=tuple(sorted([*others, *waiting], key=ordering.turn)),
            length_s=usual.length_s,
            parents=await dependencies.parents_of(self._store, [*others, *waiting]),
        )

    def _hold(self, job: Job, now: datetime) -> Hold | None:
        if job.allocation is None:
            return None
        gives_way = job.stop is not None and job.stop.kind is StopKind.PREEMPT
        return Hold(job=job, allocation=job.allocation, left_s=self.left_s(job, now), returns=gives_way)

    async def _usually(self) -> Usual:
        """How long runs took, of the newest that completed.  Read again when it is half a minute old."""
        now = self._clock.now()
        if self._usual is None or now - self._usual_at > _REMEMBERED_FOR:
            query = JobQuery(statuses=frozenset({Status.COMPLETED}), limit=_PAST_RUNS)
            self._usual, self._usual_at = Usual(await self._journal.page(query)), now
        return self._usual
