"""How a run ended, by the word of its ranks: a job is completed by proof, and by nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError

from scheduler.core.model import Cause, Ending, Reason
from scheduler.core.observation import RankProcess
from scheduler.core.run_end import Returned
from scheduler.runs import post_mortem
from scheduler.runs.post_mortem import failure, finished, lost, silent
from scheduler.runs.run_dir import RunDir


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunDir:
    monkeypatch.setattr(post_mortem, "_dead_and_drained", lambda folder: ((), ()))
    folder = RunDir(tmp_path / "run-1")
    folder.begin("node-1")
    return folder


NODE = {"NodeName": "node-1", "NodeID": "id-1", "Alive": False}


def returned(folder: RunDir, *ranks: int, num_ranks: int = 2, **result: Any) -> None:
    for rank in ranks:
        folder.write_returned(Returned(rank=rank, num_ranks=num_ranks, result=result))


def raised(folder: RunDir, rank: int, message: str = "boom") -> None:
    told = {"type": "ValueError", "module": "builtins", "message": message, "traceback": ""}
    folder.write_error(rank, {"rank": rank, "at": 1000.0, **told})


def test_it_is_completed_when_every_rank_left_its_record(folder: RunDir) -> None:
    """B1: and with what rank 0 returned."""
    returned(folder, 0, 1, accuracy=0.5)
    outcome = finished(folder)
    assert outcome is not None
    assert (outcome.ending, outcome.result) == (
        Ending.COMPLETED,
        {"output_dir": None, "metrics": {"accuracy": 0.5}, "notes": []},
    )


@pytest.mark.parametrize("there", [(), (0,), (1,), (1, 2, 3)])
def test_a_rank_without_a_record_is_no_proof(folder: RunDir, there: tuple[int, ...]) -> None:
    """B1: whatever Ray Train says, and by whatever silent way its thread ended."""
    returned(folder, *there)
    assert finished(folder) is None
    outcome = silent(folder, 2)
    assert outcome.ending is not Ending.COMPLETED
    assert "left no record" in (outcome.reason.detail or "")


def test_a_rank_that_raised_names_the_cause_though_ray_train_saw_no_error(folder: RunDir) -> None:
    returned(folder, 0)
    raised(folder, 1, "unknown label \\ud83d")
    outcome = silent(folder, 2)
    assert (outcome.ending, outcome.cause) == (Ending.FAILED, Cause.USER)
    assert "ValueError: unknown label" in outcome.reason.message


@pytest.mark.parametrize("seen", ["fit() raised", "the actor of the run died", "it was ended by force"])
def test_finished_work_is_never_thrown_away(folder: RunDir, seen: str) -> None:
    """B1: what breaks after the last rank returned is not the job's fault, and undoes nothing."""
    returned(folder, 0, 1, steps=5)
    if seen == "it was ended by force":
        folder.write_ended(Reason(code="ended_by_force", message=seen))
    outcome = failure(folder, RuntimeError(seen)) if seen == "fit() raised" else lost(folder, seen)
    assert outcome.ending is Ending.COMPLETED
    assert outcome.result is not None and outcome.result["metrics"] == {"steps": 5}


@pytest.mark.parametrize(("word", "is_asked", "ending"), [
    (True, True, Ending.STOPPED),
    (True, False, Ending.COMPLETED),
    ("early, at step 5", True, Ending.COMPLETED),
    (1, True, Ending.COMPLETED),
])  # fmt: skip
def test_a_loop_stops_only_when_it_was_asked_to(
    folder: RunDir, word: Any, is_asked: bool, ending: Ending
) -> None:
    """B1: a loop with a word `stopped` of its own was taken for one that gave way, and begun again and again."""
    if is_asked:
        folder.stop_file.touch()
    returned(folder, 0, 1, stopped=word)
    outcome = finished(folder)
    assert outcome is not None and outcome.ending is ending


def test_an_exit_code_is_the_users(folder: RunDir) -> None:
    """It was taken for the infrastructure's fault, and repeated until that limit was used up."""
    folder.write_exit(0, 3)
    died = WorkerHealthCheckFailedError("its process is gone", RuntimeError())
    error = type("WorkerGroupError", (Exception,), {"worker_failures": {0: died, 1: died}})()
    outcome = failure(folder, error)
    assert (outcome.ending, outcome.cause, outcome.reason.code) == (Ending.FAILED, Cause.USER, "exited")
    assert "exit code 3" in outcome.reason.message


@pytest.mark.parametrize("code", [137, -9, 139])
def test_unless_it_is_that_of_a_signal(folder: RunDir, code: int) -> None:
    folder.write_exit(0, code)
    assert lost(folder, "gone").cause is Cause.INFRASTRUCTURE


def test_unless_the_node_is_seen_behind_it(folder: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(post_mortem, "_dead_and_drained", lambda folder: ([NODE], []))
    folder.write_exit(0, 1)
    outcome = lost(folder, "gone")
    assert (outcome.cause, outcome.failed_on) == (Cause.INFRASTRUCTURE, ("id-1",))


def test_an_error_that_cannot_be_shown_is_told_all_the_same(folder: RunDir) -> None:
    class Hostile(Exception):
        def __str__(self) -> str:
            raise SystemExit

    outcome = failure(folder, Hostile("x"))
    assert outcome.ending is Ending.LOST
    assert json.dumps(outcome.reason.message)


@pytest.mark.parametrize(("died", "blamed"), [((1,), ("id-1",)), ((1, 2), ("id-1",)), ((0, 1), ())])
def test_it_is_said_on_which_node_ranks_died(
    folder: RunDir, died: tuple[int, ...], blamed: tuple[str, ...]
) -> None:
    """S6: with ranks of several nodes dead, which of them began it is not known, and none is blamed."""
    for rank, node in enumerate(("id-0", "id-1", "id-1")):
        folder.write_rank(RankProcess(rank=rank, node_id=node, pid=1000 + rank, created_at_s=1.0))
    for rank in died:
        folder.write_exit(rank, -9)
    assert lost(folder, "gone").failed_on == blamed
