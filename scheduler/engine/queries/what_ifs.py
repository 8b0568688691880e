"""What a change of one job would do to it and to others, for people.  The policy `fair` plays it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from scheduler.api.forecasts import (
    Forecast,
    JobRef,
    MovedJob,
    PreemptedRun,
    StartEstimate,
    WhatIfDocument,
)
from scheduler.core.durations import span
from scheduler.core.forecast import Start, in_words
from scheduler.core.model import Job, JobId
from scheduler.core.outlook import Preempted
from scheduler.core.what_if import Moved, WhatIf
from scheduler.engine.queries.forecaster import forecast
from scheduler.engine.queries.outlooks import Future, Outlooks


class Told(NamedTuple):
    what_if: WhatIfDocument
    forecast: Forecast
    """Of the job itself, with the change."""


class WhatIfs:
    """Reads; changes nothing."""

    def __init__(self, outlooks: Outlooks) -> None:
        self._outlooks = outlooks

    async def of(self, before: Job, after: Job) -> Told:
        """If *after*, which waits, stood in place of *before*: both are one job."""
        found, future = await self._outlooks.what_if(before, after)
        then = Start(why="held for a person") if after.held else found.now
        assert then, f"{after.id} does not wait"
        expected = future.expected(after.id, found.line, then)
        return Told(_Words(found, future, then).document(after.id), forecast(expected))


class _Words:
    def __init__(self, found: WhatIf, future: Future, then: Start) -> None:
        self._found, self._future, self._then = found, future, then

    def document(self, job_id: JobId) -> WhatIfDocument:
        found = self._found
        return WhatIfDocument(
            job_id=job_id,
            message="; ".join(self._parts()),
            now=estimate(found.before) if found.before else None,
            then=estimate(self._then),
            moved=[self._moved(row) for row in found.moved],
            num_more=found.num_more,
            preempted=[self._preempted(run) for run in found.preempted],
        )

    def _parts(self) -> Iterator[str]:
        found, then = self._found, in_words(self._then)
        before = in_words(found.before) if found.before else None
        if before == then and not (found.moved or found.preempted):
            yield (
                f"nothing changes: it {then}"
                if self._then.after_s is not None
                else f"nothing changes: {then}"
            )
            return
        is_known = self._then.after_s is not None or self._then.more_than_s is not None
        yield f"it {then}" if is_known else then
        if before and before != then:
            yield f"as things stand: {before}"
        later = [row for row in found.moved if row.by_s > 0]
        sooner = [row for row in found.moved if row.by_s < 0]
        yield from (f"{_others(rows)} {_at_most(rows)}" for rows in (later, sooner) if rows)
        if found.num_more:
            yield f"{found.num_more:,} more move by less"
        if found.preempted:
            runs = "1 run is" if len(found.preempted) == 1 else f"{len(found.preempted)} runs are"
            yield f"{runs} preempted for it, which costs {self._price(sum(run.price for run in found.preempted))}"

    def _moved(self, row: Moved) -> MovedJob:
        name, least = self._name(row.job_id), "at least" if row.at_least else "about"
        return MovedJob(
            job_id=row.job_id,
            name=name,
            before=estimate(row.before),
            after=estimate(row.now),
            by_s=row.by_s,
            at_least=row.at_least,
            message=f"{name} starts {least} {span(abs(row.by_s))} {_direction(row)}",
        )

    def _preempted(self, run: Preempted) -> PreemptedRun:
        name, newcomer = self._name(run.job_id), self._name(run.newcomer)
        again = StartEstimate(starts_in_s=run.again.after_s, message=in_words(run.again, "goes on"))
        return PreemptedRun(
            job_id=run.job_id,
            name=name,
            newcomer=JobRef(job_id=run.newcomer, name=newcomer),
            price_gpu_s=run.price,
            again=again,
            message=f"{name} is preempted for {newcomer}, which costs {self._price(run.price)}; {again.message}",
        )

    def _price(self, gpu_s: float) -> str:
        return f"{span(gpu_s)} of one {self._future.scene.cluster.unit}"

    def _name(self, job_id: JobId) -> str:
        return self._future.jobs[job_id].spec.name


def estimate(start: Start) -> StartEstimate:
    return StartEstimate(starts_in_s=start.after_s, message=in_words(start))


def _others(rows: Sequence[Moved]) -> str:
    return "1 other job starts" if len(rows) == 1 else f"{len(rows)} other jobs start"


def _at_most(rows: Sequence[Moved]) -> str:
    """By how much the one that moves furthest does."""
    furthest = max(rows, key=lambda row: abs(row.by_s))
    words = f"{span(abs(furthest.by_s))} {_direction(furthest)}"
    at_least = any(row.at_least for row in rows)
    if len(rows) == 1:
        return f"{'at least' if at_least else 'about'} {words}"
    return f"up to {words}{', or more' if at_least else ''}"


def _direction(row: Moved) -> str:
    return "later" if row.by_s > 0 else "sooner"
