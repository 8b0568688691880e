"""Runs that end in the middle: what was told of them, and where they die."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal
from unittest.mock import patch

import torch

from train_loops.checkpoints import Checkpoints
from train_loops.progress import Progress

Where = Literal["in the step", "before saving", "while saving", "after saving"]


class Killed(BaseException):
    """A process that is killed runs no `except Exception`."""


def kill() -> None:
    raise Killed


@contextmanager
def acting(step: int, where: Where, act: Callable[[], object]) -> Iterator[None]:
    """Within the block, call *act* each time a loop comes to this place.

    A step is taken, told, then saved if it is time to, which tells `saving` and then reports.
    """
    backward, say, report, told = torch.Tensor.backward, Progress.say, Checkpoints.report, 0

    def backward_and_act(self: torch.Tensor, *args: Any, **kwargs: Any) -> None:
        backward(self, *args, **kwargs)
        if where == "in the step" and told + 1 == step:
            act()

    def say_and_act(self: Progress, phase: Any, **values: Any) -> None:
        nonlocal told
        say(self, phase, **values)
        told = values.get("step", told)
        reached = {"before saving": "training", "while saving": "saving"}.get(where)
        if (phase, told) == (reached, step):
            act()

    def report_and_act(self: Checkpoints, metrics: dict[str, Any], folder: Any) -> None:
        report(self, metrics, folder)
        if where == "after saving" and metrics["step"] == step:
            act()

    with (
        patch.object(torch.Tensor, "backward", backward_and_act),
        patch.object(Progress, "say", say_and_act),
        patch.object(Checkpoints, "report", report_and_act),
    ):
        yield


@contextmanager
def telling(keep: Callable[[str, int, Any], object]) -> Iterator[None]:
    """Within the block, call *keep* with the name, step and value of each loss and certificate told."""
    say = Progress.say

    def say_and_keep(self: Progress, phase: Any, **values: Any) -> None:
        say(self, phase, **values)
        for name in ("loss", "eval_loss", "resumed"):
            if name in values:
                keep(name, values["step"] if "step" in values else values[name]["step"], values[name])

    with patch.object(Progress, "say", say_and_keep):
        yield
