"""The words for the end of a run: why it ended, and what becomes of its job."""

from __future__ import annotations

from dataclasses import replace

from scheduler.core.model import OPERATOR_DOWN, Ending, Job, Outcome, Reason, Saved, Stop, StopKind
from scheduler.core.retry import Verdict, by_operator


def in_words(saved: Saved) -> str:
    """A checkpoint, for people."""
    return saved.checkpoint if saved.step is None else f"{saved.checkpoint} (step {saved.step})"


def is_preemption(stop: Stop | None) -> bool:
    return stop is not None and stop.kind is StopKind.PREEMPT and not stop.is_operators


def stopped(what: str, job: Job, outcome: Outcome) -> Reason:
    assert job.stop is not None
    as_asked = outcome.reason.code == "stopped" or job.stop.kind is StopKind.CANCEL
    gone = "its processes are gone" if as_asked else outcome.reason.message
    return Reason(code=what, message=f"{what} by {job.stop.by}; {gone}", detail=outcome.reason.detail)


def timed_out(job: Job, outcome: Outcome) -> Reason:
    limit = f"max_runtime_s={job.spec.max_runtime_s:g}" if job.spec.max_runtime_s else "its time limit"
    message = f"stopped at {limit}; resume it, or submit it with a higher limit"
    return Reason(code="timeout", message=message, detail=outcome.reason.detail)


def given_up(job: Job, outcome: Outcome, why: str) -> Reason:
    reason = _seen(job.stop, outcome)
    return replace(reason, message=f"{reason.message} (attempt {job.fence}; {why})")


def queued_again(job: Job, stop: Stop | None, outcome: Outcome, verdict: Verdict) -> Reason:
    where = f"goes on from checkpoint {in_words(job.saved)}" if job.saved else "begins again"
    if by_operator(stop, outcome):
        message = f"the operator stopped the scheduler; {where}"
        return Reason(code=OPERATOR_DOWN, message=message, detail=outcome.reason.detail)
    if is_preemption(stop) and outcome.ending is Ending.STOPPED:
        assert stop is not None
        why = stop.why.message if stop.why else f"{stop.by} asked for it"
        message = f"preempted: {why}; {where} when it has nodes again"
        return Reason(code="preempted", message=message)
    seen = _seen(stop, outcome)
    counted = verdict.used or "not counted as a retry"
    message = f"attempt {job.fence} ended: {seen.message}; {where} ({counted})"
    return Reason(code="retrying", message=message, detail=seen.detail)


def _seen(stop: Stop | None, outcome: Outcome) -> Reason:
    """Why the run ended, in the words of whoever ended it."""
    return stop.why if stop and stop.why and stop.kind is StopKind.HUNG else outcome.reason
