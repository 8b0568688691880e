"""When each job of the queue would start, for whoever looks at the queue; played seldom, however many look."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from scheduler.core.forecast import Start
from scheduler.core.model import JobId
from scheduler.engine.queries.outlooks import Outlooks
from scheduler.ports import Clock

log = logging.getLogger(__name__)

REST = 10
"""An outlook stands for so many times as long as it took: looking costs a tenth of a processor at the most."""
PATIENCE_S = 2.0
"""Whoever looks gets the outlook before when a new one takes longer."""


class ExpectedStarts:
    """Reads; changes nothing."""

    def __init__(self, outlooks: Outlooks, clock: Clock) -> None:
        self._outlooks, self._clock = outlooks, clock
        self._starts: Mapping[JobId, Start] = {}
        self._at_s, self._good_until_s = 0.0, -1.0
        self._playing: asyncio.Task[None] | None = None

    async def now(self) -> Mapping[JobId, Start]:
        """By job, counted from now.  Jobs that came since the outlook was made are not there."""
        if self._clock.monotonic_s() >= self._good_until_s:
            if self._playing is None:
                self._playing = asyncio.create_task(self._play())
                self._playing.add_done_callback(self._played)
            await asyncio.wait((self._playing,), timeout=PATIENCE_S)
        passed_s = self._clock.monotonic_s() - self._at_s
        return {job_id: _later(start, passed_s) for job_id, start in self._starts.items()}

    async def _play(self) -> None:
        began_s = self._clock.monotonic_s()
        played, _ = await self._outlooks.whole()
        took_s = self._clock.monotonic_s() - began_s
        self._starts, self._at_s = played.starts, began_s
        self._good_until_s = began_s + (1 + REST) * took_s

    def _played(self, task: asyncio.Task[None]) -> None:
        """A queue without starts is still a queue."""
        self._playing = None
        if not task.cancelled() and (error := task.exception()):
            log.error("no outlook could be made for the queue", exc_info=error)
            self._starts = {}


def _later(start: Start, passed_s: float) -> Start:
    """The same start, seen *passed_s* later."""
    if start.after_s is not None:
        return Start(after_s=max(0.0, start.after_s - passed_s))
    if start.more_than_s is not None:
        return Start(more_than_s=max(0.0, start.more_than_s - passed_s))
    return start
