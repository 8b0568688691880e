"""What would happen: to a job that waits, by an action, to a job that is not submitted yet."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from scheduler.api.base import Document, ProblemField, ReasonDocument
from scheduler.core.model import Status


class JobRef(Document):
    job_id: str
    name: str


class Forecast(Document):
    """When a job would start, as things stand."""

    position: int | None = Field(default=None, description="1 is next.")
    ahead: list[JobRef] = Field(
        default_factory=list[JobRef], description="Who is before it in the line, at most 10."
    )
    num_ahead: int = 0
    starts_in_s: float | None = Field(default=None, description="0: now; null: nobody can tell.")
    message: str = Field(description="A sentence: `position 3, behind A and B; starts in about 6 min`.")


class StartEstimate(Document):
    """When a job is given nodes."""

    starts_in_s: float | None = Field(
        default=None, description="0: now; null: nobody can tell, or it was not played so far."
    )
    message: str = Field(description="`starts in about 6 min`, or why nobody can tell.")


class MovedJob(Document):
    """Another job that would start sooner or later."""

    job_id: str
    name: str
    before: StartEstimate
    after: StartEstimate
    by_s: float = Field(description="Later by so many seconds; below 0: sooner.")
    at_least: bool = Field(
        default=False, description="It moves by `by_s` or more: it was not played further."
    )
    message: str


class PreemptedRun(Document):
    """A run that would be preempted now."""

    job_id: str
    name: str
    newcomer: JobRef = Field(description="For whom.")
    price_gpu_s: float = Field(
        description="Work to be done again, saving, and starting again; CPU seconds on a cluster without GPUs."
    )
    again: StartEstimate = Field(description="When it goes on.")
    message: str


class WhatIfDocument(Document):
    """What one change of a job would do, to it and to others.  Nothing is done."""

    job_id: str
    message: str = Field(description="One sentence for people.")
    now: StartEstimate | None = Field(
        default=None, description="When it starts as things stand; null: it does not wait now."
    )
    then: StartEstimate = Field(description="And with the change.")
    moved: list[MovedJob] = Field(
        default_factory=list[MovedJob], description="The largest difference first, at most 10."
    )
    num_more: int = Field(default=0, description="Further ones, that are left out.")
    preempted: list[PreemptedRun] = Field(default_factory=list[PreemptedRun])


class EffectDocument(Document):
    """What an action would do, told before it is done."""

    job_id: str
    action: str
    allowed: bool
    message: str = Field(description="What would happen, or why it may not; one sentence for people.")
    remedy: str | None = Field(default=None, description="What to do instead, when it is not allowed.")
    forecast: Forecast | None = Field(default=None, description="For what puts the job in the line.")
    what_if: WhatIfDocument | None = Field(
        default=None,
        description="Of a force-start under the policy `fair`: who would start later, and whose run would be preempted.",
    )


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
    forecast: Forecast | None = Field(default=None, description="Only while it waits.")
    next_steps: list[NextStep] = Field(default_factory=list[NextStep])


class MemoryEstimate(Document):
    """What one rank needs, roughly; in bytes.  The parts add up to `total_bytes`."""

    total_bytes: int
    parts: dict[str, int] = Field(description="`weights`, `gradients`, `optimizer`, `activations`, ...")
    available_bytes: int | None = Field(
        default=None, description="On the smallest GPU, or else of the smallest node; null: not known."
    )
    message: str


class PlanAnswer(Document):
    """A submit that was not made: would it be accepted, and what would become of it?"""

    valid: bool
    errors: list[ProblemField] = Field(
        default_factory=list[ProblemField], description="Every field that is wrong, and the remedy."
    )
    fits: bool | None = Field(
        default=None, description="Whether the cluster could hold it now; null when it is not valid."
    )
    forecast: Forecast | None = None
    memory: MemoryEstimate | None = Field(default=None, description="For loops that can tell.")
    message: str = Field(description="The answer in a sentence.")
    spec: dict[str, Any] | None = Field(
        default=None, description="As it would run: with every default written out."
    )
