"""Supervised fine-tuning of a causal language model on conversations: LoRA, or every weight.

Built on `transformers.Trainer` and Ray Train.  A run that is stopped or killed and started again from its
last checkpoint ends with the same weights as one left alone, as far as the device computes reproducibly.
"""

from __future__ import annotations

import json
import tempfile
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

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

from train_loops.config import SftConfig
from train_loops.data import Examples, PadBatch, load_examples
from train_loops.progress import Progress, output_dir, whole_folder
from train_loops.trainer import StepTrainer, TrainReport, eval_loss_at, mean_loss

if TYPE_CHECKING:
    from collections.abc import Iterator

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

ANSWERS_BEFORE = "answers_before.json"
"""In each checkpoint: what the untrained model answered, so that a resumed run can still tell."""
STATE = "trainer_state.json"


def train(config: dict[str, Any]) -> dict[str, Any]:
    """Fine-tune as an `SftConfig` says.  Runs on every rank; rank 0 saves and returns what came of it.

    Goes on from Ray Train's newest checkpoint if there is one.  Raises ValueError for input that cannot be
    used, ArithmeticError on all ranks when the loss or a gradient is not finite.
    """
    cfg = SftConfig(**config)
    transformers_logging.disable_progress_bar()
    progress = Progress(ray.train.get_context().get_world_rank())
    progress.say("loading", step=0)

    set_seed(cfg.seed)
    tokenizer = load_tokenizer(cfg)
    data = load_data(cfg, tokenizer)
    model = load_model(cfg)
    with last_checkpoint() as resumed, tempfile.TemporaryDirectory(prefix="sft-") as scratch:
        trainer = build_trainer(cfg, model, tokenizer, data, scratch, resumed)
        before = answers_before(cfg, trainer, tokenizer, resumed)
        report = TrainReport(trainer, progress, {ANSWERS_BEFORE: json.dumps(before)})
        trainer.add_callback(report)
        run_steps(trainer, resumed)
        if report.stopped and trainer.state.global_step < trainer.state.max_steps:
            progress.flush()
            return {"stopped": True, "steps": trainer.state.global_step}
        return finish(cfg, trainer, tokenizer, report, before)


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
        lora_alpha=cfg.lora.alpha,
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


@contextmanager
def last_checkpoint() -> Iterator[str | None]:
    """The folder to go on from, kept until the block ends; None on a fresh start."""
    checkpoint = ray.train.get_checkpoint()
    with checkpoint.as_directory() if checkpoint else nullcontext() as folder:
        yield folder


def build_trainer(
    cfg: SftConfig,
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    data: Data,
    scratch: str,
    resumed: str | None,
) -> StepTrainer:
    trainer = StepTrainer(
        model=model,
        args=training_arguments(cfg, scratch, eval_on_start=data.evaluation is not None and resumed is None),
        data_collator=PadBatch(tokenizer.pad_token_id),
        train_dataset=data.train.items,
        eval_dataset=data.evaluation.items if data.evaluation else None,
        processing_class=tokenizer,
    )
    trainer.remove_callback(PrinterCallback)
    return prepare_trainer(trainer)


def training_arguments(cfg: SftConfig, scratch: str, *, eval_on_start: bool) -> TrainingArguments:
    return TrainingArguments(
        output_dir=scratch,
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


def answers_before(
    cfg: SftConfig, trainer: StepTrainer, tokenizer: PreTrainedTokenizerBase, resumed: str | None
) -> list[str]:
    if resumed is not None:
        return json.loads(Path(resumed, ANSWERS_BEFORE).read_text(encoding="utf-8"))
    return answers(cfg, trainer, tokenizer)


def answers(cfg: SftConfig, trainer: StepTrainer, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """What the model says to each sample prompt, always the likeliest token; rank 0 only."""
    if not trainer.is_world_process_zero():
        return []
    trainer.model.eval()
    return [answer(cfg, trainer.model, tokenizer, prompt) for prompt in cfg.sample_prompts]


@torch.no_grad()
def answer(cfg: SftConfig, model: Any, tokenizer: PreTrainedTokenizerBase, prompt: str) -> str:
    asked = tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    ).to(model.device)
    said = model.generate(
        **asked,
        max_new_tokens=cfg.sample_max_tokens,
        do_sample=False,
        use_cache=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return tokenizer.decode(said[0, asked["input_ids"].shape[1] :], skip_special_tokens=True).strip()


def total_steps(trainer: StepTrainer) -> int:
    loader = trainer.get_train_dataloader()
    return trainer.set_initial_training_values(trainer.args, loader)[-1]


def run_steps(trainer: StepTrainer, resumed: str | None) -> None:
    """The steps that are left.  After the last there are none, where the Trainer would take one more."""
    state = TrainerState.load_from_json(str(Path(resumed, STATE))) if resumed else None
    if state and state.global_step >= total_steps(trainer):
        load_weights(trainer.model, resumed)
        trainer.state = state
    else:
        trainer.train(resume_from_checkpoint=resumed)


def load_weights(model: PreTrainedModel | PeftModel, folder: str) -> None:
    if isinstance(model, PeftModel):
        model.load_adapter(folder, model.active_adapter, is_trainable=True)
    else:
        model.load_state_dict(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).state_dict())


def finish(
    cfg: SftConfig,
    trainer: StepTrainer,
    tokenizer: PreTrainedTokenizerBase,
    report: TrainReport,
    before: list[str],
) -> dict[str, Any]:
    """Save the result and say what the training did."""
    state, model = trainer.state, trainer.model
    report.progress.say("saving")
    after = answers(cfg, trainer, tokenizer)
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
            for prompt, was, now in zip(cfg.sample_prompts, before, after, strict=False)
        ],
        "output_dir": output,
    }


def save_result(model: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerBase) -> str:
    """The adapter, or the whole model, with its tokenizer: all of it or nothing."""
    model.config.use_cache = True  # the Trainer turned it off for training
    target = output_dir()
    with whole_folder(target) as folder:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return str(target)
