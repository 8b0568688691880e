"""A loop on one rank in this process, without a cluster; its checkpoints outlive a try."""

from __future__ import annotations

import importlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.deaths import telling


class Job:
    """One job; each `run` is a try that goes on from what the last one left."""

    def __init__(self, loop: str, folder: Path, config: dict[str, Any]) -> None:
        self.loop, self.folder, self.config = loop, folder, config
        self.progress_file, self.stop_file, self.output = (
            folder / "progress",
            folder / "stop",
            folder / "output",
        )
        self.reported: list[dict[str, Any]] = []
        self.losses: list[tuple[str, int, float]] = []
        """`loss` or `eval_loss`, of which step, and its value; twice when the step was taken twice."""
        self.certificates: list[dict[str, Any]] = []
        self.checkpoint: Any = None
        folder.mkdir()

    def tell(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Set the environment by which a loop knows where to write."""
        monkeypatch.setenv("TRAIN_PROGRESS_FILE", str(self.progress_file))
        monkeypatch.setenv("TRAIN_STOP_FILE", str(self.stop_file))
        monkeypatch.setenv("TRAIN_OUTPUT_DIR", str(self.output))

    def run(self) -> dict[str, Any]:
        from ray.train.v2._internal.execution.train_fn_utils import LocalTrainFnUtils, set_train_fn_utils

        job = self

        class Keeping(LocalTrainFnUtils):
            def report(self, metrics: dict[str, Any], checkpoint: Any = None, **how: Any) -> None:
                job.keep(metrics, checkpoint)
                if how["delete_local_checkpoint_after_upload"]:
                    shutil.rmtree(checkpoint.path)

            def get_checkpoint(self) -> Any:
                return job.checkpoint

        module, _, name = self.loop.partition(":")
        train = getattr(importlib.import_module(module), name)
        set_train_fn_utils(Keeping("test"))
        try:
            with telling(self.hear):
                return train(self.config)
        finally:
            set_train_fn_utils(None)

    def hear(self, name: str, step: int, value: Any) -> None:
        if name == "resumed":
            self.certificates.append(value)
        else:
            self.losses.append((name, step, value))

    def keep(self, metrics: dict[str, Any], checkpoint: Any) -> None:
        from ray.train import Checkpoint

        kept = self.folder / f"checkpoint-{len(self.reported)}"
        shutil.copytree(checkpoint.path, kept)
        self.reported.append(metrics)
        self.checkpoint = Checkpoint.from_directory(kept)

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.progress_file.read_text().splitlines()]


def one_thread() -> Iterator[None]:
    """More of them only get in each other's way on matrices this small."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
