"""The whole life of a job on one page: the edges, the events that take them, and what must be done about it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import assert_never

from scheduler.core.model import (
    Allocation,
    Cause,
    Ending,
    Fence,
    Job,
    JobEvent,
    JobId,
    JobSpec,
    Outcome,
    Reason,
    Status,
    Stop,
    StopKind,
)
from scheduler.errors import NotAllowed

EDGES: dict[Status, frozenset[Status]] = {
    Status.PENDING: frozenset({
        Status.QUEUED,  # adopted: the spec a front end wrote is valid; or started by hand
        Status.FAILED,  # the spec is not valid, the row is stale, or a person gave it up
        Status.CANCELLED,  # withdrawn before it was adopted
    }),
    Status.QUEUED: frozenset({
        Status.RUNNING,  # placement found room for the whole gang
        Status.FAILED,  # given up by hand, or stale
        Status.CANCELLED,  # withdrawn before it ever held a node
    }),
    Status.RUNNING: frozenset({
        Status.COMPLETED,  # every rank returned, the final record is there
        Status.FAILED,  # the run failed and the budget is spent
        Status.CANCELLED,  # asked to cancel; processes gone
        Status.PAUSED,  # asked to pause; processes gone
        Status.QUEUED,  # preempted, or lost or failed with retry budget left
    }),
    Status.PAUSED: frozenset({
        Status.QUEUED,  # resumed
        Status.FAILED,  # given up
        Status.CANCELLED,  # withdrawn while it held nothing
    }),
    Status.FAILED: frozenset({
        Status.QUEUED,  # force-started, or resumed from a checkpoint
    }),
    Status.CANCELLED: frozenset({
        Status.QUEUED,  # force-started, or resumed from a checkpoint
    }),
    Status.COMPLETED: frozenset(),  # what is done stays done
}  # fmt: skip


# Events: what happened.  Each carries when, and who or what asked for it.


@dataclass(frozen=True, slots=True, kw_only=True)
class Happened:
    at: datetime
    by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Adopt(Happened):
    """A front end's `pending` row was found valid."""

    queue_seq: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Admit(Happened):
    """Placement found room: the job gets its nodes and a fence."""

    allocation: Allocation


@dataclass(frozen=True, slots=True, kw_only=True)
class AskStop(Happened):
    """Cancel, pause, preempt, or out of time.  A job that does not run stops at once where that makes sense."""

    kind: StopKind


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEnded(Happened):
    """Every process of run `fence` is gone."""

    fence: Fence
    outcome: Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class ForceStart(Happened):
    """A person wants the job in the line, from the beginning."""

    queue_seq: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Resume(Happened):
    """A person wants the job to go on from its last checkpoint."""

    queue_seq: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GiveUp(Happened):
    """Mark as failed: by a person, or because nobody vouched for the job (`reason.code` is `stale`)."""

    reason: Reason


Event = Adopt | Admit | AskStop | RunEnded | ForceStart | Resume | GiveUp


# Actions: what the shell must do, after the commit.  All are idempotent.


@dataclass(frozen=True, slots=True, kw_only=True)
class StartRun:
    job_id: JobId
    fence: Fence
    spec: JobSpec
    allocation: Allocation
    restarts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StopRun:
    job_id: JobId
    fence: Fence
    kind: StopKind


Action = StartRun | StopRun


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often, and after what pause, a run that did not complete is tried again."""

    max_losses: int = 3
    """Runs that the infrastructure may lose before the job fails."""
    backoff_s: float = 1.0
    """Pause before the first retry; doubles with each one."""
    backoff_max_s: float = 60.0

    def pause(self, tries: int) -> timedelta:
        return timedelta(seconds=min(self.backoff_max_s, self.backoff_s * 2 ** (tries - 1)))


def accept(
    job_id: JobId, spec: JobSpec, *, at: datetime, queue_seq: int, idempotency_key: str | None = None
) -> Job:
    """A new job, at the end of the line."""
    return Job(
        id=job_id,
        spec=spec,
        status=Status.QUEUED,
        reason=Reason(code="accepted", message="in the queue; not looked at yet"),
        created_at=at,
        updated_at=at,
        queued_at=at,
        queue_seq=queue_seq,
        idempotency_key=idempotency_key,
    )


def apply(job: Job, event: Event, policy: RetryPolicy = RetryPolicy()) -> tuple[Job, list[Action]]:  # noqa: B008
    """Return the job after *event*, and what the shell must do about it.

    An event that changes nothing (a second cancel, the end of a replaced run) returns the same object.
    Raises NotAllowed, in words for the person who asked, when the job's status does not permit it.
    """
    match event:
        case Adopt(queue_seq=seq):
            _require(job, Status.PENDING, doing="adopt")
            return _queue(job, event, seq, Reason(code="adopted", message="found in the database; in the queue")), []
        case Admit():
            return _admit(job, event)
        case AskStop():
            return _ask_stop(job, event)
        case RunEnded(fence=fence):
            if job.status is not Status.RUNNING or fence != job.fence:
                return job, []  # the run was replaced: its word counts no more
            return _end_run(job, event, policy), []
        case ForceStart(queue_seq=seq):
            return _force_start(job, event, seq), []
        case Resume(queue_seq=seq):
            if job.status is Status.QUEUED:
                return job, []
            _require(job, Status.PAUSED, Status.FAILED, Status.CANCELLED, doing="resume")
            message = f"resumed by {event.by}; goes on from its last checkpoint"
            return _queue(job, event, seq, Reason(code="resumed", message=message)), []
        case GiveUp(reason=reason):
            if job.status is Status.FAILED:
                return job, []
            _require(job, Status.PENDING, Status.QUEUED, Status.PAUSED, doing="mark as failed")
            return _to(job, Status.FAILED, event, reason), []
        case _:
            assert_never(event)


def record(before: Job | None, after: Job, event: Event | None) -> JobEvent:
    """The line of history for the step from *before* to *after*; without *event*, a submit."""
    return JobEvent(
        job_id=after.id,
        version=after.version,
        kind="Submitted" if event is None else type(event).__name__,
        at=after.updated_at,
        by=(after.spec.user or "anonymous") if event is None else event.by,
        from_status=before.status if before else None,
        to_status=after.status,
        reason=after.reason,
    )


def _admit(job: Job, event: Admit) -> tuple[Job, list[Action]]:
    _require(job, Status.QUEUED, doing="start")
    fence = Fence(job.fence + 1)
    message = f"attempt {fence} is starting on {_nodes(event.allocation)}"
    after = replace(
        _to(job, Status.RUNNING, event, Reason(code="admitted", message=message)),
        fence=fence,
        allocation=event.allocation,
        started_at=job.started_at or event.at,
        retry_at=None,
    )
    start = StartRun(
        job_id=job.id, fence=fence, spec=job.spec, allocation=event.allocation, restarts=job.restarts
    )
    return after, [start]


def _ask_stop(job: Job, event: AskStop) -> tuple[Job, list[Action]]:
    if job.status is Status.RUNNING:
        if job.stop and (job.stop.kind is event.kind or job.stop.kind is StopKind.CANCEL):
            return job, [StopRun(job_id=job.id, fence=job.fence, kind=job.stop.kind)]
        reason = Reason(code=f"{event.kind}_asked", message=f"{event.by} asked to {event.kind}; the run is being stopped")
        after = replace(
            _next(job, event, reason), stop=Stop(kind=event.kind, by=event.by, at=event.at)
        )
        return after, [StopRun(job_id=job.id, fence=job.fence, kind=event.kind)]
    if event.kind is StopKind.CANCEL:
        if job.status is Status.CANCELLED:
            return job, []
        _require(job, Status.PENDING, Status.QUEUED, Status.PAUSED, doing="cancel")
        return _to(job, Status.CANCELLED, event, Reason(code="cancelled", message=f"cancelled by {event.by}")), []
    if event.kind is StopKind.PAUSE and job.status is Status.PAUSED:
        return job, []
    _require(job, Status.RUNNING, doing=event.kind)
    raise AssertionError("not reached")


def _end_run(job: Job, event: RunEnded, policy: RetryPolicy) -> Job:
    outcome, stop = event.outcome, job.stop
    gone = replace(job, allocation=None, stop=None, result=outcome.result)
    if outcome.ending is Ending.COMPLETED:
        return _to(gone, Status.COMPLETED, event, outcome.reason)
    if stop and stop.kind is StopKind.CANCEL:
        return _to(gone, Status.CANCELLED, event, Reason(code="cancelled", message=f"cancelled by {stop.by}; its processes are gone"))
    if stop and stop.kind is StopKind.TIMEOUT:
        limit = f"max_runtime_s={job.spec.max_runtime_s:g}" if job.spec.max_runtime_s else "its time limit"
        return _to(gone, Status.FAILED, event, Reason(code="timeout", message=f"stopped at {limit}; raise it and resume"))

    if outcome.ending is Ending.FAILED:
        gone = replace(gone, failures=job.failures + 1)
        tries, budget, name = gone.failures, job.spec.max_failures, "max_failures"
    elif outcome.ending is Ending.LOST:
        gone = replace(gone, losses=job.losses + 1)
        tries, budget, name = gone.losses, policy.max_losses, "the limit for lost runs"
    else:
        tries, budget, name = 0, 0, ""

    if tries > budget:
        spent = Reason(
            code=outcome.reason.code,
            message=f"{outcome.reason.message} (attempt {job.fence}; {name} is {budget})",
            detail=outcome.reason.detail,
        )
        return _to(gone, Status.FAILED, event, spent)
    if stop and stop.kind is StopKind.PAUSE:
        return _to(gone, Status.PAUSED, event, Reason(code="paused", message=f"paused by {stop.by}; its processes are gone"))
    if stop and stop.kind is StopKind.PREEMPT:
        return _requeue(gone, event, Reason(code="preempted", message="gave its nodes to another job; keeps its place"), 0, policy)
    again = Reason(
        code="retrying",
        message=f"attempt {job.fence} ended: {outcome.reason.message}; tried again from its last checkpoint "
        f"({tries} of {budget} retries used)",
        detail=outcome.reason.detail,
    )
    return _requeue(gone, event, again, tries, policy)


def _force_start(job: Job, event: ForceStart, seq: int) -> Job:
    refusals = {
        Status.RUNNING: "it is running; use pause and resume",
        Status.COMPLETED: "it is completed and cannot be restarted; submit it again as a new job",
        Status.PAUSED: "it is paused; use resume",
    }
    if job.status in refusals:
        raise NotAllowed(f"job {job.id} cannot be force-started: {refusals[job.status]}")
    if job.status is Status.QUEUED:
        return replace(_next(job, event, job.reason), retry_at=None) if job.retry_at else job
    after = _queue(job, event, seq, Reason(code="force_started", message=f"put in the queue by {event.by}"))
    began = job.fence > 0
    return replace(after, restarts=job.restarts + began, progress=None if began else job.progress)


def _queue(job: Job, event: Event, seq: int, reason: Reason) -> Job:
    """To the end of the line, with fresh budgets: a person asked for it."""
    return replace(
        _to(job, Status.QUEUED, event, reason),
        queue_seq=seq,
        queued_at=event.at,
        finished_at=None,
        retry_at=None,
        failures=0,
        losses=0,
        result=None,
    )


def _requeue(job: Job, event: Event, reason: Reason, tries: int, policy: RetryPolicy) -> Job:
    """Back to its old place in the line."""
    retry_at = event.at + policy.pause(tries) if tries else None
    return replace(_to(job, Status.QUEUED, event, reason), queued_at=event.at, retry_at=retry_at, result=None)


def _to(job: Job, status: Status, event: Event, reason: Reason) -> Job:
    if status not in EDGES[job.status]:
        raise NotAllowed(f"job {job.id} is {job.status} and cannot become {status}")
    after = replace(_next(job, event, reason), status=status)
    return replace(after, finished_at=event.at) if status.is_terminal else after


def _next(job: Job, event: Event, reason: Reason) -> Job:
    return replace(job, version=job.version + 1, updated_at=event.at, reason=reason)


def _require(job: Job, *allowed: Status, doing: str) -> None:
    if job.status not in allowed:
        wanted = " or ".join(allowed)
        raise NotAllowed(f"cannot {doing} job {job.id}: it is {job.status}, not {wanted}")


def _nodes(allocation: Allocation) -> str:
    count = len(allocation.ranks)
    return "1 node" if count == 1 else f"{count} nodes"
