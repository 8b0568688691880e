"""Processes that do not outlive whoever started them."""

from __future__ import annotations

import ctypes
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.stack.errors import StackError

PR_SET_PDEATHSIG = 1


def start(
    command: Sequence[str | Path],
    *,
    log: Path,
    when_orphaned: signal.Signals,
    env: Mapping[str, str] | None = None,
    user: int | None = None,
) -> subprocess.Popen[bytes]:
    """Start *command* in a session of its own, out of reach of the terminal's Ctrl-C, with its output in *log*.

    It gets the signal *when_orphaned* when the starting thread ends, so call this from a thread that stays.
    """

    with log.open("ab") as out:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            env=env,
            user=user,
            group=user,
            extra_groups=None if user is None else [],
            start_new_session=True,
            preexec_fn=_die_with_parent(when_orphaned),
        )


def _die_with_parent(sent: signal.Signals) -> Callable[[], None]:
    # Loaded before the fork: nothing may be imported between fork and exec.
    prctl = ctypes.CDLL(None).prctl
    return lambda: prctl(PR_SET_PDEATHSIG, int(sent))


def end(process: subprocess.Popen[bytes], asked: signal.Signals, within_s: float = 10) -> None:
    """Ask *process* to end, and kill it when it has not after *within_s* seconds."""
    process.send_signal(asked)
    try:
        process.wait(within_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def wait_ready(
    process: subprocess.Popen[bytes], ready: Callable[[], bool], *, log: Path, name: str, within_s: float = 30
) -> None:
    """Return once *ready* says so; raise StackError with the end of *log* when the process dies or stays silent."""
    until_s = time.monotonic() + within_s
    while not ready():
        if process.poll() is not None or time.monotonic() > until_s:
            tail = log.read_text(errors="replace")[-3000:]
            raise StackError(f"{name} did not start; the end of its log, {log}:\n{tail}")
        time.sleep(0.01)
