"""Usage accounting: for how long runs held GPUs and CPUs, by project, user and day."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from typing import Literal

from scheduler.core.model import Attempt, Fence, Gang, JobId
from scheduler.core.needs import num_ranks

Grouping = Literal["project", "user", "day"]
GROUPINGS: tuple[Grouping, ...] = ("project", "user", "day")
Key = tuple[str | date, ...]
"""What a row is about, in the order of its groupings."""

_MICROSECOND = timedelta(microseconds=1)
_HOUR = 3_600_000_000
"""In microseconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldRun:
    """What one run held, and for how long."""

    job_id: JobId
    fence: Fence
    project: str
    user: str
    gpus: float
    cpus: float
    """Of all its ranks together."""
    started_at: datetime
    ended_at: datetime | None
    """None: it goes on, as far as the journal knows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Used:
    """What all runs of a group held together."""

    gpu_hours: float
    cpu_hours: float
    num_jobs: int


def held_run(
    job_id: JobId, project: str, user: str, gang: Gang, attempt: Attempt, *, runs: bool
) -> HeldRun | None:
    """*runs*: it is the run that the job has now.  None: it is over, and nobody knows since when."""
    if attempt.ended_at is None and not runs:
        return None
    ranks = num_ranks(attempt.allocation)
    return HeldRun(
        job_id=job_id,
        fence=attempt.fence,
        project=project,
        user=user,
        gpus=ranks * gang.gpus_per_rank,
        cpus=ranks * gang.cpus_per_rank,
        started_at=attempt.started_at,
        ended_at=attempt.ended_at,
    )


def overlaps(run: HeldRun, begin: datetime, end: datetime) -> bool:
    """Whether it held something at a moment from *begin* on, before *end*."""
    return run.started_at < end and (run.ended_at is None or run.ended_at > begin)


def by_day(begin: datetime, end: datetime) -> Iterator[tuple[date, int]]:
    """The days, in UTC, that lie between two moments at least in part, each with its microseconds between them."""
    begin = begin.astimezone(UTC)
    while begin < end:
        border = datetime.combine(begin.date() + timedelta(days=1), time(), UTC)
        yield begin.date(), (min(border, end) - begin) // _MICROSECOND
        begin = border


class Ledger:
    """Counts the runs it is told of between two moments, each run once and in any order.

    Time is added up in whole microseconds for each size, so nothing depends on the order, and days sum up to the whole.
    """

    def __init__(self, by: Sequence[Grouping], begin: datetime, end: datetime) -> None:
        self._by, self._begin, self._end = tuple(by), begin, end
        self._ended: set[tuple[JobId, Fence]] = set()
        self._open: dict[tuple[JobId, Fence], HeldRun] = {}
        self._counted: dict[Key, _Tally] = {}
        self._all = _Tally()

    def add(self, runs: Iterable[HeldRun]) -> None:
        """A run may be told again: once it has ended, that is how it was."""
        for run in runs:
            told = (run.job_id, run.fence)
            if told in self._ended:
                continue
            if run.ended_at is None:
                self._open[told] = run
            else:
                self._open.pop(told, None)
                self._ended.add(told)
                self._count(run, run.ended_at)

    def close(self) -> None:
        """No run is missing now: those that have not ended held what they hold to the end of the period."""
        for run in self._open.values():
            self._count(run, self._end)

    @property
    def num_open(self) -> int:
        """Runs that have not ended."""
        return len(self._open)

    def rows(self) -> Mapping[Key, Used]:
        """In the order of their keys."""
        return {key: self._counted[key].used() for key in sorted(self._counted)}

    def total(self) -> Used:
        return self._all.used()

    def _count(self, run: HeldRun, ended_at: datetime) -> None:
        begin, end = max(run.started_at, self._begin), min(ended_at, self._end)
        if begin >= end:
            return
        self._all.add(run, (end - begin) // _MICROSECOND)
        if "day" not in self._by:
            self._tally(run, begin.date()).add(run, (end - begin) // _MICROSECOND)
            return
        for day, held in by_day(begin, end):
            self._tally(run, day).add(run, held)

    def _tally(self, run: HeldRun, day: date) -> _Tally:
        told: dict[Grouping, str | date] = {"project": run.project, "user": run.user, "day": day}
        return self._counted.setdefault(tuple(told[name] for name in self._by), _Tally())


@dataclass(slots=True)
class _Tally:
    held: dict[tuple[float, float], int] = field(default_factory=dict[tuple[float, float], int])
    """Microseconds, by how many GPUs and CPUs."""
    jobs: set[JobId] = field(default_factory=set[JobId])

    def add(self, run: HeldRun, held: int) -> None:
        size = (run.gpus, run.cpus)
        self.held[size] = self.held.get(size, 0) + held
        self.jobs.add(run.job_id)

    def used(self) -> Used:
        return Used(
            gpu_hours=math.fsum(gpus * held / _HOUR for (gpus, _), held in self.held.items()),
            cpu_hours=math.fsum(cpus * held / _HOUR for (_, cpus), held in self.held.items()),
            num_jobs=len(self.jobs),
        )
