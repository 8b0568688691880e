"""Every change is told to the database, once it is journalled."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from scheduler.core.model import Job, JobEvent, JobId
from scheduler.engine.job_store import JobStore
from scheduler.engine.registry import Registry
from scheduler.engine.sync.heartbeat import Heartbeat
from scheduler.engine.sync.session import MirrorSession
from scheduler.errors import MirrorRefused
from scheduler.ports import Journal, MirrorChange, OutboxRow

log = logging.getLogger(__name__)

_CANNOT_READ = "the change of job {} cannot be read in the journal any more; the row is left as it is"


class Relay:
    """Empties the journal's outbox into the database, in batches, each job at its newest.

    A row leaves the outbox after the database has taken it, never before: a crash in between sends it again,
    which changes nothing.  A change that the database refuses stays, is named, and holds up no other.
    """

    def __init__(
        self,
        journal: Journal,
        session: MirrorSession | None,
        store: JobStore,
        registry: Registry,
        heartbeat: Heartbeat,
        batch: int,
    ) -> None:
        self._journal, self._session, self._batch = journal, session, batch
        self._store, self._registry, self._heartbeat = store, registry, heartbeat
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
            job = await self._store.find(job_id)
            if self._session is None or job is None:
                return
            events = tuple(
                event for event in await self._journal.events(job_id) if event.version <= job.version
            )
            change = MirrorChange(job=job, events=events, queue_position=self._registry.position(job))
            await (await self._session.claimed()).apply([change], forced=True)
            self._heartbeat.forget(job_id)

    async def _deliver(self, rows: Sequence[OutboxRow]) -> dict[int, MirrorRefused]:
        """Those that were refused, by their place in the outbox."""
        if self._session is None:
            await self._journal.forget([row.seq for row in rows])
            return {}
        # The database may have the only whole copy that is left: what cannot be read is not put over it.
        kept = {row.seq: MirrorRefused(_CANNOT_READ.format(row.job.id)) for row in rows if row.unreadable}
        return kept | await self._hand_over([row for row in rows if row.seq not in kept], self._session)

    async def _hand_over(self, rows: Sequence[OutboxRow], session: MirrorSession) -> dict[int, MirrorRefused]:
        mirror = await session.claimed()
        try:
            await mirror.apply(coalesce(rows, self._registry.position))
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
