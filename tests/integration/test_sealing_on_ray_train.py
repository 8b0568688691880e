"""Checkpoints that a loop reports to the real Ray Train become complete ones, and only whole ones do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from scheduler.core.model import JobId
from scheduler.runs.checkpoint_store import MANIFEST, CheckpointStore
from tests.fit import ENVIRONMENT, ROOT
from tests.s3 import new_folder, s3_server

pytestmark = pytest.mark.ray

JOB = JobId("5ea1ed00-0000-4000-8000-000000000000")

Fit = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def fit() -> Iterator[Fit]:
    """Runs `tests.sealing.save_and_return` with its own small cluster; answers when `fit()` came back."""
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"} | ENVIRONMENT
    command, pipe = [sys.executable, "-m", "tests.sealing"], subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, env=environment, text=True, stdin=pipe, stdout=pipe) as process:
        assert process.stdin and process.stdout

        def run(url: str, notes: Path, **request: Any) -> dict[str, Any]:
            assert process.stdin and process.stdout
            defaults = {"job_id": JOB, "fence": 1, "reports": 3, "killed": False, "unlucky": None}
            files = {"url": url, "marker": str(notes / "left"), "saved_file": str(notes / "saved.jsonl")}
            process.stdin.write(json.dumps(defaults | files | request) + "\n")
            process.stdin.flush()
            answers = (json.loads(line) for line in process.stdout if line.startswith('{"fit"'))
            return next(answers)

        yield run
        process.stdin.close()
        process.wait(timeout=60)


@pytest.mark.long
def test_all_that_was_reported_is_complete_when_fit_returns(fit: Fit, tmp_path: Path) -> None:
    """Sealing is slow here and begins when the loop has returned: no report waited, and `fit()` did."""
    with s3_server() as server:
        url = new_folder(server)
        answer = fit(url, tmp_path, fence=2, reports=4, unlucky=2)
        checkpoints = CheckpointStore(url, JOB)
        fourth, third = checkpoints.all()
        model = checkpoints.filesystem.open_input_stream(f"{fourth.path}/model").read()

    assert answer == {"fit": {"returned": "returned"}, "complete": ["2.4", "2.3"]}
    assert [(one.step, one.metrics["loss"]) for one in (third, fourth)] == [(30, 1 / 3), (40, 1 / 4)]
    assert model == b"model of step 4"

    lines = [json.loads(line) for line in (tmp_path / "saved.jsonl").read_text().splitlines()]
    assert [line.get("checkpoint") for line in lines] == ["2.1", None, "2.3", "2.4"], (
        "in order, the old deleted"
    )
    assert lines[1] == {"error": "checkpoint 2.2 is not complete: OSError: the storage is down"}
    assert lines[3] == {
        "checkpoint": "2.4",
        "step": 40,
        "at": fourth.at.isoformat(),
        "seconds": fourth.seconds,
        "num_bytes": fourth.num_bytes,
    }
    assert fourth.seconds >= 0.5, "from the report on, waiting included"


def test_a_rank_that_is_killed_while_it_saves_leaves_nothing_that_is_taken(fit: Fit, tmp_path: Path) -> None:
    answer = fit(str(tmp_path), tmp_path, fence=3, killed=True)

    assert answer["fit"] == {"raised": "WorkerGroupError"}
    assert answer["complete"] == ["3.2", "3.1"], "what was whole is complete when fit() raises"
    checkpoints = CheckpointStore(str(tmp_path), JOB)
    [(torn, _)] = checkpoints.unusable()
    assert sorted(path.name for path in Path(torn).iterdir()) == ["model"]
    assert not Path(torn, MANIFEST).exists()
    opened, skipped = checkpoints.open_newest(checkpoints.all())
    assert opened and opened.id == "3.2"
    assert skipped == []
