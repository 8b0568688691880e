"""A loop that paces one function, never dies silently, and says how it is."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from scheduler.api.health import LoopHealth
from scheduler.errors import Superseded
from scheduler.ports import Clock

log = logging.getLogger(__name__)

_MAX_DOUBLINGS = 60
"""A loop may fail for months; more would overflow a float."""


T = TypeVar("T")


async def all_of(works: Iterable[Awaitable[T]]) -> list[T]:
    """What each of *works* returns; the first error is raised when all of them are done.

    `asyncio.gather` raises while the others go on: a pass would end, and the next one begin beside what is left of it.
    """
    done = await asyncio.gather(*works, return_exceptions=True)
    for one in done:
        if isinstance(one, BaseException):
            raise one
    return [one for one in done if not isinstance(one, BaseException)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """How long a loop waits after passes that failed in a row: `first_s`, doubled with each one, up to `max_s`.

    Half of a pause is certain and half is left to chance, so that many who lost the same server do not come
    back to it all at once, and none comes back at once.  (The "equal jitter" of Marc Brooker's "Exponential
    Backoff And Jitter", AWS Architecture Blog, 2015.)
    """

    first_s: float
    """The longest pause after the first failure.  Seconds, above 0."""
    max_s: float
    """No pause is longer.  Seconds."""
    chance: Callable[[], float]
    """Gives the next number from 0 to below 1, each equally likely, such as `random.Random(seed).random`."""

    def pause_s(self, failures: int) -> float:
        """Seconds to wait after so many failures in a row (1 or more)."""
        doublings = min(failures - 1, _MAX_DOUBLINGS)
        return min(self.max_s, self.first_s * 2**doublings) * (1 + self.chance()) / 2


class SystemClock:
    """The clocks of this machine."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic_s(self) -> float:
        return time.monotonic()


class PeriodicTask:
    """Calls `once` at least every `every_s` seconds, and at once after `wake()`.

    An error is counted, logged the first time it is seen in a row, and shown in `health()`; the next pass runs
    all the same: with *backoff* after its pause, which no `wake()` shortens, else as if nothing had happened.
    A pass that succeeds ends the pauses.  Only Superseded ends the loop: it means another life of the scheduler
    has taken over.
    """

    def __init__(
        self,
        name: str,
        every_s: float,
        once: Callable[[], Awaitable[object]],
        clock: Clock,
        backoff: Backoff | None = None,
    ) -> None:
        self.name, self.every_s, self._once, self._clock = name, every_s, once, clock
        self._backoff = backoff
        self._failures = 0  # in a row
        self._wait_s = every_s
        self._wake = asyncio.Event()
        self._health = LoopHealth(every_s=every_s)

    def wake(self, *_: object) -> None:
        """The next pass begins now, or as soon as this one is over.  May be called after every commit."""
        self._wake.set()

    def health(self) -> LoopHealth:
        return self._health

    def problem(self) -> str | None:
        """Why this loop is not well, in words; None when its last pass succeeded."""
        if not self._failures:
            return None
        return f"the {self.name} loop fails: {self._health.last_error} (seen {self._health.errors} times)"

    async def run_forever(self) -> None:
        while True:
            self._wake.clear()
            await self.pass_once()
            await self._wait()

    async def pass_once(self) -> None:
        try:
            await self._once()
        except Superseded:
            raise
        except Exception as error:  # noqa: BLE001  the one place that catches all: it counts, logs and shows
            self._failed(f"{type(error).__name__}: {error}", error)
        else:
            self._succeeded()

    async def _wait(self) -> None:
        if self._failures and self._backoff:
            await asyncio.sleep(self._wait_s)
            return
        with suppress(
            TimeoutError
        ):  # not `wait_for`: before Python 3.12 it swallows a cancel that meets a wake
            async with asyncio.timeout(self._wait_s):
                await self._wake.wait()

    def _succeeded(self) -> None:
        self._failures, self._wait_s = 0, self.every_s
        self._note(last_success_at=self._clock.now())

    def _failed(self, words: str, error: Exception) -> None:
        if not self._failures or words != self._health.last_error:
            log.error(
                "loop %s failed",
                self.name,
                exc_info=error,
                extra={"action": "loop_failed", "loop": self.name},
            )
        self._failures += 1
        self._wait_s = self._backoff.pause_s(self._failures) if self._backoff else self.every_s
        self._note(errors=self._health.errors + 1, last_error=words, last_error_at=self._clock.now())

    def _note(self, **changes: object) -> None:
        next_run_at = self._clock.now() + timedelta(seconds=self._wait_s)
        changes |= {"passes": self._health.passes + 1, "next_run_at": next_run_at}
        self._health = self._health.model_copy(update=changes)


class BackgroundTasks:
    """Tasks that nobody awaits.  Their errors are logged, counted and shown for ten minutes; none is swallowed."""

    SHOWN_FOR = timedelta(minutes=10)

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._tasks: set[asyncio.Task[Any]] = set()
        self.superseded = asyncio.Event()
        """Set when a task learned that a newer life of the scheduler owns the journal."""
        self.superseded_by: Superseded | None = None
        self.errors = 0
        self._last: tuple[str, datetime] | None = None

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    async def close(self) -> None:
        """End what is under way, and return when it has ended.  Nothing may be spawned after this."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def problem(self) -> str | None:
        if self._last and self._clock.now() - self._last[1] < self.SHOWN_FOR:
            return f"a background task failed: {self._last[0]} ({self.errors} since the start)"
        return None

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if isinstance(error, Superseded):
            self.superseded_by = error
            self.superseded.set()
        if error:
            self.errors += 1
            self._last = f"{type(error).__name__}: {error}", self._clock.now()
            log.error("a background task failed", exc_info=error, extra={"action": "background_failed"})
