"""The values everything else talks about.  All frozen; none of them knows Ray, SQLite or the time.

What a user submits stands in `spec`; its names can be had here too, where runs that began before look for them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Literal, NewType

from pydantic import TypeAdapter

from scheduler.core.spec import MAX_CODE_CHARS as MAX_CODE_CHARS
from scheduler.core.spec import SHIPPED as SHIPPED
from scheduler.core.spec import SOURCE as SOURCE
from scheduler.core.spec import SPEC as SPEC
from scheduler.core.spec import After as After
from scheduler.core.spec import ArrayPlace as ArrayPlace
from scheduler.core.spec import CheckpointPolicy as CheckpointPolicy
from scheduler.core.spec import Gang as Gang
from scheduler.core.spec import JobSpec as JobSpec
from scheduler.core.spec import Json as Json
from scheduler.core.spec import Label as Label
from scheduler.core.spec import Name as Name
from scheduler.core.spec import ShippedCode as ShippedCode
from scheduler.core.spec import compact as compact
from scheduler.core.spec import restore

JobId = NewType("JobId", str)
"""A UUID in its canonical text form; also the primary key of the row in Supabase."""
NodeId = NewType("NodeId", str)
"""Ray's node id, in hexadecimal."""
Fence = NewType("Fence", int)
"""Grows by one for each started run of a job; every write of a run carries it."""


class Status(StrEnum):
    """Where a job stands.  Spelled as in the database; the moves between them are in `lifecycle.EDGES`."""

    PENDING = "pending"
    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_terminal(self) -> bool:
        """Nothing more happens to the job unless a person asks for it."""
        return self in (Status.COMPLETED, Status.FAILED, Status.CANCELLED)


class Phase(StrEnum):
    """Where a run stands, within `running`."""

    RESERVING = "reserving"
    """The run's own actor is being placed on its node."""
    STARTING = "starting"
    """Ray Train starts the processes of the gang."""
    LOADING = "loading"
    """The loop was entered on rank 0: model and data are being read."""
    TRAINING = "training"
    """The first step is done."""
    SAVING = "saving"
    """The loop writes a checkpoint or its final output."""
    STOPPING = "stopping"
    """The run was told to stop and has not gone yet."""


class StopKind(StrEnum):
    """Why a running job was told to stop; decides where it goes once its processes are gone."""

    CANCEL = "cancel"
    PAUSE = "pause"
    PREEMPT = "preempt"
    TIMEOUT = "timeout"
    HUNG = "hung"
    """No step for many times its own usual step time."""


class Cause(StrEnum):
    """Who is answerable for a run that did not complete.  The first two have a retry budget each."""

    USER = "user"
    INFRASTRUCTURE = "infrastructure"
    PREEMPTION = "preemption"


class Ending(StrEnum):
    """How a run ended."""

    COMPLETED = "completed"
    FAILED = "failed"
    LOST = "lost"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """Why it is so: a stable word for programs, a sentence for people, and what was seen (a traceback)."""

    code: str
    message: str
    detail: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Allocation:
    """The nodes a gang holds, in the order of its ranks."""

    ranks: tuple[tuple[NodeId, int], ...]
    """(node, number of ranks on it); rank 0 is on the first."""

    @property
    def node_of_each_rank(self) -> tuple[NodeId, ...]:
        return tuple(node for node, count in self.ranks for _ in range(count))


OPERATOR_DOWN = "operator_down"
"""Code of the reason of a stop, or of an end: the operator stopped the scheduler, and every run with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """An intention, written down before any signal is sent."""

    kind: StopKind
    by: str
    at: datetime
    why: Reason | None = None
    """What it is good for; a person who asks need not say."""
    evidence: Json | None = None
    """What was seen before anything was touched: stacks and last log lines of each rank."""

    @property
    def is_operators(self) -> bool:
        """The scheduler is being stopped; the job goes on when it is up again."""
        return self.why is not None and self.why.code == OPERATOR_DOWN


Pushed = Literal["", "front", "preempt"]
"""By a person: not; to the front of its project's part of the queue; and runs are preempted for it."""

CheckpointId = NewType("CheckpointId", str)
"""`<fence>.<number>`: "2.3" is the third that attempt 2 completed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """The newest complete checkpoint: what a kill would leave."""

    checkpoint: CheckpointId
    step: int | None
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumption:
    """The resume report of a run: where it went on, and what was found to be as it was."""

    checkpoint: CheckpointId | None
    """None: there were checkpoints and none was whole, so it began again."""
    step: int | None
    checked: tuple[str, ...] = ()
    """Sentences: what was compared and is equal."""
    differs: tuple[str, ...] = ()
    """Sentences: what is not as it was.  Empty: the run goes on exactly."""
    skipped: tuple[str, ...] = ()
    """Newer checkpoints that were passed over, and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where the next run of a job begins, as long as no attempt after `after` has completed a checkpoint."""

    checkpoint: CheckpointId | None = None
    """Chosen by a person; None: from the beginning."""
    after: Fence = Fence(0)
    """Checkpoints of this attempt and earlier ones belong to a past that was left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a run ended, with the reason; `cause` only where it did not complete."""

    ending: Ending
    reason: Reason
    cause: Cause | None = None
    result: Json | None = None
    progress: Json | None = None
    """The last the loop said before the end."""
    resumed: Resumption | None = None
    saved: Saved | None = None
    """The newest checkpoint that this run completed."""
    signature: str | None = None
    """Equal for the same failure again; None where the failure says nothing about the run itself."""
    evidence: Json | None = None
    """What was seen at the end: the last log lines of each rank."""
    failed_on: tuple[NodeId, ...] = ()
    """The node that is gone, or on which ranks died; none where that is not known."""

    __setstate__ = restore


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One run of a job, from its start to its end."""

    fence: Fence
    allocation: Allocation
    started_at: datetime
    ended_at: datetime | None = None
    ending: Ending | None = None
    cause: Cause | None = None
    reason: Reason | None = None
    resumed: Resumption | None = None
    last_step: int | None = None
    saved: Saved | None = None
    steps_lost: int | None = None
    """Steps done that no checkpoint holds; None where the loop does not count steps."""
    evidence: Json | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One unit of work: the spec, where it stands, and the proof numbers.  Lives across its runs."""

    id: JobId
    spec: JobSpec
    status: Status
    reason: Reason
    created_at: datetime
    updated_at: datetime
    version: int = 1
    """+1 for each commit; a mirror takes only newer ones."""
    fence: Fence = Fence(0)
    """The newest run; 0 before the first."""
    queue_seq: int | None = None
    """Place in the queue.  Kept while the job runs, so that a preempted or lost one returns to its old place."""
    queued_at: datetime | None = None
    started_at: datetime | None = None
    admitted_at: datetime | None = None
    """When the newest run got its nodes; `started_at` is when the first one did."""
    finished_at: datetime | None = None
    retry_at: datetime | None = None
    """Not started before this moment: the pause between two tries."""
    held: bool = False
    """Kept in the queue until a person lets it go: one paused it there, or it was found after an outage."""
    allocation: Allocation | None = None
    """Held exactly while running."""
    stop: Stop | None = None
    failures: int = 0
    """Failures of the user's own code; these use up `max_failures`."""
    losses: int = 0
    """Runs lost to the infrastructure; a budget of their own."""
    preemptions: int = 0
    """Runs that were preempted for another job or by a drain; never a reason to fail."""
    repeats: int = 0
    """How many runs in a row failed in the same way before they saved anything."""
    last_failure: str | None = None
    """The signature of the newest failure."""
    origin: Origin = Origin()
    saved: Saved | None = None
    """The checkpoint from which the next run goes on, as far as was known when the last one ended."""
    resumed: Resumption | None = None
    """How the newest run that ended had begun; None: from the beginning."""
    progress: Json | None = None
    """The last the loop said: step, total_steps, loss, ..."""
    result: Json | None = None
    idempotency_key: str | None = None
    raw_spec: Json | None = None
    """What a front end wrote as the spec, where that is not one; `spec` then only stands in for it."""
    kept: Allocation | None = None
    """While it waits: nodes on which others are being stopped for it, and that nobody else gets."""
    is_due: bool = False
    """It got the nodes of its newest run because it had waited longest."""
    loan_of: JobId | None = None
    """The nodes of its newest run were kept for this job, which may have them back."""
    ran_s: float = 0.0
    """How long the runs that ended took together."""
    pushed: Pushed = ""
    """A person wants it to start before others.  Kept while it waits, and to the end of the run that follows."""
    avoids: tuple[NodeId, ...] = ()
    """Where its newest run was lost: the next one starts elsewhere, if any other node can hold it."""

    __setstate__ = restore

    @property
    def attempt(self) -> int:
        """How many runs the job has had."""
        return int(self.fence)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobEvent:
    """One line of a job's history."""

    job_id: JobId
    version: int
    """The version of the job that this event made."""
    kind: str
    at: datetime
    by: str
    from_status: Status | None
    to_status: Status
    reason: Reason
    attempt: Attempt | None = None
    """The attempt that this event began or ended, as it is then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A live Ray node: what it has in all, and what Ray says is free (it lags by up to a second)."""

    id: NodeId
    cpus: float
    gpus: float = 0.0
    available_cpus: float | None = None
    """None: not known, so only our own runs count."""
    available_gpus: float | None = None
    name: str = ""
    draining: bool = False
    """About to be taken away: nothing new is placed on it."""
    memory_bytes: int | None = None
    """What Ray says its processes may use; None: not known."""
    labels: Mapping[str, str] = field(default_factory=dict[str, str], hash=False)
    """As Ray has them."""
    set_aside: bool = False
    """Until a person lets it back nothing new is placed on it; what runs there goes on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The cluster at one instant, for planning: live nodes, and the jobs that hold them."""

    nodes: tuple[Node, ...]
    running: tuple[tuple[Gang, Allocation], ...] = ()


JOB: TypeAdapter[Job] = TypeAdapter(Job)
EVENT: TypeAdapter[JobEvent] = TypeAdapter(JobEvent)
ATTEMPT: TypeAdapter[Attempt] = TypeAdapter(Attempt)
NOTE: TypeAdapter[Json] = TypeAdapter(Json)
