"""What the API needs from whoever holds the jobs."""

from __future__ import annotations

from typing import Protocol

from scheduler.api.forecasts import EffectDocument, Explanation, PlanAnswer
from scheduler.api.health import Health, LoopList, ShutdownAnswer
from scheduler.api.job_query import JobQuery
from scheduler.api.jobs import (
    AttemptPage,
    Changes,
    CheckpointPage,
    EventPage,
    ForceStartAnswer,
    JobDocument,
    JobPage,
    SubmittedJob,
)
from scheduler.api.logs import LogChunk, LogView
from scheduler.api.metrics import MetricsDocument
from scheduler.api.repairs import ReconcileAnswer, RepairPage
from scheduler.core.model import JobSpec


class SchedulerApi(Protocol):
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

    async def jobs(self, query: JobQuery) -> JobPage: ...

    async def changes(self, after: int, life: int, wait_s: float) -> Changes:
        """What has changed after number *after* of that *life*; waits up to *wait_s* until something has."""
        ...

    async def cancel(self, job_id: str, by: str) -> JobDocument: ...

    async def pause(self, job_id: str, by: str) -> JobDocument: ...

    async def resume(self, job_id: str, by: str, checkpoint: str | None = None) -> JobDocument: ...

    async def restart(self, job_id: str, by: str) -> JobDocument: ...

    async def preempt(self, job_id: str, by: str) -> JobDocument: ...

    async def attempts(self, job_id: str) -> AttemptPage: ...

    async def checkpoints(self, job_id: str) -> CheckpointPage:
        """Those that are complete, newest first."""
        ...

    async def metrics(self, job_id: str, points: int) -> MetricsDocument:
        """What the loop measured in all attempts, thinned out to *points* rows on the side of the scheduler."""
        ...

    async def trends(self, job_ids: list[str], points: int) -> dict[str, list[float]]:
        """The loss of each job in at most *points* numbers, for a sparkline.  Left out: jobs that are not known,
        those that told no loss, and those whose long history is still being read (ask again later)."""
        ...

    async def force_start(self, job_id: str, by: str) -> ForceStartAnswer: ...

    async def mark_failed(self, job_id: str, by: str) -> JobDocument: ...

    async def shutdown(self, save: bool, by: str) -> ShutdownAnswer:
        """The operator is about to end the scheduler: nothing starts any more, and what runs gives way."""
        ...

    async def logs(self, job_id: str, rank: int, attempt: int | None, offset: int, limit: int) -> LogChunk:
        """Part of one rank's log.  A negative *offset*: that many bytes before the end."""
        ...

    async def log_view(self, job_id: str, attempt: int, offsets: dict[int, int], limit: int) -> LogView:
        """How a job stands, and what each rank in *offsets* printed after its offset, *limit* bytes at most.

        Without offsets *attempt* may be one to come, or 0.
        """
        ...

    async def explain(self, job_id: str) -> Explanation:
        """Where a job stands and why, and what may be done next."""
        ...

    async def effect(self, job_id: str, action: str, checkpoint: str | None = None) -> EffectDocument:
        """What an action would do.  Changes nothing."""
        ...

    async def plan(self, spec: JobSpec) -> PlanAnswer:
        """What would become of a submit.  Queues nothing."""
        ...

    async def loops(self) -> LoopList: ...

    async def reconcile(self, dry_run: bool) -> ReconcileAnswer:
        """One pass, now.  May take tens of seconds where the database is slow."""
        ...

    async def repairs(self, cursor: str | None, limit: int) -> RepairPage:
        """What was put right, newest first."""
        ...

    async def health(self) -> Health: ...
