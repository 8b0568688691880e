"""What a worker process of a run does before it takes work, named in the run's environment.

Ray calls `begin` at the start of each such process (its worker-process set-up hook).  Processes that were
started ahead of need then sit idle with everything imported; see docs/decisions on the warm pool.
"""

from __future__ import annotations

import importlib
import logging
import threading
import time

log = logging.getLogger("scheduler.warm_up")

FIRST = ("torch", "ray.train.torch", "scheduler.run_actor")
"""Every process of a run imports these anyway."""
WHEN_IDLE = ("torch._dynamo", "transformers", "peft", "train_loops.sft", "train_loops.torch_ddp")
"""Only a rank needs these: a process that got work at once must not spend its time on them."""


def begin() -> None:
    """Never raises: a process that could not prepare is only slower."""
    _import(FIRST)
    threading.Thread(target=_go_on_while_idle, name="warm-up", daemon=True).start()


def _go_on_while_idle() -> None:
    time.sleep(1.0)
    for module in WHEN_IDLE:
        if _has_work():
            return
        _import([module])


def _has_work() -> bool:
    import ray

    context = ray.get_runtime_context()
    return context.get_actor_id() is not None or context.get_task_id() is not None


def _import(modules: tuple[str, ...] | list[str]) -> None:
    for module in modules:
        try:
            importlib.import_module(module)
        except Exception:  # noqa: BLE001  a broken import of a library must not stop the process; the run will say
            log.warning("could not prepare %s", module, exc_info=True)
