"""The values everything else talks about.  All frozen; none of them knows Ray, SQLite or the time."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from functools import lru_cache
from typing import Annotated, Any, Literal, NewType, TypeVar, cast

from pydantic import ConfigDict, Field, TypeAdapter
from pydantic.dataclasses import dataclass as validated

JobId = NewType("JobId", str)
"""A UUID in its canonical text form; also the primary key of the row in Supabase."""
NodeId = NewType("NodeId", str)
"""Ray's node id, in hexadecimal."""
Fence = NewType("Fence", int)
"""Grows by one for each started run of a job; every write of a run carries it."""

Json = dict[str, Any]


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
    """Who is answerable for a run that did not complete.  Each has a retry budget of its own."""

    USER = "user"
    INFRASTRUCTURE = "infrastructure"
    PREEMPTION = "preemption"


class Ending(StrEnum):
    """How a run ended."""

    COMPLETED = "completed"
    FAILED = "failed"
    LOST = "lost"
    STOPPED = "stopped"


Name = Annotated[str, Field(min_length=1, max_length=200)]
Label = Annotated[str, Field(max_length=200)]


@validated(frozen=True, slots=True, kw_only=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
class Gang:
    """What a job needs, all at once or not at all."""

    num_ranks: Annotated[
        int,
        Field(
            ge=1, le=4096, strict=True, description="Ranks (Ray Train workers) that start and stop together."
        ),
    ] = 1
    min_ranks: Annotated[
        int | None,
        Field(
            ge=1,
            le=4096,
            strict=True,
            description="With max_ranks, instead of num_ranks: each start takes as many ranks as there is room for, "
            "from min_ranks to max_ranks.",
        ),
    ] = None
    max_ranks: Annotated[
        int | None, Field(ge=1, le=4096, strict=True, description="See min_ranks; both or neither.")
    ] = None
    cpus_per_rank: Annotated[float, Field(gt=0, le=4096, description="CPU cores for each rank.")] = 1.0
    gpus_per_rank: Annotated[
        float,
        Field(
            ge=0,
            le=1024,
            description="GPUs for each rank: a whole number, or a fraction below 1 to share one.",
        ),
    ] = 0.0

    def __post_init__(self) -> None:
        if self.gpus_per_rank > 1 and self.gpus_per_rank != int(self.gpus_per_rank):
            raise ValueError(
                f"gpus_per_rank={self.gpus_per_rank} is neither a whole number nor a fraction below 1; "
                "ask for whole GPUs, or for less than one"
            )
        if (self.min_ranks is None) != (self.max_ranks is None):
            raise ValueError("min_ranks and max_ranks belong together; give both, or num_ranks alone")
        if self.min_ranks and self.max_ranks and self.min_ranks > self.max_ranks:
            raise ValueError(f"min_ranks={self.min_ranks} is more than max_ranks={self.max_ranks}")
        if self.max_ranks and self.num_ranks != 1:
            raise ValueError(f"num_ranks={self.num_ranks} beside min_ranks and max_ranks; leave it out")

    @property
    def fewest(self) -> int:
        """Ranks without which it does not start."""
        return self.min_ranks or self.num_ranks

    @property
    def most(self) -> int:
        """Ranks beyond which it takes no more."""
        return self.max_ranks or self.num_ranks

    def __str__(self) -> str:
        count = f"{self.fewest} to {self.most}" if self.fewest < self.most else f"{self.most}"
        ranks = "1 rank" if self.most == 1 else f"{count} ranks at once"
        gpus = f" and {self.gpus_per_rank:g} GPU" if self.gpus_per_rank else ""
        return f"{ranks} with {self.cpus_per_rank:g} CPU{gpus}" + (" each" if self.most > 1 else "")


@validated(frozen=True, slots=True, kw_only=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
class CheckpointPolicy:
    """Which checkpoints of a job are kept; the others are deleted as newer ones become complete."""

    keep_last: Annotated[int, Field(ge=1, le=1000, strict=True, description="The newest so many.")] = 3
    keep_best: Annotated[
        int, Field(ge=0, le=1000, strict=True, description="And the best so many, by `best_metric`.")
    ] = 0
    best_metric: Annotated[Name, Field(description="A metric that the loop reports with a checkpoint.")] = (
        "loss"
    )
    best_is: Annotated[Literal["min", "max"], Field(description="Whether less or more of it is better.")] = (
        "min"
    )


SHIPPED = "shipped:"
"""The `loop` of a job whose function was sent along is this and the function's name."""
MAX_CODE_CHARS = 128_000
SOURCE = "__source__"
"""The attribute of a function that was sent along in which its source is, at the line numbers of its file."""


@validated(frozen=True, slots=True, kw_only=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
class ShippedCode:
    """A train function that was sent along with its job."""

    pickle: Annotated[
        str,
        Field(
            max_length=MAX_CODE_CHARS,
            description="The function, by cloudpickle, in base64.  Empty in answers: it is long, and no text.",
        ),
    ]
    python: Annotated[
        str,
        Field(pattern=r"^\d+\.\d+$", description="Which Python wrote it, as `3.11`; no other can read it."),
    ]


def _is_none(value: object) -> bool:
    return value is None


@validated(frozen=True, slots=True, kw_only=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
class JobSpec:
    """What a user submits.  The same fields in JSON, YAML and as keyword arguments."""

    loop: Annotated[
        str,
        Field(
            min_length=1,
            max_length=300,
            description="`sft`, `torch_ddp`, or a loop of your own as `module:function`.",
        ),
    ]
    name: Annotated[Name, Field(description="For people; need not be unique.")] = "job"
    config: Annotated[
        Json, Field(description="Handed to the loop; its schema is at GET /api/training/loops.")
    ] = field(default_factory=dict[str, Any])
    resources: Gang = field(default_factory=Gang)
    priority: Annotated[int, Field(ge=-1000, le=1000, strict=True, description="Higher starts first.")] = 0
    user: Annotated[Label, Field(description="Who submits.")] = ""
    project: Annotated[Label, Field(description="What it is for.")] = ""
    max_failures: Annotated[
        int,
        Field(ge=0, le=100, strict=True, description="How often the loop itself may fail and be retried."),
    ] = 0
    max_runtime_s: Annotated[
        float | None,
        Field(
            gt=0,
            description="Longest time one run may take, in seconds; then it saves and ends. Null for no limit.",
        ),
    ] = None
    hang_after_s: Annotated[
        float | None,
        Field(
            gt=0,
            description="A run without a step for so many seconds hangs; null: judged by its own usual step time.",
        ),
    ] = None
    checkpoints: CheckpointPolicy = field(default_factory=CheckpointPolicy)
    labels: Annotated[dict[Label, Label], Field(max_length=64, description="Free key-value pairs.")] = field(
        default_factory=dict[str, str]
    )
    code: Annotated[
        ShippedCode | None,
        Field(
            exclude_if=_is_none,
            description="The train function itself, where it is none that the cluster can import; the Python client "
            "makes it.  `loop` is then `shipped:` and a name.",
        ),
    ] = None


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
    """The certificate of a resumed run: where it went on, and what was found to be as it was."""

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
    """Place in the line.  Kept while the job runs, so that a preempted or lost one returns to its old place."""
    queued_at: datetime | None = None
    started_at: datetime | None = None
    admitted_at: datetime | None = None
    """When the newest run got its nodes; `started_at` is when the first one did."""
    finished_at: datetime | None = None
    retry_at: datetime | None = None
    """Not started before this moment: the pause between two tries."""
    held: bool = False
    """Kept in the line until a person lets it go: one paused it there, or it was found after an outage."""
    allocation: Allocation | None = None
    """Held exactly while running."""
    stop: Stop | None = None
    failures: int = 0
    """Failures of the user's own code; these use up `max_failures`."""
    losses: int = 0
    """Runs lost to the infrastructure; a budget of their own."""
    preemptions: int = 0
    """Runs that gave way to another job or to a drain; a budget of their own."""
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The cluster at one instant, for planning: live nodes, and the jobs that hold them."""

    nodes: tuple[Node, ...]
    running: tuple[tuple[Gang, Allocation], ...] = ()


def compact(spec: JobSpec) -> JobSpec:
    """The same spec, sharing its keys, short words and gang with all other specs: half the memory of a queued job.

    A spec that came through Ray was unpickled and shares nothing.
    """
    return replace(
        spec,
        loop=_one(spec.loop),
        user=_one(spec.user),
        project=_one(spec.project),
        config=_sharing(spec.config),
        labels=_sharing(spec.labels),
        resources=_one(spec.resources),
    )


_T = TypeVar("_T", str, Gang)
_SHORT = 40


@lru_cache(maxsize=16_384)
def _one(value: _T) -> _T:
    return value


def _sharing(value: Any) -> Any:
    match value:
        case str():
            return _one(value) if len(value) <= _SHORT else value
        case dict():
            items = cast("Json", value).items()
            return {_one(key): _sharing(inner) for key, inner in items}
        case list():
            return [_sharing(inner) for inner in cast("list[Any]", value)]
        case _:
            return value


JOB: TypeAdapter[Job] = TypeAdapter(Job)
SPEC: TypeAdapter[JobSpec] = TypeAdapter(JobSpec)
EVENT: TypeAdapter[JobEvent] = TypeAdapter(JobEvent)
ATTEMPT: TypeAdapter[Attempt] = TypeAdapter(Attempt)
