"""The card of a job: what it needs from a person, and what may be asked of it."""

from __future__ import annotations

from dataclasses import dataclass

from scheduler.api.jobs import CheckpointDocument, JobDocument
from scheduler.core.commands import ACTIONS, JobAction
from scheduler.core.model import Status

_MOST_CHOICES = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    heading: str
    is_alarm: bool = False
    main: JobAction | None = None
    """The action that the card is for; its effect is told on it, and its button acts at once."""
    others: tuple[JobAction, ...] = ()
    """Each asks first."""
    choices: tuple[CheckpointDocument, ...] = ()
    """Where a resume may go on; the first is chosen, unless a person chooses another."""
    more_choices: int = 0

    @property
    def chosen(self) -> CheckpointDocument | None:
        return self.choices[0] if self.choices else None


def card(job: JobDocument, checkpoints: list[CheckpointDocument]) -> Card:
    match job.status:
        case Status.PENDING:
            heading = "Job Stuck in Pending State" if job.overdue else "Waiting to be accepted into the queue"
            others = (JobAction.FAIL, JobAction.CANCEL)
            return Card(heading=heading, is_alarm=job.overdue, main=JobAction.FORCE_START, others=others)
        case Status.QUEUED:
            heading = "Job Stuck in Queue" if job.overdue else "Waiting in the queue"
            hold = JobAction.RESUME if job.reason.code == "held" else JobAction.PAUSE
            others = (JobAction.FAIL, hold, JobAction.CANCEL)
            return Card(heading=heading, is_alarm=job.overdue, main=JobAction.FORCE_START, others=others)
        case Status.RUNNING:
            heading = "Stopping" if job.stop else "Running"
            gentle = () if job.stop else (JobAction.PAUSE, JobAction.PREEMPT)
            return Card(heading=heading, others=(*gentle, JobAction.CANCEL))
        case Status.COMPLETED:
            return Card(heading="Completed")
        case Status.PAUSED:
            return _resume_card(job, checkpoints, "Job Paused - Resume Available", (JobAction.CANCEL,))
        case Status.FAILED:
            return _resume_card(job, checkpoints, "Job Failed - Restart Required", ())
        case Status.CANCELLED:
            return _resume_card(job, checkpoints, "Job Cancelled - Restart Available", ())


def may_resume(job: JobDocument) -> bool:
    """A job that waits goes on by itself."""
    return job.status in ACTIONS[JobAction.RESUME].allowed - {Status.QUEUED}


def _resume_card(
    job: JobDocument, checkpoints: list[CheckpointDocument], heading: str, others: tuple[JobAction, ...]
) -> Card:
    """Without a checkpoint a restart is all there is; a paused job is let go on, which is the same then."""
    is_alarm = job.status is Status.FAILED
    if not checkpoints and not job.last_checkpoint:
        main = JobAction.RESUME if job.status is Status.PAUSED else JobAction.RESTART
        return Card(heading=heading, is_alarm=is_alarm, main=main, others=others)
    # Where it would go on by itself comes first; the others, newest first, are there to choose.
    choices = sorted(checkpoints, key=lambda one: not one.next)
    return Card(
        heading=heading,
        is_alarm=is_alarm,
        main=JobAction.RESUME,
        others=(JobAction.RESTART, *others),
        choices=tuple(choices[:_MOST_CHOICES]),
        more_choices=max(0, len(choices) - _MOST_CHOICES),
    )
