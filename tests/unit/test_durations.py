"""Durations in words: in a sentence, in a table, and what is shorter than a second."""

from __future__ import annotations

import pytest

from scheduler.core.durations import exact_span, fine_span, span

HOUR_S, DAY_S = 3600.0, 86_400.0


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-5, "0 s"),
        (0, "0 s"),
        (0.2, "0 s"),
        (12, "12 s"),
        (89.9, "90 s"),
        (90, "2 min"),
        (6 * 60, "6 min"),
        (2.5 * HOUR_S, "2.5 h"),
        (3 * DAY_S, "3 days"),
    ],
)
def test_a_sentence_gets_one_unit(seconds: float, words: str) -> None:
    assert span(seconds) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.001, "less than 0.01 s"), (0.05, "0.05 s"), (3.21, "3.2 s"), (48.2, "48 s"), (240, "4 min")],
)
def test_the_time_of_a_step_is_not_0_s(seconds: float, words: str) -> None:
    assert fine_span(seconds) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(-1, "0 s"), (12.4, "12 s"), (59.6, "1 min 00 s"), (363, "6 min 03 s"), (2.5 * HOUR_S, "2 h 30 min")],
)
def test_a_table_gets_the_seconds_too(seconds: float, words: str) -> None:
    assert exact_span(seconds) == words
