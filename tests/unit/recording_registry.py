"""A registry that remembers what it was asked."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, date, datetime
from functools import partial
from typing import Any

from scheduler.api.arrays import ArrayDocument, ArrayJob, SubmitArray
from scheduler.api.base import ReasonDocument
from scheduler.api.forecasts import (
    EffectDocument,
    Explanation,
    Forecast,
    JobRef,
    MovedJob,
    NextStep,
    PlanAnswer,
    PreemptedRun,
    StartEstimate,
    WhatIfDocument,
)
from scheduler.api.health import Health, LoopDocument, LoopList, ShutdownAnswer
from scheduler.api.jobs import (
    ActionAnswer,
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
from scheduler.api.nodes import NodeDocument, NodeList, SetAsideDocument
from scheduler.api.projects import ProjectDocument, ProjectList, ShareChanges
from scheduler.api.queue import HoldingJob, ProjectInQueue, QueueDocument, WaitingJob
from scheduler.api.recurring import (
    RecurringChanges,
    RecurringForgotten,
    RecurringJobDocument,
    RecurringJobList,
)
from scheduler.api.repairs import ReconcileAnswer, RepairDocument, RepairPage
from scheduler.api.scheduler_api import OPERATIONS
from scheduler.api.usage import UsageDocument, UsageRow, UsedDocument
from scheduler.core.commands import JobAction
from scheduler.core.model import JobSpec, Status
from scheduler.core.usage import GROUPINGS, Grouping
from scheduler.errors import ArrayNotFound, JobNotFound, RecurringJobNotFound
from scheduler.ports import JobQuery

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
ARRAY_ID = "6c1d4a52-53b7-4a55-9f5a-2f8b2a0e0001"
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


def a_node_document(name: str = "10.0.0.7") -> NodeDocument:
    return NodeDocument(
        node_id="c1f5d9", name=name, cpus=96.0, gpus=8.0, labels={}, draining=False, set_aside=None, lost=[]
    )


def a_project(name: str = "vision", **changes: Any) -> ProjectDocument:
    values: dict[str, Any] = {
        "name": name,
        "weight": 1.0,
        "quota": 0.0,
        "limit": None,
        "held": 12.0,
        "running": 3,
        "queued": 1,
    }
    return ProjectDocument(**(values | changes))


def a_recurring_job(name: str = "nightly", **changes: Any) -> RecurringJobDocument:
    values: dict[str, Any] = {
        "name": name,
        "cron": "0 3 * * *",
        "words": "At 03:00 every day",
        "timezone": "Europe/Berlin",
        "paused": False,
        "next_at": NOW,
        "last": None,
        "skipped": None,
        "num_invalid": 0,
        "by": "ada",
        "created_at": NOW,
        "spec": JobSpec(loop="torch_ddp"),
    }
    return RecurringJobDocument(**(values | changes))


def a_job_array(array_id: str = ARRAY_ID, jobs: Sequence[ArrayJob] = (), **changes: Any) -> ArrayDocument:
    jobs = list(jobs) or [an_array_job()]
    values: dict[str, Any] = {
        "array_id": array_id,
        "name": "sweep",
        "user": "ana",
        "project": "vision",
        "created_at": NOW,
        "size": len(jobs),
        "at_most": 2,
        "metric": "loss",
        "metric_is": "min",
        "counts": Counter(job.status for job in jobs),
        "has_ended": all(job.status.is_terminal for job in jobs),
        "best": None,
        "message": "1 job: 1 running",
        "jobs": jobs,
    }
    return ArrayDocument(**(values | changes))


def an_array_job(index: int = 1, **changes: Any) -> ArrayJob:
    values: dict[str, Any] = {
        "index": index,
        "job_id": f"0b2f1c9e-2a55-4d0c-8c4f-6a1f1a1d{index:04}",
        "name": f"sweep-{index}",
        "status": Status.RUNNING,
        "reason": "attempt 1 is training, step 20 of 100",
        "values": {"seed": index},
        "metric": None,
    }
    return ArrayJob(**(values | changes))


def a_share(name: str = "vision", **changes: Any) -> ProjectInQueue:
    values = a_project(name).model_dump() | {"entitled": 10.0, "lent": 2.0, "usage_h": 140.5}
    return ProjectInQueue(**(values | changes))


def a_waiting_job(**changes: Any) -> WaitingJob:
    values: dict[str, Any] = {
        "position": 1,
        "job_id": JOB_ID,
        "name": "waits",
        "project": "vision",
        "user": "ana",
        "size": 4.0,
        "reason": ReasonDocument(code="behind", message="behind 1 job with less left"),
        "kept": False,
        "starts_in_s": 360.0,
        "starts_after_s": None,
    }
    return WaitingJob(**(values | changes))


def a_holding_job(**changes: Any) -> HoldingJob:
    values: dict[str, Any] = {
        "job_id": JOB_ID,
        "name": "runs",
        "project": "vision",
        "user": "ana",
        "size": 12.0,
        "left_s": 360.0,
        "on_loan": False,
        "stopping": False,
    }
    return HoldingJob(**(values | changes))


def a_queue(**changes: Any) -> QueueDocument:
    """Empty, but for what *changes* has."""
    waiting, holding = changes.get("waiting", []), changes.get("holding", [])
    values: dict[str, Any] = {
        "at": NOW,
        "policy": "fair",
        "rules": "9f2c41d07be3",
        "unit": "GPU",
        "size": 16.0,
        "projects": [],
        "num_waiting": len(waiting),
        "waiting": waiting,
        "num_holding": len(holding),
        "holding": holding,
    }
    return QueueDocument(**(values | changes))


def a_usage(**changes: Any) -> UsageDocument:
    """Two projects on two days, of which *changes* may have more."""
    values: dict[str, Any] = {
        "first_day": date(2026, 11, 1),
        "last_day": date(2026, 11, 3),
        "by": ["project", "day"],
        "counted_until": NOW,
        "complete_since": NOW,
        "num_open": 1,
        "num_left_out": 0,
        "total": UsedDocument(gpu_hours=30.0, cpu_hours=60.0, num_jobs=3),
        "rows": [
            UsageRow(project="speech", day=date(2026, 11, 1), gpu_hours=10.0, cpu_hours=20.0, num_jobs=1),
            UsageRow(project="vision", day=date(2026, 11, 3), gpu_hours=20.0, cpu_hours=40.0, num_jobs=2),
        ],
    }
    return UsageDocument(**(values | changes))


def a_forecast(**changes: Any) -> Forecast:
    values: dict[str, Any] = {"position": 1, "starts_in_s": 360.0, "message": "next; starts in about 6 min"}
    return Forecast(**(values | changes))


def a_what_if(job_id: str = JOB_ID) -> WhatIfDocument:
    soon = StartEstimate(starts_in_s=0.0, message="starts now")
    late = StartEstimate(starts_in_s=360.0, message="starts in about 6 min")
    moved = MovedJob(
        job_id=JOB_ID,
        name="sweep",
        before=soon,
        after=late,
        by_s=360.0,
        message="sweep starts about 6 min later",
    )
    run = PreemptedRun(
        job_id=JOB_ID,
        name="long",
        newcomer=JobRef(job_id=job_id, name="mine"),
        price_gpu_s=480.0,
        again=StartEstimate(starts_in_s=3600.0, message="goes on in about 60 min"),
        message="long is preempted for mine, which costs 8 min of one GPU; goes on in about 60 min",
    )
    return WhatIfDocument(
        job_id=job_id,
        message="it starts now; as things stand: starts in about 6 min; 1 other job starts about 6 min later",
        now=late,
        then=soon,
        moved=[moved],
        num_more=2,
        preempted=[run],
    )


class RecordingRegistry:
    """Knows the jobs that were submitted; raises `refuses` instead of answering when that is set."""

    def __init__(self) -> None:
        self.known: dict[str, JobDocument] = {}
        self.keys: dict[str, str] = {}
        self.put_right: list[RepairDocument] = []
        self.known_projects: list[ProjectDocument] = []
        self.known_recurring: list[RecurringJobDocument] = []
        self.known_nodes: list[NodeDocument] = []
        self.known_queue = a_queue()
        self.known_arrays: dict[str, ArrayDocument] = {}
        self.known_usage = a_usage()
        self.says_of_pages: dict[str, Any] = {}
        self.calls: list[tuple[Any, ...]] = []
        self.refuses: Exception | None = None
        self.is_fair = False
        """The policy in charge can play what a change would do."""
        self.hangs: set[str] = set()
        """Methods that never answer."""
        self.refuses_in: dict[str, Exception] = {}
        """As `refuses`, for one method."""

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        return partial(self._hear, name, found) if name in OPERATIONS else found

    async def _hear(self, name: str, answer: Callable[..., Awaitable[Any]], *args: Any) -> Any:
        self.calls.append((name, *args))
        if name in self.hangs:
            await asyncio.Event().wait()
        if error := self.refuses or self.refuses_in.get(name):
            raise error
        return await answer(*args)

    def _find(self, job_id: str) -> JobDocument:
        if job_id not in self.known:
            raise JobNotFound.of(job_id)
        return self.known[job_id]

    async def submit(
        self, job_id: str, spec: JobSpec, idempotency_key: str | None
    ) -> tuple[JobDocument, bool]:
        if idempotency_key in self.keys:
            return self.known[self.keys[idempotency_key]], False
        self.known[job_id] = a_document(job_id, spec)
        if idempotency_key:
            self.keys[idempotency_key] = job_id
        return self.known[job_id], True

    async def submit_batch(self, jobs: list[tuple[str, JobSpec]]) -> list[SubmittedJob]:
        self.known |= {job_id: a_document(job_id, spec) for job_id, spec in jobs}
        return [SubmittedJob(job_id=job_id, status=Status.QUEUED) for job_id, _ in jobs]

    async def submit_array(
        self, array_id: str, wanted: SubmitArray, idempotency_key: str | None
    ) -> tuple[ArrayDocument, bool]:
        return a_job_array(array_id), True

    async def array(self, array_id: str) -> ArrayDocument:
        if array_id not in self.known_arrays:
            raise ArrayNotFound.of(array_id)
        return self.known_arrays[array_id]

    async def cancel_array(self, array_id: str, by: str) -> ArrayDocument:
        return await self.array(array_id)

    async def status(self, job_id: str) -> JobDocument:
        return self._find(job_id)

    async def documents(self, job_ids: list[str]) -> dict[str, JobDocument]:
        return {job_id: self.known[job_id] for job_id in job_ids if job_id in self.known}

    async def events(self, job_id: str) -> EventPage:
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
        return JobPage(jobs=list(self.known.values())[: query.limit], **self.says_of_pages)

    async def changes(self, after: int, life: int, wait_s: float) -> Changes:
        """Nothing ever changes."""
        return Changes(life=1, seq=0, jobs=[], counts={}, missed=life != 1)

    async def attempts(self, job_id: str) -> AttemptPage:
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
        return MetricsDocument(
            job_id=self._find(job_id).job_id,
            attempt=[1, 1],
            step=[1, 2],
            at=[NOW.timestamp(), NOW.timestamp() + 1],
            series={"loss": [2.5, None]},
            total_points=2,
        )

    async def trends(self, job_ids: list[str], points: int) -> dict[str, list[float]]:
        return {job_id: [2.5, 1.5] for job_id in job_ids if job_id in self.known}

    async def act(
        self,
        job_id: str,
        action: JobAction,
        by: str,
        checkpoint: str | None = None,
        preempt: bool = False,
    ) -> ActionAnswer:
        found = self._find(job_id)
        if action is not JobAction.FORCE_START:
            return found
        return ForceStartAnswer(
            success=True,
            job_id=found.job_id,
            previous_status=Status.PENDING,
            new_status=Status.QUEUED,
            queue_position=1,
            message="Job queued successfully (position 1)",
        )

    async def shutdown(self, save: bool, by: str) -> ShutdownAnswer:
        return ShutdownAnswer(running=2, grace_s=60.0 if save else 0.0)

    async def logs(self, job_id: str, rank: int, attempt: int | None, offset: int, limit: int) -> LogChunk:
        text = f"log of {self._find(job_id).name}"
        return LogChunk(
            job_id=job_id, attempt=1, rank=rank, text=text, offset=0, next_offset=len(text), ended=False
        )

    async def log_view(self, job_id: str, attempt: int, offsets: dict[int, int], limit: int) -> LogView:
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

    async def effect(
        self, job_id: str, action: str, checkpoint: str | None = None, preempt: bool = False
    ) -> EffectDocument:
        return EffectDocument(
            job_id=self._find(job_id).job_id,
            action=action,
            allowed=True,
            message="it goes on from checkpoint 1.2 (step 20)",
            forecast=a_forecast(),
            what_if=a_what_if(job_id) if self.is_fair and action == JobAction.FORCE_START else None,
        )

    async def what_if(
        self, job_id: str, priority: int | None = None, front: bool = False, preempt: bool = False
    ) -> WhatIfDocument:
        return a_what_if(self._find(job_id).job_id)

    async def plan(self, spec: JobSpec) -> PlanAnswer:
        forecast = a_forecast()
        return PlanAnswer(valid=True, fits=True, forecast=forecast, message=forecast.message)

    async def loops(self) -> LoopList:
        return LoopList(loops=[LoopDocument(name="sft", description="", config_schema={})], allowed=[])

    async def queue(self) -> QueueDocument:
        return self.known_queue

    async def usage(
        self, first_day: date | None, last_day: date | None, by: tuple[Grouping, ...]
    ) -> UsageDocument:
        others = dict.fromkeys(name for name in GROUPINGS if name not in by)
        rows = [row.model_copy(update=others) for row in self.known_usage.rows]
        return self.known_usage.model_copy(update={"by": list(by), "rows": rows})

    async def projects(self) -> ProjectList:
        return ProjectList(unit="GPU", projects=self.known_projects)

    async def set_project(self, name: str, changes: ShareChanges, by: str) -> ProjectDocument:
        return a_project(name, **changes)

    async def forget_project(self, name: str, by: str) -> ProjectDocument:
        return a_project(name)

    async def recurring_jobs(self) -> RecurringJobList:
        return RecurringJobList(recurring_jobs=self.known_recurring)

    async def recurring_job(self, name: str) -> RecurringJobDocument:
        found = next((one for one in self.known_recurring if one.name == name), None)
        if found is None:
            raise RecurringJobNotFound.of(name)
        return found

    async def set_recurring_job(self, name: str, changes: RecurringChanges, by: str) -> RecurringJobDocument:
        return a_recurring_job(name, **changes)

    async def forget_recurring_job(self, name: str, by: str) -> RecurringForgotten:
        return RecurringForgotten(name=name, existed=True)

    async def nodes(self) -> NodeList:
        return NodeList(nodes=self.known_nodes)

    async def set_node_aside(self, node: str, why: str, by: str) -> NodeDocument:
        at = datetime(2026, 11, 22, 12, tzinfo=UTC)
        aside = SetAsideDocument(at=at, by=by, why=why, losses=[])
        return a_node_document(node).model_copy(update={"set_aside": aside})

    async def allow_node(self, node: str, by: str) -> NodeDocument:
        return a_node_document(node)

    async def reconcile(self, dry_run: bool) -> ReconcileAnswer:
        return ReconcileAnswer(dry_run=dry_run, repairs=self.put_right, rows_compared=12, database="compared")

    async def repairs(self, cursor: str | None, limit: int) -> RepairPage:
        start = int(cursor or 0)
        end = start + limit
        more = str(end) if end < len(self.put_right) else None
        return RepairPage(repairs=self.put_right[start:end], next_cursor=more)

    async def health(self) -> Health:
        return Health(status="healthy", version="1")
