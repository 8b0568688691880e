"""What runs on every rank: name the process, keep its output, enter the loop, keep how that ended."""

from __future__ import annotations

import base64
import linecache
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, TypedDict

import psutil

from scheduler.core.model import SOURCE
from scheduler.core.plain_values import plain_dict, plain_error
from scheduler.core.run_end import Returned
from scheduler.ports import RankProcess
from scheduler.runs.checkpoint_store import resolve
from scheduler.runs.processes import SCRATCH
from scheduler.runs.ray_internals import rank_context, resume_from
from scheduler.runs.report_hook import Reports, keep_reports
from scheduler.runs.run_dir import RunDir


class WorkerPlan(TypedDict):
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


class LoopFailed(Exception):
    """Stands for whatever the loop raised: that may be a class that no other process can make again."""


def run_rank(plan: WorkerPlan) -> None:
    """The train function that Ray Train calls.  How it ended is in the run's folder before anything else is done.

    Ray Train gets neither what the loop returned nor what it raised: either may be an object that no other process
    can read.
    """
    import ray.train

    folder = RunDir(Path(plan["folder"]))
    rank = ray.train.get_context().get_world_rank()
    with _recording_errors(folder, rank):
        reports = _prepare(plan, folder, rank)
        with _recording_exits(folder, rank):
            result = _function(plan)(plan["config"])
        _leave_result(folder, rank, reports.last if result is None else result)
    _flush()


def _prepare(plan: WorkerPlan, folder: RunDir, rank: int) -> Reports:
    import ray

    me, scratch, node_id = psutil.Process(), _own_scratch(), ray.get_runtime_context().get_node_id()
    folder.write_rank(
        RankProcess(
            rank=rank, node_id=node_id, pid=me.pid, created_at_s=me.create_time(), scratch=str(scratch)
        )
    )
    _keep_output(folder.log_file(rank))
    _set_environment(folder, rank)
    _use_cpus(plan["cpus_per_rank"])
    if plan["resume_from"]:
        _go_on_from(plan["checkpoint_url"], plan["resume_from"])
    return keep_reports(rank_context(), folder.progress_file if rank == 0 else None)


@contextmanager
def _recording_errors(folder: RunDir, rank: int) -> Iterator[None]:
    """Written down first, printed after: the text of an error may be one that cannot be printed."""
    try:
        yield
    except BaseException as error:  # noqa: BLE001  also SystemExit: whatever leaves the loop is how it ended
        told = plain_error(error)
        try:
            folder.write_error(rank, {"rank": rank, "at": time.time(), **told})
        finally:
            with suppress(Exception):  # the loop may have put anything in the place of its stderr
                print(told["traceback"], file=sys.stderr)
            _flush()
        raise LoopFailed(f"{told['type']}: {told['message']}") from None


@contextmanager
def _recording_exits(folder: RunDir, rank: int) -> Iterator[None]:
    """`os._exit` ends the process without a word, and Ray cannot tell it from a kill."""
    leave, pid = os._exit, os.getpid()

    def tell_and_leave(status: int) -> None:
        if os.getpid() == pid:  # else it is a child that was forked here
            with suppress(OSError):
                folder.write_exit(rank, int(status))
        leave(status)

    os._exit = tell_and_leave
    try:
        yield
    finally:
        os._exit = leave


def _leave_result(folder: RunDir, rank: int, result: Any) -> None:
    import ray.train

    value, notes = plain_dict(result)
    num_ranks = ray.train.get_context().get_world_size()
    folder.write_returned(Returned(rank=rank, num_ranks=num_ranks, result=value, notes=notes))
    for note in notes:
        with suppress(Exception):
            print(f"returned: {note}", file=sys.stderr)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):  # closed, or replaced by the loop
            stream.flush()


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
    # Whatever a loop prints is written: half a surrogate pair in a file name must not end a training.
    sys.stdout, sys.stderr = (
        os.fdopen(number, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)
        for number in (1, 2)
    )


def _set_environment(folder: RunDir, rank: int) -> None:
    """The contract with loops (docs/architecture.md): plain variables, so that loops need not know us."""
    os.environ["TRAIN_OUTPUT_DIR"] = str(folder.output_dir)
    os.environ["TRAIN_STOP_FILE"] = str(folder.stop_file)
    if rank == 0:
        os.environ["TRAIN_PROGRESS_FILE"] = str(folder.progress_file)
        with folder.progress_file.open("a") as file:
            file.write(f'{{"time": {time.time()}, "phase": "loading"}}\n')


def _go_on_from(url: str, path: str) -> None:
    """Make `ray.train.get_checkpoint()` return the checkpoint that the scheduler verified."""
    from ray.train import Checkpoint

    resume_from(Checkpoint(path, resolve(url)[0]))


def _use_cpus(cpus: float) -> None:
    """As many threads as the rank has cores; the process was made before anybody knew."""
    import torch

    torch.set_num_threads(max(1, int(cpus)))


def _function(plan: WorkerPlan) -> Any:
    if plan["code"]:
        import cloudpickle

        function = cloudpickle.loads(base64.b64decode(plan["code"]))
        _show_in_tracebacks(function)
        return function
    return resolve_name(plan["function"])


def _show_in_tracebacks(function: Any) -> None:
    """The file of a function that was sent along is on another machine."""
    code, source = getattr(function, "__code__", None), getattr(function, SOURCE, None)
    if code and isinstance(source, str):
        lines = source.splitlines(keepends=True)
        linecache.cache[code.co_filename] = (len(source), None, lines, code.co_filename)
