"""Where the next run goes on, and what may be deleted."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.core.checkpoints import Checkpoint, lineage, newest_first, to_delete
from scheduler.core.model import CheckpointId, CheckpointPolicy, Fence, Json, Origin


def a_checkpoint(name: str, step: int | None = None, **metrics: object) -> Checkpoint:
    fence, _, number = name.partition(".")
    return Checkpoint(
        id=CheckpointId(name),
        fence=Fence(int(fence)),
        number=int(number),
        step=step,
        at=datetime(2026, 11, 22, tzinfo=UTC),
        seconds=0.1,
        num_bytes=10,
        num_files=1,
        metrics=dict(metrics),
        path=f"/storage/job/train-job-{fence}/{name}",
    )


def some(*names: str) -> list[Checkpoint]:
    return [a_checkpoint(name) for name in names]


def ids(checkpoints: list[Checkpoint]) -> list[CheckpointId]:
    return [one.id for one in checkpoints]


def an_origin(checkpoint: str | None = None, after: int = 0) -> Origin:
    return Origin(checkpoint=CheckpointId(checkpoint) if checkpoint else None, after=Fence(after))


LINEAGES = {
    "a first run has nothing to go on from": ([], an_origin(), []),
    "the newest of all attempts comes first": (
        ["1.1", "2.10", "2.9", "1.2"],
        an_origin(),
        ["2.10", "2.9", "1.2", "1.1"],
    ),
    "after a restart from the beginning the past does not count": (["1.1", "2.1"], an_origin(after=2), []),
    "what the restarted attempts saved does": (["1.1", "2.1", "3.1"], an_origin(after=2), ["3.1"]),
    "a chosen checkpoint, and nothing that was saved after it in the past that was left": (
        ["1.1", "1.2", "1.3"],
        an_origin("1.1", after=1),
        ["1.1"],
    ),
    "what continues the chosen one comes before it": (
        ["1.1", "1.2", "2.1", "2.2"],
        an_origin("1.1", after=1),
        ["2.2", "2.1", "1.1"],
    ),
    "a chosen one that is gone leaves nothing": (["1.2"], an_origin("1.1", after=1), []),
}


@pytest.mark.parametrize("sentence", LINEAGES)
def test_a_run_goes_on_from_its_lineage(sentence: str) -> None:
    there, origin, expected = LINEAGES[sentence]
    assert ids(lineage(some(*there), origin)) == expected


@dataclass(frozen=True)
class Case:
    there: list[Checkpoint]
    deleted: list[str]
    policy: CheckpointPolicy = field(default_factory=lambda: CheckpointPolicy(keep_last=1))
    origin: Origin = field(default_factory=an_origin)
    fence: int = 9
    resumed_from: str | None = None


LOSSES: list[Json] = [{"loss": 3.0}, {"loss": 1.0}, {"loss": 2.0}, {"loss": math.nan}, {}, {"loss": "low"}]
MEASURED = [a_checkpoint(f"1.{number}", **metrics) for number, metrics in enumerate(LOSSES, start=1)]

POLICIES = {
    "with room for all, none": Case(some("1.1", "1.2"), [], CheckpointPolicy(keep_last=2)),
    "the oldest, over all attempts, and oldest first": Case(
        some("2.1", "1.9", "1.10"), ["1.9", "1.10"], fence=2
    ),
    "lower steps are kept when they are newer: the higher ones were passed over": Case(
        [a_checkpoint("1.2", step=50), a_checkpoint("2.1", step=45)], ["1.2"], fence=2
    ),
    "the best by the least": Case(
        MEASURED, ["1.1", "1.3", "1.4", "1.5"], CheckpointPolicy(keep_last=1, keep_best=1)
    ),
    "the best by the most": Case(
        MEASURED, ["1.2", "1.3", "1.4", "1.5"], CheckpointPolicy(keep_last=1, keep_best=1, best_is="max")
    ),
    "no metric, not a number and text are never best": Case(
        MEASURED, ["1.4", "1.5"], CheckpointPolicy(keep_last=1, keep_best=6)
    ),
    "of equally good ones the older": Case(
        [a_checkpoint(f"1.{number}", loss=1) for number in (1, 2, 3)],
        ["1.1"],
        CheckpointPolicy(keep_last=1, keep_best=2),
    ),
    "an infinite loss is no loss": Case(
        [a_checkpoint("1.1", loss=-math.inf), a_checkpoint("1.2", loss=2.0), a_checkpoint("1.3")],
        ["1.1"],
        CheckpointPolicy(keep_last=1, keep_best=1),
    ),
    "never the chosen origin": Case(
        some("1.1", "1.2", "2.1"), ["1.2"], origin=an_origin("1.1", after=1), fence=2
    ),
    "what continues the origin before what was left": Case(
        some("1.8", "1.9", "2.1"), ["1.8"], CheckpointPolicy(keep_last=2), an_origin(after=1), fence=2
    ),
    "never the one the run went on from, while it has none of its own": Case(
        some("1.1", "1.2", "1.3"), ["1.1"], fence=2, resumed_from="1.2"
    ),
    "once it has one": Case(some("1.2", "1.3", "2.1"), ["1.2", "1.3"], fence=2, resumed_from="1.2"),
}


@pytest.mark.parametrize("sentence", POLICIES)
def test_the_policy_deletes(sentence: str) -> None:
    case = POLICIES[sentence]
    resumed_from = CheckpointId(case.resumed_from) if case.resumed_from else None
    deleted = to_delete(
        case.there, case.policy, case.origin, fence=Fence(case.fence), resumed_from=resumed_from
    )
    assert ids(deleted) == case.deleted


LOSS = st.none() | st.integers(-3, 3) | st.sampled_from([math.nan, math.inf])
PLACES = st.tuples(st.integers(1, 4), st.integers(1, 4))


@given(
    losses=st.dictionaries(PLACES, LOSS, max_size=12),
    keep_last=st.integers(1, 4),
    keep_best=st.integers(0, 3),
    after=st.integers(0, 4),
    data=st.data(),
)
def test_the_policy_never_deletes_what_is_needed_and_never_keeps_more_than_it_says(
    losses: dict[tuple[int, int], float | None],
    keep_last: int,
    keep_best: int,
    after: int,
    data: st.DataObject,
) -> None:
    there = [a_checkpoint(f"{fence}.{number}", loss=loss) for (fence, number), loss in losses.items()]
    an_id = st.sampled_from([None, *ids(there)])
    policy = CheckpointPolicy(keep_last=keep_last, keep_best=keep_best)
    origin = Origin(checkpoint=data.draw(an_id), after=Fence(after))
    resumed_from = data.draw(an_id)
    fence = Fence(max((one.fence for one in there), default=1) + data.draw(st.integers(0, 1)))

    def deletes(from_these: list[Checkpoint]) -> list[Checkpoint]:
        return to_delete(from_these, policy, origin, fence=fence, resumed_from=resumed_from)

    deleted = deletes(there)
    kept = [one for one in there if one not in deleted]

    assert len(kept) <= keep_last + keep_best + 2
    assert lineage(kept, origin)[:1] == lineage(there, origin)[:1], "the next run would begin elsewhere"
    assert newest_first(kept)[:1] == newest_first(there)[:1]
    assert origin.checkpoint is None or origin.checkpoint in ids(kept)
    assert resumed_from is None or resumed_from in ids(kept) or any(one.fence == fence for one in there)
    assert finite_losses(kept)[:keep_best] == finite_losses(there)[:keep_best]
    assert deletes(kept) == []


def finite_losses(checkpoints: list[Checkpoint]) -> list[float]:
    losses = (one.metrics["loss"] for one in checkpoints)
    return sorted(loss for loss in losses if loss is not None and math.isfinite(loss))
