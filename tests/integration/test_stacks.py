"""Stacks of real processes: at work, waiting in C, stopped, not Python, and gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from scheduler.ports import RankProcess
from scheduler.runs import stack_dump
from scheduler.runs.stack_dump import LIMIT, capture_here

LOOP = """
import sys, threading, time

def stuck_in_sleep():
    time.sleep(1000)

def stuck_in_a_lock():
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()

def busy():
    while True:
        sum(range(1000))

def many_threads_with_a_long_way(depth=60):
    if depth:
        return many_threads_with_a_long_way(depth - 1)
    start.release()
    threading.Event().wait()

start = threading.Semaphore(0)
if sys.argv[1] == "many_threads_with_a_long_way":
    for _ in range(20):
        threading.Thread(target=many_threads_with_a_long_way, daemon=True).start()
        start.acquire()
print("ready", flush=True)
globals()[sys.argv[1]]()
"""

Start = Callable[..., RankProcess]


@pytest.fixture
def start() -> Iterator[Start]:
    """A process as a rank; it ends with the test."""
    children: list[subprocess.Popen[bytes]] = []

    def start(*command: str, rank: int = 0) -> RankProcess:
        child = subprocess.Popen(command, stdout=subprocess.PIPE)
        children.append(child)
        created_at_s = psutil.Process(child.pid).create_time()
        return RankProcess(rank=rank, node_id="here", pid=child.pid, created_at_s=created_at_s)

    yield start
    for child in children:
        child.kill()
        child.communicate()


@pytest.fixture
def loop(start: Start, tmp_path: Path) -> Callable[..., RankProcess]:
    """A Python process that is about to enter the named function."""
    script = tmp_path / "loop.py"
    script.write_text(LOOP)

    def loop(function: str, rank: int = 0) -> RankProcess:
        return start(sys.executable, str(script), function, rank=rank)

    return loop


def captured_in(rank: RankProcess, words: str) -> str:
    """Its stacks, once it has come to *words*."""
    until_s = time.monotonic() + 20
    while words not in (text := capture_here([rank], timeout_s=10)[rank.rank]):
        assert time.monotonic() < until_s, text
        time.sleep(0.05)
    return text


def state_of(rank: RankProcess) -> str:
    return psutil.Process(rank.pid).status()


def wait_until(condition: Callable[[], bool]) -> None:
    until_s = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < until_s
        time.sleep(0.01)


@pytest.mark.parametrize("function", ["stuck_in_sleep", "stuck_in_a_lock", "busy"])
def test_the_function_where_a_rank_stands_is_named(loop: Start, function: str) -> None:
    text = captured_in(loop(function), f"{function} (loop.py")
    assert "<module> (loop.py" in text
    assert "State: " in text


def test_a_rank_that_is_looked_at_goes_on(loop: Start) -> None:
    """It may only be slow."""
    rank = loop("busy")
    captured_in(rank, "busy (loop.py")
    before = psutil.Process(rank.pid).cpu_times().user
    wait_until(lambda: psutil.Process(rank.pid).cpu_times().user > before + 0.1)


def test_a_stopped_rank_says_so_and_stays_stopped(loop: Start) -> None:
    """Whoever stopped it, with a debugger or by SIGSTOP, would be surprised to see it run."""
    rank = loop("stuck_in_sleep")
    captured_in(rank, "stuck_in_sleep (loop.py")
    os.kill(rank.pid, signal.SIGSTOP)
    wait_until(lambda: state_of(rank) == psutil.STATUS_STOPPED)
    text = capture_here([rank], timeout_s=10)[0]
    assert "stuck_in_sleep (loop.py" in text
    assert "State: T (stopped)" in text
    assert state_of(rank) == psutil.STATUS_STOPPED


def test_a_rank_that_is_gone_is_told_from_its_neighbours(loop: Start) -> None:
    gone, here = loop("stuck_in_sleep", rank=3), loop("stuck_in_sleep", rank=7)
    captured_in(here, "stuck_in_sleep (loop.py")
    os.kill(gone.pid, signal.SIGKILL)
    wait_until(lambda: state_of(gone) == psutil.STATUS_ZOMBIE)
    texts = capture_here([gone, here], timeout_s=10)
    assert texts[3] == f"process {gone.pid} is gone"
    assert "stuck_in_sleep (loop.py" in texts[7]


def test_a_stranger_with_the_pid_of_a_rank_is_not_even_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at: list[int] = []
    monkeypatch.setattr(stack_dump, "_python_stacks", lambda pid, _: str(looked_at.append(pid)))
    me = RankProcess(rank=0, node_id="here", pid=os.getpid(), created_at_s=1.0)
    assert capture_here([me], timeout_s=10) == {0: f"process {os.getpid()} is gone"}
    assert not looked_at


def test_a_rank_that_goes_while_it_is_looked_at_is_gone(
    loop: Start, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its pid may be another's by then, and whatever was read with it."""
    deadly = tmp_path / "py-spy"
    deadly.write_text(
        "#!/bin/sh\nkill -9 $4\nuntil grep -q 'State:.Z' /proc/$4/status; do sleep 0.01; done\n"
    )
    deadly.chmod(0o755)
    monkeypatch.setattr(stack_dump.shutil, "which", lambda *_, **__: str(deadly))
    rank = loop("stuck_in_sleep")
    assert capture_here([rank], timeout_s=10) == {0: f"process {rank.pid} is gone"}


def test_what_is_not_python_is_described_by_the_kernel(start: Start) -> None:
    rank = start("sleep", "1000")
    text = captured_in(rank, "sleeping")
    assert text.startswith("no stacks: ")
    assert "State: S (sleeping)" in text
    assert "backtrace" not in text


def test_without_py_spy_the_kernel_still_speaks(loop: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stack_dump.shutil, "which", lambda *_, **__: None)
    text = capture_here([loop("stuck_in_sleep")], timeout_s=10)[0]
    assert text.startswith("no stacks: py-spy is not installed")
    assert "State: " in text


def test_a_py_spy_that_hangs_is_given_up(
    loop: Start, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hanging = tmp_path / "py-spy"
    hanging.write_text("#!/bin/sh\nexec sleep 1000\n")
    hanging.chmod(0o755)
    monkeypatch.setattr(stack_dump.shutil, "which", lambda *_, **__: str(hanging))
    began_s = time.monotonic()
    text = capture_here([loop("stuck_in_sleep")], timeout_s=0.6)[0]
    assert time.monotonic() - began_s < 10
    assert text.startswith("no stacks: py-spy did not answer")


def test_the_text_is_bounded_and_keeps_both_ends(loop: Start) -> None:
    rank = loop("many_threads_with_a_long_way")
    text = captured_in(rank, "... cut ...")
    assert len(text) <= LIMIT
    assert "MainThread" in text
    assert "State: " in text


def test_nobody_to_ask_is_nothing_to_tell() -> None:
    assert capture_here([], timeout_s=1) == {}
