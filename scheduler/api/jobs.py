"""Jobs as the API shows them: their state with its proof, their events, attempts and checkpoints."""

from __future__ import annotations

from dataclasses import fields
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from scheduler.api.base import Document, DoubtNotice, ReasonDocument
from scheduler.core.model import ArrayPlace, CheckpointPolicy, Gang, JobSpec, Json, Phase, ShippedCode, Status


def _without_unknown_fields(spec: Any) -> Any:
    """A spec forbids what it does not know; in an answer of a newer server it is no mistake."""
    if not isinstance(spec, dict):
        return spec
    known = _known(JobSpec, cast(Json, spec))
    for name, kind in (
        ("resources", Gang),
        ("checkpoints", CheckpointPolicy),
        ("code", ShippedCode),
        ("array", ArrayPlace),
    ):
        if isinstance(part := known.get(name), dict):
            known[name] = _known(kind, cast(Json, part))
    return known


def _known(kind: Any, given: Json) -> Json:
    return {field.name: given[field.name] for field in fields(kind) if field.name in given}


AnsweredSpec = Annotated[JobSpec, BeforeValidator(_without_unknown_fields)]
"""A spec as it stands in an answer."""


class Liveness(StrEnum):
    """What is known of a run that should be there."""

    ALIVE = "alive"
    UNKNOWN = "unknown"
    """It does not answer.  That ends nothing, until a deadline makes it lost."""


class ResultDocument(Document):
    output_dir: str | None = Field(
        default=None, description="The final adapter or model, on the storage of the cluster."
    )
    metrics: Json = Field(
        default_factory=dict,
        description="What the loop returned, as JSON of at most 64 kB; where it returned nothing, what it last "
        "reported.  A value that is no mapping stands under `returned`.",
    )
    notes: list[str] = Field(
        default_factory=list[str], description="What of it was cut, renamed or kept in another form."
    )


class SavedDocument(Document):
    """The newest complete checkpoint."""

    checkpoint: str = Field(description="Its id, `<attempt>.<number>`.")
    step: int | None = Field(
        default=None, description="The step after which it was taken; null: the loop did not say."
    )
    at: datetime


class ResumptionDocument(Document):
    """The certificate of a resumed run: where it went on, and what was found to be as it was."""

    checkpoint: str | None = Field(
        default=None,
        description="Where it went on; null: there were checkpoints and none was whole, so it began again.",
    )
    step: int | None = None
    checked: list[str] = Field(default_factory=list[str], description="What was compared and is equal.")
    differs: list[str] = Field(
        default_factory=list[str], description="What is not as it was; empty: the run goes on exactly."
    )
    skipped: list[str] = Field(
        default_factory=list[str], description="Newer checkpoints that were passed over, and why."
    )


class StopDocument(Document):
    """A stop that was asked for and is not done yet."""

    kind: str = Field(description="`cancel`, `pause`, `preempt`, `timeout` or `hung`.")
    by: str
    asked_at: datetime
    acknowledged_at: datetime | None = Field(
        default=None, description="When the loop saw that it should stop."
    )
    why: str | None = None


class JobDocument(Document):
    """One job.  Times are UTC in ISO 8601."""

    job_id: str
    name: str
    status: Status
    phase: Phase | None = Field(default=None, description="Where the run stands; only while running.")
    phases: dict[str, datetime] = Field(
        default_factory=dict[str, datetime], description="When each phase of the run began."
    )
    reason: ReasonDocument = Field(description="Why it is so; for a waiting job, why it waits.")
    attempt: int = Field(description="How many runs the job has had.")
    queue_position: int | None = Field(default=None, description="1 is next; only while queued.")
    progress: Json | None = Field(
        default=None, description="What the loop last said: step, total_steps, loss, ..."
    )
    created_at: datetime
    queued_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    updated_at: datetime
    verified_at: datetime | None = Field(
        default=None,
        description="When the state was last checked against reality; for a running job, when its run last answered.",
    )
    liveness: Liveness | None = Field(
        default=None,
        description="Only while running: whether the run has answered lately.  One proved dead is not running.",
    )
    evidence: str | None = Field(default=None, description="What backs the state, in words.")
    last_checkpoint: SavedDocument | None = Field(
        default=None, description="Where the job would go on if its run ended now."
    )
    unsaved_s: float | None = Field(
        default=None,
        description="What a kill would cost now: seconds since the last checkpoint, or since the first step; only "
        "while running. A pause saves first, and costs the time of a checkpoint.",
    )
    resumed: ResumptionDocument | None = Field(
        default=None, description="The certificate of the newest run, if it went on from a checkpoint."
    )
    stop: StopDocument | None = None
    version: int
    spec: AnsweredSpec
    result: ResultDocument | None = None
    verified: bool = Field(
        default=True,
        description="False: as the database has it; the registry did not answer, or does not know it.",
    )
    stale: bool = Field(
        default=False,
        description="The row in the database says something else than the registry, and nothing is on its way to it.",
    )
    unmirrored: bool = Field(
        default=False, description="The newest change of the job is still on its way to the database."
    )
    database_status: Status | None = Field(
        default=None,
        description="What the row says; only when stale; null when the database does not have the job.",
    )
    registry_status: Status | None = Field(
        default=None,
        description="What the registry says; only when stale; null when it does not know the job.",
    )
    overdue: bool = Field(
        default=False,
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
    next_cursor: str | None = Field(
        default=None, description="Pass as `cursor` for the next page; null on the last."
    )
    verified: bool = Field(
        default=True,
        description="False when the registry did not answer for some of the jobs: those may be old.",
    )
    note: str | None = Field(default=None, description="What could not be compared, and why, in words.")
    counts: dict[Status, int] | None = Field(
        default=None,
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
    missed: bool = Field(
        default=False, description="More has changed than is remembered: load everything anew."
    )


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


ActionAnswer = JobDocument | ForceStartAnswer
"""To an action: the job as it is now; a force-start tells also what it was before."""


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
    note: str | None = Field(
        default=None, description="Why the history does not begin at the beginning, in words."
    )


class AttemptDocument(Document):
    """One run of a job."""

    attempt: int
    started_at: datetime
    ended_at: datetime | None = None
    ending: str | None = Field(
        default=None, description="`completed`, `failed`, `lost` or `stopped`; null while it runs."
    )
    cause: str | None = Field(
        default=None,
        description="Who is answerable: `user`, `infrastructure` or `preemption`; null where nobody is.",
    )
    reason: ReasonDocument | None = None
    resumed: ResumptionDocument | None = Field(default=None, description="Null: it began at the beginning.")
    last_step: int | None = None
    saved: SavedDocument | None = Field(default=None, description="The newest checkpoint that it completed.")
    steps_lost: int | None = Field(default=None, description="Steps done that no checkpoint holds.")
    nodes: list[str] = Field(description="The node of each rank.")
    evidence: Json | None = Field(
        default=None,
        description="What was seen before it was ended: `stacks` and `logs` (last lines) of each rank; `reckoning`: why "
        "it was preempted, and no other run.",
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
    next: bool = Field(default=False, description="The next run would go on from here.")


class CheckpointPage(Document):
    job_id: str
    checkpoints: list[CheckpointDocument] = Field(description="Newest first.")


CHANGE_EVENTS: dict[str, type[Changes | DoubtNotice]] = {"jobs": Changes, "doubt": DoubtNotice}
"""The same of a stream of changes."""


class SubmitBatch(BaseModel):
    """The body of POST /api/training/batch: all are accepted, or none."""

    model_config = ConfigDict(extra="forbid")
    jobs: list[JobSpec] = Field(min_length=1, max_length=5000)
