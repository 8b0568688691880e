"""A loop that is killed again and again on its ranks, for tests of gangs under the real Ray Train."""

from __future__ import annotations

import importlib
import json
import os
import signal
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

import ray.train

from tests.deaths import Killed, acting, kill, telling


def killed(config: dict[str, Any]) -> list[dict[str, Any]]:
    """Run *loop* with *config*, and then the loops in *then*, each from its beginning.  All results.

    *deaths*: steps and places at which every rank is thrown out of the loop and enters it again.  *last_death*: where
    the last rank is killed for good, once; Ray Train starts the gang anew.  *upload_s*: how long the storage takes.
    *told*: a file that gets a line for each loss and each certificate.
    """
    context, marker = ray.train.get_context(), Path(config["marker"])
    is_last = context.get_world_rank() == context.get_world_size() - 1
    with ExitStack() as stack:
        if config.get("upload_s"):
            stack.enter_context(slow_uploads(config["upload_s"]))
        told = Path(config["told"])
        if not marker.exists():
            for death in config["deaths"]:
                run_until_killed(config, death, told)
            last_step, where = config["last_death"]
            if is_last:
                stack.enter_context(acting(last_step, where, lambda: die(marker)))
        results = [run(config, told)]
        for part in config.get("then", ()):
            os.environ.update(part["environment"])
            newest = ray.train.Checkpoint(part["checkpoint"]) if "checkpoint" in part else None
            with patch.object(ray.train, "get_checkpoint", lambda newest=newest: newest):
                results.append(run(part, Path(part["told"])))
    return results


def run(part: dict[str, Any], told: Path) -> Any:
    module, _, name = part["loop"].partition(":")

    def keep(name: str, step: int, value: Any) -> None:
        if ray.train.get_context().get_world_rank() == 0:
            with told.open("a") as file:
                file.write(json.dumps([name, step, value, time.monotonic()]) + "\n")

    with telling(keep):
        return getattr(importlib.import_module(module), name)(part["config"])


def run_until_killed(config: dict[str, Any], death: tuple[int, Any], told: Path) -> None:
    try:
        with acting(*death, kill):
            run(config, told)
    except Killed:
        return
    raise AssertionError(f"the loop never came to {death}")


def die(marker: Path) -> None:
    marker.touch()
    os.kill(os.getpid(), signal.SIGKILL)


def slow_uploads(upload_s: float) -> Any:
    from ray.train.v2._internal.execution.storage import StorageContext

    persist = StorageContext.persist_current_checkpoint

    def persist_slowly(self: Any, *args: Any) -> Any:
        time.sleep(upload_s)
        return persist(self, *args)

    return patch.object(StorageContext, "persist_current_checkpoint", persist_slowly)
