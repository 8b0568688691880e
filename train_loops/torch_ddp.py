"""A small plain-PyTorch loop, data-parallel over ranks.  Copy it and put your own model and data in.

A run that is stopped or killed and started again ends with the same weights as one left alone: the checkpoint
holds weights, optimizer, step and random state, and the data of a step is a function of (seed, step, rank).
"""

from __future__ import annotations

import math
import tempfile
import time
from pathlib import Path
from typing import Any

import ray.train
import torch
from ray.train.torch import get_device, prepare_model
from torch import Tensor, nn
from torch.distributed import ReduceOp, all_reduce, is_initialized
from torch.optim import Optimizer

from train_loops.config import TorchDdpConfig
from train_loops.progress import Progress, output_dir, whole_folder


def train(config: dict[str, Any]) -> dict[str, Any]:
    """Train to the last step, or until a stop is requested.  Runs on every rank; rank 0 saves."""
    cfg = TorchDdpConfig(**config)
    rank = ray.train.get_context().get_world_rank()
    progress = Progress(rank)
    progress.say("loading", step=0, total_steps=cfg.steps)

    torch.manual_seed(cfg.seed)
    model = prepare_model(build_model(cfg))
    optimizer = torch.optim.Adam(model.parameters(), lr=cfg.learning_rate)
    first = step = load_checkpoint(model, optimizer)
    loss, stopped = math.nan, False

    while step < cfg.steps and not stopped:
        loss = train_step(model, optimizer, batch(cfg, step, rank), step)
        step += 1
        time.sleep(cfg.step_time_s)
        progress.say("training", step=step, total_steps=cfg.steps, loss=loss, learning_rate=cfg.learning_rate)
        stopped = on_any_rank(progress.stop_requested())
        if stopped or step == cfg.steps or step % cfg.checkpoint_every_steps == 0:
            progress.say("saving")
            save_checkpoint(model, optimizer, step, loss, rank)
            print(f"step {step}/{cfg.steps}  loss {loss:.6f}  checkpoint saved", flush=True)

    output = None if stopped or rank else save_model(model)
    progress.flush()
    done = {"steps": step, "started_from": first, "train_loss": loss}
    return {**done, "stopped": stopped, "output_dir": output}


def build_model(cfg: TorchDdpConfig) -> nn.Module:
    return nn.Sequential(nn.Linear(cfg.features, cfg.hidden), nn.Tanh(), nn.Linear(cfg.hidden, 1))


def batch(cfg: TorchDdpConfig, step: int, rank: int) -> tuple[Tensor, Tensor]:
    """Inputs and targets; always the same for a step, so a resumed run goes on with the right data."""
    random = torch.Generator().manual_seed(hash((cfg.seed, step, rank)) % 2**63)
    inputs = torch.randn(cfg.batch_size, cfg.features, generator=random)
    return inputs, inputs.sin().sum(dim=1, keepdim=True)


def train_step(model: nn.Module, optimizer: Optimizer, data: tuple[Tensor, Tensor], step: int) -> float:
    """One optimizer step; this rank's loss.  ArithmeticError on all ranks if it is not finite on one."""
    inputs, targets = (part.to(get_device()) for part in data)
    loss = nn.functional.mse_loss(model(inputs), targets)
    value = loss.item()  # sync point with a GPU
    if on_any_rank(not math.isfinite(value)):
        raise ArithmeticError(f"the loss is not finite at step {step + 1}; try a lower learning_rate")
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return value


def on_any_rank(flag: bool) -> bool:
    """True on every rank as soon as it is true on one; a sync point."""
    if not is_initialized():
        return flag
    votes = torch.tensor(float(flag), device=get_device())
    all_reduce(votes, op=ReduceOp.MAX)
    return bool(votes.item())


def load_checkpoint(model: nn.Module, optimizer: Optimizer) -> int:
    """The step to go on from; 0 when there is no checkpoint."""
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        return 0
    with checkpoint.as_directory() as folder:
        state = torch.load(Path(folder, "state.pt"), map_location="cpu", weights_only=True)
    bare(model).load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    torch.set_rng_state(state["random"])
    return state["step"]


def save_checkpoint(model: nn.Module, optimizer: Optimizer, step: int, loss: float, rank: int) -> None:
    """Rank 0 writes; every rank reports, because `report` waits for all of them."""
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = None
        if rank == 0:
            state = {"model": bare(model).state_dict(), "optimizer": optimizer.state_dict()}
            torch.save({**state, "step": step, "random": torch.get_rng_state()}, Path(folder, "state.pt"))
            checkpoint = ray.train.Checkpoint.from_directory(folder)
        ray.train.report({"step": step, "loss": loss}, checkpoint=checkpoint)


def save_model(model: nn.Module) -> str:
    with whole_folder(output_dir()) as folder:
        torch.save(bare(model).state_dict(), folder / "model.pt")
    return str(output_dir())


def bare(model: nn.Module) -> nn.Module:
    """The model without the wrapper that shares gradients."""
    return model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model
