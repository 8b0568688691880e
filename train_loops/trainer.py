"""`transformers.Trainer` inside Ray Train: what the two leave to be agreed on, saved and told."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import ray.train
import torch
from ray.train.huggingface.transformers import RayTrainReportCallback
from torch.distributed import ReduceOp, all_reduce, is_initialized
from transformers import Trainer, TrainerControl, TrainerState, TrainingArguments

from train_loops.progress import Progress


class StepTrainer(Trainer):
    """Keeps what the ranks have to tell each other: tokens seen, and whether the loss was a number."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.tokens = torch.zeros((), dtype=torch.float64, device=self.args.device)
        self.not_finite = torch.zeros((), dtype=torch.float64, device=self.args.device)

    def training_step(
        self, model: torch.nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        loss = super().training_step(model, inputs, *args, **kwargs)
        self.tokens += inputs["attention_mask"].sum().to(self.tokens.device)
        self.not_finite += ~torch.isfinite(loss)
        return loss

    def take_step_facts(self) -> torch.Tensor:
        """[tokens seen, losses that were no number] on this rank since the last call."""
        facts = torch.stack([self.tokens, self.not_finite])
        self.tokens.zero_()
        self.not_finite.zero_()
        return facts


class TrainReport(RayTrainReportCallback):
    """Tells Ray Train of each checkpoint and the starter of the loop of each step; stops when asked.

    Ray's own callback copies the newest folder of `output_dir` on every rank.  Here each rank has its own
    `output_dir`, so what it reports is exactly what it wrote (rank 0 the model, every rank its random state),
    and Ray Train merges these into one complete checkpoint.
    """

    def __init__(self, trainer: StepTrainer, progress: Progress, extra_files: dict[str, str]) -> None:
        """*extra_files*: name -> text, put into each checkpoint by rank 0."""
        super().__init__()
        self.trainer = trainer
        self.progress = progress
        self.extra_files = extra_files
        self.stopped = False
        self.num_tokens = 0
        self.training_s = 0.0
        self._step_began_s = 0.0

    @property
    def tokens_per_s(self) -> float | None:
        """Of all ranks since this start, without padding, evaluations, checkpoints; None before a step."""
        return self.num_tokens / self.training_s if self.training_s else None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self.progress.say("loading", step=state.global_step, total_steps=state.max_steps)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self._step_began_s = time.monotonic()

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """The one sync point of a step: all ranks learn the same, so they stop, or fail, at the same step."""
        gradients = [p.grad for p in kwargs["model"].parameters() if p.grad is not None]
        length = torch.nn.utils.get_total_norm(gradients)
        stop = torch.tensor([self.progress.stop_requested(), not torch.isfinite(length)], dtype=torch.float64)
        facts = torch.cat([self.trainer.take_step_facts(), stop.to(args.device)])
        if is_initialized():
            all_reduce(facts, op=ReduceOp.SUM)
        tokens, bad_losses, stops, bad_gradients = facts.tolist()
        if bad_losses or bad_gradients:
            raise ArithmeticError(
                self._not_finite(state.global_step + 1, "loss" if bad_losses else "gradient")
            )
        self.stopped = bool(stops)
        self.num_tokens += int(tokens)

    def _not_finite(self, step: int, what: str) -> str:
        return (
            f"the {what} is not finite at step {step}, so training stopped before it could spoil the "
            "weights; try a lower learning_rate, more warmup_steps, or precision: float32"
        )

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self.training_s += time.monotonic() - self._step_began_s
        if self.stopped and state.global_step < state.max_steps:
            control.should_training_stop = control.should_save = True
            control.should_evaluate = False
        # The sum of losses since the last log line is not part of a checkpoint: log before each.
        if control.should_save or control.should_training_stop:
            control.should_log = True
        if not control.should_log:
            self._say_step(state)

    def _say_step(self, state: TrainerState, **values: Any) -> None:
        phase = "training" if state.global_step else "loading"
        facts = {"step": state.global_step, "epoch": state.epoch, "tokens_per_s": self.tokens_per_s}
        self.progress.say(phase, **facts, **values)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any],
        **_: Any,
    ) -> None:
        known = {key: logs[key] for key in ("loss", "learning_rate", "eval_loss") if key in logs}
        if known:
            self._say_step(state, **known)
            words = "  ".join(f"{key} {value:.6g}" for key, value in known.items())
            speed = f"  {self.tokens_per_s:.0f} tokens/s" if "loss" in known and self.tokens_per_s else ""
            print(f"step {state.global_step}/{state.max_steps}  {words}{speed}", flush=True)

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Called on all ranks at the same steps; `report` is a barrier."""
        self.progress.say("saving")
        folder = Path(args.output_dir, f"checkpoint-{state.global_step}")
        if state.is_world_process_zero:
            for name, text in self.extra_files.items():
                (folder / name).write_text(text, encoding="utf-8")
        metrics = {"step": state.global_step, "epoch": state.epoch} | newest_losses(state)
        ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(folder))
        shutil.rmtree(folder, ignore_errors=True)


def newest_losses(state: TrainerState) -> dict[str, float]:
    return {key: entry[key] for entry in state.log_history for key in ("loss", "eval_loss") if key in entry}


def mean_loss(state: TrainerState) -> float | None:
    """Over all steps, those before a restart included; a log line stands for the steps since the last."""
    total, last = 0.0, 0
    for entry in state.log_history:
        if "loss" in entry:
            total += entry["loss"] * (entry["step"] - last)
            last = entry["step"]
    return total / last if last else None


def eval_loss_at(state: TrainerState, step: int) -> float | None:
    found = [
        entry["eval_loss"] for entry in state.log_history if "eval_loss" in entry and entry["step"] == step
    ]
    return found[-1] if found else None
