"""An event loop whose time costs nothing, and programs on it that can be frozen or killed between any two steps."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from datetime import datetime, timedelta
from typing import Any

from scheduler.testing.clock import NOON


class Stuck(Exception):
    """Nothing is ready and no timer is set: nothing will ever happen again."""


class VirtualLoop(asyncio.BaseEventLoop):
    """One callback at a time, in the order of asyncio; when none is ready, time jumps to the next timer.

    Work for threads is done at once and on the spot, so a run depends on nothing but what it is given.
    """

    def __init__(self) -> None:
        super().__init__()
        self._now_s = 0.0
        self.set_task_factory(_remembered)

    def time(self) -> float:
        return self._now_s

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:  # noqa: BLE001  whoever waits for the thread gets it
            future.set_exception(error)
        return future

    def finish(self, processes: list[Process]) -> None:
        """End what the processes left behind, so that nothing of it comes back from the garbage collector."""
        for process in processes:
            process.bury()
        self.close()

    def _run_once(self) -> None:
        self._pass_time()
        handle = self._ready.popleft()
        if handle.cancelled():
            return
        process = handle._context.get(_PROCESS)
        if process is None or process.may_run(handle):
            handle._run()

    def _pass_time(self) -> None:
        timers = self._scheduled
        while timers and timers[0].cancelled():
            heapq.heappop(timers)._scheduled = False
        if not self._ready:
            if not timers:
                raise Stuck(f"nothing is left to happen at {self._now_s:.3f} s")
            self._now_s = max(self._now_s, timers[0].when())
        while timers and timers[0].when() <= self._now_s:
            timer = heapq.heappop(timers)
            timer._scheduled = False
            self._ready.append(timer)

    def _write_to_self(self) -> None:
        """There is no other thread to wake."""


class LoopClock:
    """A `scheduler.ports.Clock` that follows the loop, *ahead_s* seconds off: no two machines agree."""

    def __init__(self, loop: VirtualLoop, ahead_s: float = 0.0) -> None:
        self._loop, self._noon = loop, NOON + timedelta(seconds=ahead_s)

    def now(self) -> datetime:
        return self._noon + timedelta(seconds=self._loop.time())

    def monotonic_s(self) -> float:
        return self._loop.time()

    def jump(self, seconds: float) -> None:
        """Somebody sets the clock of this machine."""
        self._noon += timedelta(seconds=seconds)


class Process:
    """A program on the loop: all that it starts, and all that this starts, belongs to it.

    Frozen, it does nothing until it is thawed.  Killed, it does nothing ever again: no `except`, no `finally`,
    as when the power fails.
    """

    def __init__(self, loop: VirtualLoop, name: str) -> None:
        self.name, self._loop = name, loop
        self.is_dead = False
        self.is_frozen = False
        self.steps_left: int | None = None
        """Dies when it has made so many steps more; None: does not."""
        self.on_death: Callable[[], None] = lambda: None
        self.tasks: list[asyncio.Task[Any]] = []
        self._waiting: list[asyncio.Handle] = []

    def start(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        context = copy_context()
        context.run(_PROCESS.set, self)
        return self._loop.create_task(work, context=context)

    def freeze(self) -> None:
        self.is_frozen = True

    def thaw(self) -> None:
        self.is_frozen = False
        self._loop._ready.extend(self._waiting)
        self._waiting.clear()

    def kill(self) -> None:
        if not self.is_dead:
            self.is_dead = True
            self.on_death()

    def keep(self, task: asyncio.Task[Any]) -> None:
        if len(self.tasks) > 1000:
            self.tasks = [one for one in self.tasks if not one.done()]
        self.tasks.append(task)

    def may_run(self, handle: asyncio.Handle) -> bool:
        """Counts the step, or keeps it for later, or drops it."""
        if self.is_dead:
            return False
        if self.is_frozen:
            self._waiting.append(handle)
            return False
        return self._has_steps_left()

    def _has_steps_left(self) -> bool:
        if self.steps_left is None:
            return True
        self.steps_left -= 1
        if self.steps_left < 0:
            self.kill()
        return not self.is_dead

    def bury(self) -> None:
        self.kill()
        for task in self.tasks:
            task._log_destroy_pending = False
            if coroutine := task.get_coro():
                with contextlib.suppress(BaseException):
                    coroutine.close()


_PROCESS: ContextVar[Process | None] = ContextVar("process", default=None)


def _remembered(
    loop: asyncio.AbstractEventLoop, work: Any, context: Context | None = None, **options: Any
) -> asyncio.Task[Any]:
    """A task that its process keeps, so that none vanishes half done."""
    process = context.get(_PROCESS) if context else _PROCESS.get()
    task = asyncio.Task(work, loop=loop, context=context, **options)
    if process:
        process.keep(task)
    return task
