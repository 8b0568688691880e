"""The scheduler inside its actor, as the API asks it: waits while it restarts, and says when it is away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import Any, cast

import ray
from ray.exceptions import RayError, RayTaskError

from scheduler.api.operations import Operation
from scheduler.api.scheduler_api import OPERATIONS, SchedulerApi
from scheduler.errors import RegistryUnavailable, SchedulerError

_PAUSE_S = 0.2


class ActorAway(Exception):
    """The actor died, or is being restarted."""


def remote(name: str, namespace: str, *, timeout_s: float = 10.0, patience_s: float = 8.0) -> SchedulerApi:
    """The scheduler in the detached actor *name* of *namespace*.

    Raises what the actor raises, and RegistryUnavailable when it does not answer: within *timeout_s*, unless the
    operation has a time of its own, or because it stayed away for *patience_s*.
    """
    return cast("SchedulerApi", _Remote(name, namespace, timeout_s, patience_s))


class _Remote:
    def __init__(self, name: str, namespace: str, timeout_s: float, patience_s: float) -> None:
        self._name, self._namespace = name, namespace
        self._timeout_s, self._patience_s = timeout_s, patience_s
        self._handle: Any = None

    def __getattr__(self, name: str) -> Callable[..., Coroutine[Any, Any, Any]]:
        if name not in OPERATIONS:
            raise AttributeError(f"the scheduler has no operation {name!r}")
        return partial(self._ask, OPERATIONS[name])

    async def _ask(self, asked: Operation, *args: Any, **kwargs: Any) -> Any:
        within_s = asked.within_s(self._timeout_s, args, kwargs)
        until_s = time.monotonic() + (self._patience_s if asked.is_patient else 0.0)
        while True:
            try:
                return await self._ask_once(asked, args, kwargs, within_s)
            except ActorAway as away:
                if time.monotonic() >= until_s:
                    raise self._unavailable(away) from away
            await asyncio.sleep(_PAUSE_S)

    async def _ask_once(
        self, asked: Operation, args: tuple[Any, ...], kwargs: Mapping[str, Any], within_s: float
    ) -> Any:
        try:
            async with asyncio.timeout(within_s):
                actor = await self._actor()
                call = actor.call.options(name=asked.name)  # as the Ray dashboard shows it
                return await call.remote(asked.name, args, kwargs)
        except RayTaskError as error:
            if isinstance(error.cause, SchedulerError):
                raise error.cause from None
            raise
        except RayError as error:
            self._handle = None
            what = str(error).strip().partition("\n")[0]
            raise ActorAway(f"{type(error).__name__}: {what}") from error
        except TimeoutError:
            raise _late(asked, within_s) from None

    async def _actor(self) -> Any:
        if self._handle is None:
            try:
                self._handle = await asyncio.to_thread(ray.get_actor, self._name, namespace=self._namespace)
            except ValueError:  # a restarting actor keeps its name: nobody will come back
                raise self._unavailable("there is no such actor") from None
        return self._handle

    def _unavailable(self, why: object) -> RegistryUnavailable:
        return RegistryUnavailable(
            f"the scheduler actor {self._name!r} does not answer ({why}); it is restarting, or was stopped: "
            "ask again in a few seconds, then see `scheduler doctor`"
        )


def _late(asked: Operation, within_s: float) -> RegistryUnavailable:
    """A query that stayed without an answer has done nothing; of a command that is not known."""
    late = f"the scheduler did not answer within {within_s:g} s"
    if asked.changes:
        return RegistryUnavailable(f"{late}; whether it was done is not known ({asked.name}): ask again")
    return RegistryUnavailable(f"{late}; ask again in a moment")
