"""Who is considered at all: not a job that is held, rests between two tries, cannot be read, or waits by its own wish
for a moment, for other jobs, or for others of its array.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from scheduler.core import arrays, ordering
from scheduler.core.contender import Contender
from scheduler.core.dependencies import Parents
from scheduler.core.model import Job, JobId, Reason


def rests(job: Job, *, now: datetime, parents: Parents | None = None) -> Reason | None:
    """Why a queued *job* may not start now, whatever is free; None: it may.  For `Contender.rests`."""
    return ordering.order([job], now=now, parents=parents).paused.get(job.id)


def considered(
    waiting: Sequence[Contender], running: Iterable[Contender] = ()
) -> tuple[list[Contender], dict[JobId, Reason]]:
    """Those who compete for room, and why each of the others does not."""
    ready: list[Contender] = []
    resting: dict[JobId, Reason] = {}
    for job in waiting:
        if job.rests is None:
            ready.append(job)
        else:
            resting[job.id] = job.rests
    members = sorted((job for job in ready if job.array and not job.kept), key=_turn)
    if not members:
        return ready, resting
    holding = [*running, *(job for job in waiting if job.kept)]
    beyond = arrays.over_limit(((job.id, job.array) for job in members), (job.array for job in holding))
    return [job for job in ready if job.id not in beyond], {**resting, **beyond}


def _turn(job: Contender) -> tuple[int, bool, int]:
    """Jobs of one array differ in no more than this, and in what is left of them."""
    return -job.priority, not job.first, job.seq
