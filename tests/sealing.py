"""Processes that save checkpoints: one to be killed, and one that runs Ray Train on a cluster of its own."""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import time
from itertools import count
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from pyarrow import fs as arrow

from scheduler.core.checkpoints import Checkpoint, to_delete
from scheduler.core.model import CheckpointPolicy, Fence, JobId, Origin
from scheduler.runs.checkpoint_callback import CheckpointCallback
from scheduler.runs.checkpoint_store import CheckpointStore, train_name

NUM_BYTES = 200_000
"""Of each checkpoint that `without_a_pause` saves."""


def without_a_pause(url: str, job_id: JobId, fence: Fence, tell: Connection) -> None:
    """Save, seal and delete as fast as it goes; tell the number of each that is complete."""
    checkpoints = CheckpointStore(url, job_id)
    with tempfile.TemporaryDirectory(dir=url) as source:
        for number in count(1):
            for name in ("model", "optimizer"):
                Path(source, name).write_bytes(os.urandom(NUM_BYTES // 2))
            path = f"{checkpoints.root}/{train_name(job_id, fence)}/checkpoint_{number}"
            checkpoints.filesystem.create_dir(path)
            arrow.copy_files(source, path, destination_filesystem=checkpoints.filesystem)
            checkpoints.seal(path, fence, number, None, {}, time.monotonic())
            tell.send(number)
            for old in to_delete(checkpoints.all(), CheckpointPolicy(keep_last=2), Origin(), fence=fence):
                checkpoints.delete(old)


class SlowSeal(CheckpointCallback):
    """Seals nothing before the loop has made its last report, and then slowly; number *unlucky* fails."""

    def __init__(self, marker: Path, unlucky: int | None, **options: Any) -> None:
        super().__init__(**options)
        self._marker, self._unlucky = marker, unlucky

    def _seal(self, path: str, number: int, metrics: dict[str, Any], began_s: float) -> Checkpoint:
        while not self._marker.exists():
            time.sleep(0.01)
        time.sleep(0.5)  # a slow storage
        if number == self._unlucky:
            raise OSError("the storage is down")
        return super()._seal(path, number, metrics, began_s)


def save_and_return(config: dict[str, Any]) -> str:
    """*reports* checkpoints, the last of them cut short by SIGKILL if *killed*; then the file *marker*."""
    from ray import train

    def die(checkpoint: train.Checkpoint, name: str) -> train.Checkpoint:
        """In the place of Ray Train's own upload, which gets this far before the process is killed."""
        target = Path(config["url"], config["job_id"], train_name(config["job_id"], config["fence"]), name)
        target.mkdir()
        (target / "model").write_bytes(b"mod")
        Path(config["marker"]).touch()
        os.kill(os.getpid(), signal.SIGKILL)
        return checkpoint

    for step in range(1, config["reports"] + 1):
        train.report({"loss": 0.0})  # no checkpoint, no number
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "model").write_text(f"model of step {step}")
            train.report(
                {"step": step * 10, "loss": 1 / step},
                checkpoint=train.Checkpoint.from_directory(folder),
                checkpoint_upload_fn=die if config["killed"] and step == config["reports"] else None,
            )
    Path(config["marker"]).touch()
    return "returned"


def fit(request: dict[str, Any]) -> dict[str, Any]:
    """What `fit()` returned or raised, and which checkpoints are complete at that moment."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

    url, job_id, fence = request["url"], JobId(request["job_id"]), Fence(request["fence"])
    checkpoints = CheckpointStore(url, job_id)
    seal = SlowSeal(
        Path(request["marker"]),
        request["unlucky"],
        url=url,
        job_id=job_id,
        fence=fence,
        policy=CheckpointPolicy(keep_last=2),
        origin=Origin(),
        saved_file=Path(request["saved_file"]),
    )
    trainer = DataParallelTrainer(
        save_and_return,
        train_loop_config=request,
        scaling_config=ScalingConfig(num_workers=1),
        run_config=RunConfig(
            name=train_name(job_id, fence),
            storage_path=checkpoints.root,
            storage_filesystem=checkpoints.filesystem,
            failure_config=FailureConfig(controller_failure_limit=0),
            callbacks=[seal],  # pyright: ignore[reportArgumentType]
        ),
    )
    try:
        said = {"returned": trainer.fit().return_value}
    except Exception as error:  # noqa: BLE001  the parent gets to see it
        said = {"raised": type(error).__name__}
    return {"fit": said, "complete": [one.id for one in checkpoints.all()]}


def main() -> None:
    """Answer each request, a line of JSON, with a line."""
    import ray

    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, _temp_dir=folder)
        for line in sys.stdin:
            print(json.dumps(fit(json.loads(line))), flush=True)
        ray.shutdown()


if __name__ == "__main__":
    main()
