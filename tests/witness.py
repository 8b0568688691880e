"""Loops that leave a trace of their own, so that what ran, where and when need not be asked from the scheduler.

The weights of a run that nobody disturbed can be had without any of it: `undisturbed`.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import ray
import ray.train
import torch
from torch import Tensor, nn
from torch.distributed import all_reduce, is_initialized

from train_loops import torch_ddp
from train_loops.config import TorchDdpConfig
from train_loops.progress import Progress, append_line, output_dir, whole_folder
from train_loops.ranks import on_any_rank

LIVES_EVERY_S = 0.1


def witnessed(config: dict[str, Any]) -> Any:
    """The loop *loop* with *config*; this process appends to *trace* a line for each step, and while it lives.

    A line: at, job, attempt, rank, pid, node, and did: `lives`, or `stepped` with the step.  *raise_at*, if given:
    the step after which the loop raises.
    """
    line = {**_who(), "trace": config["trace"]}
    threading.Thread(target=_live, args=(line,), daemon=True).start()
    module, _, name = config["loop"].partition(":")
    with _steps_seen(line, config.get("raise_at")):
        return getattr(importlib.import_module(module), name)(config["config"])


def walk(config: dict[str, Any]) -> dict[str, Any]:
    """*steps* of a random walk of *size* weights with momentum; each rank draws from a random state of its own.

    *until*, if given: a file whose appearance ends the walk, wherever it is.  Exact through a stop at any step: each
    rank saves its random state, rank 0 the weights.
    """
    context = ray.train.get_context()
    rank, num_ranks = context.get_world_rank(), context.get_world_size()
    progress = Progress(rank, min_interval_s=0.0)
    progress.say("loading", step=0, total_steps=config["steps"])
    walker, stopped = Walker(config, rank), False
    if _restore(walker, rank):
        checked = ["weights and momentum", "random state of each rank"]
        resumed = {"step": walker.step, "checked": checked, "differs": []}
        progress.say("loading", step=walker.step, resumed=resumed)
    first = walker.step
    done = first >= config["steps"]
    while not done and not stopped:
        time.sleep(config.get("step_time_s", 0.0))
        pull = walker.pull()
        if is_initialized():
            all_reduce(pull)
        walker.move(pull / num_ranks)
        progress.say("training", step=walker.step, total_steps=config["steps"], loss=walker.loss())
        stopped = on_any_rank(progress.stop_requested())
        done = walker.step == config["steps"] or on_any_rank(Path(config.get("until", "/nowhere")).exists())
        if stopped or done or walker.step % config["checkpoint_every_steps"] == 0:
            _save(walker, rank)
    if rank == 0 and not stopped:
        with whole_folder(output_dir()) as folder:
            torch.save({"weights": walker.weights}, folder / "model.pt")
    return {"steps": walker.step, "started_from": first, "stopped": stopped, "output_dir": str(output_dir())}


class Walker:
    """The arithmetic of `walk`, without any of its surroundings."""

    def __init__(self, config: dict[str, Any], rank: int) -> None:
        self.random = torch.Generator().manual_seed(1000 * config["seed"] + rank)
        self.weights = torch.zeros(config.get("size", 64))
        self.momentum = torch.zeros_like(self.weights)
        self.step = 0

    def pull(self) -> Tensor:
        """What this rank has to say about the next step."""
        return self.weights - 1 + torch.randn(self.weights.shape, generator=self.random)

    def move(self, pull: Tensor) -> None:
        self.momentum = 0.9 * self.momentum + pull
        self.weights = self.weights - 0.01 * self.momentum
        self.step += 1

    def loss(self) -> float:
        return (self.weights - 1).square().mean().item()


def undisturbed(loop: str, config: dict[str, Any], num_ranks: int) -> dict[str, Tensor]:
    """The weights that `walk` or `torch_ddp` end with on *num_ranks* ranks, worked out here, rank after rank."""
    return _walked(config, num_ranks) if loop.endswith(":walk") else _trained(config, num_ranks)


def digest(weights: dict[str, Tensor]) -> str:
    """Equal exactly when the weights are equal bit for bit."""
    whole = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        whole.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        whole.update(tensor.contiguous().numpy().tobytes())
    return whole.hexdigest()


def _walked(config: dict[str, Any], num_ranks: int) -> dict[str, Tensor]:
    walkers = [Walker(config, rank) for rank in range(num_ranks)]
    for _ in range(config["steps"]):
        total = sum((walker.pull() for walker in walkers[1:]), start=walkers[0].pull())
        for walker in walkers:
            walker.move(total / num_ranks)
    return {"weights": walkers[0].weights}


def _trained(config: dict[str, Any], num_ranks: int) -> dict[str, Tensor]:
    """As `torch_ddp` trains: each rank its own batch, the gradients' mean, one Adam step."""
    cfg = TorchDdpConfig(**config)
    torch.manual_seed(cfg.seed)
    model = torch_ddp.build_model(cfg)
    optimizer = torch.optim.Adam(model.parameters(), lr=cfg.learning_rate)
    for step in range(cfg.steps):
        optimizer.zero_grad()
        for rank in range(num_ranks):
            inputs, targets = torch_ddp.batch(cfg, step, rank)
            nn.functional.mse_loss(model(inputs), targets).backward()
        for parameter in model.parameters():
            assert parameter.grad is not None
            parameter.grad /= num_ranks
        optimizer.step()
    return model.state_dict()


def _restore(walker: Walker, rank: int) -> bool:
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        return False
    with checkpoint.as_directory() as folder:
        state = torch.load(Path(folder, "state.pt"), weights_only=True)
        walker.random.set_state(torch.load(Path(folder, f"random-{rank}.pt"), weights_only=True))
    walker.weights, walker.momentum, walker.step = state["weights"], state["momentum"], state["step"]
    return True


def _save(walker: Walker, rank: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        torch.save(walker.random.get_state(), Path(folder, f"random-{rank}.pt"))
        if rank == 0:
            state = {"weights": walker.weights, "momentum": walker.momentum, "step": walker.step}
            torch.save(state, Path(folder, "state.pt"))
        checkpoint = ray.train.Checkpoint.from_directory(folder)
        ray.train.report({"step": walker.step, "loss": walker.loss()}, checkpoint=checkpoint)


def _who() -> dict[str, Any]:
    """The run's folder is named after the attempt, the folder above after the job."""
    run = Path(os.environ["TRAIN_OUTPUT_DIR"]).parent
    return {
        "job": run.parent.name,
        "attempt": int(run.name.rpartition("-")[2]),
        "rank": ray.train.get_context().get_world_rank(),
        "pid": os.getpid(),
        "node": ray.get_runtime_context().get_node_id(),
    }


def _live(line: dict[str, Any]) -> None:
    """Until the process ends, however it ends."""
    while True:
        _append(line, did="lives")
        time.sleep(LIVES_EVERY_S)


@contextmanager
def _steps_seen(line: dict[str, Any], raise_at: int | None) -> Iterator[None]:
    say = Progress.say

    def say_and_trace(self: Progress, phase: Any, **values: Any) -> None:
        say(self, phase, **values)
        if phase == "training":
            _append(line, did="stepped", step=values["step"])
            if values["step"] == raise_at:
                raise ValueError(f"boom at step {raise_at}")

    with patch.object(Progress, "say", say_and_trace):
        yield


def _append(line: dict[str, Any], **more: Any) -> None:
    append_line(line["trace"], {"at": time.time(), **{k: v for k, v in line.items() if k != "trace"}, **more})
