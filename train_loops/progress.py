"""How a loop talks to whoever started it: three plain environment variables, each of them optional.

TRAIN_PROGRESS_FILE   rank 0 appends one JSON object a line; keys persist, so a reader merges lines
TRAIN_STOP_FILE       once this path exists, save a checkpoint and return soon
TRAIN_OUTPUT_DIR      where rank 0 puts the final result
"""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

Phase = Literal["loading", "training", "saving"]


class Progress:
    """Rank 0's messages.  On other ranks, and without the environment variables, nothing is written."""

    def __init__(self, rank: int, *, min_interval_s: float = 0.1) -> None:
        """*min_interval_s*: lines that come sooner are merged into the next, so a fast loop stays fast."""
        mine = os.environ if rank == 0 else {}
        self._file = mine.get("TRAIN_PROGRESS_FILE")
        self._stop_file = mine.get("TRAIN_STOP_FILE")
        self._min_interval_s = min_interval_s
        self._pending: dict[str, Any] = {}
        self._written_at_s = -math.inf
        self._phase: Phase | None = None
        self._stop_seen = False

    def say(self, phase: Phase, **values: Any) -> None:
        """Tell where the loop is.  A change of phase is written at once."""
        self._pending |= {"phase": phase, **values}
        if phase != self._phase or time.monotonic() - self._written_at_s >= self._min_interval_s:
            self._phase = phase
            self.flush()

    def flush(self) -> None:
        """Write what was merged but not written yet; call it once at the end."""
        if self._file and self._pending:
            append_line(self._file, {"time": time.time(), **self._pending})
        self._pending = {}
        self._written_at_s = time.monotonic()

    def stop_requested(self) -> bool:
        """Rank 0's view only: let all ranks agree on it before acting.  The first time is told at once."""
        if not self._stop_seen and self._stop_file and Path(self._stop_file).exists():
            self._stop_seen = True
            self._pending["stop_seen"] = time.time()
            self.flush()
        return self._stop_seen


def append_line(file: str, values: dict[str, Any]) -> None:
    """One `write`, so that a reader never sees half a line.  JSON has no NaN: such a number becomes null."""
    finite = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}
    line = json.dumps(finite, allow_nan=False) + "\n"
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


def output_dir() -> Path:
    """Where the final result goes: TRAIN_OUTPUT_DIR, else `output` in Ray Train's storage folder."""
    if told := os.environ.get("TRAIN_OUTPUT_DIR"):
        return Path(told)
    import ray.train

    try:
        storage: Any = ray.train.get_context().get_storage()
    except NotImplementedError:  # Ray Train's local mode has no storage
        return Path.cwd() / "output"
    return Path(storage.experiment_fs_path) / "output"


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """A temporary folder beside *target*; takes its place when the block ends well, vanishes when not."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        yield partial
        partial.chmod(0o755)
        if target.exists():
            target.rename(partial.with_name(f"{partial.name}-replaced"))
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(partial.with_name(f"{partial.name}-replaced"), ignore_errors=True)
