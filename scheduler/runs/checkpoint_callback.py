"""Turns what a run reports into complete checkpoints, while it trains on."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scheduler.core.checkpoints import Checkpoint, to_delete
from scheduler.core.finite import whole
from scheduler.core.model import CheckpointId, CheckpointPolicy, Fence, JobId, Json, Origin
from scheduler.runs.checkpoint_store import CheckpointStore
from scheduler.runs.ray_internals import ControllerCallback, ReportCallback

if TYPE_CHECKING:
    from scheduler.runs.ray_internals import TrainingReport

log = logging.getLogger(__name__)


# Not a `UserCallback`: Ray Train tells those of reports, but does not wait for them at the end of the run.
class CheckpointCallback(ReportCallback, ControllerCallback):
    """Goes into `RunConfig(callbacks=[...])`; works in the process of Ray Train's controller.

    One thread seals the checkpoints in the order of their reports and deletes what the policy does not keep, so that
    neither the controller nor a rank waits.  `fit()` returns or raises when all that was reported is sealed.  Each is
    a line in *saved_file*: `{"checkpoint", "step", "at", "seconds", "num_bytes"}`, or `{"error"}`; an error ends no run.
    """

    def __init__(
        self,
        *,
        url: str,
        job_id: JobId,
        fence: Fence,
        policy: CheckpointPolicy,
        origin: Origin,
        saved_file: Path,
        resumed_from: CheckpointId | None = None,
    ) -> None:
        self._url, self._job_id, self._fence = url, job_id, fence
        self._policy, self._origin, self._resumed_from = policy, origin, resumed_from
        self._saved_file = saved_file
        self._num_reported = 0
        self._thread: ThreadPoolExecutor | None = None  # made in the controller: threads do not pickle

    def after_report(self, training_report: TrainingReport, metrics: list[dict[str, Any]]) -> None:
        if training_report.checkpoint is None:
            return
        self._num_reported += 1
        self._thread = self._thread or ThreadPoolExecutor(1, thread_name_prefix="seal")
        self._thread.submit(
            self._save, training_report.checkpoint.path, self._num_reported, metrics[0], time.monotonic()
        )

    async def before_controller_shutdown(self) -> None:
        if self._thread:
            await asyncio.to_thread(self._thread.shutdown)

    def _save(self, path: str, number: int, metrics: dict[str, Any], began_s: float) -> None:
        with self._errors_said(f"checkpoint {self._fence}.{number} is not complete"):
            self._say(_line(self._seal(path, number, metrics, began_s)))
        with self._errors_said("old checkpoints could not be deleted"):
            self._prune()

    def _seal(self, path: str, number: int, metrics: dict[str, Any], began_s: float) -> Checkpoint:
        return self._checkpoints().seal(path, self._fence, number, _step(metrics), metrics, began_s)

    def _prune(self) -> None:
        checkpoints = self._checkpoints()
        if checkpoints.newest_attempt() > self._fence:
            return  # replaced, and not aware of it: the successor may be reading what this one would delete
        for old in to_delete(
            checkpoints.all(),
            self._policy,
            self._origin,
            fence=self._fence,
            resumed_from=self._resumed_from,
        ):
            checkpoints.delete(old)

    def _checkpoints(self) -> CheckpointStore:
        return CheckpointStore(self._url, self._job_id)

    @contextmanager
    def _errors_said(self, what: str) -> Iterator[None]:
        """The run is worth more than one checkpoint."""
        try:
            yield
        except Exception as error:
            extra = {"action": "checkpoint_failed", "job_id": self._job_id, "fence": self._fence}
            log.exception("job %s: %s", self._job_id, what, extra=extra)
            self._say({"error": f"{what}: {type(error).__name__}: {error}"})

    def _say(self, line: Json) -> None:
        try:
            with self._saved_file.open("a") as file:
                file.write(json.dumps(line) + "\n")
        except OSError:
            log.exception("job %s: %s cannot be written", self._job_id, self._saved_file)


def _step(metrics: dict[str, Any]) -> int | None:
    return whole(metrics.get("step"))


def _line(sealed: Checkpoint) -> Json:
    return {
        "checkpoint": sealed.id,
        "step": sealed.step,
        "at": sealed.at.isoformat(),
        "seconds": sealed.seconds,
        "num_bytes": sealed.num_bytes,
    }
