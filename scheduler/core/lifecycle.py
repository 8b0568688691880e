"""The whole life of a job on one page: its edges, the events that take them, and what must be done then."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import assert_never

from scheduler.core import attempts
from scheduler.core.model import (
    OPERATOR_DOWN,
    Allocation,
    Attempt,
    Cause,
    CheckpointId,
    Ending,
    Fence,
    Job,
    JobEvent,
    JobId,
    JobSpec,
    Json,
    Origin,
    Outcome,
    Reason,
    Saved,
    Status,
    Stop,
    StopKind,
    compact,
)
from scheduler.core.retry import DEFAULT_POLICY, RetryPolicy, Verdict, by_operator, judge
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
    after: int = 0
    """The newest fence of which a trace was found: none is given twice, whatever the journal forgot."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AskStop(Happened):
    """Cancel, pause, preempt, out of time, or hung.  A job that waits is cancelled, or held, at once."""

    kind: StopKind
    why: Reason | None = None
    evidence: Json | None = None
    fence: Fence | None = None
    """Only this run is meant, and nothing happens once it is over; None: the job, however it stands."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEnded(Happened):
    """Every process of run `fence` is gone."""

    fence: Fence
    outcome: Outcome
    end_of_line: int | None = None
    """A place for a preempted job, where policy does not give it back its old one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ForceStart(Happened):
    """A person wants the job in the line, from the beginning."""

    queue_seq: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Resume(Happened):
    """A person wants the job to go on from its last checkpoint, or from one of their choice."""

    queue_seq: int
    checkpoint: Saved | None = None
    """The one chosen; the caller has seen that it is there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Restart(Happened):
    """A person wants the job to begin again from the beginning."""

    queue_seq: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GiveUp(Happened):
    """Mark as failed: by a person, or because nobody vouched for the job (`reason.code` is `stale`)."""

    reason: Reason
    is_gone: bool = False
    """The caller has seen that nothing of it runs, whatever the job says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recover(Happened):
    """Found after an outage, in the journal or only in the database; goes on as it stands, or is held."""

    reason: Reason
    hold: bool = False


Event = Adopt | Admit | AskStop | RunEnded | ForceStart | Resume | Restart | GiveUp | Recover


# Actions: what the shell must do, after the commit.  All are idempotent.


@dataclass(frozen=True, slots=True, kw_only=True)
class StartRun:
    job_id: JobId
    fence: Fence
    spec: JobSpec
    allocation: Allocation
    origin: Origin
    job: Job | None = field(default=None, compare=False, repr=False)
    """All of the job as it is written down: kept with the run, which proves it when the journal is lost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StopRun:
    job_id: JobId
    fence: Fence
    kind: StopKind
    why: Reason | None = None
    """Why it ended, where nobody asked for it and the run cannot know."""


NODE_LOST = "node_lost"
"""The code of the reason why a run is lost whose node is gone."""

Action = StartRun | StopRun


SYSTEM = frozenset({"scheduler", "reconciler", "inbox", "start-up"})
"""Who acts without a person behind it."""

YIELDS = {
    StopKind.PREEMPT: 0,
    StopKind.TIMEOUT: 0,
    StopKind.HUNG: 0,
    StopKind.PAUSE: 1,
    StopKind.CANCEL: 2,
}
"""A stop gives way only to a stronger one: what a person asks for beats what the system does."""


def accept(
    job_id: JobId,
    spec: JobSpec,
    *,
    at: datetime,
    queue_seq: int,
    idempotency_key: str | None = None,
    notes: tuple[str, ...] = (),
) -> Job:
    """A new job, at the end of the line; *notes* are what its history tells of how it was checked."""
    return Job(
        id=job_id,
        spec=compact(spec),
        status=Status.QUEUED,
        reason=Reason(code="accepted", message="; ".join(["in the queue; not looked at yet", *notes])),
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
        case AskStop() if event.fence is not None and not _runs(job, event.fence):
            return job, []  # what was seen of that run says nothing about the next one
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
        case Restart():
            return _restart(job, event), []
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
            return _broke_down(before.stop, event.outcome) and after.status in (Status.FAILED, Status.QUEUED)
        case GiveUp():
            return event.by in SYSTEM and event.reason.code != "invalid_spec"
        case Recover():
            return True
        case _:
            return False


def _broke_down(stop: Stop | None, outcome: Outcome) -> bool:
    """A run ended that nobody asked to end: it hung, or was lost."""
    if stop:
        return stop.kind is StopKind.HUNG and outcome.ending is not Ending.COMPLETED
    return outcome.cause is Cause.INFRASTRUCTURE and outcome.ending is not Ending.STOPPED


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
        attempt=_attempt(before, after, event),
    )


def _attempt(before: Job | None, after: Job, event: Event | None) -> Attempt | None:
    match event:
        case Admit():
            return attempts.begun(after)
        case Recover() if after.allocation:
            return attempts.begun(after)
        case RunEnded() if before is not None:
            return attempts.ended(before, after, event.outcome)
        case GiveUp() if before is not None and before.allocation:
            return attempts.found_gone(before, after)
        case _:
            return None


def _adopt(job: Job, event: Adopt) -> Job:
    _require(job, Status.PENDING, doing="adopt")
    reason = Reason(code="adopted", message="found in the database; in the queue")
    return _queue(job, event, event.queue_seq, reason)


def _admit(job: Job, event: Admit) -> tuple[Job, list[Action]]:
    _require(job, Status.QUEUED, doing="start")
    if job.held:
        return job, []  # somebody held it while its start was being planned
    fence, allocation = Fence(max(job.fence, event.after) + 1), event.allocation
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
        job_id=job.id,
        fence=job.fence,
        spec=job.spec,
        allocation=job.allocation,
        origin=job.origin,
        job=job,
    )


def _stop_run(job: Job, event: AskStop) -> tuple[Job, list[Action]]:
    if job.stop and YIELDS[job.stop.kind] >= YIELDS[event.kind]:
        return job, [StopRun(job_id=job.id, fence=job.fence, kind=job.stop.kind)]
    why = event.why.message if event.why else f"{event.by} asked to {event.kind} it"
    reason = Reason(code=f"{event.kind}_asked", message=f"the run is being stopped: {why}")
    stop = Stop(kind=event.kind, by=event.by, at=event.at, why=event.why, evidence=event.evidence)
    after = replace(_next(job, event, reason), stop=stop)
    return after, [StopRun(job_id=job.id, fence=job.fence, kind=event.kind)]


def _stop_waiting(job: Job, event: AskStop) -> Job:
    match event.kind, job.status:
        case (
            (StopKind.CANCEL, Status.CANCELLED)
            | (StopKind.PAUSE, Status.PAUSED)
            | (StopKind.PREEMPT, Status.QUEUED)
        ):
            return job
        case StopKind.PAUSE, Status.QUEUED:
            return _hold(job, event)
        case StopKind.CANCEL, _:
            _require(job, *_withdrawable(job), doing="cancel")
            reason = Reason(code="cancelled", message=f"cancelled by {event.by}")
            return _to(job, Status.CANCELLED, event, reason)
        case _:
            _require(job, Status.RUNNING, doing=event.kind)
            return job


def _hold(job: Job, event: AskStop) -> Job:
    """A job that waits has nothing to save and holds nothing: it keeps its place and does not start."""
    if job.held:
        return job
    _require_place(job, doing=event.kind)
    message = f"held in the line by {event.by}; resume it to let it start"
    return replace(_next(job, event, Reason(code="held", message=message)), held=True)


def _end_run(job: Job, event: RunEnded, policy: RetryPolicy) -> Job:
    if not _runs(job, event.fence):
        return job  # the run was replaced: its word counts no more
    outcome, stop = event.outcome, job.stop
    if outcome.ending is Ending.COMPLETED:
        return _to(_gone(job, outcome), Status.COMPLETED, event, outcome.reason)
    if stop and stop.kind is StopKind.CANCEL:
        return _to(_gone(job, outcome), Status.CANCELLED, event, _stopped("cancelled", job, outcome))
    if stop and stop.kind is StopKind.TIMEOUT:
        return _to(_gone(job, outcome), Status.FAILED, event, _timed_out(job, outcome))

    verdict = judge(job, outcome, policy)
    gone = _gone(verdict.job, outcome)
    if verdict.given_up:
        return _to(gone, Status.FAILED, event, _spent(job, outcome, verdict.given_up))
    if stop and stop.kind is StopKind.PAUSE:
        return _to(gone, Status.PAUSED, event, _stopped("paused", job, outcome))
    after = _to(gone, Status.QUEUED, event, _again(gone, stop, outcome, verdict))
    place = None if policy.preempted_keep_place else event.end_of_line
    return replace(
        after,
        queue_seq=place if place and _gives_way(stop) else job.queue_seq,
        queued_at=event.at,
        retry_at=event.at + verdict.retry_after if verdict.retry_after else None,
        result=None,
    )


def _runs(job: Job, fence: Fence) -> bool:
    return job.status is Status.RUNNING and job.fence == fence


def _gone(job: Job, outcome: Outcome) -> Job:
    """Holds nothing any more, and knows from where it would go on."""
    return replace(
        job,
        allocation=None,
        stop=None,
        progress=outcome.progress or job.progress,
        result=outcome.result,
        saved=_saved(job, outcome),
        resumed=outcome.resumed,
    )


def _saved(job: Job, outcome: Outcome) -> Saved | None:
    if outcome.saved is None and outcome.resumed and outcome.resumed.checkpoint is None:
        return None  # there were checkpoints, and none was whole
    return outcome.saved or job.saved


def _gives_way(stop: Stop | None) -> bool:
    return stop is not None and stop.kind is StopKind.PREEMPT and not stop.is_operators


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
    return _from_the_beginning(after)


def _resume(job: Job, event: Resume) -> Job:
    chosen = event.checkpoint
    if job.status is Status.QUEUED:
        return _let_go(job, event) if job.held and chosen is None else _choose(job, event)
    _require(job, Status.PAUSED, Status.FAILED, Status.CANCELLED, doing="resume")
    saved = chosen or job.saved
    where = (
        f"goes on from checkpoint {in_words(saved)}"
        if saved
        else "begins at the beginning: nothing was saved"
    )
    after = _queue(
        job, event, event.queue_seq, Reason(code="resumed", message=f"resumed by {event.by}; {where}")
    )
    return _from(after, chosen) if chosen else after


def _let_go(job: Job, event: Event) -> Job:
    return replace(_next(job, event, Reason(code="resumed", message=f"let go by {event.by}")), held=False)


def _choose(job: Job, event: Resume) -> Job:
    """A job that waits may be told where to go on."""
    chosen = event.checkpoint
    if chosen is None or (not job.held and _begins_with(job, chosen.checkpoint)):
        return job
    _require_place(job, doing="resume")
    message = f"{event.by} chose that it goes on from checkpoint {in_words(chosen)}"
    return _from(replace(_next(job, event, Reason(code="resumed", message=message)), held=False), chosen)


def _from(job: Job, chosen: Saved) -> Job:
    return replace(job, origin=Origin(checkpoint=chosen.checkpoint, after=job.fence), saved=chosen)


def _restart(job: Job, event: Restart) -> Job:
    if job.status is Status.QUEUED and not job.held and _begins_with(job, None):
        return job
    _require(job, Status.QUEUED, Status.PAUSED, Status.FAILED, Status.CANCELLED, doing="restart")
    message = f"restarted from the beginning by {event.by}"
    reason = Reason(code="restarted", message=message)
    if job.status is Status.QUEUED:
        _require_place(job, doing="restart")
        return _from_the_beginning(replace(_next(job, event, reason), held=False))
    return _from_the_beginning(_queue(job, event, event.queue_seq, reason))


def _begins_with(job: Job, checkpoint: CheckpointId | None) -> bool:
    return job.origin == Origin(checkpoint=checkpoint, after=job.fence)


def _from_the_beginning(job: Job) -> Job:
    return replace(job, origin=Origin(after=job.fence), saved=None, resumed=None, progress=None)


def in_words(saved: Saved) -> str:
    """A checkpoint, for people."""
    return saved.checkpoint if saved.step is None else f"{saved.checkpoint} (step {saved.step})"


def _give_up(job: Job, event: GiveUp) -> Job:
    if job.status is Status.FAILED:
        return job
    allowed = (Status.RUNNING,) if event.is_gone else ()
    _require(job, *_withdrawable(job), *allowed, doing="mark as failed")
    return replace(_to(job, Status.FAILED, event, event.reason), allocation=None, stop=None)


def _withdrawable(job: Job) -> tuple[Status, ...]:
    waits = (Status.PENDING, Status.QUEUED, Status.PAUSED)
    # A row may say `running` of a run that no scheduler ever started: there is nothing to stop.
    return waits if job.allocation else (*waits, Status.RUNNING)


def _recover(job: Job, event: Recover) -> tuple[Job, list[Action]]:
    held = job.status is Status.QUEUED and (event.hold or job.held)
    after = replace(_next(job, event, event.reason), held=held)
    return after, [start_of(after)] if after.status is Status.RUNNING else []


def _queue(job: Job, event: Event, seq: int, reason: Reason) -> Job:
    """To the end of the line, with fresh budgets: a person asked for it."""
    after = replace(_to(job, Status.QUEUED, event, reason), queue_seq=seq, queued_at=event.at)
    after = replace(after, failures=0, losses=0, preemptions=0, repeats=0, last_failure=None)
    return replace(after, finished_at=None, result=None)


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


def _require_place(job: Job, *, doing: str) -> None:
    """A row that says `queued` may be of no scheduler's making: first it is looked at, like any submit."""
    if job.queue_seq is None:
        raise NotAllowed(f"cannot {doing} job {job.id}: it is not taken into the line yet; ask again soon")


def _stopped(what: str, job: Job, outcome: Outcome) -> Reason:
    assert job.stop is not None
    as_asked = outcome.reason.code == "stopped" or job.stop.kind is StopKind.CANCEL
    gone = "its processes are gone" if as_asked else outcome.reason.message
    return Reason(code=what, message=f"{what} by {job.stop.by}; {gone}", detail=outcome.reason.detail)


def _timed_out(job: Job, outcome: Outcome) -> Reason:
    limit = f"max_runtime_s={job.spec.max_runtime_s:g}" if job.spec.max_runtime_s else "its time limit"
    message = f"stopped at {limit}; resume it, or submit it with a higher limit"
    return Reason(code="timeout", message=message, detail=outcome.reason.detail)


def _spent(job: Job, outcome: Outcome, why: str) -> Reason:
    reason = _seen(job.stop, outcome)
    return replace(reason, message=f"{reason.message} (attempt {job.fence}; {why})")


def _again(job: Job, stop: Stop | None, outcome: Outcome, verdict: Verdict) -> Reason:
    where = f"goes on from checkpoint {in_words(job.saved)}" if job.saved else "begins again"
    if by_operator(stop, outcome):
        message = f"the operator stopped the scheduler; {where}"
        return Reason(code=OPERATOR_DOWN, message=message, detail=outcome.reason.detail)
    if _gives_way(stop) and outcome.ending is Ending.STOPPED:
        assert stop is not None
        why = stop.why.message if stop.why else f"{stop.by} asked for it"
        message = f"gave way: {why}; {where} when it has nodes again"
        return Reason(code="preempted", message=message)
    seen = _seen(stop, outcome)
    counted = verdict.used or "not counted as a retry"
    message = f"attempt {job.fence} ended: {seen.message}; {where} ({counted})"
    return Reason(code="retrying", message=message, detail=seen.detail)


def _seen(stop: Stop | None, outcome: Outcome) -> Reason:
    """Why the run ended, in the words of whoever ended it."""
    return stop.why if stop and stop.why and stop.kind is StopKind.HUNG else outcome.reason
