"""Which method of the engine answers an operation: the one place that knows how the engine is divided."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from scheduler.api.scheduler_api import operation
from scheduler.engine.service import Engine


def method_of(engine: Engine, name: str) -> Callable[..., Awaitable[Any]]:
    """Raises InvalidRequest for a name that the API does not promise, whatever the engine has by that name."""
    operation(name)
    for part in (
        engine.commands,
        engine.arrays,
        engine.queries,
        engine.queue,
        engine.projects,
        engine.recurring,
        engine.bad_nodes,
        engine.accounts,
        engine.sync,
    ):
        if found := getattr(part, name, None):
            return found
    raise AttributeError(f"no part of the engine has {name!r}")
