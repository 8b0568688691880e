"""What the small plain loop promises, shown on one rank in this process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.deaths import acting
from tests.one_rank import Job, one_thread

few_threads = pytest.fixture(scope="module", autouse=True)(one_thread)


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Job]:
    def make(name: str = "job", **config: Any) -> Job:
        made = Job("train_loops.torch_ddp:train", tmp_path / name, {"steps": 20, **config})
        made.tell(monkeypatch)
        return made

    return make


def weights(run: Job) -> dict[str, torch.Tensor]:
    return torch.load(run.output / "model.pt", weights_only=True)


def test_it_learns(job: Callable[..., Job]) -> None:
    """A loop that users copy must work."""
    run = job(steps=300, seed=1)
    said = run.run()
    first = next(line["loss"] for line in run.lines() if "loss" in line)
    assert said["train_loss"] < first / 2
    assert [metrics["step"] for metrics in run.reported] == [50, 100, 150, 200, 250, 300]
    newest = run.lines()[-1] | run.lines()[-2]
    assert newest["learning_rate"] == 0.01
    assert newest["samples_per_s"] > 0


def test_a_stop_before_the_first_step_saves_nothing(job: Callable[..., Job]) -> None:
    """There is nothing to save yet, or nothing new: a pause then costs no checkpoint."""
    run = job()
    run.stop_file.touch()
    said = run.run()
    assert (said["stopped"], said["steps"], said["output_dir"]) == (True, 0, None)
    assert run.reported == []

    run.stop_file.unlink()
    with acting(7, "in the step", run.stop_file.touch):
        said = run.run()
    assert (said["stopped"], said["steps"]) == (True, 7)
    assert [metrics["step"] for metrics in run.reported] == [7]
    again = run.run()
    assert (again["stopped"], again["steps"], again["started_from"], again["train_loss"]) == (
        True,
        7,
        7,
        None,
    )
    assert [metrics["step"] for metrics in run.reported] == [7]
    assert not run.output.exists()


def test_a_stop_in_the_last_step_is_the_end(job: Callable[..., Job]) -> None:
    """All is done but writing the result; a pause there would keep a finished job from its user."""
    run = job()
    with acting(20, "in the step", run.stop_file.touch):
        said = run.run()
    assert (said["stopped"], said["steps"]) == (False, 20)
    assert run.output.exists()


def test_a_loss_that_is_no_number_ends_the_run(
    job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the rest of the run is spent on NaN."""
    from train_loops import torch_ddp

    real = torch_ddp.batch

    def batch(cfg: Any, step: int, rank: int) -> Any:
        inputs, targets = real(cfg, step, rank)
        return inputs, targets * (float("inf") if step == 2 else 1)

    monkeypatch.setattr(torch_ddp, "batch", batch)
    run = job(checkpoint_every_steps=1)
    with pytest.raises(ArithmeticError, match=r"not finite at step 3.*learning_rate"):
        run.run()
    assert [metrics["step"] for metrics in run.reported] == [1, 2]
