"""Signs of life: that the scheduler is alive, and how far its runs are, between the changes of a job."""

from __future__ import annotations

from scheduler.core.model import JobId
from scheduler.engine.queries.job_view import JobViews
from scheduler.engine.sync.session import MirrorSession
from scheduler.errors import JournalUnwritable, MirrorRefused, MirrorUnavailable
from scheduler.ports import Clock, Journal, ProgressUpdate

MOST_UPDATES = 1000
"""Running jobs and the first of the queue that are kept fresh in the database between their changes."""


class Heartbeat:
    """Says in journal and database that the scheduler is alive, and there how far its runs and its line are.

    One small request, whatever the number of jobs: only what has moved since the last one is told.  The database
    hears nothing before all of its active rows were read once: until then it holds rows that this life cannot vouch for.
    """

    def __init__(
        self,
        journal: Journal,
        session: MirrorSession | None,
        clock: Clock,
        views: JobViews,
    ) -> None:
        self._journal, self._session, self._clock, self._views = journal, session, clock, views
        self._sent: dict[JobId, ProgressUpdate] = {}
        self._forgotten: set[JobId] = set()

    async def once(self) -> None:
        await self._journal.vouch(self._clock.now())
        if self._session is None or not self._session.has_read_rows:
            return
        mirror = await self._session.claimed()
        unsent = await self._journal.unsent()
        self._forgotten.clear()
        updates = {
            one.job_id: one for one in self._views.progress_updates(MOST_UPDATES) if one.job_id not in unsent
        }
        await mirror.vouch([one for one in updates.values() if one != self._sent.get(one.job_id)])
        self._sent = {job_id: one for job_id, one in updates.items() if job_id not in self._forgotten}

    async def is_in_charge(self) -> bool:
        """Whether no newer life of the scheduler owns the journal or the database.

        Raises Superseded in an older life that woke up: runs that it does not know are those of its successor.
        """
        try:
            await self.once()
        except JournalUnwritable:
            return False  # perhaps not
        except (MirrorUnavailable, MirrorRefused):
            return True  # by the journal
        return True

    def forget(self, job_id: JobId) -> None:
        """The row of this job was written anew: the last update of it is gone, and so may be one that is under way."""
        self._sent.pop(job_id, None)
        self._forgotten.add(job_id)
