"""A history thinned out: what is kept of it, and in how much memory."""

from __future__ import annotations

import json
import math
import random
from itertools import pairwise

import pytest

from scheduler.core.finite import finite
from scheduler.runs.metric_table import KEPT_ROWS, MOST_ROWS, MOST_SERIES, MetricTable, numbers_in


def a_table(num_rows: int, *, attempt: int = 1) -> MetricTable:
    """A loss that falls with noise, one spike up and one down, and an evaluation every hundredth row."""
    chance, table = random.Random(7), MetricTable()
    for step in range(1, num_rows + 1):
        values = {"loss": 1 + 10 / step + chance.random(), "learning_rate": 1e-4}
        if step % 100 == 0:
            values["eval_loss"] = 2 + 10 / step
        if step == num_rows // 3:
            values["loss"] = 1000.0
        if step == num_rows // 2:
            values["loss"] = -1000.0
        table.add(attempt, step, 1000.0 + step, values)
    return table


@pytest.mark.parametrize("num_rows", [5_000, 2 * MOST_ROWS + 17])
@pytest.mark.parametrize("points", [2, 3, 50, 1000, 5000])
def test_never_more_than_asked_for_and_the_ends_are_kept(num_rows: int, points: int) -> None:
    """A page draws what it asked for; without the last point the curve would lag behind the status."""
    said = a_table(num_rows).document("j", points, [], [])
    columns = [said.attempt, said.step, said.at, *said.series.values()]
    assert {len(column) for column in columns} == {len(said.step)}
    assert len(said.step) <= points
    assert (said.step[0], said.step[-1]) == (1, num_rows)
    assert said.total_points == num_rows
    assert said.step == sorted(said.step)


@pytest.mark.parametrize("num_rows", [5_000, 2 * MOST_ROWS + 17])
def test_no_spike_is_lost(num_rows: int) -> None:
    """One bad batch in a million steps is what people look for in a loss curve."""
    said = a_table(num_rows).document("j", 50, [], [])
    found = dict(zip(said.step, said.series["loss"], strict=True))
    assert found[num_rows // 3] == 1000.0
    assert found[num_rows // 2] == -1000.0


def test_every_number_shown_was_said() -> None:
    """An average is a number that nobody measured."""
    table = a_table(5_000)
    said = table.document("j", 100, [], [])
    everything = dict(zip(table.step, table.series["loss"], strict=True))
    assert all(everything[step] == loss for step, loss in zip(said.step, said.series["loss"], strict=True))


def test_what_is_said_seldom_is_not_thinned_out_with_what_is_said_often() -> None:
    """50 evaluations among 5,000 steps: all of them are in a chart of 1,000 points."""
    said = a_table(5_000).document("j", 1000, [], [])
    assert [step for step, loss in zip(said.step, said.series["eval_loss"], strict=True) if loss] == list(
        range(100, 5001, 100)
    )


def test_a_chart_is_as_fine_at_its_beginning_as_at_its_end() -> None:
    """Memory is bounded by thinning again and again: the first steps must not be thinned more than the last."""
    num_rows = 5 * MOST_ROWS
    table = a_table(num_rows)
    assert len(table) <= MOST_ROWS
    said = table.document("j", 1000, [], [])
    tenths = [sum(step <= num_rows * tenth / 10 for step in said.step) for tenth in range(11)]
    shares = [after - before for before, after in pairwise(tenths)]
    assert min(shares) > 0.5 * max(shares), shares


def test_made_up_names_do_not_fill_the_memory() -> None:
    table = MetricTable()
    for step in range(1000):
        table.add(1, step, 0.0, {f"name {step}": 1.0})
    assert len(table.series) == MOST_SERIES


def test_a_trend_is_the_loss_without_what_was_done_again() -> None:
    """A job that lost 3 steps and made them again has one curve, not a loop in it."""
    table = MetricTable()
    for attempt, steps in ((1, range(1, 7)), (2, range(4, 9))):
        for step in steps:
            table.add(attempt, step, 0.0, {"loss": 10.0 * attempt + step})
    assert table.trend(32) == [11, 12, 13, 24, 25, 26, 27, 28]


def test_a_trend_has_the_ends_and_no_more_points_than_asked_for() -> None:
    table = a_table(MOST_ROWS + KEPT_ROWS)
    values = table.trend(32)
    assert len(values) <= 32
    assert values[-1] == table.series["loss"][-1]
    assert {1000.0, -1000.0} <= set(values)


def test_a_loop_that_tells_no_loss_has_no_trend() -> None:
    table = MetricTable()
    table.add(1, 1.0, 0.0, {"reward": 1.0})
    assert table.trend(32) == []


@pytest.mark.parametrize("value", [True, "0.5", None, [1.0], math.nan, math.inf, 10**400])
def test_what_is_no_finite_number_is_none(value: object) -> None:
    assert finite(value) is None


def test_words_for_the_scheduler_are_no_measures() -> None:
    line = {
        "time": 1.0,
        "phase": "training",
        "step": 3,
        "total_steps": 9,
        "stop_seen": 2.0,
        "loss": 0.5,
        "x": 2,
    }
    assert numbers_in(json.loads(json.dumps(line))) == {"loss": 0.5, "x": 2.0}
