"""One of the two that a list is made of: asked with a deadline, and left alone for a while after it was silent."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from scheduler.errors import SchedulerError

T = TypeVar("T")
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """Nobody answered, and why."""

    why: str


class ReadSource:
    """The registry, or the database, as *who*.

    Whoever waits for most of *budget_s* in vain is the only one: from then on all are told at once that there is no
    answer, while *probe* is asked in the background, *pause_s* after each try, until it answers.
    """

    def __init__(
        self, who: str, probe: Callable[[], Awaitable[object]], *, budget_s: float, pause_s: float
    ) -> None:
        self._who, self._probe, self._budget_s, self._pause_s = who, probe, budget_s, pause_s
        self._no_answer: NoAnswer | None = None
        self._probing: asyncio.Task[None] | None = None

    async def ask(
        self, call: Callable[[], Awaitable[T]], until_s: float, *, anyway: bool = False
    ) -> T | NoAnswer:
        """The answer.  What is refused is raised; that it cannot answer is as good as no answer.

        Asked *anyway*, also one that was silent is waited for: its word is worth more than the time.
        """
        if self._no_answer and not anyway:
            return self._no_answer
        left_s = until_s - time.monotonic()
        try:
            async with asyncio.timeout(left_s):
                answer = await call()
            self._no_answer = None
            return answer
        except TimeoutError:
            no_answer = NoAnswer(f"{self._who} did not answer within {left_s:.1g} s")
            if left_s >= self._budget_s / 2:  # less is no measure of it
                self._remember(no_answer)
            return no_answer
        except SchedulerError as error:
            if error.http_status < 500:
                raise
            return NoAnswer(error.message)

    def _remember(self, no_answer: NoAnswer) -> None:
        if self._no_answer is None:
            log.warning("%s; lists do without it until it answers again", no_answer.why)
            self._no_answer = NoAnswer(f"{no_answer.why}, and is not waited for until it does")
            self._probing = asyncio.create_task(self._until_it_answers())

    async def _until_it_answers(self) -> None:
        while self._no_answer:
            await asyncio.sleep(self._pause_s)
            try:
                async with asyncio.timeout(self._budget_s):
                    await self._probe()
            except (TimeoutError, SchedulerError):
                continue
            self._no_answer = None
            log.info("%s answers again", self._who)
