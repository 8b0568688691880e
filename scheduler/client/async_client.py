"""The client, to be awaited.  `blocking_client` is made from this file by `python -m scheduler.client.twin`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Literal, Unpack

from scheduler.api.arrays import ArrayDocument
from scheduler.api.base import DoubtNotice
from scheduler.api.forecasts import EffectDocument, Explanation, PlanAnswer, WhatIfDocument
from scheduler.api.health import Health, LoopList
from scheduler.api.jobs import (
    AttemptPage,
    Changes,
    CheckpointPage,
    EventPage,
    ForceStartAnswer,
    JobDocument,
    JobPage,
)
from scheduler.api.logs import LogEvent, LogLines
from scheduler.api.metrics import MetricsDocument
from scheduler.api.nodes import NodeDocument, NodeList
from scheduler.api.projects import ProjectDocument, ProjectList, ShareChanges
from scheduler.api.queue import QueueDocument
from scheduler.api.recurring import RecurringForgotten, RecurringJobDocument, RecurringJobList
from scheduler.api.repairs import ReconcileAnswer, RepairDocument
from scheduler.api.usage import UsageDocument
from scheduler.client import array_calls, calls, node_calls, project_calls, recurring_calls
from scheduler.client.async_handle import AsyncJobHandle
from scheduler.client.async_transport import AsyncTransport
from scheduler.client.connection import (
    Filters,
    Moments,
    Spec,
    SpecFields,
    TrainFunction,
    Watch,
    Where,
    Whose,
)
from scheduler.client.project_calls import Day
from scheduler.core.usage import Grouping


class AsyncClient(AsyncTransport):
    """Talks to one scheduler.  Also a context manager; the blocking one may be used by several threads.

    Every method raises a `SchedulerError` in words: ServerUnreachable when no scheduler answers, JobNotFound,
    InvalidSpec, NotAllowed, ...
    """

    async def submit(
        self,
        spec: Spec | TrainFunction | None = None,
        *,
        idempotency_key: str | None = None,
        **fields: Unpack[SpecFields],
    ) -> AsyncJobHandle:
        """Submit a job: a `JobSpec`, a dict, a train function, keyword arguments, or keywords over one of the former.

        A function that can be imported is sent by its name; one of a notebook, a script or a closure is sent
        itself, where the server allows that.

        When this returns, the job is on the scheduler's disk.  Sent again with the same *idempotency_key* it
        returns the first job; without one a key is made, so that asking again after a lost answer is safe.
        """
        job = await self.run(self.submit_flow(spec, idempotency_key, fields))
        return AsyncJobHandle(self, job.job_id, job)

    async def submit_batch(self, specs: Iterable[Spec | TrainFunction]) -> list[AsyncJobHandle]:
        """All are accepted, or none.  Not asked again after a lost answer: look at `list_jobs` then."""
        return [AsyncJobHandle(self, job.job_id) for job in await self.run(self.batch_flow(specs))]

    async def submit_array(
        self,
        parameters: Mapping[str, Sequence[Any]],
        spec: Spec | TrainFunction | None = None,
        *,
        at_most: int | None = None,
        metric: str = "loss",
        metric_is: Literal["min", "max"] = "min",
        idempotency_key: str | None = None,
        **fields: Unpack[SpecFields],
    ) -> ArrayDocument:
        """Submit one spec over a grid: a job for each combination of the values that *parameters* has for keys of `config`.

        All are accepted, or none.  *at_most* of them run at once.  The best is found by *metric*, as the loop reports
        it.  The rest is as in `submit`.
        """
        wanted = {"at_most": at_most, "metric": metric, "metric_is": metric_is}
        flow = self.array_flow(spec, parameters, fields, idempotency_key=idempotency_key, **wanted)
        return await self.run(flow)

    async def array(self, array_id: str) -> ArrayDocument:
        """How the array and each of its jobs stands, and which is best."""
        return await self.call(array_calls.array(array_id))

    async def cancel_array(self, array_id: str) -> ArrayDocument:
        """Cancel all of its jobs that have not ended; those that run become `cancelled` once their processes are gone."""
        return await self.call(array_calls.cancel_array(array_id))

    async def plan(
        self, spec: Spec | TrainFunction | None = None, **fields: Unpack[SpecFields]
    ) -> PlanAnswer:
        """A submit that is not made: would it be accepted, does it fit, and when would it start?"""
        return await self.run(self.plan_flow(spec, fields))

    async def get(self, job_id: str) -> AsyncJobHandle:
        """A handle of a job that is there already."""
        return AsyncJobHandle(self, job_id, await self.status(job_id))

    async def status(self, job_id: str) -> JobDocument:
        """The job as it is now."""
        return await self._job(job_id).status()

    async def glance(self, job_id: str) -> JobDocument:
        """As `status`, within 3 s or ServerUnreachable: for displays."""
        return await self.run(self.glance_flow(job_id))

    async def wait(
        self, job_id: str, timeout_s: float | None = None, *, progress: bool = False, **watch: Unpack[Watch]
    ) -> JobDocument:
        """Return the job once it is completed, failed or cancelled; with *progress* show a bar meanwhile.

        Raises WaitTimedOut after *timeout_s*; the job goes on.  A restart of the server does not end it.
        """
        return await self._job(job_id).wait(timeout_s, progress=progress, **watch)

    async def list_jobs(self, **filters: Unpack[Filters]) -> AsyncIterator[JobDocument]:
        """Jobs, newest first unless `sort` says otherwise; pages are fetched as you go."""
        async for page in self.job_pages(**filters):
            for job in page.jobs:
                yield job

    def job_pages(self, **filters: Unpack[Filters]) -> AsyncIterator[JobPage]:
        """As `list_jobs`, page by page, with whether each was verified."""
        return self.items(self.pages_flow(filters))

    def changes(self, **whose: Unpack[Whose]) -> AsyncGenerator[Changes | DoubtNotice]:
        """What changes in the registry, as it changes, until you stop looking.  The first says where it begins.

        `missed`: more has changed than is remembered, list the jobs anew.  A DoubtNotice says that the registry
        does not answer, and later that it does again.
        """
        return self.items(self.changes_flow(whose))

    async def explain(self, job_id: str) -> Explanation:
        """Where the job stands and why, and what to do next."""
        return await self._job(job_id).explain()

    async def effect(
        self, job_id: str, action: str, checkpoint: str | None = None, preempt: bool = False
    ) -> EffectDocument:
        """What *action* (`resume`, `force-start`, ...) would do to the job now.  Nothing is done."""
        return await self._job(job_id).effect(action, checkpoint, preempt)

    async def metrics(self, job_id: str, points: int = 1000) -> MetricsDocument:
        """What the loop measured, through all attempts, thinned out to at most *points* points."""
        return await self.call(calls.metrics(job_id, points))

    async def what_if(
        self, job_id: str, *, priority: int | None = None, front: bool = False, preempt: bool = False
    ) -> WhatIfDocument:
        """Who would start sooner or later, and whose run would be preempted, if one thing were changed.

        Give exactly one: another *priority*, *front* of its project's part of the queue, or *preempt*.  Nothing is done.
        """
        return await self._job(job_id).what_if(priority=priority, front=front, preempt=preempt)

    async def cancel(self, job_id: str) -> JobDocument:
        """The job as it is now; it becomes `cancelled` once its processes are gone."""
        return await self._job(job_id).cancel()

    async def pause(self, job_id: str) -> JobDocument:
        """The job as it is now; it becomes `paused` once it has stopped at a checkpoint."""
        return await self._job(job_id).pause()

    async def resume(self, job_id: str, checkpoint: str | None = None) -> JobDocument:
        """Put a paused, failed or cancelled job in the queue, to go on from its last checkpoint or the one given."""
        return await self._job(job_id).resume(checkpoint)

    async def restart(self, job_id: str) -> JobDocument:
        """Put a paused, failed, cancelled or queued job in the queue, to begin again from the beginning."""
        return await self._job(job_id).restart()

    async def preempt(self, job_id: str) -> JobDocument:
        """The job as it is now; it saves, gives its nodes back, and is queued again."""
        return await self._job(job_id).preempt()

    async def attempts(self, job_id: str) -> AttemptPage:
        """The runs of the job: when, where, why each ended, and what was lost."""
        return await self._job(job_id).attempts()

    async def checkpoints(self, job_id: str) -> CheckpointPage:
        """The complete checkpoints of the job, newest first."""
        return await self._job(job_id).checkpoints()

    async def force_start(self, job_id: str, preempt: bool = False) -> ForceStartAnswer:
        """Put a pending, queued, failed or cancelled job in the queue, from the beginning.

        Under the policy `fair` one that waits moves to the front of its project's part of the queue; with *preempt*
        other runs are preempted for it.
        """
        return await self._job(job_id).force_start(preempt)

    async def mark_failed(self, job_id: str) -> JobDocument:
        """Give up a job that is pending or queued."""
        return await self._job(job_id).mark_failed()

    async def events(self, job_id: str) -> EventPage:
        """The history of the job: each change, when, by whom and why."""
        return await self._job(job_id).events()

    def logs(self, job_id: str, follow: bool = False, **where: Unpack[Where]) -> AsyncGenerator[str]:
        """The log of one rank, or of all, piece by piece; with *follow* until the job has ended, retries included.

        Followed live, whole lines at a time; of a job that waits, it waits too.  A restart of the server does not end it.
        """
        return self._job(job_id).logs(follow, **where)

    async def log_chunks(
        self, job_id: str, follow: bool = False, **where: Unpack[Where]
    ) -> AsyncGenerator[LogLines]:
        """As `logs`, with the attempt, the rank and the offset of each piece."""
        async with aclosing(self.items(self.log_flow(job_id, follow, where))) as events:
            async for event in events:
                if isinstance(event, LogLines):
                    yield event

    def log_events(self, job_id: str, **where: Unpack[Where]) -> AsyncGenerator[LogEvent]:
        """Follow a job's logs: its lines, the attempts that begin and end, why it waits, and at last why it ended."""
        return self.items(self.log_flow(job_id, True, where))

    async def loops(self) -> LoopList:
        """The loops that this scheduler knows and their settings, and which others it allows."""
        return await self.call(calls.loops())

    async def queue(self) -> QueueDocument:
        """Whose turn it is, why each job waits, when it may start, and what projects are entitled to and hold."""
        return await self.call(project_calls.queue())

    async def usage(
        self,
        first_day: Day | None = None,
        last_day: Day | None = None,
        by: Sequence[Grouping] | str = ("project",),
    ) -> UsageDocument:
        """GPU and CPU hours that runs held, by any of project, user and day (UTC; also as one
        text, "project,day"): both days are counted whole, and runs
        that go on until now.  The last 30 days when none is given."""
        return await self.call(project_calls.usage(first_day, last_day, by))

    async def projects(self) -> ProjectList:
        """Every project that was set, or has a job that has not ended: what it may have, and what it holds."""
        return await self.call(project_calls.projects())

    async def set_project(self, name: str, **share: Unpack[ShareChanges]) -> ProjectDocument:
        """Change what a project may have: `weight`, `quota`, `limit` (None: no limit); what is left out stays.

        When this returns, it is on the scheduler's disk.
        """
        return await self.call(project_calls.set_project(name, share))

    async def forget_project(self, name: str) -> ProjectDocument:
        """Give a project the default share again: weight 1, no quota, no limit."""
        return await self.call(project_calls.forget_project(name))

    async def every(
        self,
        cron: str,
        spec: Spec | TrainFunction,
        *,
        name: str,
        timezone: str = "UTC",
    ) -> RecurringJobDocument:
        """Submit a job whenever *cron* says so (`0 3 * * *`), by the clocks of *timezone*; never two of them at once.

        *name* is that of the recurring job; one that is there is changed.  When this returns, it is on the
        scheduler's disk.
        """
        return await self.run(self.recurring_flow(name, spec, cron=cron, timezone=timezone))

    async def recurring_jobs(self) -> RecurringJobList:
        """Every recurring job: when it is next, its last job, and what was skipped and why."""
        return await self.call(recurring_calls.recurring_jobs())

    async def recurring_job(self, name: str) -> RecurringJobDocument:
        """One of them."""
        return await self.call(recurring_calls.recurring_job(name))

    async def set_recurring_job(
        self, name: str, *, spec: Spec | TrainFunction | None = None, **changes: Unpack[Moments]
    ) -> RecurringJobDocument:
        """Change what is given: `cron`, `timezone`, `spec`, `paused`; what is left out stays."""
        return await self.run(self.recurring_flow(name, spec, **changes))

    async def forget_recurring_job(self, name: str) -> RecurringForgotten:
        """It comes no more; the jobs that it made stay as they are."""
        return await self.call(recurring_calls.forget_recurring_job(name))

    async def nodes(self) -> NodeList:
        """Live nodes and those that are set aside: labels, and what was lost on them within the last hour."""
        return await self.call(node_calls.nodes())

    async def set_node_aside(self, node: str, why: str = "") -> NodeDocument:
        """Nothing new starts on *node* (its id or name) until it is let back; what runs there goes on."""
        return await self.call(node_calls.set_node_aside(node, why))

    async def allow_node(self, node: str) -> NodeDocument:
        """Jobs may start on *node* again, and what was lost on it counts no more."""
        return await self.call(node_calls.allow_node(node))

    async def reconcile(self, dry_run: bool = False) -> ReconcileAnswer:
        """Compare registry, runs and database now, and repair what differs; or only answer what would be repaired."""
        return await self.call(calls.reconcile(dry_run=dry_run))

    async def repairs(self, limit: int | None = None) -> AsyncIterator[RepairDocument]:
        """What was repaired, newest first; pages are fetched as you go."""
        async for page in self.items(self.repairs_flow(limit)):
            for repair in page.repairs:
                yield repair

    async def health(self) -> Health:
        """How the scheduler is: its loops, its database, its nodes."""
        return await self.call(calls.health())

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _job(self, job_id: str) -> AsyncJobHandle:
        return AsyncJobHandle(self, job_id)
