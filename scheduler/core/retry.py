"""Whether a run that did not complete is tried again: who is answerable, what is left of the budget, after what pause."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Literal
from zlib import crc32

from scheduler.core.model import OPERATOR_DOWN, Cause, Ending, Job, Outcome, Stop, StopKind


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often, and after what pause, a run that did not complete is tried again."""

    max_losses: int = 3
    """Runs that the infrastructure may lose before the job fails."""
    max_repeats: int = 3
    """Runs in a row that may fail in the same way before they saved anything."""
    backoff_s: float = 1.0
    """Pause before the first retry; doubles with each one."""
    backoff_max_s: float = 60.0
    on_hang: Literal["retry", "fail"] = "retry"
    """What becomes of a job whose run was ended because it hung."""
    preempted_keep_place: bool = True
    """A preempted job returns to its old place in the queue; else to the end."""

    def pause(self, job: Job, tries: int) -> timedelta:
        """Doubling, and half of it by lot, so that what failed together does not return together.

        "Equal jitter" of M. Brooker, Exponential Backoff And Jitter (AWS, 2015).  The lot is drawn from job and
        attempt: the same for the same retry.
        """
        longest_s = min(self.backoff_max_s, self.backoff_s * 2 ** min(tries - 1, 30))
        lot = crc32(f"{job.id} {job.fence}".encode()) / 2**32
        return timedelta(seconds=longest_s * (0.5 + 0.5 * lot))


DEFAULT_POLICY = RetryPolicy()


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What becomes of a job whose run ended.  Exactly one of the three."""

    job: Job
    """With the run put on the account of whoever is answerable."""
    given_up: str | None = None
    """Not tried again, and why."""
    retry_after: timedelta | None = None
    used: str = ""
    """What was used up, in words.  Nothing: the run counts as no try."""


def judge(job: Job, outcome: Outcome, policy: RetryPolicy) -> Verdict:
    """Charge a run that ended without completing, and decide whether there is another."""
    blame = answerable(job, outcome)
    if blame is None:
        return Verdict(job=job)
    if blame is Cause.PREEMPTION:  # others needed its nodes: never a reason to fail, and nothing to wait for
        return Verdict(job=replace(job, preemptions=job.preemptions + 1), used="which uses up no retry")
    job = _repeated(job, outcome)
    job, tries, budget, whose = _charge(job, blame, policy)
    if job.stop and job.stop.kind is StopKind.HUNG and policy.on_hang == "fail":
        return Verdict(job=job, given_up="hanging runs are not tried again")
    if tries > budget:
        return Verdict(job=job, given_up=f"{whose} is {budget}")
    if job.repeats >= policy.max_repeats:
        why = f"it failed in the same way {job.repeats} times in a row before it saved anything"
        return Verdict(job=job, given_up=f"{why}, with {tries - 1} of {budget} retries used")
    pause = None if outcome.saved is not None else policy.pause(job, tries)  # it got on: nothing to wait for
    return Verdict(job=job, retry_after=pause, used=f"{tries} of {budget} retries used")


def answerable(job: Job, outcome: Outcome) -> Cause | None:
    """For a run that did not complete.  None: nobody; it was told to stop, and did, or the operator ended it."""
    stop = job.stop
    if stop and stop.kind is StopKind.HUNG:
        return Cause.INFRASTRUCTURE
    if by_operator(stop, outcome):
        return None
    if stop and stop.kind is StopKind.PREEMPT and outcome.cause is not Cause.USER:
        return Cause.PREEMPTION
    if stop and outcome.ending is Ending.STOPPED:
        return None
    return outcome.cause or (Cause.USER if outcome.ending is Ending.FAILED else Cause.INFRASTRUCTURE)


def by_operator(stop: Stop | None, outcome: Outcome) -> bool:
    """The operator stopped the scheduler, and the run ended with it: by the journal, or by word left in its folder.

    What the user's own code raised meanwhile is still the user's.
    """
    told = stop is not None and stop.is_operators
    return (told or outcome.reason.code == OPERATOR_DOWN) and outcome.cause is not Cause.USER


def _charge(job: Job, blame: Cause, policy: RetryPolicy) -> tuple[Job, int, int, str]:
    if blame is Cause.USER:
        job = replace(job, failures=job.failures + 1)
        return job, job.failures, job.spec.max_failures, "max_failures"
    job = replace(job, losses=job.losses + 1)
    return job, job.losses, policy.max_losses, "the limit for lost runs"


def _repeated(job: Job, outcome: Outcome) -> Job:
    """Count runs that failed alike.  One that saved something got further: the count begins again."""
    if outcome.signature is None:
        return job
    before = job.repeats if outcome.signature == job.last_failure else 0
    return replace(job, last_failure=outcome.signature, repeats=0 if outcome.saved else before + 1)
