"""Ending processes that are known by pid and birth, and what they leave on the disk."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import psutil

from scheduler.ports import RankProcess
from scheduler.runs.processes import SCRATCH, alive_here, end_here


def a_process() -> psutil.Process:
    return psutil.Process(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]).pid)


def as_rank(process: psutil.Process, scratch: str = "", born: float = 0.0) -> RankProcess:
    created_at_s = process.create_time() + born
    return RankProcess(rank=0, node_id="n", pid=process.pid, created_at_s=created_at_s, scratch=scratch)


def test_a_process_is_ended_and_its_scratch_goes_with_it() -> None:
    """A rank that is killed removes nothing, and its unsent checkpoint would fill the node's disk."""
    scratch = Path(tempfile.mkdtemp(prefix=SCRATCH))
    (scratch / "half a checkpoint").write_bytes(b"x" * 1000)
    rank = as_rank(a_process(), str(scratch))
    assert alive_here([rank]) == [rank]
    assert end_here([rank], grace_s=0.0) == []
    assert alive_here([rank]) == []
    assert not scratch.exists()


def test_nothing_but_a_ranks_scratch_is_removed(tmp_path: Path) -> None:
    """The name comes from a file that anybody could have written."""
    precious = tmp_path / "precious"
    precious.mkdir()
    assert end_here([as_rank(a_process(), str(precious))], grace_s=0.0) == []
    assert precious.exists()


def test_another_process_with_the_same_pid_is_left_alone() -> None:
    """Pids come again."""
    process = a_process()
    assert end_here([as_rank(process, born=-60.0)], grace_s=0.0) == []
    assert process.is_running()
    process.kill()
