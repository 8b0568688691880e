"""Steps per second of `sft` against a bare `transformers.Trainer`, and what saving costs it.

Same real model, data, batches and settings, alternating in one rank under the real Ray Train: bare and saving, ours
and saving, ours without saving.  Times are between the ends of two steps, so start and end count for no side.
Writes benchmarks/results/sft_speed.json.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENT = {
    "RAY_AUTH_MODE": "disabled",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "PYTHONPATH": str(ROOT),
    # Nothing answers there: Ray Train's cleaner must not ask another Ray on this host for our run.
    "RAY_API_SERVER_ADDRESS": "http://127.0.0.1:9",
}
MODEL = ROOT / ".cache/models/SmolLM2-135M-Instruct"
WARM_UP = 10
"""Steps that do not count."""
RANK_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")


def write_conversations(file: Path, count: int) -> Path:
    """Questions of different lengths, so that batches are padded."""
    pairs = [
        (f"what is {'so ' * (number % 4)}number {number}?", f"it is {number}") for number in range(count)
    ]
    lines = [
        json.dumps({"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": said}]})
        for asked, said in pairs
    ]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def rounds(plan: dict[str, Any]) -> list[dict[str, float]]:
    """Runs on the rank.  Steps per second of each side, for each round; sides take turns in being first."""
    import torch

    torch.set_num_threads(plan["threads"])
    never = {**plan["sft"], "checkpoint_every_steps": 100_000_000}
    sides = {
        "bare": lambda: bare(plan["sft"]),
        "ours": lambda: ours(plan["sft"]),
        "ours_without_saving": lambda: ours(never),
    }
    found = []
    for number in range(plan["rounds"]):
        order = list(sides)[number % 3 :] + list(sides)[: number % 3]
        found.append({name: sides[name]() for name in order})
        print(found[-1], flush=True)
    return found


def ours(config: dict[str, Any]) -> float:
    import ray.train

    from train_loops import sft

    build, clock = sft.build_trainer, step_clock(config["max_steps"])

    def build_with_clock(*args: Any) -> Any:
        trainer = build(*args)
        trainer.add_callback(clock)
        return trainer

    fresh = patch.object(ray.train, "get_checkpoint", lambda: None)
    with fresh, patch.object(sft, "build_trainer", build_with_clock):
        sft.train(config)
    return clock.steps_per_s


def bare(config: dict[str, Any]) -> float:
    """What one would write without us: model, data, arguments, `train()`."""
    from peft import LoraConfig, TaskType, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments, set_seed

    from train_loops.config import SftConfig
    from train_loops.data import PadBatch, load_examples

    cfg, clock = SftConfig(**config), step_clock(config["max_steps"])
    set_seed(cfg.seed)
    tokenizer = AutoTokenizer.from_pretrained(cfg.model)
    model: Any = AutoModelForCausalLM.from_pretrained(cfg.model, dtype="float32")
    if cfg.method == "lora":
        lora = LoraConfig(
            task_type=TaskType.CAUSAL_LM, r=16, lora_alpha=32, lora_dropout=0.05, target_modules="all-linear"
        )
        model = get_peft_model(model, lora)
    with tempfile.TemporaryDirectory() as folder, without_ranks():
        arguments = TrainingArguments(
            output_dir=folder,
            max_steps=cfg.max_steps or -1,
            per_device_train_batch_size=cfg.batch_size,
            learning_rate=cfg.learning_rate,
            lr_scheduler_type=cfg.lr_schedule,
            save_steps=cfg.checkpoint_every_steps,
            save_total_limit=2,
            remove_unused_columns=False,
            use_cpu=True,
            disable_tqdm=True,
            report_to="none",
        )
        trainer = Trainer(
            model=model,
            args=arguments,
            data_collator=PadBatch(tokenizer.pad_token_id),
            train_dataset=load_examples(cfg.dataset, tokenizer, cfg.max_length).items,
            callbacks=[clock],
        )
        trainer.train()
        assert trainer.model_wrapped is model, "a bare script on one process has no wrapper"
    return clock.steps_per_s


@contextmanager
def without_ranks() -> Iterator[None]:
    """A bare script is not told that it is one of many."""
    taken = {name: os.environ.pop(name) for name in RANK_VARIABLES if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(taken)


def step_clock(last_step: int) -> Any:
    from transformers import TrainerCallback

    class StepClock(TrainerCallback):
        """Steps per second from the end of the warm-up to the end of the last step."""

        ended_s: dict[int, float] = {}

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.ended_s[state.global_step] = time.perf_counter()

        @property
        def steps_per_s(self) -> float:
            return (last_step - WARM_UP) / (self.ended_s[last_step] - self.ended_s[WARM_UP])

    clock = StepClock()
    clock.ended_s = {}
    return clock


def measure(arguments: argparse.Namespace, folder: Path) -> list[dict[str, float]]:
    os.environ.update(ENVIRONMENT)
    import ray
    from ray.train import CheckpointConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    sft = {
        "model": str(arguments.model.resolve()),
        "dataset": str(write_conversations(folder / "learn.jsonl", 200)),
        "method": arguments.method,
        "batch_size": arguments.batch_size,
        "max_steps": WARM_UP + arguments.steps,
        "checkpoint_every_steps": arguments.save_every,
    }
    cores = os.cpu_count() or 1
    ray.init(
        address="local",
        num_cpus=cores,
        include_dashboard=False,
        _temp_dir=str(folder / "ray"),
        log_to_driver=True,
    )
    try:
        trainer = TorchTrainer(
            rounds,
            train_loop_config={"sft": sft, "rounds": arguments.rounds, "threads": cores},
            scaling_config=ScalingConfig(num_workers=1, resources_per_worker={"CPU": cores}),
            run_config=RunConfig(
                name="sft-speed",
                storage_path=str(folder / "storage"),
                checkpoint_config=CheckpointConfig(num_to_keep=2),
            ),
        )
        return trainer.fit().return_value or []
    finally:
        ray.shutdown()


def main() -> None:
    from benchmarks.record import write

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=100, help="that count, besides the warm-up")
    parser.add_argument("--save-every", type=int, default=50)
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--method", choices=("lora", "full"), default="lora")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as folder:
        found = measure(arguments, Path(folder))
    write(
        "sft_speed",
        {
            "targets": {"ratio_at_least": 0.97, "saving_costs_at_most": 0.05},
            "ratio": round(statistics.median(row["ours"] / row["bare"] for row in found), 3),
            "saving_costs": round(
                statistics.median(1 - row["ours"] / row["ours_without_saving"] for row in found), 3
            ),
            "settings": {**vars(arguments), "model": arguments.model.name},
            "steps_per_s": found,
        },
    )


if __name__ == "__main__":
    main()
