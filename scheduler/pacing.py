"""A loop that paces one function, never dies silently, and says how it is."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from datetime import datetime, timedelta
from typing import Any

from scheduler.documents import LoopHealth
from scheduler.errors import Superseded
from scheduler.ports import Clock

log = logging.getLogger("scheduler")


class Loop:
    """Calls `once` at least every `every_s` seconds, and at once after `wake()`.

    An error is counted, logged the first time it is seen in a row, and shown in `health()`; the next pass runs
    all the same.  Only Superseded ends the loop: it means another life of the scheduler has taken over.
    """

    def __init__(
        self, name: str, every_s: float, once: Callable[[], Awaitable[object]], clock: Clock
    ) -> None:
        self.name, self.every_s, self._once, self._clock = name, every_s, once, clock
        self._wake = asyncio.Event()
        self._health = LoopHealth(every_s=every_s)

    def wake(self) -> None:
        self._wake.set()

    def health(self) -> LoopHealth:
        return self._health

    def problem(self) -> str | None:
        """Why this loop is not well, in words; None when its last pass succeeded."""
        health = self._health
        if health.last_error_at is None:
            return None
        if health.last_success_at and health.last_success_at > health.last_error_at:
            return None
        return f"the {self.name} loop fails: {health.last_error} (seen {health.errors} times)"

    async def run_forever(self) -> None:
        while True:
            self._wake.clear()
            await self.pass_once()
            try:
                await asyncio.wait_for(self._wake.wait(), self.every_s)
            except TimeoutError:
                continue

    async def pass_once(self) -> None:
        try:
            await self._once()
        except Superseded:
            raise
        except Exception as error:  # noqa: BLE001  the one place that catches all: it counts, logs and shows
            self._failed(f"{type(error).__name__}: {error}", error)
        else:
            self._note(passes=self._health.passes + 1, last_success_at=self._clock.now())

    def _failed(self, words: str, error: Exception) -> None:
        if self.problem() is None or words != self._health.last_error:
            log.error(
                "loop %s failed",
                self.name,
                exc_info=error,
                extra={"action": "loop_failed", "loop": self.name},
            )
        self._note(
            passes=self._health.passes + 1,
            errors=self._health.errors + 1,
            last_error=words,
            last_error_at=self._clock.now(),
        )

    def _note(self, **changes: object) -> None:
        next_run_at = self._clock.now() + timedelta(seconds=self.every_s)
        self._health = self._health.model_copy(update={**changes, "next_run_at": next_run_at})


class Background:
    """Tasks that nobody awaits.  Their errors are logged, counted and shown for ten minutes; none is swallowed."""

    SHOWN_FOR = timedelta(minutes=10)

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._tasks: set[asyncio.Task[Any]] = set()
        self.superseded = asyncio.Event()
        """Set when a task learned that a newer life of the scheduler owns the journal."""
        self.errors = 0
        self._last: tuple[str, datetime] | None = None

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def problem(self) -> str | None:
        if self._last and self._clock.now() - self._last[1] < self.SHOWN_FOR:
            return f"a background task failed: {self._last[0]} ({self.errors} since the start)"
        return None

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if isinstance(error, Superseded):
            self.superseded.set()
        if error:
            self.errors += 1
            self._last = f"{type(error).__name__}: {error}", self._clock.now()
            log.error("a background task failed", exc_info=error, extra={"action": "background_failed"})
