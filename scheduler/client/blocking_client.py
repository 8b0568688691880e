"""Made from async_client.py by `python -m scheduler.client.twin`; change that one."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
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
from scheduler.client.blocking_handle import JobHandle
from scheduler.client.blocking_transport import Transport
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


class Client(Transport):
    """Talks to one scheduler.  Also a context manager; the blocking one may be used by several threads.

    Every method raises a `SchedulerError` in words: ServerUnreachable when no scheduler answers, JobNotFound,
    InvalidSpec, NotAllowed, ...
    """

    def submit(
        self,
        spec: Spec | TrainFunction | None = None,
        *,
        idempotency_key: str | None = None,
        **fields: Unpack[SpecFields],
    ) -> JobHandle:
        """Submit a job: a `JobSpec`, a dict, a train function, keyword arguments, or keywords over one of the former.

        A function that can be imported is sent by its name; one of a notebook, a script or a closure is sent
        itself, where the server allows that.

        When this returns, the job is on the scheduler's disk.  Sent again with the same *idempotency_key* it
        returns the first job; without one a key is made, so that asking again after a lost answer is safe.
        """
        job = self.run(self.submit_flow(spec, idempotency_key, fields))
        return JobHandle(self, job.job_id, job)

    def submit_batch(self, specs: Iterable[Spec | TrainFunction]) -> list[JobHandle]:
        """All are accepted, or none.  Not asked again after a lost answer: look at `list_jobs` then."""
        return [JobHandle(self, job.job_id) for job in self.run(self.batch_flow(specs))]

    def submit_array(
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
        return self.run(flow)

    def array(self, array_id: str) -> ArrayDocument:
        """How the array and each of its jobs stands, and which is best."""
        return self.call(array_calls.array(array_id))

    def cancel_array(self, array_id: str) -> ArrayDocument:
        """Cancel all of its jobs that have not ended; those that run become `cancelled` once their processes are gone."""
        return self.call(array_calls.cancel_array(array_id))

    def plan(self, spec: Spec | TrainFunction | None = None, **fields: Unpack[SpecFields]) -> PlanAnswer:
        """A submit that is not made: would it be accepted, does it fit, and when would it start?"""
        return self.run(self.plan_flow(spec, fields))

    def get(self, job_id: str) -> JobHandle:
        """A handle of a job that is there already."""
        return JobHandle(self, job_id, self.status(job_id))

    def status(self, job_id: str) -> JobDocument:
        """The job as it is now."""
        return self._job(job_id).status()

    def glance(self, job_id: str) -> JobDocument:
        """As `status`, within 3 s or ServerUnreachable: for displays."""
        return self.run(self.glance_flow(job_id))

    def wait(
        self, job_id: str, timeout_s: float | None = None, *, progress: bool = False, **watch: Unpack[Watch]
    ) -> JobDocument:
        """Return the job once it is completed, failed or cancelled; with *progress* show a bar meanwhile.

        Raises WaitTimedOut after *timeout_s*; the job goes on.  A restart of the server does not end it.
        """
        return self._job(job_id).wait(timeout_s, progress=progress, **watch)

    def list_jobs(self, **filters: Unpack[Filters]) -> Iterator[JobDocument]:
        """Jobs, newest first unless `sort` says otherwise; pages are fetched as you go."""
        for page in self.job_pages(**filters):
            yield from page.jobs

    def job_pages(self, **filters: Unpack[Filters]) -> Iterator[JobPage]:
        """As `list_jobs`, page by page, with whether each was verified."""
        return self.items(self.pages_flow(filters))

    def changes(self, **whose: Unpack[Whose]) -> Generator[Changes | DoubtNotice]:
        """What changes in the registry, as it changes, until you stop looking.  The first says where it begins.

        `missed`: more has changed than is remembered, list the jobs anew.  A DoubtNotice says that the registry
        does not answer, and later that it does again.
        """
        return self.items(self.changes_flow(whose))

    def explain(self, job_id: str) -> Explanation:
        """Where the job stands and why, and what to do next."""
        return self._job(job_id).explain()

    def effect(
        self, job_id: str, action: str, checkpoint: str | None = None, preempt: bool = False
    ) -> EffectDocument:
        """What *action* (`resume`, `force-start`, ...) would do to the job now.  Nothing is done."""
        return self._job(job_id).effect(action, checkpoint, preempt)

    def metrics(self, job_id: str, points: int = 1000) -> MetricsDocument:
        """What the loop measured, through all attempts, thinned out to at most *points* points."""
        return self.call(calls.metrics(job_id, points))

    def what_if(
        self, job_id: str, *, priority: int | None = None, front: bool = False, preempt: bool = False
    ) -> WhatIfDocument:
        """Who would start sooner or later, and whose run would be preempted, if one thing were changed.

        Give exactly one: another *priority*, *front* of its project's part of the queue, or *preempt*.  Nothing is done.
        """
        return self._job(job_id).what_if(priority=priority, front=front, preempt=preempt)

    def cancel(self, job_id: str) -> JobDocument:
        """The job as it is now; it becomes `cancelled` once its processes are gone."""
        return self._job(job_id).cancel()

    def pause(self, job_id: str) -> JobDocument:
        """The job as it is now; it becomes `paused` once it has stopped at a checkpoint."""
        return self._job(job_id).pause()

    def resume(self, job_id: str, checkpoint: str | None = None) -> JobDocument:
        """Put a paused, failed or cancelled job in the queue, to go on from its last checkpoint or the one given."""
        return self._job(job_id).resume(checkpoint)

    def restart(self, job_id: str) -> JobDocument:
        """Put a paused, failed, cancelled or queued job in the queue, to begin again from the beginning."""
        return self._job(job_id).restart()

    def preempt(self, job_id: str) -> JobDocument:
        """The job as it is now; it saves, gives its nodes back, and is queued again."""
        return self._job(job_id).preempt()

    def attempts(self, job_id: str) -> AttemptPage:
        """The runs of the job: when, where, why each ended, and what was lost."""
        return self._job(job_id).attempts()

    def checkpoints(self, job_id: str) -> CheckpointPage:
        """The complete checkpoints of the job, newest first."""
        return self._job(job_id).checkpoints()

    def force_start(self, job_id: str, preempt: bool = False) -> ForceStartAnswer:
        """Put a pending, queued, failed or cancelled job in the queue, from the beginning.

        Under the policy `fair` one that waits moves to the front of its project's part of the queue; with *preempt*
        other runs are preempted for it.
        """
        return self._job(job_id).force_start(preempt)

    def mark_failed(self, job_id: str) -> JobDocument:
        """Give up a job that is pending or queued."""
        return self._job(job_id).mark_failed()

    def events(self, job_id: str) -> EventPage:
        """The history of the job: each change, when, by whom and why."""
        return self._job(job_id).events()

    def logs(self, job_id: str, follow: bool = False, **where: Unpack[Where]) -> Generator[str]:
        """The log of one rank, or of all, piece by piece; with *follow* until the job has ended, retries included.

        Followed live, whole lines at a time; of a job that waits, it waits too.  A restart of the server does not end it.
        """
        return self._job(job_id).logs(follow, **where)

    def log_chunks(self, job_id: str, follow: bool = False, **where: Unpack[Where]) -> Generator[LogLines]:
        """As `logs`, with the attempt, the rank and the offset of each piece."""
        with closing(self.items(self.log_flow(job_id, follow, where))) as events:
            for event in events:
                if isinstance(event, LogLines):
                    yield event

    def log_events(self, job_id: str, **where: Unpack[Where]) -> Generator[LogEvent]:
        """Follow a job's logs: its lines, the attempts that begin and end, why it waits, and at last why it ended."""
        return self.items(self.log_flow(job_id, True, where))

    def loops(self) -> LoopList:
        """The loops that this scheduler knows and their settings, and which others it allows."""
        return self.call(calls.loops())

    def queue(self) -> QueueDocument:
        """Whose turn it is, why each job waits, when it may start, and what projects are entitled to and hold."""
        return self.call(project_calls.queue())

    def usage(
        self,
        first_day: Day | None = None,
        last_day: Day | None = None,
        by: Sequence[Grouping] | str = ("project",),
    ) -> UsageDocument:
        """GPU and CPU hours that runs held, by any of project, user and day (UTC; also as one
        text, "project,day"): both days are counted whole, and runs
        that go on until now.  The last 30 days when none is given."""
        return self.call(project_calls.usage(first_day, last_day, by))

    def projects(self) -> ProjectList:
        """Every project that was set, or has a job that has not ended: what it may have, and what it holds."""
        return self.call(project_calls.projects())

    def set_project(self, name: str, **share: Unpack[ShareChanges]) -> ProjectDocument:
        """Change what a project may have: `weight`, `quota`, `limit` (None: no limit); what is left out stays.

        When this returns, it is on the scheduler's disk.
        """
        return self.call(project_calls.set_project(name, share))

    def forget_project(self, name: str) -> ProjectDocument:
        """Give a project the default share again: weight 1, no quota, no limit."""
        return self.call(project_calls.forget_project(name))

    def every(
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
        return self.run(self.recurring_flow(name, spec, cron=cron, timezone=timezone))

    def recurring_jobs(self) -> RecurringJobList:
        """Every recurring job: when it is next, its last job, and what was skipped and why."""
        return self.call(recurring_calls.recurring_jobs())

    def recurring_job(self, name: str) -> RecurringJobDocument:
        """One of them."""
        return self.call(recurring_calls.recurring_job(name))

    def set_recurring_job(
        self, name: str, *, spec: Spec | TrainFunction | None = None, **changes: Unpack[Moments]
    ) -> RecurringJobDocument:
        """Change what is given: `cron`, `timezone`, `spec`, `paused`; what is left out stays."""
        return self.run(self.recurring_flow(name, spec, **changes))

    def forget_recurring_job(self, name: str) -> RecurringForgotten:
        """It comes no more; the jobs that it made stay as they are."""
        return self.call(recurring_calls.forget_recurring_job(name))

    def nodes(self) -> NodeList:
        """Live nodes and those that are set aside: labels, and what was lost on them within the last hour."""
        return self.call(node_calls.nodes())

    def set_node_aside(self, node: str, why: str = "") -> NodeDocument:
        """Nothing new starts on *node* (its id or name) until it is let back; what runs there goes on."""
        return self.call(node_calls.set_node_aside(node, why))

    def allow_node(self, node: str) -> NodeDocument:
        """Jobs may start on *node* again, and what was lost on it counts no more."""
        return self.call(node_calls.allow_node(node))

    def reconcile(self, dry_run: bool = False) -> ReconcileAnswer:
        """Compare registry, runs and database now, and repair what differs; or only answer what would be repaired."""
        return self.call(calls.reconcile(dry_run=dry_run))

    def repairs(self, limit: int | None = None) -> Iterator[RepairDocument]:
        """What was repaired, newest first; pages are fetched as you go."""
        for page in self.items(self.repairs_flow(limit)):
            yield from page.repairs

    def health(self) -> Health:
        """How the scheduler is: its loops, its database, its nodes."""
        return self.call(calls.health())

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _job(self, job_id: str) -> JobHandle:
        return JobHandle(self, job_id)
