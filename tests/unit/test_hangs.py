"""When a silence is work, when it is worth a look, and when it is a hang; and where a run's pace comes from."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.core.hangs import Limits, Pace, judge
from scheduler.runs.progress import ProgressReader

LIMITS = Limits()
NEVER = Limits(
    suspect_factor=math.inf,
    hang_factor=math.inf,
    suspect_floor_s=math.inf,
    hang_floor_s=math.inf,
    start_s=math.inf,
)


def pace(typical_s: float, longest_s: float | None = None) -> Pace:
    return Pace(steps=100, typical_s=typical_s, longest_s=typical_s if longest_s is None else longest_s)


@pytest.mark.parametrize(
    ("sentence", "known", "silent_s", "verdict", "limit_s"),
    [
        ("a fast run has a minute before anybody looks", pace(0.01), 60, "usual", 600),
        ("and is suspect after it", pace(0.01), 61, "suspect", 600),
        ("and hung after ten", pace(0.01), 601, "hung", 600),
        ("a slow run has ten of its own steps", pace(100), 1000, "usual", 3000),
        ("and is suspect after them", pace(100), 1001, "suspect", 3000),
        ("and hung after thirty", pace(100), 3001, "hung", 3000),
        (
            "an evaluation of 20 min may come again, and be three times as long",
            pace(2, 1200),
            3600,
            "usual",
            6000,
        ),
        ("beyond that it is suspect", pace(2, 1200), 3601, "suspect", 6000),
        ("and five times as long is a hang", pace(2, 1200), 6001, "hung", 6000),
        ("before a pace is known, half an hour is usual", None, 1800, "usual", 3600),
        ("then it is suspect", None, 1801, "suspect", 3600),
        ("and after an hour hung", None, 3601, "hung", 3600),
        ("clocks that differ make no hang", pace(2), -30, "usual", 600),
    ],
)
def test_a_silence_is_judged_by_the_runs_own_pace(
    sentence: str, known: Pace | None, silent_s: float, verdict: str, limit_s: float
) -> None:
    found = judge(known, silent_s, LIMITS)
    assert (found.verdict, found.limit_s) == (verdict, limit_s), sentence


@pytest.mark.parametrize(
    ("known", "silent_s", "words"),
    [
        (pace(2), 240, "no step for 4 min; a step usually takes 2 s"),
        (pace(0.05, 90), 240, "no step for 4 min; a step usually takes 0.05 s, the longest wait was 2 min"),
        (pace(0.0001, 0.001), 70, "no step for 70 s; a step usually takes less than 0.01 s, "),
        (pace(100), 9000, "no step for 2.5 h; a step usually takes 2 min"),
        (None, 1900, "no step for 32 min; too few were made to know how long one takes"),
    ],
)
def test_the_words_say_how_long_and_what_is_usual(known: Pace | None, silent_s: float, words: str) -> None:
    assert judge(known, silent_s, LIMITS).words.startswith(words)


def test_a_loop_that_never_tells_its_steps_is_not_called_hung() -> None:
    """A loop written for plain Ray Train says nothing; ending it after an hour would end every such job."""
    found = judge(None, 1e6, LIMITS, counts_steps=False)
    assert (found.verdict, found.limit_s) == ("suspect", math.inf)
    assert "not known to tell its steps" in found.words


def test_limits_can_be_switched_off() -> None:
    assert judge(pace(1), 1e9, NEVER).verdict == "usual"
    assert judge(None, 1e9, NEVER).verdict == "usual"


times = st.floats(min_value=0, max_value=1e6)


@given(typical_s=times, extra_s=times, silent_s=times, more_s=times)
def test_more_silence_is_never_judged_milder(
    typical_s: float, extra_s: float, silent_s: float, more_s: float
) -> None:
    rank = ["usual", "suspect", "hung"].index
    known = pace(typical_s, typical_s + extra_s)
    now, later = judge(known, silent_s, LIMITS), judge(known, silent_s + more_s, LIMITS)
    assert rank(now.verdict) <= rank(later.verdict)


@given(typical_s=times, extra_s=times, floor_s=times, factor=times)
def test_no_run_is_hung_before_it_is_suspect(
    typical_s: float, extra_s: float, floor_s: float, factor: float
) -> None:
    """Whatever somebody writes in the settings: stacks are captured while a run is suspect."""
    limits = Limits(hang_floor_s=floor_s, hang_factor=factor)
    known = pace(typical_s, typical_s + extra_s)
    limit_s = judge(known, 0, limits).limit_s
    assert judge(known, limit_s, limits).verdict != "hung"
    assert limit_s >= max(limits.suspect_floor_s, limits.suspect_factor * typical_s)


class Loop:
    """A loop that writes its progress file, and the reader of it."""

    def __init__(self, file: Path) -> None:
        self.file, self.reader = file, ProgressReader(file)

    def says(self, at_s: float, **values: Any) -> None:
        with self.file.open("a") as file:
            file.write(json.dumps({"time": at_s, **values}) + "\n")
        self.reader.reported()


@pytest.fixture
def loop(tmp_path: Path) -> Loop:
    return Loop(tmp_path / "progress.jsonl")


def test_a_run_shows_its_usual_and_its_longest_step(loop: Loop) -> None:
    for step, at_s in enumerate([100, 102, 104, 164, 166, 168], start=1):
        loop.says(at_s, phase="training", step=step)
    assert loop.reader.pace == Pace(steps=5, typical_s=2, longest_s=60)
    assert loop.reader.stepped_at_s == 168


def test_a_heartbeat_without_a_new_step_hides_no_hang(loop: Loop) -> None:
    """The process lives and talks; only its steps have stopped."""
    for step, at_s in enumerate([100, 102, 104], start=1):
        loop.says(at_s, phase="training", step=step)
    for at_s in range(105, 1000):
        loop.says(at_s, phase="training", step=3, loss=0.5)
        loop.says(at_s, gpu_memory=1)
        loop.says(at_s, phase="saving")
    assert loop.reader.stepped_at_s == 104
    assert loop.reader.pace == Pace(steps=2, typical_s=2, longest_s=2)
    assert judge(loop.reader.pace, 1000 - 104, LIMITS).verdict == "hung"


def test_the_way_back_to_a_checkpoint_is_no_step(loop: Loop) -> None:
    """As our loops resume: they say 0, load for half an hour, say where they go on, and make the first step."""
    loop.says(0, phase="loading", step=0)
    loop.says(1800, phase="loading", step=500)
    assert (loop.reader.pace, loop.reader.stepped_at_s) == (None, None)
    loop.says(1805, phase="training", step=500)
    assert (loop.reader.pace, loop.reader.stepped_at_s) == (None, None)
    loop.says(1900, phase="training", step=501)
    assert (loop.reader.pace, loop.reader.stepped_at_s) == (None, 1900)
    loop.says(1902, phase="training", step=502)
    assert loop.reader.pace == Pace(steps=1, typical_s=2, longest_s=2)


def test_a_line_that_stands_for_many_steps_is_shared_among_them(loop: Loop) -> None:
    """The silence between two lines is 100 s and quite usual, though a step takes 1 s."""
    for step in (100, 200, 300):
        loop.says(step, step=step)
    assert loop.reader.pace == Pace(steps=200, typical_s=1, longest_s=100)
    assert judge(loop.reader.pace, 299, LIMITS).verdict == "usual"


def test_a_loop_that_counts_anew_in_each_epoch_goes_on_stepping(loop: Loop) -> None:
    for at_s, step in enumerate([1, 2, 3, 1, 2, 3]):
        loop.says(at_s, step=step)
    assert loop.reader.stepped_at_s == 5
    assert judge(loop.reader.pace, 1, LIMITS).verdict == "usual"


def test_the_usual_step_is_that_of_late(loop: Loop) -> None:
    """After a change of speed the old one is forgotten; the longest silence is not."""
    for step in range(1, 101):
        loop.says(step * 10, step=step)
    for step in range(101, 200):
        loop.says(1000 + step, step=step)
    assert loop.reader.pace is not None
    assert (loop.reader.pace.typical_s, loop.reader.pace.longest_s) == (1, 101)


def test_what_is_no_step_and_no_time_does_no_harm(loop: Loop) -> None:
    """A user's loop may write anything; the file is read in the process that owns the run."""
    for step in ("7", None, True, [1], 10**400, math.nan, math.inf):
        loop.says(5, step=step)
    assert (loop.reader.pace, loop.reader.stepped_at_s) == (None, None)
    loop.says("noon", phase="training", step=1)  # type: ignore[arg-type]
    assert loop.reader.stepped_at_s is not None
    assert loop.reader.stepped_at_s > 1e9, "without a time of its own, a line counts when it is read"
