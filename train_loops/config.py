"""What each built-in loop can be told.  Light on purpose: a server reads the schemas without torch."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic.config import JsonDict

from train_loops.paths import written_out

Text = Annotated[str, Field(min_length=1, max_length=4096)]
Place = Annotated[Text, AfterValidator(written_out)]
"""A file or folder; `~` and `file://` are written out."""
MESSAGES: JsonDict = {"path": "messages_jsonl"}
MODEL: JsonDict = {"path": "model"}


class LoopConfig(BaseModel):
    """What all loop configs share: frozen, no unknown fields, no NaN or infinity."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class LoraSettings(LoopConfig):
    """The shape of the low-rank adapter; used with `method: lora`."""

    r: int = Field(default=16, ge=1, le=1024, description="Rank of the adapter matrices.")
    alpha: float = Field(default=32.0, gt=0, le=8192, description="The adapter is scaled by alpha / r.")
    dropout: float = Field(
        default=0.05, ge=0, lt=1, description="Share of the adapter's inputs dropped in training."
    )
    target_modules: Literal["all-linear"] | Annotated[list[Text], Field(min_length=1, max_length=64)] = Field(
        default="all-linear",
        description="Layers that get an adapter: names such as `q_proj`, or `all-linear` for every linear "
        "layer but the output head.",
    )


class SftConfig(LoopConfig):
    """Supervised fine-tuning of a causal language model on conversations, with LoRA or in full.

    Learns the assistant's turns only.  Give `max_steps` or `num_epochs`, or neither for one epoch.
    """

    model: Place = Field(
        description="Folder of a transformers model with its tokenizer and chat template, or a hub id.",
        json_schema_extra=MODEL,
    )
    dataset: Place = Field(
        description='File to learn, as JSONL or one JSON list; a line is {"messages": [{"role": ..., "content": ...}]}.',
        json_schema_extra=MESSAGES,
    )
    eval_dataset: Place | None = Field(
        default=None,
        description="File held out: its loss is measured before, during and after; null for none.",
        json_schema_extra=MESSAGES,
    )
    method: Literal["lora", "full"] = Field(
        default="lora", description="Train a small adapter, or every weight."
    )
    lora: LoraSettings = Field(
        default_factory=LoraSettings, description="The adapter's shape, for `method: lora`."
    )
    max_steps: int | None = Field(
        default=None, ge=1, le=100_000_000, description="Optimizer steps in all; null: `num_epochs` decides."
    )
    num_epochs: float | None = Field(
        default=None,
        gt=0,
        le=10_000,
        description="Passes over the data; null: 1, unless `max_steps` is given.",
    )
    batch_size: int = Field(
        default=4, ge=1, le=65_536, description="Conversations per rank in one forward pass."
    )
    gradient_accumulation_steps: int = Field(
        default=1, ge=1, le=65_536, description="Forward passes per rank that make one optimizer step."
    )
    max_length: int = Field(
        default=1024,
        ge=8,
        le=1_048_576,
        description="Longest conversation in tokens; what is longer is cut at the end.",
    )
    learning_rate: float = Field(default=2e-4, gt=0, le=10, description="Highest learning rate of AdamW.")
    lr_schedule: Literal["linear", "cosine", "constant", "constant_with_warmup", "inverse_sqrt"] = Field(
        default="cosine", description="How the learning rate moves after the warm-up."
    )
    warmup_steps: int = Field(
        default=0, ge=0, le=10_000_000, description="Steps in which the learning rate rises from zero."
    )
    weight_decay: float = Field(default=0.0, ge=0, le=1, description="AdamW's weight decay.")
    max_grad_norm: float = Field(
        default=1.0,
        ge=0,
        le=1e6,
        description="Gradients longer than this are shortened to it; 0 leaves them alone.",
    )
    seed: int = Field(
        default=0, ge=0, lt=2**32, description="Decides the adapter's start, the data order and dropout."
    )
    checkpoint_every_steps: int = Field(
        default=100,
        ge=1,
        le=100_000_000,
        description="Steps between two checkpoints; there is one at the end too.",
    )
    eval_every_steps: int | None = Field(
        default=None,
        ge=1,
        le=100_000_000,
        description="Steps between two evaluations; null: before and after only.",
    )
    log_every_steps: int = Field(
        default=1, ge=1, le=1_000_000, description="Steps between two log lines with the mean loss."
    )
    precision: Literal["auto", "float32", "bf16"] = Field(
        default="auto",
        description="bf16 computes in bfloat16 with float32 weights to train; auto: bf16 on GPUs that can.",
    )
    sample_prompts: Annotated[list[Text], Field(max_length=8)] = Field(
        default_factory=list[str],
        description="Up to 8 questions the model answers before, during and after, greedily.",
    )
    sample_every_steps: int | None = Field(
        default=None,
        ge=1,
        le=100_000_000,
        description="Steps between two rounds of answers; null: one at each evaluation.",
    )
    sample_max_tokens: int = Field(
        default=64, ge=1, le=4096, description="Longest answer to a sample prompt, in tokens."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.max_steps is not None and self.num_epochs is not None:
            raise ValueError(
                f"max_steps={self.max_steps} and num_epochs={self.num_epochs:g} both say how long to train; "
                "give exactly one of them, or neither for one epoch"
            )
        if self.lr_schedule == "constant" and self.warmup_steps:
            raise ValueError(
                f"lr_schedule='constant' has no warm-up but warmup_steps={self.warmup_steps}; "
                "use 'constant_with_warmup', or warmup_steps=0"
            )
        if self.eval_every_steps is not None and self.eval_dataset is None:
            raise ValueError(
                f"eval_every_steps={self.eval_every_steps} but there is no eval_dataset; "
                "give one, or leave eval_every_steps out"
            )
        if self.sample_every_steps is not None and not self.sample_prompts:
            raise ValueError(
                f"sample_every_steps={self.sample_every_steps} but there are no sample_prompts; "
                "give some, or leave sample_every_steps out"
            )
        return self


class TorchDdpConfig(LoopConfig):
    """A small plain-PyTorch loop to copy: two layers learn a made-up function, data-parallel over ranks."""

    steps: int = Field(default=100, ge=1, le=100_000_000, description="Optimizer steps in all.")
    batch_size: int = Field(default=32, ge=1, le=1_048_576, description="Examples per rank and step.")
    features: int = Field(default=8, ge=1, le=65_536, description="Numbers in one input.")
    hidden: int = Field(default=32, ge=1, le=65_536, description="Width of the hidden layer.")
    dropout: float = Field(
        default=0.0, ge=0, lt=1, description="Share of the hidden layer dropped in training."
    )
    learning_rate: float = Field(default=0.01, gt=0, le=10, description="Learning rate of Adam.")
    seed: int = Field(
        default=0, ge=0, lt=2**32, description="Decides the first weights, all data and dropout."
    )
    checkpoint_every_steps: int = Field(
        default=50,
        ge=1,
        le=100_000_000,
        description="Steps between two checkpoints; there is one at the end too.",
    )
    step_time_s: float = Field(default=0.0, ge=0, le=3600, description="Pause after each step, in seconds.")
