"""What may be asked: nothing here changes anything."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from scheduler.answers import event_document
from scheduler.core.model import Fence, Job, JobId, Status
from scheduler.documents import EventPage, JobDocument, JobPage, LogChunk, LoopList, RepairPage
from scheduler.errors import InvalidRequest
from scheduler.paging import cursor_after, cursor_of_number, number_of_cursor, position_of_cursor
from scheduler.ports import JobQuery, Journal, Runner
from scheduler.reconciling import repair_document
from scheduler.registry import Registry
from scheduler.validation import Door
from scheduler.viewing import View


class Questions:
    """Answers from registry and journal; about a job that neither knows, from the database."""

    def __init__(
        self,
        *,
        journal: Journal,
        registry: Registry,
        runner: Runner,
        door: Door,
        view: View,
        find: Callable[[JobId], Awaitable[Job | None]],
        get: Callable[[str], Awaitable[Job]],
    ) -> None:
        self._journal, self._registry, self._runner = journal, registry, runner
        self._door, self._view = door, view
        self._find, self._get = find, get

    async def status(self, job_id: str) -> JobDocument:
        return self._view.document(await self._get(job_id))

    async def documents(self, job_ids: list[str]) -> dict[str, JobDocument]:
        """Those of the given jobs that registry or journal know."""
        known = [job for job_id in job_ids if (job := await self._find(JobId(job_id)))]
        return {job.id: self._view.document(job) for job in known}

    async def repairs(self, cursor: str | None, limit: int) -> RepairPage:
        """What was put right, newest first."""
        found = await self._journal.repairs(limit, number_of_cursor(cursor) if cursor else None)
        return RepairPage(
            repairs=[repair_document(repair) for _, repair in found],
            next_cursor=cursor_of_number(found[-1][0]) if len(found) == limit else None,
        )

    async def events(self, job_id: str) -> EventPage:
        job = await self._get(job_id)
        return EventPage(
            job_id=job.id, events=[event_document(event) for event in await self._journal.events(job.id)]
        )

    async def jobs(
        self,
        statuses: frozenset[Status],
        user: str | None,
        project: str | None,
        cursor: str | None,
        limit: int,
    ) -> JobPage:
        after = position_of_cursor(cursor) if cursor else None
        query = JobQuery(statuses=statuses, user=user, project=project, after=after, limit=limit)
        rows = await self._journal.page(query)
        full = len(rows) == limit
        return JobPage(
            jobs=[self._view.document(self._registry.get(job.id) or job) for job in rows],
            next_cursor=cursor_after(rows[-1]) if rows and full else None,
        )

    async def logs(self, job_id: str, rank: int, attempt: int | None, offset: int, limit: int) -> LogChunk:
        """Part of a rank's log.  `attempt` defaults to the newest; a negative `offset` counts from the end."""
        job = await self._get(job_id)
        wanted = job.attempt if attempt is None else attempt
        if not 1 <= wanted <= job.attempt:
            raise InvalidRequest(
                f"job {job.id} has had {job.attempt} attempts; there is no log of attempt {wanted} yet"
            )
        part = await self._runner.read_log((job.id, Fence(wanted)), rank, offset, limit)
        over = job.status is not Status.RUNNING or wanted < job.attempt
        return LogChunk(
            job_id=job.id,
            attempt=wanted,
            rank=rank,
            text=part.text,
            offset=part.offset,
            next_offset=part.next_offset,
            ended=over and part.is_end,
        )

    async def known_loops(self) -> LoopList:
        return await asyncio.to_thread(self._door.loops)
