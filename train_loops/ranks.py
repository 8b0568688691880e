"""What the ranks of a gang have to agree on."""

from __future__ import annotations

import torch
from ray.train.torch import get_device
from torch.distributed import ReduceOp, all_reduce, is_initialized


def on_any_rank(flag: bool) -> bool:
    """True on every rank as soon as it is true on one; a sync point."""
    if not is_initialized():
        return flag
    votes = torch.tensor(float(flag), device=get_device())
    all_reduce(votes, op=ReduceOp.MAX)
    return bool(votes.item())
