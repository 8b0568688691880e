"""What a loop reports to Ray Train becomes progress, where it says nothing itself."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy
import pytest
import ray.train
from ray.train.v2._internal.execution.context import TrainContext, get_train_context, set_train_context
from ray.train.v2._internal.execution.train_fn_utils import DistributedTrainFnUtils, set_train_fn_utils

from scheduler.runs.report_hook import Reports, keep_reports

BEGAN = '{"time": 1.0, "phase": "loading"}\n'


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "progress.jsonl"
    file.write_text(BEGAN)
    return file


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()[1:]]


@pytest.fixture
def reported(file: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """In a rank's own context of Ray Train, with nobody at the other end: what was handed on to Ray."""
    handed_on: list[Any] = []
    monkeypatch.setattr(TrainContext, "report", lambda self, *args: handed_on.append(args))
    set_train_context(TrainContext(None, None, None, None, None, None, None))
    set_train_fn_utils(DistributedTrainFnUtils())
    keep_reports(get_train_context(), file)
    yield handed_on
    set_train_fn_utils(None)
    set_train_context(None)


def test_what_is_reported_to_ray_train_is_a_line_of_progress(file: Path, reported: list[Any]) -> None:
    """A loop written for Ray Train alone would have no curve."""
    ray.train.report({"step": 3, "loss": 0.5})
    (line,) = lines(file)
    assert line.pop("time") > 1e9
    assert line == {"phase": "training", "reported": True, "step": 3, "loss": 0.5}
    assert reported[0][0] == {"step": 3, "loss": 0.5}, "and goes on to Ray Train as it was"


def test_a_loop_that_writes_progress_itself_is_not_repeated(file: Path, reported: list[Any]) -> None:
    """It reports with its checkpoints what it has said long before: steps would go back and forth."""
    with file.open("a") as own:
        own.write('{"step": 5}\n')
    ray.train.report({"step": 3})
    assert lines(file) == [{"step": 5}]
    assert len(reported) == 1


def test_numbers_of_any_library_are_taken_and_nothing_else(file: Path) -> None:
    Reports(file).take(
        {
            "a": numpy.float32(0.5),
            "step": numpy.int64(3),
            "nan": float("nan"),
            "b": True,
            "c": "text",
            "d": {"e": 1.0},
            "phase": 7,
            4: 1.0,
        }
    )
    (line,) = lines(file)
    del line["time"]
    assert line == {"phase": "training", "reported": True, "a": 0.5, "step": 3, "nan": None, "4": 1.0}


def test_a_report_without_numbers_says_nothing(file: Path) -> None:
    Reports(file).take({"note": "saved"})
    assert lines(file) == []


def test_a_disk_that_refuses_costs_no_checkpoint(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The report goes on to Ray; what could not be written is said in the log of the rank."""
    reports = Reports(file)
    file.unlink()
    reports.take({"loss": 1.0})
    assert "what was reported could not be written" in capsys.readouterr().err
