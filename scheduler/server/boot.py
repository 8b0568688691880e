"""The start of the scheduler, tried until it works: an actor that is up and has not come to itself helps nobody."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Generic, TypeVar

from scheduler.engine.periodic import Backoff
from scheduler.errors import RegistryUnavailable, Superseded
from scheduler.ports import Clock

log = logging.getLogger(__name__)

T = TypeVar("T")


class Boot(Generic[T]):
    """Makes one thing, again and again until it is there.  *make* leaves nothing behind when it raises.

    Only Superseded is final: then another scheduler has taken over.
    """

    def __init__(self, make: Callable[[], Awaitable[T]], clock: Clock, backoff: Backoff) -> None:
        self._make, self._clock, self._backoff = make, clock, backoff
        self._task: asyncio.Task[T] | None = None
        self._told = asyncio.Event()
        self._failures, self._error = 0, ""
        self._next_at: datetime | None = None

    async def made(self) -> T:
        """Waits while the first try is under way.  After a failure it raises RegistryUnavailable at once, with what the
        start waits for and when it is tried again, until a try succeeds."""
        if self._task is None:
            self._task = asyncio.create_task(self._until_made())
            self._task.add_done_callback(lambda _: self._told.set())
        await self._told.wait()
        if self._task.done():
            return self._task.result()
        raise RegistryUnavailable(self._in_words())

    async def _until_made(self) -> T:
        while True:
            try:
                return await self._make()
            except Superseded:
                raise
            except Exception as error:  # noqa: BLE001  whatever it is, it is logged, reported to everybody, and tried again
                pause_s = self._failed(error)
            await asyncio.sleep(pause_s)
            self._next_at = None

    def _failed(self, error: Exception) -> float:
        self._failures += 1
        self._error = f"{type(error).__name__}: {error}"
        pause_s = self._backoff.pause_s(self._failures)
        self._next_at = self._clock.now() + timedelta(seconds=pause_s)
        log.error("scheduler start %s failed; retry in %.1f s", self._failures, pause_s, exc_info=error)
        self._told.set()
        return pause_s

    def _in_words(self) -> str:
        times = "once" if self._failures == 1 else f"{self._failures} times"
        when = f"at {self._next_at:%H:%M:%S} UTC" if self._next_at else "right now"
        return (
            f"the scheduler does not serve yet, and nothing was accepted: its start failed {times}, and is tried again "
            f"{when}. It waits for this to be repaired: {self._error}"
        )
