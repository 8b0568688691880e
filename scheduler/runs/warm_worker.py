"""What a worker process of a run does before it takes work, named in the run's environment.

Ray calls `begin` at the start of each such process (its worker-process set-up hook).  Processes that were
started ahead of need then sit idle with everything imported; see docs/decisions on the warm pool.
"""

from __future__ import annotations

import builtins
import importlib
import logging
import os
import threading
import time
from typing import Any

import ray

from scheduler.runs import ray_internals

log = logging.getLogger(__name__)

MODULES = (
    "torch",
    "ray.train.torch",
    "scheduler.runs.run_actor",
    "torch._dynamo",
    "transformers",
    "peft",
    "train_loops.sft",
    "train_loops.torch_ddp",
)
"""In the order in which a run needs them; `torch._dynamo` is what the first optimizer brings in."""
LOOK_EVERY_S = 0.5
LONGEST_WAIT_S = 120.0

_has_task = threading.Event()
"""Ray gives no process to an actor that has run a task."""


def begin() -> None:
    """Never raises: a process that could not prepare is only slower.

    A process that gets work at once does not spend its time here: most of a run's processes need little of this.
    """
    turns = ImportGate()
    threading.Thread(target=_go_on_while_idle, args=(turns,), name="warm-up", daemon=True).start()


class ImportGate:
    """While a module is imported ahead of need, the main thread's own imports wait for it.

    Python lets two threads import at once and, where their locks would meet in a circle, hands one of them a module that
    is only half there: a run that took a process in that moment failed with "module 'ray.train' has no attribute 'v2'".
    """

    def __init__(self) -> None:
        self._free = threading.Event()
        self._free.set()
        self._original = builtins.__import__
        builtins.__import__ = self._in_turn

    def _in_turn(self, *args: Any, **options: Any) -> Any:
        if threading.current_thread() is threading.main_thread():
            self._free.wait(LONGEST_WAIT_S)
        return self._original(*args, **options)

    def take(self, module: str) -> None:
        self._free.clear()
        try:
            _import(module)
        finally:
            self._free.set()

    def end(self) -> None:
        builtins.__import__ = self._original


def prepare_cluster() -> None:
    """Make the two actors that Ray Train makes once in a cluster, so that the first run need not; on the head,
    so that they do not end with the node of that run.  Never raises: without it, the first start is slower."""
    _has_task.set()
    try:
        ray_internals.make_cluster_wide_actors()
    except Exception:
        log.warning("Ray Train's cluster-wide actors could not be prepared", exc_info=True)


def _go_on_while_idle(turns: ImportGate) -> None:
    time.sleep(LOOK_EVERY_S)
    for module in MODULES:
        if _has_work():
            break
        turns.take(module)
    turns.end()
    if not _has_work():
        _be_ready_until_it_has_work()


def _be_ready_until_it_has_work() -> None:
    """The warm pool counts who says so.  Never raises: a process that could not say it is there all the same."""
    try:
        node_id, pid = ray.get_runtime_context().get_node_id(), os.getpid()
        ray_internals.announce_prepared(node_id, pid)
        while not _has_work():
            time.sleep(LOOK_EVERY_S)
        ray_internals.withdraw_prepared(node_id, pid)
    except Exception:
        log.warning("process %s could not announce that it is prepared", os.getpid(), exc_info=True)


def _has_work() -> bool:
    return _has_task.is_set() or ray.get_runtime_context().get_actor_id() is not None


def _import(module: str) -> None:
    try:
        importlib.import_module(module)
    except Exception:
        log.warning("could not import %s ahead of need", module, exc_info=True)
