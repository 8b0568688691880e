"""What comes under the policy `fair`: its own `decide`, played forward on copies."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from scheduler.api.serialize import last_saved, progress_of
from scheduler.core import ordering, outlook
from scheduler.core.contender import Contender, Scene
from scheduler.core.forecast import MAX_LINE, Start
from scheduler.core.model import Job, JobId, Status
from scheduler.core.outlook import MAX_LOOKS, LengthS, Outlook, Parents
from scheduler.core.policy import decide
from scheduler.core.what_if import WhatIf, what_if
from scheduler.engine import dependencies
from scheduler.engine.job_store import JobStore
from scheduler.engine.policies import Fair
from scheduler.engine.queries.forecaster import MAX_AHEAD, Expected
from scheduler.engine.queries.run_lengths import RunLengths
from scheduler.engine.registry import Registry
from scheduler.ports import Clock

TOO_FAR = f"it is not known when, with more than {MAX_LINE:,} jobs before it"


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
        """One that runs is taken as about to be preempted."""
        waits, runs = self._as_it_waits(job), job.status is Status.RUNNING
        position = self._registry.position(waits) or 1
        if position > MAX_LINE:
            first = [one for one in self._registry.line(MAX_AHEAD + 1) if one.id != job.id]
            return Expected(position, first[:MAX_AHEAD], Start(why=TOO_FAR))
        async with self._playing:
            future, line = await self._future(waits), None
            if runs:
                line = await asyncio.to_thread(self._line, future.scene)
                future = await self._future(running=job)
            seen = await asyncio.to_thread(self._play, future, [job.id] if runs else [])
        start = Start(why="held for a person") if job.held else seen.starts[job.id]
        return future.expected(job.id, line or seen.line, start)

    def _line(self, scene: Scene) -> list[JobId]:
        """Those that would start now, then the others, in the order of their turns."""
        first = decide(scene, self._policy.rules)
        return [*first.starts, *first.reasons]

    def _play(self, future: Future, returns: Sequence[JobId] = ()) -> Outlook:
        return outlook.play(
            future.scene,
            self._policy.rules,
            future.length_s,
            rest_ends_s=future.rest_ends_s,
            parents=future.parents,
            returns=returns,
        )

    def _as_it_waits(self, job: Job) -> Job:
        if job.status is not Status.RUNNING or job.admitted_at is None:
            return replace(job, status=Status.QUEUED, allocation=None, stop=None)
        now, seen = self._clock.now(), self._registry.sighting(job)
        return replace(
            job,
            status=Status.QUEUED,
            allocation=None,
            stop=None,
            queued_at=now,
            ran_s=job.ran_s + max(0.0, (now - job.admitted_at).total_seconds()),
            progress=progress_of(job, seen),
            saved=last_saved(job, seen),
        )

    async def whole(self) -> tuple[Outlook, Future]:
        """Of all that wait, as they are."""
        async with self._playing:
            future = await self._future()
            return await asyncio.to_thread(self._play, future), future

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

    async def _future(self, waits: Job | None = None, running: Job | None = None) -> Future:
        """As things stand; *waits* and *running* in the place of these jobs as they are."""
        now, usual = self._clock.now(), await self._lengths.usual()
        changed = {job.id: job for job in (waits, running) if job}
        waiting = [job for job in self._registry.queued(MAX_LINE) if job.id not in changed]
        waiting = sorted([*waiting, waits], key=ordering.turn) if waits else waiting
        runs = [job for job in self._registry.running() if job.id not in changed]
        running_now = {job.id: job for job in ([*runs, running] if running else runs)}
        jobs = {**running_now, **{one.id: one for one in waiting}}
        parents = await dependencies.parents_of(self._store, waiting)

        def length_s(contender: Contender) -> float | None:
            one = running_now.get(contender.id)
            if one is not None and contender.tenure:
                return self._lengths.left_s(one, now)
            return usual.length_s(jobs[contender.id])

        return Future(
            scene=self._policy.scene(waiting, parents, now, running=tuple(running_now.values())),
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
