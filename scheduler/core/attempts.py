"""The row of an attempt, made from the two events that begin and end it."""

from __future__ import annotations

from dataclasses import replace

from scheduler.core.finite import whole
from scheduler.core.model import Attempt, Cause, Ending, Job, Json, Outcome, Reason, Stop, StopKind
from scheduler.core.retry import answerable


def begun(job: Job) -> Attempt:
    """Of a job that was just admitted."""
    assert job.allocation is not None, f"{job.id} was not admitted"
    started_at = job.admitted_at or job.started_at or job.updated_at
    return Attempt(fence=job.fence, allocation=job.allocation, started_at=started_at)


def ended(running: Job, after: Job, outcome: Outcome) -> Attempt:
    """*running* is the job as it was until its run ended, *after* what became of it."""
    last_step = step_of(outcome.progress)
    stop = running.stop
    return replace(
        begun(running),
        ended_at=after.updated_at,
        ending=outcome.ending,
        cause=None if outcome.ending is Ending.COMPLETED else answerable(running, outcome),
        reason=_why(stop, outcome),
        resumed=outcome.resumed,
        last_step=last_step,
        saved=outcome.saved,
        steps_lost=0 if outcome.ending is Ending.COMPLETED else _lost(last_step, outcome),
        evidence=(stop.evidence if stop else None) or outcome.evidence,
    )


def found_gone(running: Job, after: Job) -> Attempt:
    """Of a run that nobody saw end: *after* is the job once it was given up."""
    return replace(
        begun(running),
        ended_at=after.updated_at,
        ending=Ending.LOST,
        cause=Cause.INFRASTRUCTURE,
        reason=after.reason,
        last_step=step_of(running.progress),
    )


def _why(stop: Stop | None, outcome: Outcome) -> Reason:
    """Whoever told it to stop knows why; a run that died before it could knows better."""
    if stop is None or outcome.ending not in (Ending.STOPPED, Ending.LOST):
        return outcome.reason
    if outcome.ending is Ending.LOST and stop.kind is not StopKind.HUNG and not stop.is_operators:
        return outcome.reason
    words = outcome.reason.message
    asked = stop.why or Reason(code=f"{stop.kind}_asked", message=f"{stop.by} asked to {stop.kind} it")
    return replace(asked, message=f"{asked.message}; {words}", detail=outcome.reason.detail)


def step_of(progress: Json | None) -> int | None:
    return whole((progress or {}).get("step"))


def _lost(last_step: int | None, outcome: Outcome) -> int | None:
    """Steps that have to be done again."""
    if last_step is None:
        return None
    kept = outcome.resumed.step if outcome.resumed and outcome.resumed.checkpoint else 0
    if outcome.saved is not None:
        kept = outcome.saved.step
    return None if kept is None else max(0, last_step - kept)
