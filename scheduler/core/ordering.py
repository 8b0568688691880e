"""Who is first: priority, then the place in the queue."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from scheduler.core.codec import UNREADABLE, UNREADABLE_LOOP
from scheduler.core.dependencies import Parents, waits_for
from scheduler.core.model import Job, JobId, Reason, Status

HELD = "held for a person: resume or force-start it, or mark it as failed"
NO_SPEC = "its spec cannot be read: cancel it or mark it as failed, and submit it again"


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueOrder:
    """The queued jobs; each is in exactly one of the two."""

    ready: list[Job]
    """May start now, in the order of their turn."""
    paused: dict[JobId, Reason]
    """Wait between two tries, for a moment, for another job or for a person, and hold nobody up.  Codes: `retry_pause`,
    `not_before`, `after`, `held`, `unreadable`."""


def order(jobs: Iterable[Job], *, now: datetime, parents: Parents | None = None) -> QueueOrder:
    """Line up those of *jobs* that are queued; the others are left out.  *parents*: the jobs for which some wait."""
    ready: list[Job] = []
    paused: dict[JobId, Reason] = {}
    for job in jobs:
        if job.status is not Status.QUEUED:
            continue
        if _rests(job, now):
            paused[job.id] = _pause(job, now)
        elif reason := waits_for(job, now, parents or {}):
            paused[job.id] = reason
        else:
            ready.append(job)
    return QueueOrder(ready=sorted(ready, key=turn), paused=paused)


def turn(job: Job) -> tuple[int, int, str]:
    """Sorts queued jobs by whose turn it is; a job's queue position is its place in that order."""
    return -job.spec.priority, job.queue_seq or 0, job.id


SET_BACK = timedelta(minutes=1)
"""Clocks of two lives of the scheduler may differ by less."""


def _rests(job: Job, now: datetime) -> bool:
    pauses = job.retry_at is not None and job.retry_at > now and not _was_set_back(job, now)
    return job.held or job.spec.loop == UNREADABLE_LOOP or pauses


def _was_set_back(job: Job, now: datetime) -> bool:
    """Its pause began later than now: somebody set the clock back, and seconds must not become an hour."""
    return job.queued_at is not None and job.queued_at - now > SET_BACK


def _pause(job: Job, now: datetime) -> Reason:
    if job.held:
        return job.reason if job.reason.code == "held" else Reason(code="held", message=HELD)
    if job.spec.loop == UNREADABLE_LOOP:
        return job.reason if job.reason.code == UNREADABLE else Reason(code=UNREADABLE, message=NO_SPEC)
    left_s = math.ceil(((job.retry_at or now) - now).total_seconds())
    message = f"tried again in {left_s} s; {job.reason.message}"
    return Reason(code="retry_pause", message=message, detail=job.reason.detail)
