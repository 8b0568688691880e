"""What a person may ask of a job, as events: the commands take them, a dry run only looks where they lead."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from scheduler.core.codec import UNREADABLE_LOOP
from scheduler.core.lifecycle import AskStop, Event, ForceStart, GiveUp, Restart, Resume
from scheduler.core.model import Job, Reason, Saved, Status, StopKind
from scheduler.errors import InvalidRequest, NotAllowed


class JobAction(StrEnum):
    """As in the paths of the API."""

    CANCEL = "cancel"
    PAUSE = "pause"
    PREEMPT = "preempt"
    RESUME = "resume"
    RESTART = "restart"
    FORCE_START = "force-start"
    FAIL = "fail"


_STOPS = {
    JobAction.CANCEL: StopKind.CANCEL,
    JobAction.PAUSE: StopKind.PAUSE,
    JobAction.PREEMPT: StopKind.PREEMPT,
}
_FORCED = (Status.PENDING, Status.FAILED, Status.CANCELLED)


def looks_at_spec(action: JobAction, job: Job) -> bool:
    """Whether the spec is checked again first: it goes into the line, and may be old."""
    if job.spec.loop == UNREADABLE_LOOP:
        return action in (JobAction.FORCE_START, JobAction.RESUME, JobAction.RESTART)
    if action is JobAction.FORCE_START:
        return job.status in _FORCED
    return action in (JobAction.RESUME, JobAction.RESTART) and job.status is not Status.QUEUED


def event(
    action: JobAction, job: Job, *, at: datetime, by: str, end_of_line: int, chosen: Saved | None = None
) -> Event:
    """What *action* is to the life of *job*.  Raises NotAllowed for what no event may do."""
    match action:
        case JobAction.RESUME:
            return Resume(at=at, by=by, queue_seq=end_of_line, checkpoint=chosen)
        case JobAction.RESTART:
            return Restart(at=at, by=by, queue_seq=end_of_line)
        case JobAction.FORCE_START:
            return ForceStart(at=at, by=by, queue_seq=end_of_line)
        case JobAction.FAIL:
            return _give_up(job, at, by)
        case _:
            return AskStop(at=at, by=by, kind=_STOPS[action])


def _give_up(job: Job, at: datetime, by: str) -> GiveUp:
    if job.status is Status.PAUSED:
        raise NotAllowed(f"job {job.id} is paused and can go on: resume it, or cancel it")
    return GiveUp(at=at, by=by, reason=Reason(code="given_up", message=f"marked as failed by {by}"))


def action_of(name: str) -> JobAction:
    """Raises InvalidRequest for what is none."""
    try:
        return JobAction(name)
    except ValueError:
        known = ", ".join(JobAction)
        raise InvalidRequest(f"there is no action {name[:60]!r}; known are: {known}") from None
