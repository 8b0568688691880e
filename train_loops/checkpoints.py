"""Checkpoints go to storage while training goes on."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import ray.train
from ray.train import CheckpointConsistencyMode, CheckpointUploadMode

MOST_WAITING = 2
"""Folders on this rank's disk that wait for their upload; a third waits for them."""
GRACE_S = 60.0
"""A loop that fails waits so long for the checkpoint it has just written."""


class Checkpoints:
    """A folder for this rank's checkpoints, and their way to storage.  Leave it, and all are complete.

    Each rank writes and reports a folder of its own; Ray Train merges them into one checkpoint, which exists
    when the last rank's part has arrived.  `report` is a barrier but waits for no upload:

        with Checkpoints() as checkpoints:
            ...
            folder = checkpoints.new_folder()
            torch.save(..., folder / "state.pt")
            checkpoints.report({"step": step}, folder)

    Ray Train itself finishes uploads only after a loop that returns.  One that raises would lose what it had
    saved last, so that wait is here.
    """

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="checkpoints-"))
        self._reported: list[Path] = []

    def new_folder(self) -> Path:
        return Path(tempfile.mkdtemp(dir=self.path))

    def report(self, metrics: dict[str, Any], folder: Path) -> None:
        """Hand *folder* over: it is removed once it is uploaded.  All ranks must call this equally often."""
        if sum(earlier.exists() for earlier in self._reported) >= MOST_WAITING:
            self.wait()
        self._reported.append(folder)
        ray.train.report(
            metrics,
            checkpoint=ray.train.Checkpoint.from_directory(folder),
            checkpoint_upload_mode=CheckpointUploadMode.ASYNC,
            delete_local_checkpoint_after_upload=True,
        )

    def wait(self, timeout_s: float | None = None) -> None:
        """Return when Ray Train has registered all that was reported, or after *timeout_s*."""
        if self._reported:
            ray.train.get_all_reported_checkpoints(CheckpointConsistencyMode.COMMITTED, timeout_s)
        for folder in self._reported:  # Ray Train's local mode uploads and removes nothing
            shutil.rmtree(folder, ignore_errors=True)
        self._reported.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        try:
            self.wait(None if error is None else GRACE_S)
        finally:
            shutil.rmtree(self.path, ignore_errors=True)
