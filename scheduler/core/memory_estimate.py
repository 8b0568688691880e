"""How much memory a rank needs to fine-tune a language model: arithmetic on shapes, no model is loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

FLOAT32, HALF = 4, 2
ADAMW_STATES = 2
"""First and second moment of each trained weight, both float32."""
_PER_TOKEN_AND_WIDTH = 34
"""Bytes that one layer keeps for the backward pass, per token and unit of width, in half precision."""
_NOT_LINEAR = ("embed", "wte", "wpe", "norm", "lm_head", "ln_")
"""Matrices that get no adapter: tables of vectors, norms, and the output head."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    """What the files of a model say of it."""

    tensors: Mapping[str, tuple[int, ...]]
    """Name -> shape of each tensor that is stored; one that is tied to another is stored once."""
    layers: int
    width: int
    vocabulary: int

    @property
    def num_parameters(self) -> int:
        return sum(prod(shape) for shape in self.tensors.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """What of a training decides about its memory."""

    method: str
    """`lora` or `full`."""
    half: bool
    """Computes in bfloat16; what is trained stays float32."""
    tokens: int
    """In one forward pass of one rank: conversations times their longest length."""
    lora_rank: int = 0
    target_modules: Sequence[str] | str = "all-linear"
    num_ranks: int = 1


def memory(shape: ModelShape, training: Training) -> dict[str, int]:
    """Bytes for one rank, by part, with each conversation as long as it may be.

    Weights, gradients and AdamW's two states are counted exactly, from the shapes.  Frozen weights under an adapter
    have the precision of the computation, trained ones and their gradients are float32.  Over several ranks PyTorch's
    DistributedDataParallel keeps the gradients a second time, in its buckets.  Activations are the rough part, see
    `activations`.
    """
    adapter = adapter_parameters(shape, training) if training.method == "lora" else 0
    trained = adapter or shape.num_parameters
    weights = (
        shape.num_parameters * (HALF if training.half else FLOAT32) + adapter * FLOAT32
        if training.method == "lora"
        else shape.num_parameters * FLOAT32
    )
    copies = 2 if training.num_ranks > 1 else 1
    return {
        "weights": weights,
        "gradients": trained * FLOAT32 * copies,
        "optimizer": trained * FLOAT32 * ADAMW_STATES,
        "activations": activations(shape, training),
    }


def activations(shape: ModelShape, training: Training) -> int:
    """What the forward pass keeps, roughly.

    34 bytes per token, layer and unit of width in half precision: V. Korthikanti et al., Reducing Activation
    Recomputation in Large Transformer Models (2022), section 4.1, without its term for the attention matrix, which
    fused attention does not keep.  It counts a feed-forward part of four times the width, and twice as much in
    float32.  To that, the scores over the vocabulary: as computed, as float32, and their gradient.  Of small Llama
    models autograd kept between three quarters of this and 1.4 times as much.
    """
    width_bytes = HALF if training.half else FLOAT32
    kept = training.tokens * shape.layers * shape.width * _PER_TOKEN_AND_WIDTH * width_bytes // HALF
    scores = training.tokens * shape.vocabulary * (width_bytes + 2 * FLOAT32)
    return kept + scores


def adapter_parameters(shape: ModelShape, training: Training) -> int:
    """Of low-rank matrices beside each chosen layer: rank x (inputs + outputs)."""
    return sum(
        training.lora_rank * sum(size)
        for name, size in shape.tensors.items()
        if len(size) == 2 and _has_adapter(name, training.target_modules)
    )


def _has_adapter(tensor: str, targets: Sequence[str] | str) -> bool:
    module, _, kind = tensor.rpartition(".")
    if kind != "weight":
        return False
    if targets == "all-linear":
        return not any(word in module for word in _NOT_LINEAR)
    return any(module == target or module.endswith(f".{target}") for target in targets)
