"""What projects may have of the cluster, and what they hold."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, TypeAdapter, with_config
from typing_extensions import TypedDict

from scheduler.api.base import Document

LEAST_WEIGHT, MOST = 0.001, 1_000_000.0
"""Between these a weight stays; quotas and limits go up to the second."""


@with_config(ConfigDict(extra="forbid", allow_inf_nan=False))
class ShareChanges(TypedDict, total=False):
    """What is to become of a project's share; a field that is not given stays as it is."""

    weight: Annotated[
        float,
        Field(
            ge=LEAST_WEIGHT,
            le=MOST,
            description="How much the project counts when what no quota guarantees is divided; 1 unless it was set.",
        ),
    ]
    quota: Annotated[
        float,
        Field(ge=0, le=MOST, description="GPUs that are guaranteed to it; what it does not use is lent."),
    ]
    limit: Annotated[
        float | None,
        Field(ge=0, le=MOST, description="GPUs that it never exceeds, at least its quota; null: no limit."),
    ]


CHANGES: TypeAdapter[ShareChanges] = TypeAdapter(ShareChanges)


class ProjectDocument(Document):
    """A project: its share, and what its jobs hold now."""

    name: str = Field(description="As in the field `project` of its jobs; empty for jobs without one.")
    weight: float
    quota: float = Field(description="GPUs that are guaranteed to it.")
    limit: float | None = Field(description="GPUs that it never exceeds; null: no limit.")
    held: float = Field(
        description="GPUs that its running jobs hold, or CPUs where the cluster has no GPUs.  A job that asks for none "
        "counts by its part of the CPUs."
    )
    running: int = Field(description="Jobs that run.")
    queued: int = Field(description="Jobs that wait in the queue.")


class ProjectList(Document):
    """Every project that was set, or has a job that has not ended, by name."""

    unit: Literal["GPU", "CPU"] = Field(description="Of what `quota`, `limit` and `held` count.")
    projects: list[ProjectDocument]
