"""How much a job has left, in GPU seconds: told by its steps, or guessed from what it has had.

Nobody is asked for a promise.  A job that has told nothing is taken to have as much left again as it has had:
true of lengths as they are found on clusters, where most jobs are short and a few are very long.  In levels, so
that a job keeps its place while it runs within one, and two of about the same age do not take turns.
"""

from __future__ import annotations

from bisect import bisect_left

from scheduler.core.contender import Contender

LEVELS = [60.0 * 4**level for level in range(24)]
"""GPU seconds; the last is longer than anything runs."""


def left(contender: Contender, now_s: float) -> float:
    """GPU seconds until it ends.  Of a job that tells its steps: the more is done, the less."""
    told = contender.told
    if told is None:
        attained = attained_by(contender, now_s)
        return LEVELS[bisect_left(LEVELS, attained)] if attained < LEVELS[-1] else attained
    if contender.tenure is None:
        return contender.size * told.left_s
    return contender.size * max(0.0, told.left_s - max(0.0, now_s - told.at_s))


def attained_by(contender: Contender, now_s: float) -> float:
    """GPU seconds that it has had, with those of its present run."""
    if contender.tenure is None:
        return contender.attained
    return contender.attained + contender.size * (now_s - contender.tenure.since_s)
