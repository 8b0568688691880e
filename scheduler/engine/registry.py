"""What the scheduler keeps in memory: every job that may still move, the queue, and a bounded tail of finished ones."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import OrderedDict
from collections.abc import Iterable
from itertools import islice

from scheduler.core import ordering
from scheduler.core.model import Job, JobId, Status
from scheduler.core.observation import Sighting

Place = tuple[int, int, str]


class Registry:
    """Jobs by id.  `put` keeps the queue in order; the rest only reads."""

    def __init__(self, finished_in_memory: int) -> None:
        self._active: dict[JobId, Job] = {}
        self._finished: OrderedDict[JobId, Job] = OrderedDict()
        self._keep = finished_in_memory
        self._line: list[Place] = []
        self._places: dict[JobId, int] = {}
        self._kept: set[JobId] = set()
        self._sightings: dict[JobId, Sighting] = {}
        self._last_seq = 0

    def fill(self, jobs: Iterable[Job]) -> None:
        """Begin with these active jobs.  As `put` of each, but the line is sorted once: for many it is much faster."""
        self._active = {job.id: job for job in jobs}
        self._line = sorted(
            ordering.turn(job) for job in self._active.values() if job.status is Status.QUEUED
        )
        self._kept = {job.id for job in self._active.values() if job.kept}
        self._last_seq = max((job.queue_seq or 0 for job in self._active.values()), default=0)

    def put(self, job: Job) -> None:
        """Take the newest copy of a job."""
        self._leave_line(self._active.get(job.id))
        self._last_seq = max(self._last_seq, job.queue_seq or 0)
        if job.status.is_terminal:
            self._active.pop(job.id, None)
            self._remember(job)
        else:
            self._finished.pop(job.id, None)
            self._active[job.id] = job
        if job.status is Status.QUEUED:
            insort(self._line, ordering.turn(job))
        (self._kept.add if job.kept else self._kept.discard)(job.id)
        if job.status is not Status.RUNNING:
            self._sightings.pop(job.id, None)

    def get(self, job_id: JobId) -> Job | None:
        return self._active.get(job_id) or self._finished.get(job_id)

    def active(self) -> list[Job]:
        return list(self._active.values())

    def queued(self, first: int | None = None) -> list[Job]:
        """By priority, then in the order in which they came; only the *first* so many, if given."""
        return [self._active[JobId(job_id)] for _, _, job_id in self._line[:first]]

    def with_kept_places(self) -> list[Job]:
        """Those for which others are being stopped."""
        return [self._active[job_id] for job_id in sorted(self._kept)]

    def running(self) -> list[Job]:
        return [job for job in self._active.values() if job.status is Status.RUNNING]

    def line_up(self, turns: Iterable[JobId]) -> None:
        """The order in which the policy would start those that wait, where that is not the order of the queue."""
        self._places = {job_id: place for place, job_id in enumerate(turns, start=1)}

    def line(self, first: int) -> list[Job]:
        """The *first* so many of those that wait, in the order of their positions."""
        if not self._places:
            return self.queued(first)
        known = (self._active.get(job_id) for job_id in islice(self._places, first))
        return [job for job in known if job and job.status is Status.QUEUED]

    def position(self, job: Job) -> int | None:
        """1 is next; None when the job does not wait in the queue."""
        if job.status is not Status.QUEUED:
            return None
        return self._places.get(job.id) or bisect_left(self._line, ordering.turn(job)) + 1

    def begin_after(self, seq: int) -> None:
        """New places come after *seq*, and after all that are known."""
        self._last_seq = max(self._last_seq, seq)

    def next_seq(self) -> int:
        """The end of the queue; each call gives a new place."""
        self._last_seq += 1
        return self._last_seq

    def see(self, job_id: JobId, sighting: Sighting) -> None:
        job = self._active.get(job_id)
        if job and job.status is Status.RUNNING and job.fence == sighting.fence:
            self._sightings[job_id] = sighting

    def sighting(self, job: Job) -> Sighting | None:
        seen = self._sightings.get(job.id)
        return seen if seen and seen.fence == job.fence else None

    def _leave_line(self, before: Job | None) -> None:
        if before and before.status is Status.QUEUED:
            del self._line[bisect_left(self._line, ordering.turn(before))]

    def _remember(self, job: Job) -> None:
        self._finished[job.id] = job
        self._finished.move_to_end(job.id)
        while len(self._finished) > self._keep:
            self._finished.popitem(last=False)
