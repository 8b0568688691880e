"""Runs that are there and that the journal does not know: it was lost, or it was restored from an older backup.

A run is proof of its job.  It keeps the job as it was when it got its nodes (`started.json`), and from there the job
goes on, in the same processes.  Nothing is ended on a guess: a run that keeps nothing is left alone, and shown.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Iterable
from dataclasses import replace
from datetime import datetime, timedelta

from scheduler.core.attempts import found_gone
from scheduler.core.lifecycle import Recover
from scheduler.core.model import Attempt, Fence, Job, JobId, Reason, Status
from scheduler.core.reconcile import Repair
from scheduler.engine.job_store import JobStore
from scheduler.ports import Clock, Run, Runner

log = logging.getLogger(__name__)

FOUND = "found_alive"
SHOWN_FOR = timedelta(days=1)
"""A person had a day to look; until then `/health` is degraded."""
WHY = "the journal was lost, or restored from an older backup"


class FoundRuns:
    """Takes jobs back into the journal from what their runs keep.  Whatever is decided is journalled first."""

    def __init__(self, store: JobStore, runner: Runner, clock: Clock) -> None:
        self._store, self._runner, self._clock = store, runner, clock
        self._unexplained: frozenset[Run] = frozenset()

    async def take_back(self, runs: Collection[Run], by: str) -> None:
        """These *runs* live, and are newer than all that the journal knows: the newest of each job is its run now."""
        newest: dict[JobId, Fence] = {}
        for job_id, fence in runs:
            newest[job_id] = max(fence, newest.get(job_id, Fence(0)))
        done = await asyncio.gather(
            *(self._take_back(run, by, "is alive") for run in newest.items()), return_exceptions=True
        )
        unexplained = {run for run, is_back in zip(newest.items(), done, strict=True) if is_back is not True}
        for job_id, fence in sorted(unexplained - self._unexplained):
            log.error("run %s of job %s lives, and nobody knows what it is; it is left alone", fence, job_id)
        self._unexplained = frozenset(unexplained)
        for error in done:  # one that cannot be taken back keeps none of the others out
            if isinstance(error, BaseException):
                raise error

    async def catch_up(self, job: Job, by: str) -> Fence:
        """If a newer run of *job* has left its record, the job goes on with that run, also to its end if it is over.

        Returns the highest fence of which there is a trace: the next run must come after it.
        """
        newest = await self._runner.newest(job.id)
        if newest > job.fence:
            await self._take_back((job.id, newest), by, "has left its record")
        return newest

    @property
    def has_unexplained(self) -> bool:
        return bool(self._unexplained)

    def is_unexplained(self, job_id: JobId) -> bool:
        """A run of this job lives that cannot be followed: another one beside it would write over its checkpoints."""
        return any(of == job_id for of, _ in self._unexplained)

    def problems(self, running: Iterable[Job]) -> list[str]:
        now = self._clock.now()
        found = [job for job in running if is_found(job, now)]
        words = [_found_in_words(found)] if found else []
        return words + [_unexplained_in_words(run) for run in sorted(self._unexplained)]

    async def _take_back(self, run: Run, by: str, seen: str) -> bool:
        kept = await self._runner.recall(run)
        if kept is None or (kept.id, kept.fence, kept.status) != (*run, Status.RUNNING):
            return False
        known = await self._store.find(kept.id)
        if known and known.fence >= kept.fence:
            return True  # somebody was faster
        job = await self._as_newest(kept, known)
        repair = self._repair(job, known, by, f"run {job.fence} {seen}")
        message = f"run {job.fence} {seen}, and the journal did not know it ({WHY}); the job goes on with it"
        event = Recover(at=self._clock.now(), by=by, reason=Reason(code=FOUND, message=message))
        await self._store.adopt(job, event, repair, _ended_unseen(known, event))
        log.warning("job %s: %s", job.id, message)
        return True

    async def _as_newest(self, kept: Job, known: Job | None) -> Job:
        """The higher fence decides: whatever the journal did meanwhile, it did without knowing of this run."""
        owner = await self._store.submitted_before(kept.id, kept.spec.user, kept.idempotency_key)
        key = kept.idempotency_key if owner is None or owner.id == kept.id else None
        version = max(kept.version, known.version + 1 if known else 0)
        return replace(kept, version=version, idempotency_key=key)

    def _repair(self, job: Job, known: Job | None, by: str, seen: str) -> Repair:
        in_journal = (
            f"{known.status}, version {known.version}, attempt {known.fence}" if known else "no such job"
        )
        return Repair(
            job_id=job.id,
            at=self._clock.now(),
            by=by,
            in_database=f"in the journal: {in_journal}",
            in_reality=f"{seen}; it says that its job was running, version {job.version}",
            decided="took the job back into the journal from what its run keeps, and goes on with that run",
            why=WHY,
        )


def _ended_unseen(known: Job | None, event: Recover) -> tuple[Attempt, ...]:
    """An older run that the journal believed in is over, or there would be no newer one; how, nobody knows."""
    if known is None or known.allocation is None:
        return ()
    reason = Reason(code="unseen", message=f"it ended while nobody wrote it down: {WHY}")
    return (found_gone(known, replace(known, updated_at=event.at, reason=reason)),)


def is_found(job: Job, now: datetime) -> bool:
    """Taken back not long ago, and nobody has done anything about it since."""
    return job.reason.code == FOUND and now - job.updated_at < SHOWN_FOR


def _found_in_words(found: Collection[Job]) -> str:
    ids = ", ".join(sorted(job.id for job in found)[:3]) + (", ..." if len(found) > 3 else "")
    runs = "1 run was" if len(found) == 1 else f"{len(found)} runs were"
    return (
        f"{runs} found that the journal did not know ({ids}): {WHY}. They go on untouched, and their jobs are listed "
        "again; jobs that only waited, or that ended since the backup, may be missing: compare with what your users "
        "expect, see GET /api/training/repairs. This is shown until they end, or for a day"
    )


def _unexplained_in_words(run: Run) -> str:
    job_id, fence = run
    return (
        f"run {fence} of job {job_id} lives, and neither the journal nor its own folder says what it is (it is just "
        "starting, or was begun by an older release). It is left alone and its resources count as taken; if nobody "
        f"wants it, end the actor run-{job_id}-{fence} on the Ray dashboard"
    )
