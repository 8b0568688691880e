"""What comes under the policy `fair`: its own `decide`, played forward on copies."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from scheduler.core import ordering, outlook
from scheduler.core.contender import Contender, Scene
from scheduler.core.forecast import MAX_LINE, Start
from scheduler.core.model import Job, JobId, Status
from scheduler.core.outlook import MAX_LOOKS, LengthS, Outlook, Parents
from scheduler.core.what_if import WhatIf, what_if
from scheduler.engine import dependencies
from scheduler.engine.job_store import JobStore
from scheduler.engine.policies import Fair
from scheduler.engine.queries.forecaster import MAX_AHEAD, Expected
from scheduler.engine.queries.run_lengths import RunLengths
from scheduler.engine.registry import Registry
from scheduler.ports import Clock


@dataclass(frozen=True, slots=True, kw_only=True)
class Future:
    """What an outlook is played from."""

    scene: Scene
    jobs: Mapping[JobId, Job]
    """Those that wait, and those that run."""
    length_s: LengthS
    rest_ends_s: Mapping[JobId, float]
    parents: Parents

    def expected(self, job_id: JobId, line: Sequence[JobId], start: Start) -> Expected:
        place = line.index(job_id)
        return Expected(place + 1, [self.jobs[one] for one in line[: min(place, MAX_AHEAD)]], start)

    def without(self, job_id: JobId) -> Scene:
        waiting = tuple(one for one in self.scene.waiting if one.id != job_id)
        return replace(self.scene, waiting=waiting)


class Outlooks:
    """Reads; changes nothing.  One at a time: however many ask, the loop of the scheduler keeps its turn."""

    def __init__(
        self, policy: Fair, registry: Registry, store: JobStore, lengths: RunLengths, clock: Clock
    ) -> None:
        self._policy, self._registry, self._store = policy, registry, store
        self._lengths, self._clock = lengths, clock
        self._playing = asyncio.Lock()

    async def of(self, job: Job) -> Expected:
        """One that runs and is about to be preempted is taken as if it had given its nodes back."""
        job = replace(job, status=Status.QUEUED, allocation=None, stop=None)
        seen, future = await self.whole(job)
        start = Start(why="held for a person") if job.held else seen.starts[job.id]
        return future.expected(job.id, seen.line, start)

    async def whole(self, job: Job | None = None) -> tuple[Outlook, Future]:
        """Of the whole queue, with *job* as it is given here."""
        async with self._playing:
            future = await self._future(job)
            played = await asyncio.to_thread(
                outlook.play,
                future.scene,
                self._policy.rules,
                future.length_s,
                rest_ends_s=future.rest_ends_s,
                parents=future.parents,
            )
        return played, future

    async def what_if(self, before: Job, after: Job) -> tuple[WhatIf, Future]:
        """What would become of all if *after*, which waits, stood in place of *before*: both are one job.

        Each of the two plays looks half as far, so that this takes no longer than one outlook.
        """
        async with self._playing:
            now = await self._future(before) if before.status is Status.QUEUED else None
            future = await self._future(after)
            told = await asyncio.to_thread(
                what_if,
                now.scene if now else future.without(after.id),
                future.scene,
                self._policy.rules,
                future.length_s,
                job_id=after.id,
                rest_ends_s={**(now.rest_ends_s if now else {}), **future.rest_ends_s},
                parents=future.parents,
                looks=MAX_LOOKS // 2,
            )
        return told, future

    async def _future(self, job: Job | None) -> Future:
        now, usual = self._clock.now(), await self._lengths.usual()
        waiting = self._registry.queued(MAX_LINE)
        if job is not None:
            waiting = sorted([*(one for one in waiting if one.id != job.id), job], key=ordering.turn)
        running = {one.id: one for one in self._registry.running() if job is None or one.id != job.id}
        jobs = {**running, **{one.id: one for one in waiting}}
        parents = await dependencies.parents_of(self._store, waiting)

        def length_s(contender: Contender) -> float | None:
            one = running.get(contender.id)
            if one is not None and contender.tenure:
                return self._lengths.left_s(one, now)
            return usual.length_s(jobs[contender.id])

        return Future(
            scene=self._policy.scene(waiting, parents, now, running=tuple(running.values())),
            jobs=jobs,
            length_s=length_s,
            rest_ends_s={one.id: at.timestamp() for one in waiting if (at := _rests_until(one))},
            parents={
                one.id: frozenset(JobId(after.job) for after in one.spec.after)
                for one in waiting
                if one.spec.after
            },
        )


def _rests_until(job: Job) -> datetime | None:
    if job.held:
        return None
    moments = [moment for moment in (job.retry_at, job.spec.start_after) if moment]
    return max(moments, default=None)
