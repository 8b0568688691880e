"""How a loop's checkpoints leave it: not waited for, but never many at once, and none left behind."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import ray.train

from train_loops.checkpoints import GRACE_S, Checkpoints


class Storage:
    """Stands for Ray Train: takes folders, and uploads them when it likes, or when somebody waits."""

    def __init__(self) -> None:
        self.waiting: list[Path] = []
        self.most_waiting = 0
        self.uploaded: list[dict[str, Any]] = []
        self.timeouts: list[float | None] = []

    def report(self, metrics: dict[str, Any], checkpoint: Any, **how: Any) -> None:
        assert how["delete_local_checkpoint_after_upload"]
        self.waiting.append(Path(checkpoint.path))
        self.most_waiting = max(self.most_waiting, len(self.waiting))
        self.uploaded.append(metrics)

    def get_all_reported_checkpoints(self, mode: Any, timeout_s: float | None) -> None:
        assert mode == ray.train.CheckpointConsistencyMode.COMMITTED
        self.timeouts.append(timeout_s)
        self.upload()

    def upload(self) -> None:
        for folder in self.waiting:
            shutil.rmtree(folder)
        self.waiting.clear()


@pytest.fixture
def storage(monkeypatch: pytest.MonkeyPatch) -> Storage:
    made = Storage()
    for name in ("report", "get_all_reported_checkpoints"):
        monkeypatch.setattr(ray.train, name, getattr(made, name))
    return made


def save(checkpoints: Checkpoints, step: int) -> None:
    folder = checkpoints.new_folder()
    (folder / "state").touch()
    checkpoints.report({"step": step}, folder)


def test_a_loop_waits_for_no_upload_until_it_is_through(storage: Storage) -> None:
    """Each wait would be a round to the controller, up to a second of training."""
    with Checkpoints() as checkpoints:
        for step in range(5):
            save(checkpoints, step)
            storage.upload()
        save(checkpoints, 5)
        assert storage.timeouts == []
    assert storage.timeouts == [None]
    assert storage.waiting == []
    assert not checkpoints.path.exists()


def test_at_most_two_wait_on_the_disk_of_a_rank(storage: Storage) -> None:
    """Storage slower than training would fill the disk of the node, with gigabytes for each."""
    with Checkpoints() as checkpoints:
        for step in range(7):
            save(checkpoints, step)
    assert storage.most_waiting == 2
    assert [metrics["step"] for metrics in storage.uploaded] == list(range(7))


def test_a_loop_that_raises_waits_too_but_not_for_ever(storage: Storage) -> None:
    """Other ranks may be gone, and then the checkpoint never comes to be."""
    with pytest.raises(ZeroDivisionError), Checkpoints() as checkpoints:
        save(checkpoints, 1)
        raise ZeroDivisionError
    assert storage.timeouts == [GRACE_S]
    assert not checkpoints.path.exists()


def test_a_loop_without_checkpoints_waits_for_nothing(storage: Storage) -> None:
    """A run by hand, or one that is stopped before its first step."""
    with Checkpoints():
        pass
    assert storage.timeouts == []
