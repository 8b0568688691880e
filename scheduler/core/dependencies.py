"""What a job waits for besides room: a moment, and how other jobs end.

A job may only name jobs that are there when it is submitted, and its spec never changes: so there are no circles.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from scheduler.core.durations import span
from scheduler.core.model import Job, Reason, Status
from scheduler.core.spec import After

Parents = Mapping[str, Status | None]
"""How the jobs stand for which others wait.  None: there is no such job; absent: not known at the moment."""

NOT_BEFORE = "not_before"
AFTER = "after"
WILL_NEVER = "after_not_met"
_WORDS = {"completed": "complete", "failed": "fail", "ended": "end"}


def waits_for(job: Job, now: datetime, parents: Parents) -> Reason | None:
    """Why *job* may not start yet, however much room there is; None when nothing keeps it."""
    moment = job.spec.start_after
    if moment and moment > now:
        left = span((moment - now).total_seconds())
        return Reason(
            code=NOT_BEFORE, message=f"not before {moment.isoformat(' ', 'minutes')}, which is in {left}"
        )
    unmet = [after for after in job.spec.after if not _is_met(after, parents.get(after.job))]
    if not unmet:
        return None
    more = f", and for {len(unmet) - 1} more" if len(unmet) > 1 else ""
    return Reason(code=AFTER, message=f"{_in_words(unmet[0], parents)}{more}")


def will_never_start(job: Job, parents: Parents) -> Reason | None:
    """Why what *job* waits for does not happen any more; None while it may."""
    for after in job.spec.after:
        if after.job in parents and _is_over(after, parents[after.job]):
            how = parents[after.job]
            said = f"which was to {_WORDS[after.on]}, is {how}" if how else "for which it waits, is not there"
            message = f"job {after.job}, {said}; let that one go on and force-start this one, or submit it without `after`"
            return Reason(code=WILL_NEVER, message=message)
    return None


def _is_met(after: After, status: Status | None) -> bool:
    if after.on == "ended":
        return status is not None and status.is_terminal
    return status == after.on


def _is_over(after: After, status: Status | None) -> bool:
    return status is None or (status.is_terminal and not _is_met(after, status))


def _in_words(after: After, parents: Parents) -> str:
    status = parents.get(after.job)
    now = f"it is {status}" if status else "how it stands is not known at the moment"
    return f"waits for job {after.job} to {_WORDS[after.on]}; {now}"
