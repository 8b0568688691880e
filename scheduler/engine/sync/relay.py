"""What the scheduler tells the database: every change once it is journalled, and signs of life in between."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime

from scheduler.core.model import Job, JobEvent, JobId
from scheduler.errors import MirrorRefused
from scheduler.ports import Clock, Journal, Mirror, MirrorChange, OutboxRow, ProgressUpdate

log = logging.getLogger("scheduler")

_CANNOT_READ = "the change of job {} cannot be read in the journal any more; the row is left as it is"
MAX_SIGNS = 1000
"""Running jobs and the first of the line that are kept fresh in the database between their changes."""


class MirrorSession:
    """The mirror of this life of the scheduler: claimed before anything is written to it."""

    def __init__(self, mirror: Mirror, journal: Journal) -> None:
        self._mirror, self._journal = mirror, journal
        self._claiming = asyncio.Lock()
        self.incarnation: int | None = None
        """None until the database has been reached for the first time."""
        self.vouched_before: datetime | None = None
        """When an earlier life said for the last time that it was alive."""

    async def claimed(self) -> Mirror:
        """The mirror, with this life as its newest writer.  Raises what `claim` raises; then ask again."""
        async with self._claiming:
            if self.incarnation is None:
                self.vouched_before = (await self._mirror.rows([])).vouched_at
                incarnation = await self._mirror.claim(self._journal.incarnation)
                # A journal that was lost counts from 1 again; the database remembers how far it was.
                await self._journal.raise_incarnation(incarnation)
                self.incarnation = incarnation
        return self._mirror


class Relay:
    """Empties the journal's outbox into the database, in batches, each job at its newest.

    A row leaves the outbox after the database has taken it, never before: a crash in between sends it again,
    which changes nothing.  A change that the database refuses stays, is named, and holds up no other.
    """

    def __init__(
        self,
        *,
        journal: Journal,
        link: MirrorSession | None,
        batch: int,
        find: Callable[[JobId], Awaitable[Job | None]],
        position: Callable[[Job], int | None],
        rewritten: Callable[[JobId], None] = lambda _job_id: None,
    ) -> None:
        self._journal, self._link, self._batch = journal, link, batch
        self._find, self._position, self._rewritten = find, position, rewritten
        self._one_at_a_time = asyncio.Lock()

    async def once(self) -> int:
        """Deliver everything that waits; returns how many changes left the outbox.

        Raises MirrorUnavailable when the database is away, MirrorRefused when it did not take some of them.
        """
        async with self._one_at_a_time:
            delivered, after, refusals = 0, 0, list[MirrorRefused]()
            while rows := await self._journal.outbox(self._batch, after):
                after = rows[-1].seq
                refused = await self._deliver(rows)
                delivered += len(rows) - len(refused)
                refusals += refused.values()
        if refusals:
            raise MirrorRefused(
                f"{len(refusals)} changes wait, refused by the database: {refusals[0].message}"
            )
        return delivered

    async def write_again(self, job_id: JobId) -> None:
        """Put the newest state of a job, and its history, over whatever the database has."""
        async with self._one_at_a_time:
            job = await self._find(job_id)
            if self._link is None or job is None:
                return
            events = tuple(
                event for event in await self._journal.events(job_id) if event.version <= job.version
            )
            change = MirrorChange(job=job, events=events, queue_position=self._position(job))
            await (await self._link.claimed()).apply([change], forced=True)
            self._rewritten(job_id)

    async def _deliver(self, rows: Sequence[OutboxRow]) -> dict[int, MirrorRefused]:
        """Those that were refused, by their place in the outbox."""
        if self._link is None:
            await self._journal.forget([row.seq for row in rows])
            return {}
        # The database may have the only whole copy that is left: what cannot be read is not put over it.
        kept = {row.seq: MirrorRefused(_CANNOT_READ.format(row.job.id)) for row in rows if row.unreadable}
        return kept | await self._hand_over([row for row in rows if row.seq not in kept], self._link)

    async def _hand_over(self, rows: Sequence[OutboxRow], link: MirrorSession) -> dict[int, MirrorRefused]:
        mirror = await link.claimed()
        try:
            await mirror.apply(coalesce(rows, self._position))
        except MirrorRefused as error:
            await mirror.check()  # raises what is wrong with all of them
            return await self._one_by_one(rows, error)
        await self._journal.forget([row.seq for row in rows])
        return {}

    async def _one_by_one(self, rows: Sequence[OutboxRow], error: MirrorRefused) -> dict[int, MirrorRefused]:
        """By halves, until the job that is not taken stands alone."""
        if len({row.job.id for row in rows}) == 1:
            log.error("the database refuses job %s: %s", rows[0].job.id, error)
            return dict.fromkeys((row.seq for row in rows), error)
        middle = len(rows) // 2
        return {**await self._deliver(rows[:middle]), **await self._deliver(rows[middle:])}


def coalesce(
    rows: Sequence[OutboxRow], position: Callable[[Job], int | None] = lambda _job: None
) -> list[MirrorChange]:
    """Each job once, as it was last, with all of its events."""
    newest: dict[JobId, Job] = {}
    events: dict[JobId, list[JobEvent]] = {}
    for row in rows:
        newest[row.job.id] = row.job
        events.setdefault(row.job.id, []).append(row.event)
    return [
        MirrorChange(job=job, events=tuple(events[job.id]), queue_position=position(job))
        for job in newest.values()
    ]


class Heartbeat:
    """Says in journal and database that the scheduler is alive, and there how far its runs and its line are.

    One small request, whatever the number of jobs: only what has moved since the last one is told.  The database
    hears nothing before *has_read_database*: until then it holds rows that this life cannot vouch for.
    """

    def __init__(
        self,
        *,
        journal: Journal,
        link: MirrorSession | None,
        clock: Clock,
        signs: Callable[[int], Sequence[ProgressUpdate]],
        has_read_database: Callable[[], bool],
    ) -> None:
        self._journal, self._link, self._clock, self._signs = journal, link, clock, signs
        self._has_read_database = has_read_database
        self._told: dict[JobId, ProgressUpdate] = {}
        self._forgotten: set[JobId] = set()

    async def once(self) -> None:
        await self._journal.vouch(self._clock.now())
        if self._link is None or not self._has_read_database():
            return
        mirror = await self._link.claimed()
        unsent = await self._journal.unsent()
        self._forgotten.clear()
        signs = {sign.job_id: sign for sign in self._signs(MAX_SIGNS) if sign.job_id not in unsent}
        await mirror.vouch([sign for sign in signs.values() if sign != self._told.get(sign.job_id)])
        self._told = {job_id: sign for job_id, sign in signs.items() if job_id not in self._forgotten}

    def forget(self, job_id: JobId) -> None:
        """The row of this job was written anew: its last sign is gone, and so may be one that is under way."""
        self._told.pop(job_id, None)
        self._forgotten.add(job_id)
