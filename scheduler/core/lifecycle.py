"""The whole life of a job on one page: its edges, the events that take them, and what must be done then."""

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
    compact,
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
    """Cancel, pause, preempt, or out of time.  A job that waits is cancelled at once."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Recover(Happened):
    """Found after an outage, in the journal or only in the database; goes on as it stands, or is held."""

    reason: Reason
    hold: bool = False


Event = Adopt | Admit | AskStop | RunEnded | ForceStart | Resume | GiveUp | Recover


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


DEFAULT_POLICY = RetryPolicy()

SYSTEM = frozenset({"scheduler", "reconciler", "inbox", "start-up"})
"""Who acts without a person behind it."""

YIELDS = {StopKind.PREEMPT: 0, StopKind.TIMEOUT: 0, StopKind.PAUSE: 1, StopKind.CANCEL: 2}
"""A stop gives way only to a stronger one: what a person asks for beats what the system does."""


def accept(
    job_id: JobId, spec: JobSpec, *, at: datetime, queue_seq: int, idempotency_key: str | None = None
) -> Job:
    """A new job, at the end of the line."""
    return Job(
        id=job_id,
        spec=compact(spec),
        status=Status.QUEUED,
        reason=Reason(code="accepted", message="in the queue; not looked at yet"),
        created_at=at,
        updated_at=at,
        queued_at=at,
        queue_seq=queue_seq,
        idempotency_key=idempotency_key,
    )


def apply(job: Job, event: Event, policy: RetryPolicy = DEFAULT_POLICY) -> tuple[Job, list[Action]]:
    """Return the job after *event*, and what the shell must do about it.

    An event that changes nothing (a second cancel, the end of a replaced run) returns the same object.
    Raises NotAllowed, in words for the person who asked, when the job's status does not permit it.
    """
    match event:
        case Adopt():
            return _adopt(job, event), []
        case Admit():
            return _admit(job, event)
        case AskStop() if job.allocation:
            return _stop_run(job, event)
        case AskStop():
            return _stop_waiting(job, event), []
        case RunEnded():
            return _end_run(job, event, policy), []
        case ForceStart():
            return _force_start(job, event), []
        case Resume():
            return _resume(job, event), []
        case GiveUp():
            return _give_up(job, event), []
        case Recover():
            return _recover(job, event)
        case _:
            assert_never(event)


def is_news(before: Job, after: Job, event: Event) -> bool:
    """Whether whoever runs the cluster wants to be told: the system recovered the job, or failed it.

    A loop that raised, or a spec that is not one, is its user's business, and so is what a person asked for.
    """
    match event:
        case RunEnded():
            blame = event.outcome.cause is Cause.INFRASTRUCTURE and event.outcome.ending is not Ending.STOPPED
            return blame and before.stop is None and after.status in (Status.FAILED, Status.QUEUED)
        case GiveUp():
            return event.by in SYSTEM and event.reason.code != "invalid_spec"
        case Recover():
            return True
        case _:
            return False


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


def _adopt(job: Job, event: Adopt) -> Job:
    _require(job, Status.PENDING, doing="adopt")
    reason = Reason(code="adopted", message="found in the database; in the queue")
    return _queue(job, event, event.queue_seq, reason)


def _admit(job: Job, event: Admit) -> tuple[Job, list[Action]]:
    _require(job, Status.QUEUED, doing="start")
    fence, allocation = Fence(job.fence + 1), event.allocation
    where = "1 node" if len(allocation.ranks) == 1 else f"{len(allocation.ranks)} nodes"
    reason = Reason(code="admitted", message=f"attempt {fence} is starting on {where}")
    after = _to(job, Status.RUNNING, event, reason)
    after = replace(
        after,
        fence=fence,
        allocation=allocation,
        started_at=job.started_at or event.at,
        admitted_at=event.at,
    )
    return after, [start_of(after)]


def start_of(job: Job) -> StartRun:
    """How the newest run of a running job is started; safe to do again."""
    assert job.allocation is not None, f"{job.id} runs without an allocation"
    return StartRun(
        job_id=job.id, fence=job.fence, spec=job.spec, allocation=job.allocation, restarts=job.restarts
    )


def _stop_run(job: Job, event: AskStop) -> tuple[Job, list[Action]]:
    if job.stop and YIELDS[job.stop.kind] >= YIELDS[event.kind]:
        return job, [StopRun(job_id=job.id, fence=job.fence, kind=job.stop.kind)]
    why = (
        "it reached its time limit"
        if event.kind is StopKind.TIMEOUT
        else f"{event.by} asked to {event.kind} it"
    )
    reason = Reason(code=f"{event.kind}_asked", message=f"the run is being stopped: {why}")
    after = replace(_next(job, event, reason), stop=Stop(kind=event.kind, by=event.by, at=event.at))
    return after, [StopRun(job_id=job.id, fence=job.fence, kind=event.kind)]


def _stop_waiting(job: Job, event: AskStop) -> Job:
    if (event.kind, job.status) in ((StopKind.CANCEL, Status.CANCELLED), (StopKind.PAUSE, Status.PAUSED)):
        return job
    _require(
        job, *(_withdrawable(job) if event.kind is StopKind.CANCEL else (Status.RUNNING,)), doing=event.kind
    )
    return _to(job, Status.CANCELLED, event, Reason(code="cancelled", message=f"cancelled by {event.by}"))


def _end_run(job: Job, event: RunEnded, policy: RetryPolicy) -> Job:
    if job.status is not Status.RUNNING or event.fence != job.fence:
        return job  # the run was replaced: its word counts no more
    outcome, stop = event.outcome, job.stop
    progress = outcome.progress or job.progress
    gone = replace(job, allocation=None, stop=None, progress=progress, result=outcome.result)
    if outcome.ending is Ending.COMPLETED:
        return _to(gone, Status.COMPLETED, event, outcome.reason)
    if stop and stop.kind is StopKind.CANCEL:
        return _to(gone, Status.CANCELLED, event, _stopped("cancelled", stop, outcome))
    if stop and stop.kind is StopKind.TIMEOUT:
        return _to(gone, Status.FAILED, event, _timed_out(job, outcome))

    gone, tries, budget, whose = _charge(gone, outcome, policy, asked=stop is not None)
    if tries > budget:
        return _to(gone, Status.FAILED, event, _spent(job, outcome, f"{whose} is {budget}"))
    if stop and stop.kind is StopKind.PAUSE:
        return _to(gone, Status.PAUSED, event, _stopped("paused", stop, outcome))
    if stop and stop.kind is StopKind.PREEMPT and not tries:
        reason = Reason(
            code="preempted", message="gave its nodes to another job; keeps its place in the line"
        )
        return _requeue(gone, event, reason, None)
    reason = _again(job, outcome, f"{tries} of {budget} retries used" if tries else "not counted as a retry")
    return _requeue(gone, event, reason, event.at + policy.pause(tries) if tries else None)


def _charge(job: Job, outcome: Outcome, policy: RetryPolicy, *, asked: bool) -> tuple[Job, int, int, str]:
    """Put the end of a run on the account of whoever is answerable: (job, tries, budget, whose it is)."""
    free = asked and outcome.ending is Ending.STOPPED
    blame = outcome.cause or (Cause.USER if outcome.ending is Ending.FAILED else Cause.INFRASTRUCTURE)
    if free or blame is Cause.PREEMPTION:
        return job, 0, 0, ""
    if blame is Cause.USER:
        job = replace(job, failures=job.failures + 1)
        return job, job.failures, job.spec.max_failures, "max_failures"
    job = replace(job, losses=job.losses + 1)
    return job, job.losses, policy.max_losses, "the limit for lost runs"


def _force_start(job: Job, event: ForceStart) -> Job:
    refusals = {
        Status.RUNNING: "it is running; use pause and resume",
        Status.COMPLETED: "it is completed and cannot be restarted; submit it again as a new job",
        Status.PAUSED: "it is paused; use resume",
    }
    if job.status in refusals:
        raise NotAllowed(f"job {job.id} cannot be force-started: {refusals[job.status]}")
    if job.status is Status.QUEUED:
        if job.retry_at is None and not job.held:
            return job
        ended = "let it go" if job.held else "ended the pause before the next try"
        reason = Reason(code="force_started", message=f"{event.by} {ended}")
        return replace(_next(job, event, reason), retry_at=None, held=False)
    after = _queue(
        job, event, event.queue_seq, Reason(code="force_started", message=f"put in the queue by {event.by}")
    )
    return replace(after, restarts=job.restarts + 1, progress=None) if job.fence else after


def _resume(job: Job, event: Resume) -> Job:
    if job.status is Status.QUEUED:
        return job
    _require(job, Status.PAUSED, Status.FAILED, Status.CANCELLED, doing="resume")
    message = f"resumed by {event.by}; goes on from its last checkpoint, if it has one"
    return _queue(job, event, event.queue_seq, Reason(code="resumed", message=message))


def _give_up(job: Job, event: GiveUp) -> Job:
    if job.status is Status.FAILED:
        return job
    _require(job, *_withdrawable(job), doing="mark as failed")
    return _to(job, Status.FAILED, event, event.reason)


def _withdrawable(job: Job) -> tuple[Status, ...]:
    waits = (Status.PENDING, Status.QUEUED, Status.PAUSED)
    # A row may say `running` of a run that no scheduler ever started: there is nothing to stop.
    return waits if job.allocation else (*waits, Status.RUNNING)


def _recover(job: Job, event: Recover) -> tuple[Job, list[Action]]:
    held = job.status is Status.QUEUED and event.hold
    after = replace(_next(job, event, event.reason), held=held)
    return after, [start_of(after)] if after.status is Status.RUNNING else []


def _queue(job: Job, event: Event, seq: int, reason: Reason) -> Job:
    """To the end of the line, with fresh budgets: a person asked for it."""
    after = replace(_to(job, Status.QUEUED, event, reason), queue_seq=seq, queued_at=event.at)
    return replace(after, finished_at=None, failures=0, losses=0, result=None)


def _requeue(job: Job, event: Event, reason: Reason, retry_at: datetime | None) -> Job:
    """Back to its old place in the line."""
    after = _to(job, Status.QUEUED, event, reason)
    return replace(after, queued_at=event.at, retry_at=retry_at, result=None)


def _to(job: Job, status: Status, event: Event, reason: Reason) -> Job:
    if status not in EDGES[job.status]:
        raise NotAllowed(f"job {job.id} is {job.status} and cannot become {status}")
    finished_at = event.at if status.is_terminal else job.finished_at
    after = _next(job, event, reason)
    return replace(after, status=status, finished_at=finished_at, retry_at=None, held=False)


def _next(job: Job, event: Event, reason: Reason) -> Job:
    return replace(job, version=job.version + 1, updated_at=event.at, reason=reason)


def _require(job: Job, *allowed: Status, doing: str) -> None:
    if job.status not in allowed:
        wanted = " or ".join(allowed)
        raise NotAllowed(f"cannot {doing} job {job.id}: it is {job.status}, not {wanted}")


def _stopped(what: str, stop: Stop, outcome: Outcome) -> Reason:
    gone = outcome.reason.message if outcome.ending is Ending.LOST else "its processes are gone"
    return Reason(code=what, message=f"{what} by {stop.by}; {gone}", detail=outcome.reason.detail)


def _timed_out(job: Job, outcome: Outcome) -> Reason:
    limit = f"max_runtime_s={job.spec.max_runtime_s:g}" if job.spec.max_runtime_s else "its time limit"
    message = f"stopped at {limit}; resume it, or submit it with a higher limit"
    return Reason(code="timeout", message=message, detail=outcome.reason.detail)


def _spent(job: Job, outcome: Outcome, limit: str) -> Reason:
    message = f"{outcome.reason.message} (attempt {job.fence}; {limit})"
    return replace(outcome.reason, message=message)


def _again(job: Job, outcome: Outcome, used: str) -> Reason:
    message = (
        f"attempt {job.fence} ended: {outcome.reason.message}; goes on from its last checkpoint ({used})"
    )
    return Reason(code="retrying", message=message, detail=outcome.reason.detail)
