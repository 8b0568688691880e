"""Job arrays: what is submitted, and how the group stands."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from scheduler.api.base import Document
from scheduler.core.arrays import MAX_KEYS
from scheduler.core.model import JobId, JobSpec, Json, Name, Status
from scheduler.core.spec import MAX_CHILDREN


class SubmitArray(BaseModel):
    """The body of POST /api/training/arrays: all of its jobs are accepted, or none."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)
    spec: JobSpec = Field(description="What the jobs have in common.")
    parameters: Annotated[
        dict[Name, Annotated[list[Any], Field(min_length=1, max_length=MAX_CHILDREN)]],
        Field(
            min_length=1,
            max_length=MAX_KEYS,
            description="Keys of `config`, with dots where it is nested (`optimizer.lr`), each with its values.  There is "
            f"a job for each combination, the last one changing fastest; {MAX_CHILDREN:,} at most.",
        ),
    ]
    at_most: int | None = Field(
        default=None,
        ge=1,
        le=MAX_CHILDREN,
        strict=True,
        description="So many run at once; null: all for which there is room.",
    )
    metric: Name = Field(default="loss", description="What the best job is found by; as the loop reports it.")
    metric_is: Literal["min", "max"] = Field(
        default="min", description="Whether less or more of it is better."
    )


SUBMIT_ARRAY: TypeAdapter[SubmitArray] = TypeAdapter(SubmitArray)


class ArrayJob(Document):
    """One job of an array."""

    index: int = Field(description="From 1, in the order of the grid.")
    job_id: JobId
    name: str
    status: Status
    reason: str = Field(description="Why it is so; for a waiting job, why it waits.")
    values: Json = Field(description="What its parameters have.")
    metric: float | None = Field(description="The newest that it reported of the array's metric.")


class ArrayDocument(Document):
    """A group of jobs from one submit: each is an ordinary job, listed by `search=array=<array_id>` too."""

    array_id: str
    name: str = Field(description="That of its jobs, without their numbers.")
    user: str
    project: str
    created_at: datetime
    size: int = Field(description="Jobs of the array.")
    at_most: int = Field(description="So many run at once.")
    metric: str
    metric_is: Literal["min", "max"]
    counts: dict[Status, int] = Field(description="Jobs in each status.")
    has_ended: bool = Field(description="Nothing more happens to any of them unless a person asks.")
    best: int | None = Field(
        description="The index of the job with the best metric; of those that failed or were cancelled it is none."
    )
    message: str = Field(description="Where the array stands, in a sentence.")
    jobs: list[ArrayJob] = Field(description="In the order of their index.")
