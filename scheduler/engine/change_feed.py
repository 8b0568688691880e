"""Which jobs have changed lately, for whoever watches: numbered, bounded, and free while nobody does."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from scheduler.core.lifecycle import Event
from scheduler.core.model import Job, JobId, Reason

GATHER_S = 0.1
"""What changes within so long is told at once."""
REMEMBERED = 10_000
TOLD_AT_ONCE = 500
WATCHED_PLACES = 200
"""So far down the queue every move is told; who stands behind is shown by the next look at a list."""


class News(NamedTuple):
    seq: int
    """Of the newest change that is among `job_ids`."""
    job_ids: list[JobId] | None
    """Each job once, in the order of its newest change; None: more than is remembered, or than is told at once."""


class ChangeFeed:
    """Changes are numbered from 1 in each life of the scheduler."""

    def __init__(self, remembered: int = REMEMBERED, told_at_once: int = TOLD_AT_ONCE) -> None:
        self._seq = 0
        self._changed: OrderedDict[JobId, int] = OrderedDict()
        self._forgotten = 0
        self._remembered, self._told_at_once = remembered, told_at_once
        self._waiting: set[asyncio.Future[None]] = set()

    def tell(self, job_ids: Iterable[JobId]) -> None:
        for job_id in job_ids:
            self._seq += 1
            self._changed[job_id] = self._seq
            self._changed.move_to_end(job_id)
        while len(self._changed) > self._remembered:
            _, self._forgotten = self._changed.popitem(last=False)
        if self._waiting and self._changed:
            self._wake()

    def committed(self, _before: Job | None, after: Job, _event: Event | None) -> None:
        self.tell([after.id])

    def since(self, seq: int) -> News:
        """What changed after number *seq*."""
        if not self._forgotten <= seq <= self._seq:
            return News(self._seq, None)
        found: list[JobId] = []
        for job_id in reversed(self._changed):
            if self._changed[job_id] <= seq:
                return News(self._seq, found[::-1])
            found.append(job_id)
            if len(found) > self._told_at_once:
                return News(self._seq, None)
        return News(self._seq, found[::-1])

    async def after(self, seq: int, wait_s: float) -> News:
        """As `since`; when nothing changed yet, what changes first within *wait_s*.

        Whoever would wait gets what changes within `GATHER_S` in one answer, and so cannot ask more often.
        """
        if wait_s > 0:
            if seq == self._seq:
                await self._change(wait_s)
            if seq != self._seq:
                await asyncio.sleep(GATHER_S)
        return self.since(seq)

    async def _change(self, wait_s: float) -> None:
        told: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(told)
        try:
            await asyncio.wait([told], timeout=wait_s)
        finally:
            self._waiting.discard(told)

    def _wake(self) -> None:
        for told in self._waiting:
            if not told.done():
                told.set_result(None)


class QueuePositions:
    """Who has moved in the queue, or waits for another reason, since the pass before."""

    def __init__(self) -> None:
        self._known: dict[JobId, tuple[int, Reason | None]] = {}

    def moved(self, line: Sequence[JobId], waits: Callable[[JobId], Reason | None]) -> list[JobId]:
        """*line*: its head, the first one first.  Who was not in it before has come to it by a change of its own,
        which was told then."""
        known, self._known = (
            self._known,
            {job_id: (place, waits(job_id)) for place, job_id in enumerate(line)},
        )
        return [job_id for job_id, now in self._known.items() if known.get(job_id) != now]
