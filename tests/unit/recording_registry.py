"""A registry that remembers what it was asked."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

from scheduler.api.base import ReasonDocument
from scheduler.api.forecasts import EffectDocument, Explanation, Forecast, NextStep, PlanAnswer
from scheduler.api.health import Health, LoopDocument, LoopList, ShutdownAnswer
from scheduler.api.jobs import (
    AttemptDocument,
    AttemptPage,
    Changes,
    CheckpointDocument,
    CheckpointPage,
    EventDocument,
    EventPage,
    ForceStartAnswer,
    JobDocument,
    JobPage,
    SubmittedJob,
)
from scheduler.api.logs import LogChunk, LogView, RankLog
from scheduler.api.metrics import MetricsDocument
from scheduler.api.repairs import ReconcileAnswer, RepairDocument, RepairPage
from scheduler.core.model import JobSpec, Status
from scheduler.errors import JobNotFound
from scheduler.ports import JobQuery

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


def a_repair(job_id: str = JOB_ID, **changes: Any) -> RepairDocument:
    values: dict[str, Any] = {
        "job_id": job_id,
        "at": NOW,
        "by": "reconciler",
        "in_database": "running, version 3",
        "in_reality": "not in the registry; no run of it is alive",
        "decided": "marked it as failed: stale",
        "why": "last vouched for 640 s ago; the limit is 600 s",
    }
    return RepairDocument(**(values | changes))


def a_forecast(**changes: Any) -> Forecast:
    values: dict[str, Any] = {"position": 1, "starts_in_s": 360.0, "message": "next; starts in about 6 min"}
    return Forecast(**(values | changes))


class RecordingRegistry:
    """Knows the jobs that were submitted; raises `refuses` instead of answering when that is set."""

    def __init__(self) -> None:
        self.known: dict[str, JobDocument] = {}
        self.keys: dict[str, str] = {}
        self.put_right: list[RepairDocument] = []
        self.says_of_pages: dict[str, Any] = {}
        self.calls: list[tuple[Any, ...]] = []
        self.refuses: Exception | None = None
        self.hangs: set[str] = set()
        """Methods that never answer."""
        self.refuses_in: dict[str, Exception] = {}
        """As `refuses`, for one method."""

    async def _heard(self, *call: Any) -> None:
        self.calls.append(call)
        if call[0] in self.hangs:
            await asyncio.Event().wait()
        if error := self.refuses or self.refuses_in.get(call[0]):
            raise error

    def _find(self, job_id: str) -> JobDocument:
        if job_id not in self.known:
            raise JobNotFound.of(job_id)
        return self.known[job_id]

    async def submit(
        self, job_id: str, spec: JobSpec, idempotency_key: str | None
    ) -> tuple[JobDocument, bool]:
        await self._heard("submit", job_id, spec, idempotency_key)
        if idempotency_key in self.keys:
            return self.known[self.keys[idempotency_key]], False
        self.known[job_id] = a_document(job_id, spec)
        if idempotency_key:
            self.keys[idempotency_key] = job_id
        return self.known[job_id], True

    async def submit_batch(self, jobs: list[tuple[str, JobSpec]]) -> list[SubmittedJob]:
        await self._heard("submit_batch", jobs)
        self.known |= {job_id: a_document(job_id, spec) for job_id, spec in jobs}
        return [SubmittedJob(job_id=job_id, status=Status.QUEUED) for job_id, _ in jobs]

    async def status(self, job_id: str) -> JobDocument:
        await self._heard("status", job_id)
        return self._find(job_id)

    async def documents(self, job_ids: list[str]) -> dict[str, JobDocument]:
        await self._heard("documents", job_ids)
        return {job_id: self.known[job_id] for job_id in job_ids if job_id in self.known}

    async def events(self, job_id: str) -> EventPage:
        await self._heard("events", job_id)
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

    async def jobs(self, query: JobQuery) -> JobPage:
        await self._heard("jobs", query)
        return JobPage(jobs=list(self.known.values())[: query.limit], **self.says_of_pages)

    async def changes(self, after: int, life: int, wait_s: float) -> Changes:
        """Nothing ever changes."""
        await self._heard("changes", after, life, wait_s)
        return Changes(life=1, seq=0, jobs=[], counts={}, missed=life != 1)

    async def cancel(self, job_id: str, by: str) -> JobDocument:
        await self._heard("cancel", job_id, by)
        return self._find(job_id)

    async def pause(self, job_id: str, by: str) -> JobDocument:
        await self._heard("pause", job_id, by)
        return self._find(job_id)

    async def resume(self, job_id: str, by: str, checkpoint: str | None = None) -> JobDocument:
        await self._heard("resume", job_id, by, *([checkpoint] if checkpoint else []))
        return self._find(job_id)

    async def restart(self, job_id: str, by: str) -> JobDocument:
        await self._heard("restart", job_id, by)
        return self._find(job_id)

    async def preempt(self, job_id: str, by: str) -> JobDocument:
        await self._heard("preempt", job_id, by)
        return self._find(job_id)

    async def attempts(self, job_id: str) -> AttemptPage:
        await self._heard("attempts", job_id)
        found = self._find(job_id)
        attempt = AttemptDocument(
            attempt=1,
            started_at=NOW,
            ended_at=NOW,
            ending="lost",
            cause="infrastructure",
            reason=ReasonDocument(code="killed", message="rank 0 was killed", detail=None),
            last_step=30,
            steps_lost=10,
            nodes=["node-1"],
        )
        return AttemptPage(job_id=found.job_id, attempts=[attempt])

    async def checkpoints(self, job_id: str) -> CheckpointPage:
        await self._heard("checkpoints", job_id)
        found = self._find(job_id)
        checkpoint = CheckpointDocument(
            checkpoint="1.2",
            attempt=1,
            step=20,
            at=NOW,
            loss=0.25,
            num_bytes=4_100_000,
            num_files=3,
            seconds=0.5,
            next=True,
        )
        return CheckpointPage(job_id=found.job_id, checkpoints=[checkpoint])

    async def metrics(self, job_id: str, points: int) -> MetricsDocument:
        await self._heard("metrics", job_id, points)
        return MetricsDocument(
            job_id=self._find(job_id).job_id,
            attempt=[1, 1],
            step=[1, 2],
            at=[NOW.timestamp(), NOW.timestamp() + 1],
            series={"loss": [2.5, None]},
            total_points=2,
        )

    async def trends(self, job_ids: list[str], points: int) -> dict[str, list[float]]:
        await self._heard("trends", job_ids, points)
        return {job_id: [2.5, 1.5] for job_id in job_ids if job_id in self.known}

    async def force_start(self, job_id: str, by: str) -> ForceStartAnswer:
        await self._heard("force_start", job_id, by)
        return ForceStartAnswer(
            success=True,
            job_id=self._find(job_id).job_id,
            previous_status=Status.PENDING,
            new_status=Status.QUEUED,
            queue_position=1,
            message="Job queued successfully (position 1)",
        )

    async def mark_failed(self, job_id: str, by: str) -> JobDocument:
        await self._heard("mark_failed", job_id, by)
        return self._find(job_id)

    async def shutdown(self, save: bool, by: str) -> ShutdownAnswer:
        await self._heard("shutdown", save, by)
        return ShutdownAnswer(running=2, grace_s=60.0 if save else 0.0)

    async def logs(self, job_id: str, rank: int, attempt: int | None, offset: int, limit: int) -> LogChunk:
        await self._heard("logs", job_id, rank, attempt, offset, limit)
        text = f"log of {self._find(job_id).name}"
        return LogChunk(
            job_id=job_id, attempt=1, rank=rank, text=text, offset=0, next_offset=len(text), ended=False
        )

    async def log_view(self, job_id: str, attempt: int, offsets: dict[int, int], limit: int) -> LogView:
        await self._heard("log_view", job_id, attempt, offsets, limit)
        job = self._find(job_id)
        return LogView(
            job_id=job_id,
            status=job.status,
            reason=job.reason,
            newest_attempt=job.attempt,
            most_ranks=job.spec.resources.most,
            is_over=job.status is not Status.RUNNING,
            logs=[
                RankLog(rank=rank, text="", offset=offset, next_offset=offset, is_end=True)
                for rank, offset in offsets.items()
            ],
        )

    async def explain(self, job_id: str) -> Explanation:
        await self._heard("explain", job_id)
        job = self._find(job_id)
        step = NextStep(action="wait", why="it starts by itself", command=f"scheduler wait {job_id}")
        return Explanation(
            job_id=job_id,
            status=job.status,
            message="next; starts in about 6 min",
            reason=job.reason,
            forecast=a_forecast(),
            next_steps=[step],
        )

    async def effect(self, job_id: str, action: str, checkpoint: str | None = None) -> EffectDocument:
        await self._heard("effect", job_id, action, checkpoint)
        return EffectDocument(
            job_id=self._find(job_id).job_id,
            action=action,
            allowed=True,
            message="it goes on from checkpoint 1.2 (step 20)",
            forecast=a_forecast(),
        )

    async def plan(self, spec: JobSpec) -> PlanAnswer:
        await self._heard("plan", spec)
        forecast = a_forecast()
        return PlanAnswer(valid=True, fits=True, forecast=forecast, message=forecast.message)

    async def loops(self) -> LoopList:
        await self._heard("loops")
        return LoopList(loops=[LoopDocument(name="sft", description="", config_schema={})], allowed=[])

    async def reconcile(self, dry_run: bool) -> ReconcileAnswer:
        await self._heard("reconcile", dry_run)
        return ReconcileAnswer(dry_run=dry_run, repairs=self.put_right, rows_compared=12, database="compared")

    async def repairs(self, cursor: str | None, limit: int) -> RepairPage:
        await self._heard("repairs", cursor, limit)
        start = int(cursor or 0)
        end = start + limit
        more = str(end) if end < len(self.put_right) else None
        return RepairPage(repairs=self.put_right[start:end], next_cursor=more)

    async def health(self) -> Health:
        await self._heard("health")
        return Health(status="healthy", version="1")
