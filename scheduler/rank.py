"""What runs on every rank: name the process, keep its output, enter the loop, keep what it raised."""

from __future__ import annotations

import base64
import importlib
import os
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any, TypedDict

import psutil

from scheduler.checkpoints import resolve
from scheduler.ports import RankProcess
from scheduler.processes import SCRATCH
from scheduler.reports import keep_reports
from scheduler.run_folder import RunFolder


class RankPlan(TypedDict):
    """All that a rank needs, as plain values: Ray carries it to the node."""

    folder: str
    function: str
    code: str | None
    """The function itself, by cloudpickle in base64, where it is none that can be imported."""
    config: dict[str, Any]
    cpus_per_rank: float
    checkpoint_url: str
    resume_from: str | None
    """Path of the checkpoint to go on from, within the file system of `checkpoint_url`."""


def run_rank(plan: RankPlan) -> Any:
    """The train function that Ray Train calls.  Returns what the loop returns."""
    import ray
    import ray.train

    folder = RunFolder(Path(plan["folder"]))
    rank = ray.train.get_context().get_world_rank()
    node_id = ray.get_runtime_context().get_node_id()
    me, scratch = psutil.Process(), _own_scratch()
    folder.write_rank(
        RankProcess(
            rank=rank, node_id=node_id, pid=me.pid, created_at_s=me.create_time(), scratch=str(scratch)
        )
    )
    _keep_output(folder.log_file(rank))
    _set_environment(folder, rank)
    _use_cpus(plan["cpus_per_rank"])
    if rank == 0:
        _keep_reports(folder)
    if plan["resume_from"]:
        _go_on_from(plan["checkpoint_url"], plan["resume_from"])
    try:
        return _function(plan)(plan["config"])
    except BaseException as error:
        words = traceback.format_exc()
        print(words, file=sys.stderr)
        folder.write_error(
            rank,
            {
                "rank": rank,
                "at": time.time(),
                "type": type(error).__name__,
                "message": str(error),
                "traceback": words,
            },
        )
        raise
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def _own_scratch() -> Path:
    """A temporary folder that others can remove: a process that is killed removes nothing, and a checkpoint on its
    way to the storage may be gigabytes."""
    scratch = Path(tempfile.mkdtemp(prefix=SCRATCH))
    os.environ["TMPDIR"] = tempfile.tempdir = str(scratch)
    return scratch


def _keep_output(log_file: Path) -> None:
    """Everything the process prints, from Python or from C, goes straight to a file: a kill loses no line."""
    print(f"the output of this rank goes to {log_file}", flush=True)
    descriptor = os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)


def _set_environment(folder: RunFolder, rank: int) -> None:
    """The contract with loops (docs/architecture.md): plain variables, so that loops need not know us."""
    os.environ["TRAIN_OUTPUT_DIR"] = str(folder.output_dir)
    os.environ["TRAIN_STOP_FILE"] = str(folder.stop_file)
    if rank == 0:
        os.environ["TRAIN_PROGRESS_FILE"] = str(folder.progress_file)
        with folder.progress_file.open("a") as file:
            file.write(f'{{"time": {time.time()}, "phase": "loading"}}\n')


def _go_on_from(url: str, path: str) -> None:
    """Make `ray.train.get_checkpoint()` return the checkpoint that the scheduler verified.

    Ray Train would pick one by its own snapshot of an earlier run of the same name, whole or not, and has no
    public way to be told.
    """
    from ray.train import Checkpoint
    from ray.train.v2._internal.execution.context import get_train_context

    get_train_context().checkpoint = Checkpoint(path, resolve(url)[0])


def _keep_reports(folder: RunFolder) -> None:
    """Every number that goes to `ray.train.report`, when it is told: Ray Train has no public way to listen here."""
    from ray.train.v2._internal.execution.context import get_train_context

    keep_reports(get_train_context(), folder.progress_file)


def _use_cpus(cpus: float) -> None:
    """As many threads as the rank has cores; the process was made before anybody knew."""
    import torch

    torch.set_num_threads(max(1, int(cpus)))


def _function(plan: RankPlan) -> Any:
    if plan["code"]:
        import cloudpickle

        return cloudpickle.loads(base64.b64decode(plan["code"]))
    module, _, name = plan["function"].partition(":")
    return getattr(importlib.import_module(module), name)
