"""What may be asked: nothing here changes anything."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

from scheduler.answers import attempt_document, checkpoint_document, event_document
from scheduler.core.attempts import step_of
from scheduler.core.checkpoints import lineage
from scheduler.core.model import Attempt, CheckpointId, Fence, Job, JobId, Saved, Status
from scheduler.documents import (
    AttemptPage,
    CheckpointPage,
    EventPage,
    JobDocument,
    JobPage,
    LogChunk,
    LogView,
    LoopList,
    RankLog,
    ReasonDocument,
    RepairPage,
)
from scheduler.errors import CheckpointNotFound, InvalidRequest
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

    async def attempts(self, job_id: str) -> AttemptPage:
        job = await self._get(job_id)
        found = [self._as_seen(job, attempt) for attempt in await self._journal.attempts(job.id)]
        return AttemptPage(job_id=job.id, attempts=[attempt_document(attempt) for attempt in found])

    def _as_seen(self, job: Job, attempt: Attempt) -> Attempt:
        """The row of a run that goes on, with what it says of itself."""
        seen = self._registry.sighting(job)
        if seen is None or attempt.ended_at or attempt.fence != seen.fence:
            return attempt
        said = seen.observation
        return replace(attempt, resumed=said.resumed, saved=said.saved, last_step=step_of(said.progress))

    async def checkpoints(self, job_id: str) -> CheckpointPage:
        job = await self._get(job_id)
        found = await self._runner.checkpoints(job.id)
        continuing = lineage(found, job.origin)
        following = continuing[0].id if continuing else None
        newest_first = sorted(found, key=lambda checkpoint: (checkpoint.at, checkpoint.number), reverse=True)
        return CheckpointPage(
            job_id=job.id,
            checkpoints=[
                checkpoint_document(checkpoint, is_next=checkpoint.id == following)
                for checkpoint in newest_first
            ],
        )

    async def checkpoint(self, job: Job, wanted: str) -> Saved:
        """The complete checkpoint *wanted*; CheckpointNotFound names those that there are."""
        found = {checkpoint.id: checkpoint for checkpoint in await self._runner.checkpoints(job.id)}
        chosen = found.get(CheckpointId(wanted))
        if chosen is None:
            there = ", ".join(sorted(found)) or "none"
            raise CheckpointNotFound(f"job {job.id} has no complete checkpoint {wanted!r}; there is: {there}")
        return Saved(checkpoint=chosen.id, step=chosen.step, at=chosen.at)

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

    async def log_view(self, job_id: str, attempt: int, offsets: dict[int, int], limit: int) -> LogView:
        """How the job stands, and what the ranks in *offsets* printed in *attempt* after each, *limit* bytes at most.

        A negative offset counts from the end; no offsets: no log is read, and *attempt* may be one to come.
        """
        job = await self._get(job_id)
        is_over = job.status is not Status.RUNNING or attempt < job.attempt
        ending = await self._ending(job, attempt) if attempt and is_over else None
        seen = self._view.document(job)
        run = (job.id, Fence(attempt))
        parts = await asyncio.gather(
            *(self._runner.read_log(run, rank, offset, limit) for rank, offset in offsets.items())
        )
        return LogView(
            job_id=job.id,
            status=job.status,
            reason=seen.reason,
            queue_position=seen.queue_position,
            newest_attempt=job.attempt,
            most_ranks=job.spec.resources.most,
            is_over=is_over,
            ending=ending,
            logs=[
                RankLog(
                    rank=rank,
                    text=part.text,
                    offset=part.offset,
                    next_offset=part.next_offset,
                    is_end=part.is_end,
                )
                for rank, part in zip(offsets, parts, strict=True)
            ],
        )

    async def _ending(self, job: Job, attempt: int) -> ReasonDocument | None:
        attempts = await self._journal.attempts(job.id)
        return next((attempt_document(one).reason for one in attempts if one.fence == attempt), None)

    async def known_loops(self) -> LoopList:
        return await asyncio.to_thread(self._door.loops)
