"""What proves that a run has finished: the record that each of its ranks leaves when its loop has returned."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from scheduler.core.model import Ending, Json


@dataclass(frozen=True, slots=True, kw_only=True)
class Returned:
    """What a rank leaves when its loop has returned."""

    rank: int
    num_ranks: int
    """Of its run."""
    result: Json
    """What it returned; where that is nothing, what it last reported."""
    notes: tuple[str, ...] = ()
    """What of the result was not kept as it was."""


def ending_by_record(
    records: Iterable[Returned], *, was_asked_to_stop: bool
) -> tuple[Ending, Returned] | None:
    """How a run ended by the word of its ranks, and the record of rank 0; None unless every rank left its own.

    Nothing else proves that a run is completed, and nothing that happens later undoes it.  Only a run that was asked to
    stop has stopped: a loop may return a word `stopped` of its own.
    """
    of_rank = {one.rank: one for one in records}
    first = of_rank.get(0)
    if first is None or not of_rank.keys() >= set(range(first.num_ranks)):
        return None
    stopped = was_asked_to_stop and first.result.get("stopped") is True
    return (Ending.STOPPED if stopped else Ending.COMPLETED), first
