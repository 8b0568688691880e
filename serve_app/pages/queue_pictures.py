"""The pictures of the queue, as parts of a width, and in words for whoever does not see them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from scheduler.api.queue import HoldingJob, ProjectInQueue, QueueDocument, WaitingJob
from scheduler.core.durations import span

ROWS = 15
"""Of each kind, on the time line."""
_TICKS_S = (10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 4 * 3600, 12 * 3600, 86_400, 7 * 86_400)
_MOST_TICKS = 6
_ROOM = 1.08
"""The line goes on a little after the last that is known."""


@dataclass(frozen=True, slots=True)
class ShareBar:
    """What a project holds against what it may have.  All numbers are percent of the width."""

    own: float
    lent: float
    entitled: float | None
    quota: float | None
    limit: float | None
    words: str


@dataclass(frozen=True, slots=True)
class Tick:
    at: float
    words: str


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the time line: a run that holds nodes until then, or a job that starts then."""

    job: HoldingJob | WaitingJob
    runs: bool
    at: float | None
    """Percent of the width; None: nobody can tell."""
    is_cut: bool
    """It is further off than the line goes."""
    words: str


@dataclass(frozen=True, slots=True)
class TimeLine:
    ticks: tuple[Tick, ...]
    rows: tuple[Row, ...]
    num_more: int
    """Jobs that are not on the line."""


def share_bars(queue: QueueDocument) -> Mapping[str, ShareBar]:
    """By the name of the project; the whole width is the cluster, or the most that anybody may have."""
    whole = max([queue.size, *(most for one in queue.projects for most in (one.held, one.quota))])
    return {one.name: _bar(one, whole or 1.0, queue.unit) for one in queue.projects}


def _bar(one: ProjectInQueue, whole: float, unit: str) -> ShareBar:
    lent = one.lent or 0.0
    words = f"holds {one.held:.3g} {unit}s"
    if one.entitled is not None:
        words += f", is entitled to {one.entitled:.3g}"
    if lent:
        words += f", {lent:.3g} on loan"
    if one.quota:
        words += f", quota {one.quota:.3g}"
    if one.limit is not None:
        words += f", limit {one.limit:.3g}"
    return ShareBar(
        own=_percent(one.held - lent, whole),
        lent=_percent(lent, whole),
        entitled=None if one.entitled is None else _percent(one.entitled, whole),
        quota=_percent(one.quota, whole) if one.quota else None,
        limit=_percent(one.limit, whole) if one.limit is not None and one.limit <= whole else None,
        words=words,
    )


def time_line(queue: QueueDocument) -> TimeLine:
    """As far as starts are known; else as far as runs tell."""
    starts = [one.starts_in_s for one in queue.waiting if one.starts_in_s is not None]
    ends = [one.left_s for one in queue.holding if one.left_s is not None]
    last_s = max(starts, default=0.0) or max(ends, default=0.0)
    until_s = max(60.0, last_s * _ROOM)
    known = [one for one in queue.waiting if one.starts_in_s is not None]
    running, waiting = queue.holding[:ROWS], sorted(known, key=lambda one: one.starts_in_s or 0.0)[:ROWS]
    rows = (*(_run(one, until_s) for one in running), *(_start(one, until_s) for one in waiting))
    num_more = queue.num_holding - len(running) + queue.num_waiting - len(waiting)
    return TimeLine(ticks=_ticks(until_s), rows=rows, num_more=num_more)


def _run(one: HoldingJob, until_s: float) -> Row:
    left_s = one.left_s
    words = "runs; nobody can tell how long" if left_s is None else f"runs for {_about(left_s)} more"
    words = (
        f"stops; gives its nodes back in {_about(left_s)}" if one.stopping and left_s is not None else words
    )
    is_cut = left_s is not None and left_s > until_s
    at = None if left_s is None else _percent(min(left_s, until_s), until_s)
    return Row(job=one, runs=True, at=at, is_cut=is_cut, words=words)


def _start(one: WaitingJob, until_s: float) -> Row:
    starts_in_s = one.starts_in_s or 0.0
    return Row(
        job=one,
        runs=False,
        at=_percent(starts_in_s, until_s),
        is_cut=False,
        words="starts now" if starts_in_s < 1 else f"starts in {_about(starts_in_s)}",
    )


def _about(seconds: float) -> str:
    return "a moment" if seconds < 1 else f"about {span(seconds)}"


def _ticks(until_s: float) -> tuple[Tick, ...]:
    fits = (step for step in _TICKS_S if until_s / step <= _MOST_TICKS)
    step_s = next(fits, until_s / _MOST_TICKS)
    count = int(0.97 * until_s / step_s)
    later = (
        Tick(_percent(number * step_s, until_s), span(number * step_s)) for number in range(1, count + 1)
    )
    return (Tick(0.0, "now"), *later)


def _percent(value: float, whole: float) -> float:
    return round(100 * max(0.0, min(1.0, value / whole)), 2)
