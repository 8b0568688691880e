"""How much a job has left, in GPU seconds: told by its steps, or guessed from what it has had.

Nobody is asked for a promise.  A job that has told nothing is taken to have as much left again as it has had:
true of lengths as they are found on clusters, where most jobs are short and a few are very long.  In levels, so
that a job keeps its place while it runs within one, and two of about the same age do not take turns.
"""

from __future__ import annotations

import math
from bisect import bisect_left

from scheduler.core.contender import Contender

LEVELS = [60.0 * 4**level for level in range(24)]
"""GPU seconds; the last is longer than anything runs."""
SPARE = 0.25
"""Of what it has left, this much more is set aside for its deadline: forecasts err, and who gives way saves first."""


def left(contender: Contender, now_s: float) -> float:
    """GPU seconds until it ends.  Of a job that tells its steps: the more is done, the less."""
    told, tenure = contender.told, contender.tenure
    if told is None:
        attained = contender.attained
        if tenure is not None:
            attained += contender.size * (now_s - tenure.since_s)
        return LEVELS[bisect_left(LEVELS, attained)] if attained < LEVELS[-1] else attained
    left_s = told.left_s
    if tenure is not None and now_s > told.at_s:
        left_s -= now_s - told.at_s
    return contender.size * left_s if left_s > 0 else 0.0


def slack_s(contender: Contender, left: float, now_s: float) -> float:
    """Seconds that it may still wait and be done by its deadline, with *left* GPU seconds; below 0 it is late."""
    if contender.deadline_s is None:
        return math.inf
    needs_s = contender.start_s + (1 + SPARE) * left / max(contender.size, 1e-9)
    return contender.deadline_s - now_s - needs_s
