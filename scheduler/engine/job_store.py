"""Registry and journal as one: decide, commit, act, in that order and in one place."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from weakref import WeakValueDictionary

from scheduler.core import lifecycle
from scheduler.core.lifecycle import Action, Event
from scheduler.core.model import Attempt, Job, JobId
from scheduler.core.plain_values import without_words
from scheduler.core.reconcile import Repair
from scheduler.core.retry import RetryPolicy
from scheduler.core.rows import job_of
from scheduler.engine.registry import Registry
from scheduler.engine.sync.session import MirrorSession
from scheduler.errors import JobNotFound, Unstorable
from scheduler.ports import Change, Journal

log = logging.getLogger(__name__)


OnCommit = Callable[[Job | None, Job, Event | None], object]
"""The job before (None: it is new), after, and the event between them (None: it was submitted)."""
OnAction = Callable[[Job, Action], object]


class JobStore:
    """Every change of a job goes through here.  What memory shows is on disk; what is done was on disk before."""

    def __init__(
        self, journal: Journal, registry: Registry, session: MirrorSession | None, policy: RetryPolicy
    ) -> None:
        self._journal, self._registry, self._policy = journal, registry, policy
        self._session = session
        self.on_commit: tuple[OnCommit, ...] = ()
        """Called after each commit, in this order.  None of them waits or raises."""
        self.on_action: OnAction = _nothing
        """Starts what is to be done about a job that was committed."""
        self._locks: WeakValueDictionary[JobId, asyncio.Lock] = WeakValueDictionary()

    async def apply(self, job: Job, event: Event) -> Job:
        """Take *event* to the newest copy of *job*.  Runs to its end even when the caller goes away.

        A job that only the database knows is written to the journal with this, as if it had always been there.
        """
        return await asyncio.shield(asyncio.create_task(self._apply(job, event)))

    async def adopt(
        self, job: Job, event: Event, repair: Repair | None, attempts: tuple[Attempt, ...] = ()
    ) -> Job:
        """As `apply`, for a job newer than what the journal has; if it is not, nothing happens.

        *attempts* are its runs until now.
        """
        work = self._apply(job, event, repair=repair, attempts=attempts, only_newer=True)
        return await asyncio.shield(asyncio.create_task(work))

    async def create(self, jobs: list[Job]) -> None:
        """All of these new jobs in one commit, or none.  Runs to its end even when the caller goes away."""
        await asyncio.shield(asyncio.create_task(self._create(jobs)))

    async def find(self, job_id: JobId) -> Job | None:
        return self._registry.get(job_id) or await self._journal.get(job_id)

    async def find_all(self, job_ids: Sequence[JobId]) -> dict[JobId, Job]:
        """Those of these jobs that are known; the database is asked once, for what registry and journal do not know."""
        found = {job_id: job for job_id in job_ids if (job := await self.find(job_id))}
        if self._session and (missing := [job_id for job_id in job_ids if job_id not in found]):
            mirror = await self._session.claimed()
            found |= {row.id: job_of(row) for row in (await mirror.rows(missing)).rows}
        return found

    async def get(self, job_id: str) -> Job:
        """The job, wherever it is known: registry, journal, database.  Raises JobNotFound, or MirrorUnavailable
        when only the database could tell and does not answer."""
        if job := await self.find(JobId(job_id)):
            return job
        if self._session:
            mirror = await self._session.claimed()
            for row in (await mirror.rows([JobId(job_id)])).rows:
                return job_of(row)
        raise JobNotFound.of(job_id)

    async def submitted_before(self, job_id: JobId, user: str, key: str | None) -> Job | None:
        """The job that an earlier submit with this id or key made."""
        if known := self._registry.get(job_id):
            return known
        if key is not None and (known := await self._journal.find_by_key(user, key)):
            return self._registry.get(known.id) or known
        return None

    async def _apply(
        self,
        job: Job,
        event: Event,
        *,
        repair: Repair | None = None,
        attempts: tuple[Attempt, ...] = (),
        only_newer: bool = False,
    ) -> Job:
        async with self._locks.setdefault(job.id, asyncio.Lock()):
            known = await self.find(job.id)
            if known and only_newer and known.version >= job.version:
                return known
            before = job if known is None or only_newer else known
            after, actions = lifecycle.apply(before, event, self._policy)
            if after is not before:
                change = Change(
                    job=after,
                    event=lifecycle.record(before, after, event),
                    before=known.version if known else 0,
                    attempts=attempts,
                    is_news=lifecycle.is_news(before, after, event),
                )
                after = await self._commit(change, [repair] if repair else [])
                self._committed(before, after, event)
            for action in actions:
                self.on_action(after, action)
        return after

    async def _commit(self, change: Change, repairs: Sequence[Repair]) -> Job:
        """The job as it was written.  That a step was made counts for more than what a run said with it."""
        try:
            await self._journal.commit([change], repairs)
        except Unstorable as error:
            log.error("job %s: %s; written without its report", change.job.id, error)
            job, event = without_words(change.job, change.event, error.message)
            change = replace(change, job=job, event=event, attempts=())
            await self._journal.commit([change], repairs)
        return change.job

    async def _create(self, jobs: list[Job]) -> None:
        changes = [Change(job=job, event=lifecycle.record(None, job, None), before=0) for job in jobs]
        await self._journal.commit(changes)
        for job in jobs:
            self._committed(None, job, None)

    def _committed(self, before: Job | None, after: Job, event: Event | None) -> None:
        self._registry.put(after)
        for call in self.on_commit:
            call(before, after, event)
        was = before.status if before else "new"
        names = {"action": "job_advanced", "job_id": after.id, "fence": after.fence}
        names["event"] = type(event).__name__ if event else "Submitted"
        log.info("job %s: %s -> %s (%s)", after.id, was, after.status, after.reason.message, extra=names)


def _nothing(_job: Job, _action: Action) -> None:
    """Before anybody runs jobs."""
