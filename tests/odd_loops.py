"""Loops that hand over what nobody expects.  None of them knows that somebody looks."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy
import ray.train
import torch


def unknown_label(config: dict[str, Any]) -> None:
    """Half of a surrogate pair, as JSON has it, in the text of an error: it can be neither printed nor stored."""
    label = json.loads('"\\ud83d"')
    if ray.train.get_context().get_world_rank() == 0:
        raise ValueError(f"unknown label {label}")


class Closed(Exception):
    """Its constructor takes other arguments than it keeps, it holds what does not pickle, and has no text."""

    def __init__(self, code: int, path: str) -> None:
        super().__init__(f"error {code}")
        self.file = open(path)  # noqa: PTH123, SIM115

    def __str__(self) -> str:
        return "missing " + self.never_set  # type: ignore[attr-defined]


def cannot_be_told(config: dict[str, Any]) -> None:
    raise Closed(7, "/dev/null")


def long_error(config: dict[str, Any]) -> None:
    raise ValueError("x" * 5_000_000 + " the end")


def exits(config: dict[str, Any]) -> None:
    os._exit(config["code"])


def returns_oddities(config: dict[str, Any]) -> dict[Any, Any]:
    """Reports with checkpoints and returns what loops really return, and more."""
    for step in range(1, 4):
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "model.txt").write_text(str(step))
            metrics = {
                "step": numpy.int64(step),
                "loss": numpy.float32(1 / step),
                "grad": torch.tensor(0.5),
                "perplexity": float("inf"),
                "lock": __import__("threading").Lock(),
                "train/acc \u202e.top-1 😀": 0.25,
            }
            ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(folder))
    itself: dict[str, Any] = {}
    itself["itself"] = itself
    return {
        1: 0.5,
        "accuracy": numpy.float32(0.75),
        "confusion": numpy.eye(2),
        "weights": numpy.zeros((100, 100)),
        "label": "caf\udce9 \x00",
        "raw": b"\xff\x00",
        "seed": 10**400,
        "nan": float("nan"),
        "itself": itself,
        "lock": __import__("threading").Lock(),
        "stopped": numpy.array([1, 2]),
        "log": "y" * 40_000_000,
    }


def says_nothing(config: dict[str, Any]) -> dict[str, Any]:
    """As if the thread of the rank had ended without a word."""
    from scheduler.runs import train_worker

    train_worker._leave_result = lambda *_: None
    return {"accuracy": 1.0}
