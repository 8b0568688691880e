"""Is a process really gone?  Asked on the node where it ran; a pid alone is not an identity."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from scheduler.ports import RankProcess


def alive_here(ranks: Sequence[RankProcess]) -> list[RankProcess]:
    """Those of *ranks* that still live on this machine."""
    return [rank for rank in ranks if _find(rank)]


SCRATCH = "scheduler-rank-"
"""How the temporary folders of ranks begin: nothing else is removed."""


def end_here(ranks: Sequence[RankProcess], grace_s: float) -> list[RankProcess]:
    """Wait up to *grace_s* seconds for them to go by themselves, then kill.  Returns who outlived even that.

    What they kept on this machine's disk goes with them.
    """
    if not _wait_gone(ranks, grace_s):
        for rank in ranks:
            if process := _find(rank):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
        _wait_gone(ranks, 5.0)
    left = alive_here(ranks)
    for rank in ranks:
        if rank not in left and Path(rank.scratch).name.startswith(SCRATCH):
            shutil.rmtree(rank.scratch, ignore_errors=True)
    return left


def _wait_gone(ranks: Sequence[RankProcess], seconds: float) -> bool:
    until_s = time.monotonic() + seconds
    while alive_here(ranks):
        if time.monotonic() >= until_s:
            return False
        time.sleep(0.02)
    return True


def _find(rank: RankProcess) -> psutil.Process | None:
    try:
        process = psutil.Process(rank.pid)
        same = abs(process.create_time() - rank.created_at_s) < 1.0
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.NoSuchProcess:
        return None
