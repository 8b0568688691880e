"""A run that was alive through an upgrade answers in the words of its release; one file for each of them, kept for ever."""

from __future__ import annotations

import json
import pickle
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from make_run_answers import FOLDER, answers, as_json  # found by its file: tests are no package

GOLDEN = sorted(FOLDER.glob("run-answers-*.pkl"))


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda path: path.name)
@pytest.mark.parametrize("name", answers())
def test_the_answer_of_a_run_of_an_earlier_release_is_read(golden: Path, name: str) -> None:
    """R2: a class that moved cannot be found, and the run counts as unreachable; a field that moved tells a lie."""
    expected = json.loads(golden.with_suffix(".json").read_text("utf-8"))
    value = pickle.loads(golden.read_bytes())[name]
    assert _within(expected[name], as_json(value))
    assert type(value) is type(answers()[name])


def test_this_release_can_be_read_by_the_next() -> None:
    """A change of these classes needs a golden file of its own before it is released: make_run_answers.py."""
    newest = json.loads(GOLDEN[-1].with_suffix(".json").read_text("utf-8"))
    assert {name: _shape(as_json(value)) for name, value in answers().items()} == {
        name: _shape(value) for name, value in newest.items()
    }


def _within(expected: Any, value: Any) -> bool:
    """All that was said is there; a newer release may say more."""
    if isinstance(expected, dict):
        return isinstance(value, dict) and all(
            key in value and _within(one, value[key]) for key, one in expected.items()
        )
    return bool(expected == value)


def _shape(value: Any) -> Any:
    return {key: _shape(one) for key, one in value.items()} if isinstance(value, dict) else None
