"""What the API needs from whoever holds the jobs."""

from __future__ import annotations

from typing import Protocol

from scheduler.core.model import JobSpec, Status
from scheduler.documents import (
    AttemptPage,
    CheckpointPage,
    EventPage,
    ForceStartAnswer,
    Health,
    JobDocument,
    JobPage,
    LogChunk,
    LogView,
    LoopList,
    ReconcileAnswer,
    RepairPage,
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

    async def documents(self, job_ids: list[str]) -> dict[str, JobDocument]:
        """Those of the given jobs that the registry or its journal knows.  Never asks the database."""
        ...

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

    async def pause(self, job_id: str, by: str) -> JobDocument: ...

    async def resume(self, job_id: str, by: str, checkpoint: str | None = None) -> JobDocument: ...

    async def restart(self, job_id: str, by: str) -> JobDocument: ...

    async def preempt(self, job_id: str, by: str) -> JobDocument: ...

    async def attempts(self, job_id: str) -> AttemptPage: ...

    async def checkpoints(self, job_id: str) -> CheckpointPage:
        """Those that are complete, newest first."""
        ...

    async def force_start(self, job_id: str, by: str) -> ForceStartAnswer: ...

    async def mark_failed(self, job_id: str, by: str) -> JobDocument: ...

    async def logs(self, job_id: str, rank: int, attempt: int | None, offset: int, limit: int) -> LogChunk:
        """Part of one rank's log.  A negative *offset*: that many bytes before the end."""
        ...

    async def log_view(self, job_id: str, attempt: int, offsets: dict[int, int], limit: int) -> LogView:
        """How a job stands, and what each rank in *offsets* printed after its offset, *limit* bytes at most.

        Without offsets *attempt* may be one to come, or 0.
        """
        ...

    async def loops(self) -> LoopList: ...

    async def reconcile(self, dry_run: bool) -> ReconcileAnswer:
        """One pass, now.  May take tens of seconds where the database is slow."""
        ...

    async def repairs(self, cursor: str | None, limit: int) -> RepairPage:
        """What was put right, newest first."""
        ...

    async def health(self) -> Health: ...
