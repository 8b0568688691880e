"""Where do the ranks of a run stand?  Asked on their node, of processes that may be hung, stopped or gone."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from scheduler.ports import RankProcess
from scheduler.runs.processes import alive_here

LIMIT = 16 * 1024
"""Characters kept for each rank."""
_TRIES = 3
_AT_ONCE = 8


def capture_here(ranks: Sequence[RankProcess], timeout_s: float) -> dict[int, str]:
    """The Python stacks of all threads of each rank, with what the kernel says of its process; rank -> text.

    Where stacks cannot be read the text says why.  Takes up to *timeout_s* for each eight ranks, never raises, and
    never stops, signals or attaches to a process: a rank that is only slow goes on untouched.
    """
    if not ranks:
        return {}
    with ThreadPoolExecutor(min(len(ranks), _AT_ONCE)) as pool:
        texts = pool.map(lambda rank: _capture(rank, timeout_s), ranks)
        return {rank.rank: _bounded(text) for rank, text in zip(ranks, texts, strict=True)}


def _capture(rank: RankProcess, timeout_s: float) -> str:
    try:
        if not alive_here([rank]):
            return f"process {rank.pid} is gone"
        stacks = _python_stacks(rank.pid, timeout_s)
        # Looked up again: a pid that was given to another process meanwhile has told us of a stranger.
        return (
            f"{stacks}\n\n{_kernel_view(rank.pid)}" if alive_here([rank]) else f"process {rank.pid} is gone"
        )
    except Exception as error:  # noqa: BLE001  one rank that cannot be read must not hide the others
        return f"no stacks: {type(error).__name__}: {error}"


def _python_stacks(pid: int, timeout_s: float) -> str:
    spy = shutil.which("py-spy", path=str(Path(sys.executable).parent)) or shutil.which("py-spy")
    if spy is None:
        return "no stacks: py-spy is not installed on this node"
    # By default py-spy holds its target with ptrace, which fails for a stopped process and has left others stopped.
    # Without that it only reads memory: a thread that runs meanwhile may give a garbled stack or none, so try again.
    complaint = ""
    for _ in range(_TRIES):
        process = subprocess.Popen(
            [spy, "dump", "--nonblocking", "--pid", str(pid)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )
        try:
            out, err = process.communicate(timeout=timeout_s / _TRIES)
        except subprocess.TimeoutExpired:
            process.kill()  # and not waited for: in the same uninterruptible sleep as its target it would not go
            complaint = "py-spy did not answer"
            continue
        if process.returncode == 0:
            return out.strip()
        complaint = err.partition("Stack backtrace:")[0].strip()
    return f"no stacks: {complaint}"


def _kernel_view(pid: int) -> str:
    """What /proc tells even of a process in uninterruptible sleep.  Lines that may not be read are left out."""
    proc = Path("/proc", str(pid))
    wanted = ("State:", "Threads:", "VmRSS:")
    status = [line for line in _read(proc / "status").splitlines() if line.startswith(wanted)]
    parts = [" ".join(line.split()) for line in status]
    if (where := _read(proc / "wchan")) not in ("", "0"):
        parts.append(f"waits in the kernel at {where}")
    return "\n".join([", ".join(parts), *_read(proc / "stack").splitlines()]).strip()


def _read(file: Path) -> str:
    try:
        return file.read_text(errors="replace").strip()
    except OSError:
        return ""


def _bounded(text: str) -> str:
    """The beginning has the main thread, the end the kernel's view."""
    if len(text) <= LIMIT:
        return text
    cut = "\n... cut ...\n"
    half = (LIMIT - len(cut)) // 2
    return text[:half] + cut + text[-half:]
