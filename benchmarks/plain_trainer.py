"""The other side of start_latency.py: the same loop in a plain TorchTrainer script, for `ray job submit`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer


def loop(plan: dict[str, Any]) -> None:
    from train_loops.torch_ddp import train

    os.environ["TRAIN_PROGRESS_FILE"] = str(Path(plan["folder"], "progress.jsonl"))
    os.environ["TRAIN_OUTPUT_DIR"] = str(Path(plan["folder"], f"output-{os.getpid()}"))
    train(plan["config"])


if __name__ == "__main__":
    folder = Path(sys.argv[2])
    TorchTrainer(
        loop,
        train_loop_config={"config": json.loads(sys.argv[1]), "folder": str(folder)},
        scaling_config=ScalingConfig(num_workers=1),
        run_config=RunConfig(name=f"plain-{os.getpid()}", storage_path=str(folder)),
    ).fit()
    (folder / "done").touch()
