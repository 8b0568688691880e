"""Which checkpoint a run goes on from, and which ones are kept."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from scheduler.core.finite import finite
from scheduler.core.model import CheckpointId, CheckpointPolicy, Fence, Json, Origin


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A complete one: its files are there, as its manifest says."""

    id: CheckpointId
    fence: Fence
    """The attempt that saved it."""
    number: int
    """1, 2, ... within its attempt, in the order of the reports."""
    step: int | None
    """As the loop reported it; None when it reported none."""
    at: datetime
    """When it became complete."""
    seconds: float
    """From the report, with all files on the storage, until it was complete."""
    num_bytes: int
    num_files: int
    metrics: Json
    """What rank 0 reported with it."""
    path: str
    """Its folder on the storage, without the scheme."""


def checkpoint_id(fence: Fence, number: int) -> CheckpointId:
    """`2.3` is the third of attempt 2."""
    return CheckpointId(f"{fence}.{number}")


def newest_first(checkpoints: Iterable[Checkpoint]) -> list[Checkpoint]:
    """By attempt and number, not by step.

    An attempt that could not use the newest checkpoint goes on from an older one, and is at lower steps for a
    while.  Its checkpoints are the sound ones, and by step they would be the first to go.
    """
    return sorted(checkpoints, key=_age, reverse=True)


def lineage(checkpoints: Iterable[Checkpoint], origin: Origin) -> list[Checkpoint]:
    """The checkpoints from which the next run may go on, best first: what continues the origin, then itself.

    An empty one means: from the beginning, unless `origin.checkpoint` is set; then that one is gone.
    """
    known = list(checkpoints)
    continuing = [one for one in known if one.fence > origin.after]
    chosen = [one for one in known if one.id == origin.checkpoint and one.fence <= origin.after]
    return newest_first(continuing) + chosen


def to_delete(
    checkpoints: Iterable[Checkpoint],
    policy: CheckpointPolicy,
    origin: Origin,
    *,
    fence: Fence,
    resumed_from: CheckpointId | None = None,
) -> list[Checkpoint]:
    """The checkpoints that the policy does not keep, oldest first.

    Kept are the newest `keep_last` of the job; the best `keep_best`; the one that a person chose as origin; and the
    one from which the run of *fence* went on, until that run has a complete one of its own: what is newer may have
    been passed over because it is corrupt.
    """
    known = list(checkpoints)
    newest = newest_first(known)[: policy.keep_last]
    kept = {one.id for one in newest + best(known, policy)}
    kept |= (
        {origin.checkpoint} if any(one.fence == fence for one in known) else {origin.checkpoint, resumed_from}
    )
    return [one for one in sorted(known, key=_age) if one.id not in kept]


def best(checkpoints: Iterable[Checkpoint], policy: CheckpointPolicy) -> list[Checkpoint]:
    """At most `keep_best`, best first; of equals the newer.  One without a finite number is none of them."""
    measured = [
        (value if policy.best_is == "min" else -value, one)
        for one in newest_first(checkpoints)
        if (value := finite(one.metrics.get(policy.best_metric))) is not None
    ]
    return [one for _, one in sorted(measured, key=lambda pair: pair[0])[: policy.keep_best]]


def _age(checkpoint: Checkpoint) -> tuple[int, int]:
    return checkpoint.fence, checkpoint.number
