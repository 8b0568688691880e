"""A registry that remembers what it was asked."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from scheduler.core.model import JobSpec, Status
from scheduler.documents import (
    EventDocument,
    EventPage,
    ForceStartAnswer,
    Health,
    JobDocument,
    JobPage,
    LogChunk,
    LoopDocument,
    LoopList,
    ReasonDocument,
    SubmittedJob,
)
from scheduler.errors import JobNotFound

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
JOB_ID = "0b2f1c9e-2a55-4d0c-8c4f-6a1f1a1c0001"


def a_document(job_id: str = JOB_ID, spec: JobSpec | None = None, **changes: Any) -> JobDocument:
    spec = spec or JobSpec(loop="torch_ddp")
    values: dict[str, Any] = {
        "job_id": job_id,
        "name": spec.name,
        "status": Status.QUEUED,
        "reason": ReasonDocument(code="accepted", message="in the queue; not looked at yet"),
        "attempt": 0,
        "queue_position": 1,
        "created_at": NOW,
        "updated_at": NOW,
        "version": 1,
        "spec": spec,
    }
    return JobDocument(**(values | changes))


class RecordingRegistry:
    """Knows the jobs that were submitted; raises `refuses` instead of answering when that is set."""

    def __init__(self) -> None:
        self.known: dict[str, JobDocument] = {}
        self.keys: dict[str, str] = {}
        self.calls: list[tuple[Any, ...]] = []
        self.refuses: Exception | None = None

    def _heard(self, *call: Any) -> None:
        self.calls.append(call)
        if self.refuses is not None:
            raise self.refuses

    def _find(self, job_id: str) -> JobDocument:
        if job_id not in self.known:
            raise JobNotFound.of(job_id)
        return self.known[job_id]

    async def submit(
        self, job_id: str, spec: JobSpec, idempotency_key: str | None
    ) -> tuple[JobDocument, bool]:
        self._heard("submit", job_id, spec, idempotency_key)
        if idempotency_key in self.keys:
            return self.known[self.keys[idempotency_key]], False
        self.known[job_id] = a_document(job_id, spec)
        if idempotency_key:
            self.keys[idempotency_key] = job_id
        return self.known[job_id], True

    async def submit_batch(self, jobs: list[tuple[str, JobSpec]]) -> list[SubmittedJob]:
        self._heard("submit_batch", jobs)
        self.known |= {job_id: a_document(job_id, spec) for job_id, spec in jobs}
        return [SubmittedJob(job_id=job_id, status=Status.QUEUED) for job_id, _ in jobs]

    async def status(self, job_id: str) -> JobDocument:
        self._heard("status", job_id)
        return self._find(job_id)

    async def events(self, job_id: str) -> EventPage:
        self._heard("events", job_id)
        reason = self._find(job_id).reason
        event = EventDocument(
            version=1,
            kind="Submitted",
            at=NOW,
            by="ada",
            from_status=None,
            to_status=Status.QUEUED,
            reason=reason,
        )
        return EventPage(job_id=job_id, events=[event])

    async def jobs(
        self,
        statuses: frozenset[Status],
        user: str | None,
        project: str | None,
        cursor: str | None,
        limit: int,
    ) -> JobPage:
        self._heard("jobs", statuses, user, project, cursor, limit)
        return JobPage(jobs=list(self.known.values())[:limit])

    async def cancel(self, job_id: str, by: str) -> JobDocument:
        self._heard("cancel", job_id, by)
        return self._find(job_id)

    async def force_start(self, job_id: str, by: str) -> ForceStartAnswer:
        self._heard("force_start", job_id, by)
        return ForceStartAnswer(
            success=True,
            job_id=self._find(job_id).job_id,
            previous_status=Status.PENDING,
            new_status=Status.QUEUED,
            queue_position=1,
            message="Job queued successfully (position 1)",
        )

    async def mark_failed(self, job_id: str, by: str) -> JobDocument:
        self._heard("mark_failed", job_id, by)
        return self._find(job_id)

    async def logs(self, job_id: str, rank: int, attempt: int | None, offset: int, limit: int) -> LogChunk:
        self._heard("logs", job_id, rank, attempt, offset, limit)
        text = f"log of {self._find(job_id).name}"
        return LogChunk(
            job_id=job_id, attempt=1, rank=rank, text=text, offset=0, next_offset=len(text), ended=False
        )

    async def loops(self) -> LoopList:
        self._heard("loops")
        return LoopList(loops=[LoopDocument(name="sft", description="", config_schema={})], allowed=[])

    async def health(self) -> Health:
        self._heard("health")
        return Health(status="healthy", version="1")
