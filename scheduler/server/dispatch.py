"""Which method of the engine answers an operation: the one place that knows how the engine is divided."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from scheduler.api.scheduler_api import operation
from scheduler.engine.service import Engine


def method_of(engine: Engine, name: str) -> Callable[..., Awaitable[Any]]:
    """Raises InvalidRequest for a name that the API does not promise, whatever the engine has by that name."""
    part = engine if operation(name).changes else engine.ask
    return getattr(part, name)
