"""Small loops for tests of whoever starts loops: each does one thing, well or badly."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray.train

from train_loops.progress import Progress
from train_loops.ranks import on_any_rank


def quick(config: dict[str, Any]) -> dict[str, Any]:
    """*steps* of *step_time_s*, a checkpoint every *checkpoint_every_steps*; resumes, stops when asked."""
    progress, first = begin(config)
    total_steps = config.get("total_steps", config.get("steps", 5))
    step = first
    while step < config.get("steps", 5):
        time.sleep(config.get("step_time_s", 0.0))
        step += 1
        progress.say("training", step=step, total_steps=total_steps, loss=1.0 / step)
        stopped = on_any_rank(progress.stop_requested())
        if stopped or step % config.get("checkpoint_every_steps", 1) == 0:
            save(step)
        if stopped:
            return {"steps": step, "started_from": first, "stopped": True}
    progress.flush()
    return {"steps": step, "started_from": first}


def until(config: dict[str, Any]) -> dict[str, Any]:
    """Steps until the file *until* is there, however slow the machine is."""
    progress, step = begin(config)
    while not Path(config["until"]).exists():
        time.sleep(0.1)
        step += 1
        progress.say("training", step=step)
    progress.flush()
    return {"steps": step}


def slow_to_load(config: dict[str, Any]) -> dict[str, Any]:
    """`quick` after *load_s* seconds without a step."""
    progress, first = begin(config)
    progress.say("loading", step=first)
    time.sleep(config["load_s"])
    return quick(config)


def crash(config: dict[str, Any]) -> dict[str, Any]:
    """Raises at step *at*, in every attempt: one that resumes there or later raises at once."""
    return quick_until(config, raise_boom)


def crash_once(config: dict[str, Any]) -> dict[str, Any]:
    """Raises at step *at*, but only until the file *marker* exists; leaves it."""
    marker = Path(config["marker"])
    if marker.exists():
        return quick(config)
    return quick_until(config, lambda step: (marker.touch(), raise_boom(step)))


def exits(config: dict[str, Any]) -> dict[str, Any]:
    """The process ends at step *at* without a word."""
    return quick_until(config, lambda step: os._exit(3))


def hang(config: dict[str, Any]) -> dict[str, Any]:
    """Takes *at* steps, then none for *hang_s* seconds."""
    return quick_until(config, lambda step: time.sleep(config.get("hang_s", 3600)))


def only_reports(config: dict[str, Any]) -> None:
    """Written for Ray Train alone: knows no progress file, and asks what any loop may ask there."""
    for step in range(1, config["steps"] + 1):
        ray.train.report({"step": step, "accuracy": step / 10})
    assert ray.train.get_all_reported_checkpoints() == [], "asked of Ray Train's controller"


def noisy(config: dict[str, Any]) -> dict[str, Any]:
    """Writes to stdout and stderr in every way there is: Python, the bare descriptor, a child process."""
    for number in range(config.get("lines", 3)):
        print(f"print to stdout {number}", flush=True)
        print(f"print to stderr {number}", file=sys.stderr, flush=True)
        os.write(1, f"descriptor 1 {number}\n".encode())
        os.write(2, f"descriptor 2 {number}\n".encode())
        subprocess.run([sys.executable, "-c", f"print('child of {os.getpid()}: {number}')"], check=True)
    return quick(config)


def counts_aloud(config: dict[str, Any]) -> None:
    """Every rank prints *lines* numbered lines, *pause_s* after each; each in two writes, with more than ASCII."""
    rank = ray.train.get_context().get_world_rank()
    for number in range(config["lines"]):
        print(f"rank {rank} ä…😀", end=" ", flush=True)
        print(f"line {number}", flush=True)
        time.sleep(config["pause_s"])


def ignores_stop(config: dict[str, Any]) -> dict[str, Any]:
    """Runs for *run_s* seconds whatever happens: no look at the stop file, deaf to SIGTERM and SIGINT."""
    progress, _ = begin(config)
    for number in (signal.SIGTERM, signal.SIGINT):
        try:
            signal.signal(number, signal.SIG_IGN)
        except ValueError:  # Ray Train runs the loop in a thread, where handlers cannot be set
            signal.pthread_sigmask(signal.SIG_BLOCK, {number})
    deadline_s = time.monotonic() + config.get("run_s", 3600)
    step = 0
    while time.monotonic() < deadline_s:
        step += 1
        progress.say("training", step=step)
        time.sleep(0.05)
    return {"steps": step}


def begin(config: dict[str, Any]) -> tuple[Progress, int]:
    """The messenger, and the step to go on from.  *pid_file*, if given, gets a line: rank, process id."""
    rank = ray.train.get_context().get_world_rank()
    if pid_file := config.get("pid_file"):
        with Path(pid_file).open("a") as file:
            file.write(f"{rank} {os.getpid()}\n")
    progress = Progress(rank, min_interval_s=0.0)
    progress.say("loading")
    return progress, restore()


def quick_until(config: dict[str, Any], act: Callable[[int], object]) -> dict[str, Any]:
    """`quick` up to step *at* (2 by default), then *act*, in every attempt, then the rest."""
    at = config.get("at", 2)
    quick(config | {"steps": at, "total_steps": config.get("steps", 5)})
    act(at)
    return quick(config)


def raise_boom(step: int) -> None:
    raise ValueError(f"boom at step {step}")


def restore() -> int:
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        return 0
    with checkpoint.as_directory() as folder:
        return json.loads(Path(folder, "step.json").read_text())


def save(step: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = None
        if ray.train.get_context().get_world_rank() == 0:
            Path(folder, "step.json").write_text(json.dumps(step))
            checkpoint = ray.train.Checkpoint.from_directory(folder)
        ray.train.report({"step": step}, checkpoint=checkpoint)
