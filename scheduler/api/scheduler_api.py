"""Every operation of the scheduler, once: its name, its promise, and how it is called from afar.

A new one is a line here, a method of the engine, a route, and a call of the client; whatever stands between reads
this page.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Protocol

from scheduler.api.arrays import ArrayDocument, SubmitArray
from scheduler.api.forecasts import EffectDocument, Explanation, PlanAnswer, WhatIfDocument
from scheduler.api.health import Health, LoopList, ShutdownAnswer
from scheduler.api.job_query import JobQuery
from scheduler.api.jobs import (
    ActionAnswer,
    AttemptPage,
    Changes,
    CheckpointPage,
    EventPage,
    JobDocument,
    JobPage,
    SubmittedJob,
)
from scheduler.api.logs import LogChunk, LogView
from scheduler.api.metrics import MetricsDocument
from scheduler.api.nodes import NodeDocument, NodeList
from scheduler.api.operations import Operation, command, operations_of, query
from scheduler.api.projects import ProjectDocument, ProjectList, ShareChanges
from scheduler.api.queue import QueueDocument
from scheduler.api.recurring import (
    RecurringChanges,
    RecurringForgotten,
    RecurringJobDocument,
    RecurringJobList,
)
from scheduler.api.repairs import ReconcileAnswer, RepairPage
from scheduler.api.usage import UsageDocument
from scheduler.core.commands import JobAction
from scheduler.core.model import JobSpec
from scheduler.core.usage import Grouping
from scheduler.errors import InvalidRequest


class SchedulerApi(Protocol):
    """The methods of the scheduler actor.  All are safe to repeat and raise `scheduler.errors`."""

    @command()
    async def submit(
        self, job_id: str, spec: JobSpec, idempotency_key: str | None
    ) -> tuple[JobDocument, bool]:
        """The job, durable, and whether this call made it (False: an earlier one with this key or id did)."""
        ...

    @command()
    async def submit_batch(self, jobs: list[tuple[str, JobSpec]]) -> list[SubmittedJob]:
        """All are accepted, or none."""
        ...

    @command(timeout_s=60.0)
    async def submit_array(
        self, array_id: str, wanted: SubmitArray, idempotency_key: str | None
    ) -> tuple[ArrayDocument, bool]:
        """The array, its jobs all durable, and whether this call made it (False: an earlier one with this key or id
        did)."""
        ...

    @query()
    async def array(self, array_id: str) -> ArrayDocument:
        """How an array and each of its jobs stands."""
        ...

    @command(timeout_s=60.0)
    async def cancel_array(self, array_id: str, by: str) -> ArrayDocument:
        """All of its jobs that have not ended are cancelled; those that have stay as they are."""
        ...

    @query()
    async def status(self, job_id: str) -> JobDocument:
        """How a job stands."""
        ...

    @query()
    async def documents(self, job_ids: list[str]) -> dict[str, JobDocument]:
        """Those of the given jobs that the registry or its journal knows.  Never asks the database."""
        ...

    @query()
    async def events(self, job_id: str) -> EventPage:
        """What happened to a job, oldest first."""
        ...

    @query()
    async def jobs(self, query: JobQuery) -> JobPage:
        """A page of a list."""
        ...

    @query(timeout_s=2.0, is_patient=False)
    async def changes(self, after: int, life: int, wait_s: float) -> Changes:
        """What has changed after number *after* of that *life*; waits up to *wait_s* until something has.

        Whoever listens is to hear soon that nobody answers.
        """
        ...

    @command()
    async def act(
        self,
        job_id: str,
        action: JobAction,
        by: str,
        checkpoint: str | None = None,
        preempt: bool = False,
    ) -> ActionAnswer:
        """What *by* asks of a job, written down before anything is done; refused where `ACTIONS` does not allow it.

        *checkpoint*: where a resume goes on.  *preempt*: other runs are preempted for a job that is force-started.
        """
        ...

    @query()
    async def attempts(self, job_id: str) -> AttemptPage:
        """The runs of a job, oldest first."""
        ...

    @query()
    async def checkpoints(self, job_id: str) -> CheckpointPage:
        """Those that are complete, newest first."""
        ...

    @query()
    async def metrics(self, job_id: str, points: int) -> MetricsDocument:
        """What the loop measured in all attempts, thinned out to *points* rows on the side of the scheduler."""
        ...

    @query()
    async def trends(self, job_ids: list[str], points: int) -> dict[str, list[float]]:
        """The loss of each job in at most *points* numbers, for a sparkline.  Left out: jobs that are not known,
        those that reported no loss, and those whose long history is still being read (ask again later)."""
        ...

    @command()
    async def shutdown(self, save: bool, by: str) -> ShutdownAnswer:
        """The operator is about to end the scheduler: nothing starts any more, and what runs is preempted."""
        ...

    @query()
    async def logs(self, job_id: str, rank: int, attempt: int | None, offset: int, limit: int) -> LogChunk:
        """Part of one rank's log.  A negative *offset*: that many bytes before the end."""
        ...

    @query()
    async def log_view(self, job_id: str, attempt: int, offsets: dict[int, int], limit: int) -> LogView:
        """How a job stands, and what each rank in *offsets* printed after its offset, *limit* bytes at most.

        Without offsets *attempt* may be one to come, or 0.
        """
        ...

    @query()
    async def explain(self, job_id: str) -> Explanation:
        """Where a job stands and why, and what may be done next."""
        ...

    @query()
    async def effect(
        self, job_id: str, action: str, checkpoint: str | None = None, preempt: bool = False
    ) -> EffectDocument:
        """What an action would do.  Changes nothing."""
        ...

    @query()
    async def what_if(
        self, job_id: str, priority: int | None = None, front: bool = False, preempt: bool = False
    ) -> WhatIfDocument:
        """What one change of a job that waits would do: exactly one of the three is given."""
        ...

    @query()
    async def plan(self, spec: JobSpec) -> PlanAnswer:
        """What would become of a submit.  Queues nothing."""
        ...

    @query()
    async def loops(self) -> LoopList:
        """The train loops that may be run, and their settings."""
        ...

    @query()
    async def queue(self) -> QueueDocument:
        """What projects are entitled to and hold, the first of those that wait, and who holds nodes."""
        ...

    @query()
    async def projects(self) -> ProjectList:
        """Every project that was set, or has a job that has not ended, with what it may have and what it holds."""
        ...

    @command()
    async def set_project(self, name: str, changes: ShareChanges, by: str) -> ProjectDocument:
        """The project as it is then: what *changes* leaves out stays.  On disk before it is answered."""
        ...

    @command()
    async def forget_project(self, name: str, by: str) -> ProjectDocument:
        """The project with the default share."""
        ...

    @query()
    async def recurring_jobs(self) -> RecurringJobList:
        """Every recurring job, by name."""
        ...

    @query()
    async def recurring_job(self, name: str) -> RecurringJobDocument:
        """When it is next, its last job, and what was skipped last."""
        ...

    @command()
    async def set_recurring_job(self, name: str, changes: RecurringChanges, by: str) -> RecurringJobDocument:
        """Made, or changed: what *changes* leaves out stays.  On disk before it is answered."""
        ...

    @command()
    async def forget_recurring_job(self, name: str, by: str) -> RecurringForgotten:
        """Its jobs stay as they are."""
        ...

    @query()
    async def nodes(self) -> NodeList:
        """Live nodes and those that are set aside, with what was lost on them."""
        ...

    @command()
    async def set_node_aside(self, node: str, why: str, by: str) -> NodeDocument:
        """Nothing new starts on the node (its id or name) until it is let back.  On disk before it is answered."""
        ...

    @command()
    async def allow_node(self, node: str, by: str) -> NodeDocument:
        """Jobs may start on the node again, and what was lost on it counts no more."""
        ...

    @query()
    async def usage(
        self, first_day: date | None, last_day: date | None, by: tuple[Grouping, ...]
    ) -> UsageDocument:
        """What runs held from *first_day* to *last_day*, both counted whole; None: the last 30 days, up to now."""
        ...

    @command(timeout_s=120.0)
    async def reconcile(self, dry_run: bool) -> ReconcileAnswer:
        """One pass, now.  May take tens of seconds where the database is slow."""
        ...

    @query()
    async def repairs(self, cursor: str | None, limit: int) -> RepairPage:
        """What was repaired, newest first."""
        ...

    @query(timeout_s=2.0, is_patient=False)
    async def health(self) -> Health:
        """How the scheduler is; answered also while it starts, and after another one took over."""
        ...


OPERATIONS: Mapping[str, Operation] = operations_of(SchedulerApi)
"""By name: all that may be asked of the scheduler."""


def operation(name: str) -> Operation:
    """Raises InvalidRequest for a name that is not promised: nothing else of the scheduler can be called from afar."""
    if name not in OPERATIONS:
        raise InvalidRequest(f"the scheduler has no operation {name[:60]!r}")
    return OPERATIONS[name]
