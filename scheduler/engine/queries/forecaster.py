"""Forecasts by the queue, for the policy `fifo`: the line, the nodes, the pace of each run, and how long others took."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import NamedTuple, Protocol

from scheduler.api.forecasts import Forecast, JobRef
from scheduler.core import ordering
from scheduler.core.forecast import MAX_LINE, Hold, Scene, Start, Usual, play, sentence
from scheduler.core.model import Job, Status, StopKind
from scheduler.engine import dependencies
from scheduler.engine.cluster import Cluster
from scheduler.engine.job_store import JobStore
from scheduler.engine.queries.run_lengths import RunLengths
from scheduler.engine.registry import Registry
from scheduler.ports import Clock

END_OF_LINE = 2**62
"""A place behind everybody, for a job that only might wait."""
MAX_AHEAD = 10


class Expected(NamedTuple):
    position: int
    ahead: Sequence[Job]
    """Who is before it, at most `MAX_AHEAD`."""
    start: Start


class Foresight(Protocol):
    """How the policy in charge sees what comes."""

    async def of(self, job: Job) -> Expected:
        """When *job* would start, if it stood as it is given here: in the queue, or running and about to be preempted.

        It may be one that does not exist, or stand otherwise than it does now.
        """
        ...


class Forecaster:
    """Reads; changes nothing.  The same question gets the same answer until something happens."""

    def __init__(self, foresight: Foresight) -> None:
        self._foresight = foresight

    async def of(self, job: Job) -> Forecast:
        """As `Foresight.of`, for people."""
        return forecast(await self._foresight.of(job))


def forecast(expected: Expected) -> Forecast:
    position, ahead, start = expected
    return Forecast(
        position=position,
        ahead=[JobRef(job_id=one.id, name=one.spec.name) for one in ahead],
        num_ahead=position - 1,
        starts_in_s=start.after_s,
        message=sentence(position, [one.spec.name for one in ahead], start),
    )


class ByQueue:
    """The policy `fifo`, played forward."""

    def __init__(
        self, registry: Registry, store: JobStore, cluster: Cluster, lengths: RunLengths, clock: Clock
    ) -> None:
        self._registry, self._store, self._cluster = registry, store, cluster
        self._lengths, self._clock = lengths, clock
        self._playing = asyncio.Lock()

    async def of(self, job: Job) -> Expected:
        position = self._registry.position(replace(job, status=Status.QUEUED)) or 1
        first = [one for one in self._registry.queued(MAX_AHEAD + 1) if one.id != job.id]
        return Expected(position, first[: min(position - 1, MAX_AHEAD)], await self._start(job, position))

    async def _start(self, job: Job, position: int) -> Start:
        if position > MAX_LINE:
            return Start(why=f"it is not known when, with more than {MAX_LINE:,} jobs before it")
        async with self._playing:  # one at a time: however many ask, the loop of the scheduler keeps its turn
            scene = await self._scene(job, await self._lengths.usual())
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
        left_s = self._lengths.left_s(job, now)
        return Hold(job=job, allocation=job.allocation, left_s=left_s, returns=gives_way)
