"""Is a process really gone?  Asked on the machine where it ran; a pid alone is not an identity."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from scheduler.ports import RankProcess

SCRATCH = "scheduler-rank-"
"""How the temporary folders of ranks begin: nothing else is removed."""
KILLED_WITHIN_S = 5.0


def began_s(pid: int) -> float:
    """When a process began, in seconds since the machine did: a clock that is set does not move it.

    Where there is no /proc: seconds since the epoch.  Raises psutil.NoSuchProcess.
    """
    try:
        after_name = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return int(after_name[19]) / os.sysconf("SC_CLK_TCK")
    except (FileNotFoundError, ProcessLookupError):
        if Path("/proc/self/stat").exists():
            raise psutil.NoSuchProcess(pid) from None
    return psutil.Process(pid).create_time()


def living(pid: int, began: float) -> psutil.Process | None:
    """The process that had this pid when it *began*, if it lives: by `began_s`, or in seconds since the epoch."""
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        is_same = abs(began_s(pid) - began) < 0.05 or abs(process.create_time() - began) < 1.0
        if is_same and process.status() != psutil.STATUS_ZOMBIE:
            return process
    return None


def alive_here(ranks: Sequence[RankProcess]) -> list[RankProcess]:
    """Those of *ranks* that still live on this machine."""
    return [rank for rank in ranks if living(rank.pid, rank.created_at_s)]


def end_here(ranks: Sequence[RankProcess], grace_s: float) -> list[RankProcess]:
    """Wait up to *grace_s* seconds for them to go by themselves, then kill.  Returns who outlived even that.

    What they kept on this machine's disk goes with them.
    """
    processes = [found for rank in ranks if (found := living(rank.pid, rank.created_at_s))]
    _, left = psutil.wait_procs(processes, timeout=grace_s)
    for process in left:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(left, timeout=KILLED_WITHIN_S)
    outlived = alive_here(ranks)
    for rank in ranks:
        if rank not in outlived and Path(rank.scratch).name.startswith(SCRATCH):
            shutil.rmtree(rank.scratch, ignore_errors=True)
    return outlived
