"""Supervised fine-tuning of a causal language model on conversations: LoRA, or every weight.

Built on `transformers.Trainer` and Ray Train.  A run that is stopped or killed and started again from its
last checkpoint ends with the same weights as one left alone, as far as the device computes reproducibly.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import ray.train
import torch
from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from ray.train.huggingface.transformers import prepare_trainer
from ray.train.torch import get_device
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PrinterCallback,
    TrainerState,
    TrainingArguments,
    set_seed,
)
from transformers.utils import logging as transformers_logging

from train_loops.checkpoints import Checkpoints
from train_loops.config import SftConfig
from train_loops.data import Examples, PadBatch, load_examples
from train_loops.progress import Progress, output_dir, whole_folder
from train_loops.ranks import on_any_rank
from train_loops.resumption import RunFacts, compare
from train_loops.samples import Samples
from train_loops.trainer import StepTrainer, TrainReport, eval_loss_at, mean_loss

if TYPE_CHECKING:
    from collections.abc import Iterator

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

ANSWERS_BEFORE = "answers_before.json"
"""In each checkpoint: what the untrained model answered, so that a resumed run can still tell."""
STATE = "trainer_state.json"
NO_EFFECT = {
    *("model", "dataset", "eval_dataset"),  # their contents count, not their names
    *("checkpoint_every_steps", "eval_every_steps", "log_every_steps"),
    *("sample_prompts", "sample_every_steps", "sample_max_tokens"),
}
"""Settings that change no step."""


def train(config: dict[str, Any]) -> dict[str, Any]:
    """Fine-tune as an `SftConfig` says.  Runs on every rank; rank 0 saves and returns what came of it.

    Goes on from Ray Train's newest checkpoint if there is one.  Raises ValueError for input that cannot be
    used, ArithmeticError on all ranks when the loss or a gradient is not finite.
    """
    cfg = SftConfig(**config)
    transformers_logging.disable_progress_bar()
    progress = Progress(ray.train.get_context().get_world_rank())
    progress.say("loading")
    with saved_state() as saved, Checkpoints() as checkpoints:
        first = saved.step if saved else 0
        progress.say("loading", step=first)
        if on_any_rank(progress.stop_requested()):
            return stopped(first, progress)
        set_seed(cfg.seed)
        tokenizer = load_tokenizer(cfg)
        data = load_data(cfg, tokenizer)
        model = load_model(cfg)
        facts = run_facts(cfg, data, model)
        trainer = build_trainer(cfg, model, tokenizer, data, checkpoints.path, saved)
        samples = Samples(cfg, trainer.trained_model, tokenizer, ray.train.get_context().get_world_rank())
        before = answers_before(samples, progress, saved)
        files = {ANSWERS_BEFORE: json.dumps(before)}
        report = TrainReport(trainer, progress, checkpoints, facts, files, samples)
        if saved:
            report.resumed = saved.folder, compare(saved.folder, first, facts, random_files(facts.num_ranks))
        trainer.add_callback(report)
        if on_any_rank(progress.stop_requested()):
            return stopped(first, progress)
        run_steps(trainer, report, saved)
        if report.stopped and trainer.state.global_step < trainer.state.max_steps:
            return stopped(trainer.state.global_step, progress)
        return finish(trainer, tokenizer, report, before)


def stopped(step: int, progress: Progress) -> dict[str, Any]:
    """What a loop returns that stopped as asked; there is a checkpoint of *step*, unless that is 0."""
    progress.flush()
    return {"stopped": True, "steps": step}


@dataclass(frozen=True, slots=True)
class SavedState:
    """The checkpoint to go on from."""

    folder: Path
    state: TrainerState

    @property
    def step(self) -> int:
        return self.state.global_step


@contextmanager
def saved_state() -> Iterator[SavedState | None]:
    """Ray Train's newest checkpoint, its folder kept until the block ends; None on a fresh start."""
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        yield None
        return
    with checkpoint.as_directory() as folder:
        yield SavedState(Path(folder), TrainerState.load_from_json(str(Path(folder, STATE))))


def random_files(num_ranks: int) -> list[str]:
    """Where the Trainer keeps each rank's random state."""
    if num_ranks == 1:
        return ["rng_state.pth"]
    return [f"rng_state_{rank}.pth" for rank in range(num_ranks)]


@dataclass(frozen=True, slots=True)
class Data:
    train: Examples
    evaluation: Examples | None


def load_tokenizer(cfg: SftConfig) -> PreTrainedTokenizerBase:
    tokenizer = AutoTokenizer.from_pretrained(cfg.model, local_files_only=Path(cfg.model).is_dir())
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_data(cfg: SftConfig, tokenizer: PreTrainedTokenizerBase) -> Data:
    learn = load_examples(cfg.dataset, tokenizer, cfg.max_length)
    held_out = load_examples(cfg.eval_dataset, tokenizer, cfg.max_length) if cfg.eval_dataset else None
    print(f"to learn: {learn}; held out: {held_out or 'none'}", flush=True)
    return Data(learn, held_out)


def load_model(cfg: SftConfig) -> PreTrainedModel | PeftModel:
    """What is trained is float32; what is frozen under an adapter has the precision of the computation."""
    frozen_in_bf16 = cfg.method == "lora" and uses_bf16(cfg)
    model = AutoModelForCausalLM.from_pretrained(
        cfg.model,
        dtype=torch.bfloat16 if frozen_in_bf16 else torch.float32,
        local_files_only=Path(cfg.model).is_dir(),
    )
    if cfg.method == "full":
        return model
    lora = LoraConfig(
        task_type=TaskType.CAUSAL_LM,
        r=cfg.lora.r,
        lora_alpha=cast("int", cfg.lora.alpha),  # peft takes any number
        lora_dropout=cfg.lora.dropout,
        target_modules=cfg.lora.target_modules,
    )
    return get_peft_model(model, lora)


def uses_bf16(cfg: SftConfig) -> bool:
    on_gpu = get_device().type == "cuda"
    able = on_gpu and torch.cuda.is_bf16_supported(including_emulation=False)
    if cfg.precision == "bf16" and on_gpu and not able:
        raise ValueError(
            f"precision: bf16, but {torch.cuda.get_device_name()} has no bfloat16; use float32 or auto"
        )
    return able if cfg.precision == "auto" else cfg.precision == "bf16"


def run_facts(cfg: SftConfig, data: Data, model: PreTrainedModel | PeftModel) -> RunFacts:
    inputs = {"training data": data.train.fingerprint()}
    if data.evaluation:
        inputs["held-out data"] = data.evaluation.fingerprint()
    if cfg.method == "lora":
        inputs["frozen weights"] = frozen_fingerprint(model)
    return RunFacts.here(
        ray.train.get_context().get_world_size(),
        config=cfg.model_dump(mode="json", exclude=NO_EFFECT),
        inputs=inputs,
        packages=("transformers", "accelerate", "peft"),
    )


def frozen_fingerprint(model: PreTrainedModel | PeftModel) -> str:
    """Of names, shapes and some values of each tensor that is not trained; all values would take too long."""
    digest, count = hashlib.sha256(), 0
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            values = parameter.detach().flatten()
            some = values[:: max(1, len(values) // 16)][:16].float().cpu()
            digest.update(f"{name} {list(parameter.shape)}".encode() + some.numpy().tobytes())
            count += 1
    return f"{count} tensors, sha256 of a sample {digest.hexdigest()[:16]}"


def build_trainer(
    cfg: SftConfig,
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    data: Data,
    folder: Path,
    saved: SavedState | None,
) -> StepTrainer:
    trainer = StepTrainer(
        model=model,
        args=training_arguments(cfg, folder, eval_on_start=is_evaluation_due(cfg, saved)),
        data_collator=PadBatch(cast("int", tokenizer.pad_token_id)),
        train_dataset=data.train.items,
        eval_dataset=data.evaluation.items if data.evaluation else None,
        processing_class=tokenizer,
    )
    trainer.remove_callback(PrinterCallback)
    return cast("StepTrainer", prepare_trainer(trainer))


def is_evaluation_due(cfg: SftConfig, saved: SavedState | None) -> bool:
    """Before the first step; and when a stop came just at a step that should have been followed by one."""
    if saved is None or cfg.eval_dataset is None:
        return cfg.eval_dataset is not None
    at_this_step = cfg.eval_every_steps is not None and saved.step % cfg.eval_every_steps == 0
    return at_this_step and eval_loss_at(saved.state, saved.step) is None


def training_arguments(cfg: SftConfig, folder: Path, *, eval_on_start: bool) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(folder),
        max_steps=cfg.max_steps or -1,
        num_train_epochs=cfg.num_epochs or 1,
        per_device_train_batch_size=cfg.batch_size,
        per_device_eval_batch_size=cfg.batch_size,
        gradient_accumulation_steps=cfg.gradient_accumulation_steps,
        learning_rate=cfg.learning_rate,
        lr_scheduler_type=cfg.lr_schedule,
        warmup_steps=cfg.warmup_steps,
        weight_decay=cfg.weight_decay,
        max_grad_norm=cfg.max_grad_norm,
        seed=cfg.seed,
        bf16=uses_bf16(cfg),
        use_cpu=get_device().type == "cpu",
        save_strategy="steps",
        save_steps=cfg.checkpoint_every_steps,
        eval_strategy="steps" if cfg.eval_dataset else "no",
        eval_steps=cfg.eval_every_steps or 100_000_000,
        eval_on_start=eval_on_start,
        prediction_loss_only=True,
        logging_steps=cfg.log_every_steps,
        logging_nan_inf_filter=False,
        remove_unused_columns=False,
        # A layer that a batch does not reach would otherwise stop a run on several ranks.
        ddp_find_unused_parameters=True,
        disable_tqdm=True,
        report_to="none",
    )


def answers_before(samples: Samples, progress: Progress, saved: SavedState | None) -> list[str]:
    """What the untrained model answers; after a restart, what it answered then.  Nothing where nobody asks."""
    if saved is not None and samples.prompts:
        return json.loads((saved.folder / ANSWERS_BEFORE).read_text(encoding="utf-8"))
    return samples.tell(progress, 0)


def total_steps(trainer: StepTrainer) -> int:
    loader = trainer.get_train_dataloader()
    return trainer.set_initial_training_values(trainer.args, loader)[-1]


def run_steps(trainer: StepTrainer, report: TrainReport, saved: SavedState | None) -> None:
    """The steps that are left.  After the last there are none, where the Trainer would take one more."""
    if saved and saved.step >= total_steps(trainer):
        load_weights(trainer.trained_model, str(saved.folder))
        trainer.state = saved.state
        report.say_resumed()
    else:
        trainer.train(resume_from_checkpoint=str(saved.folder) if saved else None)


def load_weights(model: PreTrainedModel | PeftModel, folder: str) -> None:
    if isinstance(model, PeftModel):
        model.load_adapter(folder, cast("str", model.active_adapter), is_trainable=True)
    else:
        model.load_state_dict(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).state_dict())


def finish(
    trainer: StepTrainer,
    tokenizer: PreTrainedTokenizerBase,
    report: TrainReport,
    before: list[str],
) -> dict[str, Any]:
    """Save the result and say what the training did."""
    state, model, samples = trainer.state, trainer.trained_model, report.samples
    after = samples.tell(report.progress, state.global_step)
    report.progress.say("saving")
    output = save_result(model, tokenizer) if trainer.is_world_process_zero() else None
    report.progress.flush()
    return {
        "steps": state.global_step,
        "train_loss": mean_loss(state),
        "eval_loss_before": eval_loss_at(state, 0),
        "eval_loss_after": eval_loss_at(state, state.global_step),
        "tokens_per_s": report.tokens_per_s,
        "num_parameters": sum(p.numel() for p in model.parameters()),
        "num_trainable": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "samples": [
            {"prompt": prompt, "before": was, "after": now}
            for prompt, was, now in zip(samples.prompts, before, after, strict=True)
        ],
        "output_dir": output,
    }


def save_result(model: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerBase) -> str:
    """The adapter, or the whole model, with its tokenizer: all of it or nothing."""
    model.config.use_cache = True  # the Trainer turned it off for training
    target = output_dir()
    with whole_folder(target) as folder:
        model.save_pretrained(str(folder))
        tokenizer.save_pretrained(str(folder))
    return str(target)
