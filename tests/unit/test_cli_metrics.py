"""What a job measured, in letters."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime
from typing import Any

import pytest
from command_line import run

from scheduler.api.metrics import MetricsDocument, ResumptionMark
from scheduler.cli.metrics import chart
from scheduler.client import Client

JOB_ID = "6f1c2a4e-0000-4000-8000-000000000001"


def measured(**fields: Any) -> MetricsDocument:
    likely: dict[str, Any] = {
        "job_id": JOB_ID,
        "attempt": [1, 1, 2],
        "step": [1, 2, 3],
        "at": [10.0, 11.0, 30.0],
        "series": {"loss": [4.0, 2.0, 1.5], "learning_rate": [1e-4, None, 1e-5]},
        "total_points": 3,
        "resumptions": [ResumptionMark(attempt=2, step=2, at=datetime(2026, 11, 22, tzinfo=UTC))],
    }
    return MetricsDocument(**(likely | fields))


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[MetricsDocument]:
    """What the server is made to say: the newest one."""
    said = [measured()]
    monkeypatch.setattr(Client, "metrics", lambda self, job_id, points=1000: said[-1])
    return said


def test_a_falling_loss_falls_on_the_screen() -> None:
    assert chart([0, 10, 20, 30], [4.0, 3.0, 2.0, 1.0], width=21, rows=4) == [
        "        4 |*",
        "          |   *",
        "          |      *",
        "        1 |         *",
        "           step 0  30",
    ]


def test_a_chart_is_as_wide_as_there_is_room_and_a_point_for_many_is_their_mean() -> None:
    lines = chart(list(range(1000)), [float(value % 2) for value in range(1000)], width=60, rows=5)
    assert max(map(len, lines)) <= 60
    assert [line.count("*") > 20 for line in lines[:5]] == [False, False, True, False, False]


@pytest.mark.parametrize("values", [[1.0], [2.0, 2.0], [0.0, 0.0, 0.0], [-1e9, 1e9]])
def test_a_chart_of_anything_can_be_drawn(values: list[float]) -> None:
    steps = [float(step) for step in range(len(values))]
    assert sum(line.count("*") for line in chart(steps, values, width=30)) == len(values)


def test_the_page_has_a_chart_the_ranges_and_the_resumptions(told: list[MetricsDocument]) -> None:
    page = run("metrics", JOB_ID)
    lines = page.out.splitlines()
    assert lines[0] == "loss"
    assert page.out.count("*") == 3
    ranges = {line.split()[0]: line.split()[1:] for line in lines if line.startswith(("loss ", "learning"))}
    assert ranges == {
        "loss": ["4", "1.5", "1.5", "4"],
        "learning_rate": ["0.0001", "1e-05", "1e-05", "0.0001"],
    }
    assert lines[-1] == "attempt 2 went on from step 2"
    assert run("metrics", JOB_ID, "--series", "learning_rate").out.startswith("learning_rate\n")
    unknown = run("metrics", JOB_ID, "--series", "los")
    assert (unknown.code, unknown.out) == (2, "")
    assert "the job measured loss, learning_rate" in unknown.err


def test_a_loss_by_another_name_is_drawn_before_anything_else(told: list[MetricsDocument]) -> None:
    told.append(measured(series={"epoch": [1, 1, 1], "train_loss": [4.0, 2.0, 1.5]}))
    assert run("metrics", JOB_ID).out.startswith("train_loss\n")


def test_csv_is_read_by_what_reads_csv(told: list[MetricsDocument]) -> None:
    """What was not said at a step is empty, not 0."""
    rows = list(csv.DictReader(io.StringIO(run("metrics", JOB_ID, "--csv").out)))
    assert rows[1] == {"attempt": "1", "step": "2", "at": "11.0", "loss": "2.0", "learning_rate": ""}
    assert len(rows) == 3
    assert run("metrics", JOB_ID, "--csv", "--json").code == 2


def test_points_that_were_left_out_are_counted(told: list[MetricsDocument]) -> None:
    told.append(measured(total_points=12_000))
    assert run("metrics", JOB_ID).err == "3 of 12,000 points; --points N takes more\n"


def test_a_job_that_measured_nothing_says_so(told: list[MetricsDocument]) -> None:
    told.append(measured(attempt=[], step=[], at=[], series={}, total_points=0, resumptions=[]))
    ran = run("metrics", JOB_ID)
    assert (ran.code, ran.out) == (0, "")
    assert "has not measured anything yet" in ran.err
