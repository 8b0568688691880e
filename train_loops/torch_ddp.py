"""A small plain-PyTorch loop, data-parallel over ranks.  Copy it and put your own model and data in.

A run that is stopped or killed and started again ends with the same weights as one left alone: the checkpoint
holds weights, optimizer, step and each rank's random state, and the data of a step is a function of
(seed, step, rank).
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import ray.train
import torch
from ray.train.torch import get_device, prepare_model
from torch import Tensor, nn
from torch.optim import Optimizer

from train_loops.checkpoints import Checkpoints
from train_loops.config import TorchDdpConfig
from train_loops.progress import Progress, output_dir, whole_folder
from train_loops.ranks import on_any_rank
from train_loops.resumption import (
    ResumeReport,
    RunFacts,
    compare,
    restore_random_state,
    save_random_state,
)

NO_EFFECT = {"steps", "checkpoint_every_steps", "step_time_s"}
"""Settings that change no step: how many there are, when they are saved, how long they take."""


def train(config: dict[str, Any]) -> dict[str, Any]:
    """Train to the last step, or until a stop is requested.  Runs on every rank."""
    cfg = TorchDdpConfig(**config)
    context = ray.train.get_context()
    rank = context.get_world_rank()
    facts = RunFacts.here(context.get_world_size(), config=cfg.model_dump(exclude=NO_EFFECT))
    progress = Progress(rank)
    progress.say("loading", total_steps=cfg.steps)

    torch.manual_seed(cfg.seed)
    model = prepare_model(build_model(cfg))
    optimizer = torch.optim.Adam(model.parameters(), lr=cfg.learning_rate)
    torch.set_rng_state(seed_of_rank(cfg, rank).get_state())
    resumed = load_checkpoint(model, optimizer, rank, facts)
    first = step = resumed.step if resumed else 0
    progress.say("loading", step=step, **{"resumed": resumed.as_json()} if resumed else {})

    loss, training_s = math.nan, 0.0
    stopped = on_any_rank(progress.stop_requested())
    with Checkpoints() as checkpoints:
        while step < cfg.steps and not stopped:
            began_s = time.monotonic()
            loss = train_step(model, optimizer, batch(cfg, step, rank), step)
            step += 1
            time.sleep(cfg.step_time_s)
            training_s += time.monotonic() - began_s
            facts_of_step = {"loss": loss, "learning_rate": cfg.learning_rate}
            speed = cfg.batch_size * context.get_world_size() * (step - first) / training_s
            progress.say("training", step=step, total_steps=cfg.steps, samples_per_s=speed, **facts_of_step)
            stopped = on_any_rank(progress.stop_requested()) and step < cfg.steps
            if stopped or step == cfg.steps or step % cfg.checkpoint_every_steps == 0:
                progress.say("saving")
                folder = checkpoints.new_folder()
                write_checkpoint(folder, model, optimizer, rank, facts, step)
                checkpoints.report({"step": step, "loss": loss}, folder)
                print(f"step {step}/{cfg.steps}  loss {loss:.6f}  checkpoint saved", flush=True)

    output = None if stopped or rank else save_model(model)
    progress.flush()
    done = {"steps": step, "started_from": first, "train_loss": loss if step > first else None}
    return {**done, "stopped": stopped, "output_dir": output}


def build_model(cfg: TorchDdpConfig) -> nn.Module:
    hidden = nn.Sequential(nn.Tanh(), nn.Dropout(cfg.dropout))
    return nn.Sequential(nn.Linear(cfg.features, cfg.hidden), hidden, nn.Linear(cfg.hidden, 1))


def seed_of_rank(cfg: TorchDdpConfig, rank: int) -> torch.Generator:
    """Where the random numbers of a rank begin: all build the same model, and drop out different parts."""
    return torch.Generator().manual_seed(hash((cfg.seed, rank)) % 2**63)


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


def load_checkpoint(
    model: nn.Module, optimizer: Optimizer, rank: int, facts: RunFacts
) -> ResumeReport | None:
    """Go on from the newest checkpoint, and say how exactly that is; None when there is no checkpoint."""
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        return None
    with checkpoint.as_directory() as folder:
        state = torch.load(Path(folder, "state.pt"), map_location="cpu", weights_only=True)
        report = compare(Path(folder), state["step"], facts)
        bare(model).load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        restore_random_state(Path(folder), rank)
    report.checked += ["weights: every tensor loaded by its name", "optimizer: every moment loaded"]
    return report


def write_checkpoint(
    folder: Path, model: nn.Module, optimizer: Optimizer, rank: int, facts: RunFacts, step: int
) -> None:
    """Rank 0 writes what all ranks share; each writes its own random state."""
    save_random_state(folder, rank)
    if rank == 0:
        state = {"model": bare(model).state_dict(), "optimizer": optimizer.state_dict(), "step": step}
        torch.save(state, folder / "state.pt")
        facts.write(folder, step)


def save_model(model: nn.Module) -> str:
    with whole_folder(output_dir()) as folder:
        torch.save(bare(model).state_dict(), folder / "model.pt")
    return str(output_dir())


def bare(model: nn.Module) -> nn.Module:
    """The model without the wrapper that shares gradients."""
    return model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model
