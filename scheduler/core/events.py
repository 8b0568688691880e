"""What happens to a job, and what must be done about it then; `lifecycle` says which event leads where."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from scheduler.core.model import (
    Allocation,
    Fence,
    Job,
    JobId,
    JobSpec,
    Json,
    Origin,
    Outcome,
    Pushed,
    Reason,
    Saved,
    StopKind,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Happened:
    """Each event carries when, and who or what asked for it."""

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
    is_due: bool = False
    """It was given them because it had waited longest."""
    loan_of: JobId | None = None
    """They are kept for this job."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Keep(Happened):
    """Others are being stopped for a job that waits: it starts on these nodes once they are free."""

    allocation: Allocation | None
    """None: it waits for its turn again, like all others."""
    reason: Reason


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
    """A person wants the job in the queue, from the beginning."""

    queue_seq: int
    pushed: Pushed = ""
    """Before others: `front` matters to a job that waits, `preempt` to each."""


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
    """Mark as failed: by a person, or because the heartbeat stopped (`reason.code` is `stale`)."""

    reason: Reason
    is_gone: bool = False
    """The caller has seen that nothing of it runs, whatever the job says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recover(Happened):
    """Found after an outage, in the journal or only in the database; goes on as it stands, or is held."""

    reason: Reason
    hold: bool = False


Event = Adopt | Admit | Keep | AskStop | RunEnded | ForceStart | Resume | Restart | GiveUp | Recover


@dataclass(frozen=True, slots=True, kw_only=True)
class StartRun:
    """An action: what must be done after the commit.  All are safe to do again."""

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
