"""The whole life of a job on one page: its edges, where each event leads, and what must be done then."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import assert_never

from scheduler.core import attempts
from scheduler.core.bad_nodes import blamed
from scheduler.core.dependencies import WILL_NEVER
from scheduler.core.end_reasons import given_up, is_preemption, queued_again, stopped, timed_out
from scheduler.core.end_reasons import in_words as in_words
from scheduler.core.events import NODE_LOST as NODE_LOST
from scheduler.core.events import (
    Action,
    Admit,
    Adopt,
    AskStop,
    Event,
    ForceStart,
    GiveUp,
    Keep,
    Recover,
    Restart,
    Resume,
    RunEnded,
    StartRun,
    StopRun,
)
from scheduler.core.model import (
    Attempt,
    Cause,
    CheckpointId,
    Ending,
    Fence,
    Job,
    JobEvent,
    JobId,
    JobSpec,
    Origin,
    Outcome,
    Pushed,
    Reason,
    Saved,
    Status,
    Stop,
    StopKind,
    compact,
)
from scheduler.core.retry import DEFAULT_POLICY, RetryPolicy, judge
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


SYSTEM = frozenset({"scheduler", "reconciler", "inbox", "start-up"})
"""Who acts without a person behind it."""

YIELDS = {
    StopKind.PREEMPT: 0,
    StopKind.TIMEOUT: 0,
    StopKind.HUNG: 0,
    StopKind.PAUSE: 1,
    StopKind.CANCEL: 2,
}
"""A stop is replaced only by a stronger one: what a person asks for beats what the system does."""


PUSHES: tuple[Pushed, ...] = ("", "front", "preempt")
"""Each is more than those before it; what a person asked for is not taken back by asking for less."""
PREEMPTING = "; runs are preempted for it"


def accept(
    job_id: JobId,
    spec: JobSpec,
    *,
    at: datetime,
    queue_seq: int,
    idempotency_key: str | None = None,
    notes: tuple[str, ...] = (),
) -> Job:
    """A new job, at the end of the queue; *notes* are what its history tells of how it was checked."""
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
        case Keep():
            return _keep(job, event), []
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
            return event.by in SYSTEM and event.reason.code not in ("invalid_spec", WILL_NEVER)
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
        avoids=(),
        is_due=event.is_due,
        loan_of=event.loan_of,
    )
    return after, [start_of(after)]


def _keep(job: Job, event: Keep) -> Job:
    if job.status is not Status.QUEUED or job.held or job.kept == event.allocation:
        return job  # somebody withdrew or held it while it was being planned
    return replace(_next(job, event, event.reason), kept=event.allocation)


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
    message = f"held in the queue by {event.by}; resume it to let it start"
    return replace(_next(job, event, Reason(code="held", message=message)), held=True, kept=None, pushed="")


def _end_run(job: Job, event: RunEnded, policy: RetryPolicy) -> Job:
    if not _runs(job, event.fence):
        return job  # the run was replaced: its word counts no more
    outcome, stop = event.outcome, job.stop
    if outcome.ending is Ending.COMPLETED:
        return _to(_gone(job, outcome, event.at), Status.COMPLETED, event, outcome.reason)
    if stop and stop.kind is StopKind.CANCEL:
        return _to(_gone(job, outcome, event.at), Status.CANCELLED, event, stopped("cancelled", job, outcome))
    if stop and stop.kind is StopKind.TIMEOUT:
        return _to(_gone(job, outcome, event.at), Status.FAILED, event, timed_out(job, outcome))

    verdict = judge(job, outcome, policy)
    gone = _gone(verdict.job, outcome, event.at)
    if verdict.given_up:
        return _to(gone, Status.FAILED, event, given_up(job, outcome, verdict.given_up))
    if stop and stop.kind is StopKind.PAUSE:
        return _to(gone, Status.PAUSED, event, stopped("paused", job, outcome))
    after = _to(gone, Status.QUEUED, event, queued_again(gone, stop, outcome, verdict))
    place = None if policy.preempted_keep_place else event.end_of_line
    return replace(
        after,
        queue_seq=place if place and is_preemption(stop) else job.queue_seq,
        queued_at=event.at,
        retry_at=event.at + verdict.retry_after if verdict.retry_after else None,
        result=None,
    )


def _runs(job: Job, fence: Fence) -> bool:
    return job.status is Status.RUNNING and job.fence == fence


def _gone(job: Job, outcome: Outcome, at: datetime) -> Job:
    """Holds nothing any more, and knows from where it would go on."""
    went_s = max(0.0, (at - job.admitted_at).total_seconds()) if job.admitted_at else 0.0
    return replace(
        job,
        allocation=None,
        stop=None,
        ran_s=job.ran_s + went_s,
        progress=outcome.progress or job.progress,
        result=outcome.result,
        pushed="",
        avoids=blamed(job, outcome),
        saved=_saved(job, outcome),
        resumed=outcome.resumed,
    )


def _saved(job: Job, outcome: Outcome) -> Saved | None:
    if outcome.saved is None and outcome.resumed and outcome.resumed.checkpoint is None:
        return None  # there were checkpoints, and none was whole
    return outcome.saved or job.saved


def _force_start(job: Job, event: ForceStart) -> Job:
    refusals = {
        Status.RUNNING: "it is running; use pause and resume",
        Status.COMPLETED: "it is completed and cannot be restarted; submit it again as a new job",
        Status.PAUSED: "it is paused; use resume",
    }
    if job.status in refusals:
        raise NotAllowed(f"job {job.id} cannot be force-started: {refusals[job.status]}")
    if job.status is Status.QUEUED:
        return _hurry(job, event)
    pushed: Pushed = "preempt" if event.pushed == "preempt" else ""
    message = f"put in the queue by {event.by}{PREEMPTING if pushed else ''}"
    after = _queue(job, event, event.queue_seq, Reason(code="force_started", message=message))
    return replace(_from_the_beginning(after), pushed=pushed)


def _hurry(job: Job, event: ForceStart) -> Job:
    """One that waits: nothing holds it back any more, and it goes before others, where that is asked for."""
    if event.pushed == "preempt":
        _require_place(job, doing="preempt others for")
    accepted = job.queue_seq is not None  # a row of no scheduler's making waits to be looked at first
    pushed = max(job.pushed, event.pushed, key=PUSHES.index) if accepted else job.pushed
    if job.retry_at is None and not job.held and pushed == job.pushed:
        return job
    ended = "let it go" if job.held else "ended the pause before the next try" if job.retry_at else ""
    parts = [f"{event.by} {ended}"] if ended else []
    if pushed != job.pushed:
        by = "" if ended else f" by {event.by}"
        parts.append(f"moved to the front of its project's part of the queue{by}")
    message = "; ".join(parts) + (PREEMPTING if pushed != job.pushed and pushed == "preempt" else "")
    reason = Reason(code="force_started", message=message)
    return replace(_next(job, event, reason), retry_at=None, held=False, pushed=pushed)


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
    after = replace(_next(job, event, event.reason), held=held, kept=None if held else job.kept)
    return after, [start_of(after)] if after.status is Status.RUNNING else []


def _queue(job: Job, event: Event, seq: int, reason: Reason) -> Job:
    """To the end of the queue, with fresh budgets: a person asked for it."""
    after = replace(_to(job, Status.QUEUED, event, reason), queue_seq=seq, queued_at=event.at)
    after = replace(after, failures=0, losses=0, preemptions=0, repeats=0, last_failure=None)
    return replace(after, finished_at=None, result=None)


def _to(job: Job, status: Status, event: Event, reason: Reason) -> Job:
    if status not in EDGES[job.status]:
        raise NotAllowed(f"job {job.id} is {job.status} and cannot become {status}")
    finished_at = event.at if status.is_terminal else job.finished_at
    after = _next(job, event, reason)
    after = replace(after, status=status, finished_at=finished_at, retry_at=None, held=False, kept=None)
    return after if status in (Status.QUEUED, Status.RUNNING) else replace(after, pushed="")


def _next(job: Job, event: Event, reason: Reason) -> Job:
    return replace(job, version=job.version + 1, updated_at=event.at, reason=reason)


def _require(job: Job, *allowed: Status, doing: str) -> None:
    if job.status not in allowed:
        wanted = " or ".join(allowed)
        raise NotAllowed(f"cannot {doing} job {job.id}: it is {job.status}, not {wanted}")


def _require_place(job: Job, *, doing: str) -> None:
    """A row that says `queued` may be of no scheduler's making: first it is looked at, like any submit."""
    if job.queue_seq is None:
        raise NotAllowed(
            f"cannot {doing} job {job.id}: it is not accepted into the queue yet; ask again soon"
        )
