"""Who is considered at all: not a job that is held, rests between two tries, cannot be read, or waits by its own wish
for a moment or for other jobs.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from scheduler.core import ordering
from scheduler.core.contender import Contender
from scheduler.core.dependencies import Parents
from scheduler.core.model import Job, JobId, Reason


def rests(job: Job, *, now: datetime, parents: Parents | None = None) -> Reason | None:
    """Why a queued *job* may not start now, whatever is free; None: it may.  For `Contender.rests`."""
    return ordering.order([job], now=now, parents=parents).paused.get(job.id)


def considered(waiting: Iterable[Contender]) -> tuple[list[Contender], dict[JobId, Reason]]:
    """Those who compete for room, and why each of the others does not."""
    ready: list[Contender] = []
    resting: dict[JobId, Reason] = {}
    for job in waiting:
        if job.rests is None:
            ready.append(job)
        else:
            resting[job.id] = job.rests
    return ready, resting
