"""What a certificate says of a resumed run, and what a rank's random numbers do."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from train_loops import resumption
from train_loops.resumption import RunFacts, compare, restore_random_state, save_random_state

THEN = RunFacts(
    num_ranks=2,
    config={"learning_rate": 0.1, "lora": {"r": 4}},
    inputs={"training data": "21 examples, sha256 aa"},
    versions={"python": "3.11.9", "torch": "2.13.0"},
    device="cpu with AVX2, 2 threads",
)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    THEN.write(tmp_path, 7)
    for rank in range(THEN.num_ranks):
        save_random_state(tmp_path, rank)
    return tmp_path


def test_a_run_that_finds_all_as_it_was_is_exact_and_says_what_it_looked_at(saved: Path) -> None:
    """`exact` without a list of what was compared is a promise that nobody can check."""
    certificate = compare(saved, 7, THEN)
    assert certificate.differs == []
    assert certificate.step == 7
    for part in (
        "step: 7",
        "ranks: 2",
        "random state",
        "21 examples",
        "learning_rate 0.1",
        "torch 2.13.0",
        "AVX2",
    ):
        assert sum(part in sentence for sentence in certificate.checked) == 1, part


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"num_ranks": 1}, "number of ranks is 1, was 2: examples are shared out anew"),
        ({"config": {"learning_rate": 0.2, "lora": {"r": 4}}}, "config: learning_rate is 0.2, was 0.1"),
        (
            {"inputs": {"training data": "22 examples, sha256 bb"}},
            "training data: 22 examples, sha256 bb, was 21 examples, sha256 aa",
        ),
        ({"versions": {"python": "3.11.9", "torch": "2.14.0"}}, "versions: torch is 2.14.0, was 2.13.0"),
        ({"device": "NVIDIA H100"}, "device is NVIDIA H100, was cpu with AVX2, 2 threads"),
    ],
)
def test_each_difference_is_said_with_both_values(
    saved: Path, changed: dict[str, Any], sentence: str
) -> None:
    """Otherwise a run that became another experiment still looks like the one it was."""
    differs = compare(saved, 7, replace(THEN, **changed)).differs
    assert len(differs) == 1
    assert differs[0].startswith(sentence)


def test_a_rank_without_random_state_is_said_and_goes_on(saved: Path) -> None:
    """A gang that grew has ranks that never saved; a crash there would end a job that can go on."""
    differs = compare(saved, 7, replace(THEN, num_ranks=3)).differs
    assert any("random state: not found for each rank" in sentence for sentence in differs)
    restore_random_state(saved, 2)


def test_a_checkpoint_that_says_nothing_is_said(tmp_path: Path) -> None:
    """Loops of users and earlier versions write none; silence must not pass for exactness."""
    certificate = compare(tmp_path, 7, THEN)
    assert certificate.checked == []
    assert "resume.json" in certificate.differs[0]


def test_another_step_than_the_facts_were_written_for_is_said(saved: Path) -> None:
    """Files of two checkpoints in one folder are no checkpoint."""
    assert "step is 8" in compare(saved, 8, THEN).differs[0]


def test_random_numbers_go_on_where_they_were_for_each_rank(tmp_path: Path) -> None:
    """One generator left out is one kind of dropout, shuffling or augmentation that differs."""

    def draw() -> list[float]:
        return [random.random(), float(np.random.rand()), float(torch.rand(()))]

    expected: list[list[float]] = []
    for rank in range(2):
        draw()
        save_random_state(tmp_path, rank)
        expected.append(draw())
    for rank in (1, 0):
        restore_random_state(tmp_path, rank)
        assert draw() == expected[rank]


def test_the_facts_of_this_process_are_json_and_compare_equal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is read back must equal what was written: a tuple would become a list and differ for ever."""
    monkeypatch.setattr(resumption, "device", lambda: "cpu")  # Ray Train knows it, and is not here
    facts = RunFacts.here(1, config={"sizes": (1, 2)}, inputs={}, packages=["transformers"])
    facts.write(tmp_path, 3)
    save_random_state(tmp_path, 0)
    assert compare(tmp_path, 3, facts).differs == []
    assert {"python", "torch", "numpy", "transformers"} == facts.versions.keys()
