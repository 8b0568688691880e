"""What is kept of a gang's logs and stacks: bounded, and the ranks first that explain the end."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.core.diagnosis import Died, Raised
from scheduler.core.post_mortem_budget import LIMIT_BYTES, within_budget, worst_first

NOTE_BYTES = 300


def test_a_small_gang_is_kept_whole() -> None:
    """A note about nothing would be noise."""
    evidence = {"stacks": {"0": "in step()", "1": "in recv()"}, "logs": {"0": "a line"}}
    assert within_budget(evidence, [1]) == evidence
    assert within_budget({}) is None
    assert within_budget({"logs": {}}) == {"logs": {}}


def test_who_raised_first_is_kept_before_who_only_waited() -> None:
    """Of a thousand ranks one had the error; its log must not be the one that is left out."""
    raised = [
        Raised(rank=700, type="E", message="", at_s=9.0),
        Raised(rank=900, type="E", message="", at_s=5.0),
    ]
    worst = worst_first(raised, [Died(rank=3), Died(rank=900)])
    assert worst == [900, 700, 3]
    logs = {str(rank): f"{rank} " * 1024 for rank in range(1000)}
    kept = within_budget({"logs": logs}, worst)
    assert kept is not None
    assert list(kept["logs"])[:5] == ["900", "700", "3", "0", "1"]
    assert len(json.dumps(kept)) <= LIMIT_BYTES + NOTE_BYTES
    assert "999" not in kept["logs"]
    assert f"of {1000 - len(kept['logs'])} ranks" in kept["note"]


def test_one_log_that_is_too_long_alone_is_cut_to_its_end() -> None:
    """The last lines tell of the end."""
    kept = within_budget({"logs": {"0": "x\n" * 300_000 + "the end", "1": "y"}}, limit_bytes=1000)
    assert kept is not None
    assert kept["logs"]["0"].endswith("the end")
    assert 900 < len(json.dumps(kept["logs"]["0"])) <= 1000


@given(
    st.dictionaries(
        st.sampled_from(["logs", "stacks"]), st.dictionaries(st.integers(0, 40).map(str), st.text())
    ),
    st.lists(st.integers(0, 50), unique=True),
    st.integers(40, 400),
)
def test_it_never_keeps_more_nor_another_text(
    evidence: dict[str, dict[str, str]], worst: list[int], limit_bytes: int
) -> None:
    """Whatever ranks print."""
    kept = within_budget(evidence, worst, limit_bytes) or {}
    there = {rank for by_rank in evidence.values() for rank in by_rank}
    for name, by_rank in evidence.items():
        assert all(by_rank[rank].endswith(text) for rank, text in kept[name].items())
    told = [text for name in evidence for text in kept[name].values()]
    assert sum(len(json.dumps(text, ensure_ascii=False).encode()) for text in told) <= limit_bytes
    left_out = there - {rank for name in evidence for rank in kept.get(name, {})}
    assert ("note" in kept) == bool(left_out)


@pytest.mark.parametrize("ranks", [1, 4096])
def test_the_largest_gang_is_bounded_soon(ranks: int) -> None:
    """4096 ranks with 20 kB each; made in the scheduler's process."""
    evidence = {
        "stacks": {str(rank): "s" * 16_384 for rank in range(ranks)},
        "logs": {str(rank): "l" * 4096 for rank in range(ranks)},
    }
    kept = within_budget(evidence)
    assert len(json.dumps(kept)) <= LIMIT_BYTES + NOTE_BYTES + 20 * ranks
