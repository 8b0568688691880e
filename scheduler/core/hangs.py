"""Is a silent run at work, or does it hang?  Judged by its own steps: a heartbeat proves only that a process lives."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from scheduler.core.durations import fine_span


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """What a run has shown of its own speed.  There is none before its second step."""

    steps: int
    """How many steps were timed."""
    typical_s: float
    """Median time of one step, over the newest."""
    longest_s: float
    """Longest silence between two signs of a step, evaluation and saving included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How long a run may be silent.  `inf` switches a limit off."""

    suspect_factor: float = 10
    """Times its usual step."""
    hang_factor: float = 30
    suspect_floor_s: float = 60
    """Never sooner, however fast its steps are."""
    hang_floor_s: float = 600
    start_s: float = 3600
    """For everything before a pace is known: model, data, compilation, first steps.  Suspect at half of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Silence:
    """What the time since the newest step means."""

    verdict: Literal["usual", "suspect", "hung"]
    limit_s: float
    """The silence, in seconds, beyond which it is hung; `inf`: never."""
    words: str
    """A sentence part for a person: "no step for 4 min; a step usually takes 2 s"."""


SUSPECT_LONGEST = 3
HANG_LONGEST = 5


def judge(
    pace: Pace | None,
    silent_s: float,
    limits: Limits,
    *,
    counts_steps: bool = True,
    told_s: float | None = None,
) -> Silence:
    """Judge *silent_s* seconds without a step; before the first one they count from the start of the run.

    With a pace, the limit is the largest of three: a floor (small numbers say nothing), a multiple of the usual
    step (a median: one slow step does not move it), and a multiple of the longest silence that turned out to be
    work (evaluation and saving come again).  The last is the idea of NVIDIA's Resiliency Extension, which
    calculates its time-outs as 5 x the longest interval seen (`safety_factor`); the median is for runs that have
    not evaluated yet.

    *counts_steps* is False for a loop that is not known to tell its steps.  Its silence may become suspect and
    is never called a hang.
    """
    if pace is not None and told_s is not None:
        suspect_s, hang_s = told_s / 2, told_s
    elif pace is None:
        suspect_s, hang_s = limits.start_s / 2, limits.start_s
    else:
        suspect_s = max(
            limits.suspect_floor_s, limits.suspect_factor * pace.typical_s, SUSPECT_LONGEST * pace.longest_s
        )
        hang_s = max(
            suspect_s, limits.hang_floor_s, limits.hang_factor * pace.typical_s, HANG_LONGEST * pace.longest_s
        )
    if not counts_steps:
        hang_s = math.inf
    if silent_s > hang_s:
        verdict = "hung"
    elif silent_s > suspect_s:
        verdict = "suspect"
    else:
        verdict = "usual"
    return Silence(verdict=verdict, limit_s=hang_s, words=_words(pace, silent_s, counts_steps))


def _words(pace: Pace | None, silent_s: float, counts_steps: bool) -> str:
    if not counts_steps:
        return f"nothing heard for {fine_span(silent_s)}; this loop is not known to tell its steps"
    if pace is None:
        return f"no step for {fine_span(silent_s)}; too few were made to know how long one takes"
    usual = f"a step usually takes {fine_span(pace.typical_s)}"
    if pace.longest_s < 2 * pace.typical_s:
        return f"no step for {fine_span(silent_s)}; {usual}"
    return f"no step for {fine_span(silent_s)}; {usual}, the longest wait was {fine_span(pace.longest_s)}"
