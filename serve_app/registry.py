"""What the API needs from whoever holds the jobs."""

from __future__ import annotations

from typing import Protocol

from scheduler.core.model import JobSpec, Status
from scheduler.documents import (
    EventPage,
    ForceStartAnswer,
    Health,
    JobDocument,
    JobPage,
    LogChunk,
    LoopList,
    SubmittedJob,
)


class Registry(Protocol):
    """The methods of the scheduler actor.  All are safe to repeat and raise `scheduler.errors`."""

    async def submit(
        self, job_id: str, spec: JobSpec, idempotency_key: str | None
    ) -> tuple[JobDocument, bool]:
        """The job, durable, and whether this call made it (False: an earlier one with this key or id did)."""
        ...

    async def submit_batch(self, jobs: list[tuple[str, JobSpec]]) -> list[SubmittedJob]:
        """All are accepted, or none."""
        ...

    async def status(self, job_id: str) -> JobDocument: ...

    async def events(self, job_id: str) -> EventPage: ...

    async def jobs(
        self,
        statuses: frozenset[Status],
        user: str | None,
        project: str | None,
        cursor: str | None,
        limit: int,
    ) -> JobPage: ...

    async def cancel(self, job_id: str, by: str) -> JobDocument: ...

    async def force_start(self, job_id: str, by: str) -> ForceStartAnswer: ...

    async def mark_failed(self, job_id: str, by: str) -> JobDocument: ...

    async def logs(self, job_id: str, rank: int, attempt: int | None, offset: int, limit: int) -> LogChunk:
        """Part of one rank's log.  A negative *offset*: that many bytes before the end."""
        ...

    async def loops(self) -> LoopList: ...

    async def health(self) -> Health: ...
