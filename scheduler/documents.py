"""What goes over the wire: the answers of the API, shared by the server and the client."""

from __future__ import annotations

from dataclasses import fields
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from scheduler.core.model import CheckpointPolicy, Gang, JobSpec, Json, Phase, ShippedCode, Status


class Document(BaseModel):
    """Frozen.  A client ignores fields it does not know, so that it can talk to a newer server.

    A server sends every field, also one that has its default: clients in other languages may rely on it.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", json_schema_serialization_defaults_required=True)


def _without_unknown_fields(spec: Any) -> Any:
    """A spec forbids what it does not know; in an answer of a newer server it is no mistake."""
    if not isinstance(spec, dict):
        return spec
    known = _known(JobSpec, spec)
    for name, kind in (("resources", Gang), ("checkpoints", CheckpointPolicy), ("code", ShippedCode)):
        if isinstance(part := known.get(name), dict):
            known[name] = _known(kind, part)
    return known


def _known(kind: Any, given: Json) -> Json:
    return {field.name: given[field.name] for field in fields(kind) if field.name in given}


class Liveness(StrEnum):
    """What is known of a run that should be there."""

    ALIVE = "alive"
    UNKNOWN = "unknown"
    """It does not answer.  That ends nothing, until a deadline makes it lost."""


class ProblemField(Document):
    field: str
    message: str


class ReasonDocument(Document):
    code: str = Field(description="A stable word for programs.")
    message: str = Field(description="A sentence for people.")
    detail: str | None = Field(None, description="What was seen, such as a traceback.")


class ResultDocument(Document):
    output_dir: str | None = Field(
        None, description="The final adapter or model, on the storage of the cluster."
    )
    metrics: Json = Field(
        default_factory=dict,
        description="What the loop returned, as JSON of at most 64 kB; where it returned nothing, what it last "
        "reported.  A value that is no mapping stands under `returned`.",
    )
    notes: list[str] = Field(
        default_factory=list, description="What of it was cut, renamed or kept in another form."
    )


class SavedDocument(Document):
    """The newest complete checkpoint."""

    checkpoint: str = Field(description="Its id, `<attempt>.<number>`.")
    step: int | None = Field(
        None, description="The step after which it was taken; null: the loop did not say."
    )
    at: datetime


class ResumptionDocument(Document):
    """The certificate of a resumed run: where it went on, and what was found to be as it was."""

    checkpoint: str | None = Field(
        None,
        description="Where it went on; null: there were checkpoints and none was whole, so it began again.",
    )
    step: int | None = None
    checked: list[str] = Field(default_factory=list, description="What was compared and is equal.")
    differs: list[str] = Field(
        default_factory=list, description="What is not as it was; empty: the run goes on exactly."
    )
    skipped: list[str] = Field(
        default_factory=list, description="Newer checkpoints that were passed over, and why."
    )


class StopDocument(Document):
    """A stop that was asked for and is not done yet."""

    kind: str = Field(description="`cancel`, `pause`, `preempt`, `timeout` or `hung`.")
    by: str
    asked_at: datetime
    acknowledged_at: datetime | None = Field(None, description="When the loop saw that it should stop.")
    why: str | None = None


class JobDocument(Document):
    """One job.  Times are UTC in ISO 8601."""

    job_id: str
    name: str
    status: Status
    phase: Phase | None = Field(None, description="Where the run stands; only while running.")
    phases: dict[str, datetime] = Field(default_factory=dict, description="When each phase of the run began.")
    reason: ReasonDocument = Field(description="Why it is so; for a waiting job, why it waits.")
    attempt: int = Field(description="How many runs the job has had.")
    queue_position: int | None = Field(None, description="1 is next; only while queued.")
    progress: Json | None = Field(None, description="What the loop last said: step, total_steps, loss, ...")
    created_at: datetime
    queued_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    updated_at: datetime
    verified_at: datetime | None = Field(
        None,
        description="When the state was last checked against reality; for a running job, when its run last answered.",
    )
    liveness: Liveness | None = Field(
        None,
        description="Only while running: whether the run has answered lately.  One proved dead is not running.",
    )
    evidence: str | None = Field(None, description="What backs the state, in words.")
    last_checkpoint: SavedDocument | None = Field(
        None, description="Where the job would go on if its run ended now."
    )
    unsaved_s: float | None = Field(
        None,
        description="What a kill would cost now: seconds since the last checkpoint, or since the first step; only "
        "while running. A pause saves first, and costs the time of a checkpoint.",
    )
    resumed: ResumptionDocument | None = Field(
        None, description="The certificate of the newest run, if it went on from a checkpoint."
    )
    stop: StopDocument | None = None
    version: int
    spec: Annotated[JobSpec, BeforeValidator(_without_unknown_fields)]
    result: ResultDocument | None = None
    verified: bool = Field(
        True, description="False: as the database has it; the registry did not answer, or does not know it."
    )
    stale: bool = Field(
        False,
        description="The row in the database says something else than the registry, and nothing is on its way to it.",
    )
    unmirrored: bool = Field(
        False, description="The newest change of the job is still on its way to the database."
    )
    database_status: Status | None = Field(
        None, description="What the row says; only when stale; null when the database does not have the job."
    )
    registry_status: Status | None = Field(
        None, description="What the registry says; only when stale; null when it does not know the job."
    )
    overdue: bool = Field(
        False,
        description="It has waited longer than it should: a person may want to start it, or to give it up.",
    )

    @property
    def doubt(self) -> str | None:
        """Why `status` is not simply so, in a few words; None when it is."""
        if not self.stale:
            return None if self.verified else "not verified"
        if not self.verified:
            return "stale: the registry does not know it"
        return f"stale: the database says {self.database_status}" if self.database_status else "stale: no row"


class JobPage(Document):
    jobs: list[JobDocument]
    next_cursor: str | None = Field(None, description="Pass as `cursor` for the next page; null on the last.")
    verified: bool = Field(
        True, description="False when the registry did not answer for some of the jobs: those may be old."
    )
    note: str | None = Field(None, description="What could not be compared, and why, in words.")
    counts: dict[Status, int] | None = Field(
        None,
        description="Jobs in each status that match the other filters; null when the registry did not answer.",
    )


class Changes(Document):
    """What has changed since a caller looked last.  Ask again with `after=seq` and the same `life`."""

    life: int = Field(
        description="Which life of the scheduler counts here; in another one, load everything anew."
    )
    seq: int
    jobs: list[JobDocument] = Field(description="Each changed job once, as it is now.")
    counts: dict[Status, int] = Field(description="Jobs in each status, of everybody.")
    missed: bool = Field(False, description="More has changed than is remembered: load everything anew.")


class RepairDocument(Document):
    """One thing that was put right."""

    job_id: str
    at: datetime
    by: str = Field(description="`reconciler`, `inbox` or `start-up`.")
    in_database: str = Field(description="What the database said.")
    in_reality: str = Field(description="What was seen of the job and its runs.")
    decided: str
    why: str


class RepairPage(Document):
    repairs: list[RepairDocument] = Field(description="Newest first.")
    next_cursor: str | None = None


class ReconcileAnswer(Document):
    """What a pass did, or with `dry_run` would do.  A second pass finds nothing to do."""

    dry_run: bool
    repairs: list[RepairDocument]
    rows_compared: int = Field(description="Active rows of the database that were looked at.")
    database: str = Field(description="`compared`, `not configured`, or why it could not be read.")


class ShutdownAnswer(Document):
    """The scheduler gets ready to be ended; /health says how many jobs still run."""

    running: int = Field(description="Jobs that run, each of which was told to give way.")
    grace_s: float = Field(description="How long each may take to save before it is ended, in seconds.")


class SubmittedJob(Document):
    job_id: str
    status: Status
    queue_position: int | None = None


class BatchAnswer(Document):
    jobs: list[SubmittedJob] = Field(description="In the order of the request.")


class ForceStartAnswer(Document):
    success: bool
    job_id: str
    previous_status: Status
    new_status: Status
    queue_position: int | None = None
    message: str


class EventDocument(Document):
    version: int
    kind: str
    at: datetime
    by: str
    from_status: Status | None
    to_status: Status
    reason: ReasonDocument


class EventPage(Document):
    job_id: str
    events: list[EventDocument]
    note: str | None = Field(None, description="Why the history does not begin at the beginning, in words.")


class AttemptDocument(Document):
    """One run of a job."""

    attempt: int
    started_at: datetime
    ended_at: datetime | None = None
    ending: str | None = Field(
        None, description="`completed`, `failed`, `lost` or `stopped`; null while it runs."
    )
    cause: str | None = Field(
        None, description="Who is answerable: `user`, `infrastructure` or `preemption`; null where nobody is."
    )
    reason: ReasonDocument | None = None
    resumed: ResumptionDocument | None = Field(None, description="Null: it began at the beginning.")
    last_step: int | None = None
    saved: SavedDocument | None = Field(None, description="The newest checkpoint that it completed.")
    steps_lost: int | None = Field(None, description="Steps done that no checkpoint holds.")
    nodes: list[str] = Field(description="The node of each rank.")
    evidence: Json | None = Field(
        None, description="What was seen before it was ended: `stacks` and `logs` (last lines) of each rank."
    )


class AttemptPage(Document):
    job_id: str
    attempts: list[AttemptDocument] = Field(description="Oldest first.")


class CheckpointDocument(Document):
    """A complete checkpoint: every file is there as it was written."""

    checkpoint: str = Field(description="Its id, `<attempt>.<number>`.")
    attempt: int
    step: int | None = None
    at: datetime
    loss: float | None = None
    num_bytes: int
    num_files: int
    seconds: float = Field(description="From the loop's report until it was complete.")
    metrics: Json = Field(default_factory=dict, description="What the loop reported with it.")
    next: bool = Field(False, description="The next run would go on from here.")


class CheckpointPage(Document):
    job_id: str
    checkpoints: list[CheckpointDocument] = Field(description="Newest first.")


class ResumptionMark(Document):
    """Where a later attempt went on: for a vertical line in a chart."""

    attempt: int
    step: int | None
    at: datetime


class SampleDocument(Document):
    """A text that the model wrote while it was trained, as the loop reported it."""

    attempt: int
    step: int | None = None
    prompt: str
    text: str


class MetricsDocument(Document):
    """What the loop measured, through all attempts.  Columns of equal length, in the order of being said."""

    job_id: str
    attempt: list[int]
    step: list[float] = Field(
        description="The newest that the loop had told; of an attempt that tells none, its rows are counted."
    )
    at: list[float] = Field(description="Seconds since the epoch.")
    series: dict[str, list[float | None]] = Field(
        description="`loss`, `learning_rate`, `tokens_per_s`, ...: whatever numbers the loop said; null where not."
    )
    total_points: int = Field(
        description="How many there are; more than are here, when they were thinned out."
    )
    resumptions: list[ResumptionMark] = Field(default_factory=list)
    samples: list[SampleDocument] = Field(default_factory=list, description="Newest first.")


class JobRef(Document):
    job_id: str
    name: str


class Forecast(Document):
    """When a job would start, as things stand."""

    position: int | None = Field(None, description="1 is next.")
    ahead: list[JobRef] = Field(default_factory=list, description="Who is before it in the line, at most 10.")
    num_ahead: int = 0
    starts_in_s: float | None = Field(None, description="0: now; null: nobody can tell.")
    message: str = Field(description="A sentence: `position 3, behind A and B; starts in about 6 min`.")


class EffectDocument(Document):
    """What an action would do, told before it is done."""

    job_id: str
    action: str
    allowed: bool
    message: str = Field(description="What would happen, or why it may not; one sentence for people.")
    remedy: str | None = Field(None, description="What to do instead, when it is not allowed.")
    forecast: Forecast | None = Field(None, description="For what puts the job in the line.")


class NextStep(Document):
    """Something a person may do now, most useful first."""

    action: str = Field(
        description="As in the path of the API: `pause`, `resume`, `force-start`, ...; or `logs`, `wait`."
    )
    why: str
    command: str = Field(description="The same on the command line.")


class Explanation(Document):
    """Where a job stands and why, and what to do next."""

    job_id: str
    status: Status
    message: str = Field(description="One sentence: where it stands, and why.")
    reason: ReasonDocument
    forecast: Forecast | None = Field(None, description="Only while it waits.")
    next_steps: list[NextStep] = Field(default_factory=list)


class MemoryEstimate(Document):
    """What one rank needs, roughly; in bytes.  The parts add up to `total_bytes`."""

    total_bytes: int
    parts: dict[str, int] = Field(description="`weights`, `gradients`, `optimizer`, `activations`, ...")
    available_bytes: int | None = Field(
        None, description="On the smallest GPU, or else of the smallest node; null: not known."
    )
    message: str


class PlanAnswer(Document):
    """A submit that was not made: would it be accepted, and what would become of it?"""

    valid: bool
    errors: list[ProblemField] = Field(
        default_factory=list, description="Every field that is wrong, and the remedy."
    )
    fits: bool | None = Field(
        None, description="Whether the cluster could hold it now; null when it is not valid."
    )
    forecast: Forecast | None = None
    memory: MemoryEstimate | None = Field(None, description="For loops that can tell.")
    message: str = Field(description="The answer in a sentence.")
    spec: dict[str, Any] | None = Field(None, description="As it would run: with every default written out.")


class LogLines(Document):
    """Part of what one rank printed: whole lines where there are any.  The data of the event `log`."""

    attempt: int
    rank: int
    text: str
    offset: int = Field(description="Bytes.")
    next_offset: int = Field(description="Bytes.")


class LogChunk(LogLines):
    """Part of one rank's log.  Ask again with `offset=next_offset` for what came after."""

    job_id: str
    ended: bool = Field(description="The attempt is over and this is the end of its log.")


class AttemptNotice(Document):
    """The data of the event `attempt`: one begins; or it is over and its logs were sent to their ends."""

    attempt: int
    state: Literal["began", "ended"]
    reason: ReasonDocument | None = Field(None, description="Why it ended.")


class WaitNotice(Document):
    """The data of the event `waiting`: no run to follow, and why."""

    status: Status
    reason: ReasonDocument
    queue_position: int | None = Field(None, description="1 is next; only while queued.")


class DoubtNotice(Document):
    """The data of the event `doubt`: the registry does not answer; the stream goes on when it does."""

    message: str | None = Field(None, description="What is wrong; null: it answers again.")


class EndNotice(Document):
    """The data of the event `end`, the last one: why there is nothing more to follow."""

    over: Literal["job", "attempt", "stream"] = Field(
        description="`job`: it ended or is paused; `attempt`: the one that was asked for is over; `stream`: it failed."
    )
    status: Status | None = Field(None, description="The job's; null when it could not be asked.")
    attempt: int = Field(description="The last one that was followed; 0: none.")
    reason: ReasonDocument


LogEvent = LogLines | AttemptNotice | WaitNotice | DoubtNotice | EndNotice
LOG_EVENTS: dict[str, type[LogLines | AttemptNotice | WaitNotice | DoubtNotice | EndNotice]] = {
    "log": LogLines,
    "attempt": AttemptNotice,
    "waiting": WaitNotice,
    "doubt": DoubtNotice,
    "end": EndNotice,
}
"""What a stream of logs says: the name of each event, and what its data is."""
CHANGE_EVENTS: dict[str, type[Changes | DoubtNotice]] = {"jobs": Changes, "doubt": DoubtNotice}
"""The same of a stream of changes."""


class RankLog(Document):
    """What was read of one rank's log."""

    rank: int
    text: str
    offset: int
    next_offset: int
    is_end: bool = Field(description="Nothing came after it when it was read.")


class LogView(Document):
    """How a job stands, and what came to the logs of one of its attempts.

    The logs were read after everything else was seen: once `is_over`, a log read to its end is whole.
    """

    job_id: str
    status: Status
    reason: ReasonDocument
    queue_position: int | None = None
    newest_attempt: int
    most_ranks: int = Field(description="Ranks that an attempt of it may have.")
    is_over: bool = Field(False, description="The processes of the attempt asked for are gone.")
    ending: ReasonDocument | None = Field(None, description="Why it is over.")
    logs: list[RankLog] = Field(default_factory=list)


class LoopDocument(Document):
    name: str
    description: str
    config_schema: dict[str, Any] = Field(description="JSON schema of the spec's `config` for this loop.")


class LoopList(Document):
    loops: list[LoopDocument]
    allowed: list[str] = Field(description="Patterns of users' own loops that the operator allows.")


class LoopHealth(Document):
    """One periodic loop of the scheduler."""

    every_s: float
    passes: int = 0
    errors: int = 0
    last_success_at: datetime | None = None
    last_error: str | None = None
    last_error_at: datetime | None = None
    next_run_at: datetime | None = None


class HolderDocument(Document):
    """A running job's share of a node."""

    job_id: str
    name: str
    user: str
    ranks: int
    cpus: float
    gpus: float


class NodeHealth(Document):
    node_id: str
    name: str
    cpus: float
    gpus: float
    free_cpus: float
    free_gpus: float
    draining: bool = False
    held_by: list[HolderDocument] = Field(default_factory=list)


class PoolHealth(Document):
    """Prepared processes: a hit starts a run in about a second, a miss costs a cold start and nothing else."""

    size: int
    ready: int
    hits: int
    misses: int
    note: str = ""


class DatabaseHealth(Document):
    """The mirror: how writing to the database, and reading from it, went."""

    configured: bool = Field(False, description="False: the journal on disk is the only store.")
    ok: bool | None = Field(
        None, description="Whether the last call succeeded; null when none was made, or none is configured."
    )
    last_success_at: datetime | None = None
    last_error: str | None = Field(None, description="The newest error, in words; kept after a success.")
    incarnation: int | None = Field(
        None, description="Which life of the scheduler the database takes writes from."
    )
    note: str = Field("", description="A sentence for people.")


class Health(Document):
    status: str = Field(description="`healthy` or `degraded`.")
    problems: list[str] = Field(default_factory=list, description="Why it is degraded, in words.")
    service: str = "training-scheduler"
    version: str
    cluster: str = ""
    gpu_available: bool = False
    gpu_info: list[Json] = Field(default_factory=list)
    registry: Json = Field(default_factory=dict, description="incarnation, pid, since, jobs by status.")
    database: DatabaseHealth = Field(default_factory=DatabaseHealth)
    loops: dict[str, LoopHealth] = Field(default_factory=dict)
    unmirrored_writes: int = 0
    pruned_events: int = Field(
        0, description="Events deleted since the start, of jobs that ended more than SCHEDULER_KEEP_DAYS ago."
    )
    notices_refused: int = Field(0, description="Notices that the webhook's receiver refuses; tried again.")
    notices_given_up: int = Field(0, description="Notices not sent again before the next start.")
    nodes: list[NodeHealth] = Field(default_factory=list)
    pool: PoolHealth | None = None


class ProblemDocument(Document):
    """RFC 9457 (application/problem+json): what was wrong, which field, what to do."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    code: str
    errors: list[ProblemField] = Field(default_factory=list)


class SubmitBatch(BaseModel):
    """The body of POST /api/training/batch: all are accepted, or none."""

    model_config = ConfigDict(extra="forbid")
    jobs: list[JobSpec] = Field(min_length=1, max_length=5000)
