"""`transformers.Trainer` inside Ray Train: what the two leave to be agreed on, saved and told."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from accelerate.utils import DistributedType
from peft import PeftModel, get_peft_model_state_dict
from ray.train.huggingface.transformers import RayTrainReportCallback
from safetensors import safe_open
from torch.distributed import ReduceOp, all_reduce
from transformers import Trainer, TrainerControl, TrainerState, TrainingArguments

from train_loops.checkpoints import Checkpoints
from train_loops.progress import Progress
from train_loops.resumption import ResumeReport, RunFacts
from train_loops.samples import Samples

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MEASURES = ("loss", "learning_rate", "grad_norm", "eval_loss")
"""What is told of all that the Trainer logs."""


class StepTrainer(Trainer):
    """Keeps what the ranks have to tell each other: tokens seen, and whether loss and gradient were numbers."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.tokens = torch.zeros((), dtype=torch.float64, device=self.args.device)
        self.not_finite = torch.zeros((), dtype=torch.float64, device=self.args.device)
        self.gradient_length: Any = 0.0

    @property
    def trained_model(self) -> PreTrainedModel | PeftModel:
        """The model itself; the Trainer keeps the wrapper that shares gradients beside it."""
        return cast("PreTrainedModel | PeftModel", self.model)

    def create_accelerator_and_postprocess(self) -> None:
        """One rank shares its gradients with nobody: the wrapper that shares them would copy each for nothing."""
        super().create_accelerator_and_postprocess()
        if self.args.world_size == 1:
            self.accelerator.state.distributed_type = DistributedType.NO

    def training_step(
        self, model: torch.nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        loss = super().training_step(model, inputs, *args, **kwargs)
        self.tokens += inputs["attention_mask"].sum().to(self.tokens.device)
        self.not_finite += ~torch.isfinite(loss)
        return loss

    def _get_grad_norm(self, model: torch.nn.Module, grad_norm: Any = None) -> Any:
        """The length that the Trainer has worked out for clipping, kept for `take_step_facts`."""
        self.gradient_length = super()._get_grad_norm(model, grad_norm)
        return self.gradient_length

    def take_step_facts(self) -> torch.Tensor:
        """[tokens seen, losses that were no number, gradients that were none] on this rank since the last call."""
        length = torch.as_tensor(self.gradient_length, dtype=torch.float64, device=self.args.device)
        facts = torch.stack([self.tokens, self.not_finite, (~torch.isfinite(length)).double()])
        self.tokens.zero_()
        self.not_finite.zero_()
        return facts

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Leaves no mark on the random numbers of training: left out or repeated, it changes no later step."""
        device = self.args.device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            return super().evaluate(*args, **kwargs)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """The weights that are trained.  Tokenizer and arguments are the job's, the same for all checkpoints."""
        if self.args.should_save:
            self.trained_model.save_pretrained(output_dir or str(self.args.output_dir), state_dict=state_dict)


class TrainReport(RayTrainReportCallback):
    """Tells Ray Train of each checkpoint and the starter of the loop of each step; stops when asked.

    Ray's own callback copies the newest folder of `output_dir` on every rank.  Here each rank has its own
    `output_dir`, so what it reports is exactly what it wrote (rank 0 the model, every rank its random state),
    and Ray Train merges these into one complete checkpoint.
    """

    def __init__(
        self,
        trainer: StepTrainer,
        progress: Progress,
        checkpoints: Checkpoints,
        facts: RunFacts,
        extra_files: dict[str, str],
        samples: Samples,
    ) -> None:
        """*extra_files*: name -> text, put into each checkpoint by rank 0, as are *facts*."""
        super().__init__()
        self.trainer = trainer
        self.progress = progress
        self.checkpoints = checkpoints
        self.facts = facts
        self.extra_files = extra_files
        self.samples = samples
        self.resumed: tuple[Path, ResumeReport] | None = None
        """The checkpoint that this run goes on from; the report is completed when it is loaded."""
        self.stopped = False
        self.num_tokens = 0
        self.training_s = 0.0
        self._step_began_s = 0.0

    @property
    def tokens_per_s(self) -> float | None:
        """Of all ranks since this start, without padding, evaluations, checkpoints; None before a step."""
        return self.num_tokens / self.training_s if self.training_s else None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.progress.say("loading", step=state.global_step, total_steps=state.max_steps)
        if self.resumed and state.is_world_process_zero:
            folder, report = self.resumed
            check_weights(self.trainer.model, folder, report)
            check_optimizer(self.trainer, report)
            check_data_position(args, state, len(kwargs["train_dataloader"]), report)
            self.say_resumed()

    def say_resumed(self) -> None:
        if self.resumed:
            self.progress.say("loading", resumed=self.resumed[1].as_json())

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self._step_began_s = time.monotonic()

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """The one sync point of a step: all ranks learn the same, so they stop, or fail, at the same step."""
        stop = torch.tensor([float(self.progress.stop_requested())], dtype=torch.float64)
        facts = torch.cat([self.trainer.take_step_facts(), stop.to(args.device)])
        if args.world_size > 1:
            all_reduce(facts, op=ReduceOp.SUM)
        tokens, bad_losses, bad_gradients, stops = facts.tolist()
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
        if not self.stopped and self.samples.is_due(state.global_step, is_evaluated=False):
            self.samples.tell(self.progress, state.global_step)

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
        known = {key: logs[key] for key in MEASURES if key in logs}
        if known:
            self._say_step(state, **known)
            if "eval_loss" in known:
                self.progress.flush()  # merged into the line of the next step, it would be taken for one of that step
            words = "  ".join(f"{key} {value:.6g}" for key, value in known.items())
            speed = f"  {self.tokens_per_s:.0f} tokens/s" if "loss" in known and self.tokens_per_s else ""
            print(f"step {state.global_step}/{state.max_steps}  {words}{speed}", flush=True)

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if self.samples.is_due(state.global_step, is_evaluated=True):
            self.samples.tell(self.progress, state.global_step)

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Called on all ranks at the same steps; `report` is a barrier."""
        self.progress.say("saving")
        folder = Path(str(args.output_dir), f"checkpoint-{state.global_step}")
        if state.is_world_process_zero:
            self.facts.write(folder, state.global_step)
            for name, text in self.extra_files.items():
                (folder / name).write_text(text, encoding="utf-8")
        metrics = {"step": state.global_step, "epoch": state.epoch} | newest_losses(state)
        self.checkpoints.report(metrics, folder)


def check_weights(model: Any, folder: Path, report: ResumeReport) -> None:
    """Is each tensor of the checkpoint in the model, bit for bit?  Loaders pass over names they do not know."""
    now = get_peft_model_state_dict(model) if isinstance(model, PeftModel) else model.state_dict()
    same: list[bool] = []
    for file in folder.glob("*.safetensors"):
        with safe_open(file, framework="pt") as saved:
            for name in saved.keys():  # noqa: SIM118  not a dict
                same.append(name in now and torch.equal(now[name].cpu(), saved.get_tensor(name)))
    report.say(
        same=all(same) and bool(same),
        sentence=f"weights: {len(same)} tensors, bit for bit those of the checkpoint",
        otherwise=f"weights: {same.count(False)} of {len(same)} tensors are not those of the checkpoint",
    )


def check_optimizer(trainer: StepTrainer, report: ResumeReport) -> None:
    """Optimizer and schedule count steps of their own; what was not loaded counts from zero."""
    optimizer, schedule = cast("Any", trainer.optimizer), cast("Any", trainer.lr_scheduler)
    moments = optimizer.state_dict()["state"].values()
    at = {int(moment["step"]) for moment in moments}
    report.say(
        same=bool(at) and max(at) == report.step,
        sentence=f"optimizer: moments of {len(moments)} tensors, at step {report.step}",
        otherwise=f"optimizer: its moments are at steps {sorted(at)}, not at {report.step}",
    )
    scheduled = schedule.last_epoch
    report.say(
        same=scheduled == report.step,
        sentence=f"schedule: at step {scheduled}",
        otherwise=f"schedule: at step {scheduled}, not at {report.step}",
    )


def check_data_position(
    args: TrainingArguments, state: TrainerState, num_batches: int, report: ResumeReport
) -> None:
    """The Trainer works out from the step where in the data it goes on; is that where the run had come to?"""
    accumulated = args.gradient_accumulation_steps
    epochs, steps = divmod(state.global_step, math.ceil(num_batches / accumulated))
    batches = steps * accumulated
    goes_on, was = epochs + batches / num_batches, state.epoch or 0.0
    report.say(
        same=math.isclose(goes_on, was),
        sentence=f"data position: {batches} of {num_batches} batches in epoch {epochs + 1}",
        otherwise=f"data position: goes on after {goes_on:.3f} epochs, was after {was:.3f}",
    )


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
