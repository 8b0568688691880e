"""Recurring jobs: what makes one, and how each stands."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, TypeAdapter, with_config
from typing_extensions import TypedDict

from scheduler.api.base import Document
from scheduler.api.jobs import AnsweredSpec
from scheduler.core.model import JobSpec, Status

NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"
"""What a name is made of: it stands in a URL, in a label, and in the idempotency keys of its jobs."""
NAME_IN_WORDS = "must be 1 to 100 letters without accents, digits, `.`, `_` and `-`, and begin with none of the last three"


@with_config(ConfigDict(extra="forbid"))
class RecurringChanges(TypedDict, total=False):
    """What is to become of a recurring job; a field that is not given stays as it is."""

    cron: Annotated[
        str,
        Field(
            max_length=200,
            description="When: minute, hour, day of month, month, day of week, as `0 3 * * *`; six fields begin with "
            "seconds.  Required for a new one.",
        ),
    ]
    timezone: Annotated[
        str,
        Field(
            max_length=200, description="Whose clocks `cron` means, as `Europe/Berlin`; UTC for a new one."
        ),
    ]
    spec: Annotated[JobSpec, Field(description="The job, as it is submitted.  Required for a new one.")]
    paused: Annotated[
        bool, Field(description="True: nothing is submitted.  What falls into a pause is not made up for.")
    ]


CHANGES: TypeAdapter[RecurringChanges] = TypeAdapter(RecurringChanges)


class SubmittedMoment(Document):
    at: datetime = Field(description="The moment for which the job was submitted.")
    job_id: str
    status: Status | None = Field(description="Of the job, now; null when it is not known any more.")


class SkippedMoment(Document):
    at: datetime
    code: Literal["overlap", "missed", "invalid"] = Field(
        description="`overlap`: the job before had not ended.  `missed`: the scheduler was down; `at` is the first of "
        "them, and the newest was made up for.  `invalid`: the spec was not valid any more."
    )
    message: str = Field(description="A sentence for people.")


class RecurringJobDocument(Document):
    name: str
    cron: str
    words: str = Field(description="What `cron` says, in words.")
    timezone: str
    paused: bool
    next_at: datetime | None = Field(
        description="When it is submitted next, with the offset of its time zone; null while it is paused."
    )
    last: SubmittedMoment | None = Field(description="The last job that was made.")
    skipped: SkippedMoment | None = Field(description="The last moment for which none was made, and why.")
    num_invalid: int = Field(description="For how many moments its spec was not valid any more.")
    by: str = Field(description="Who made it, or changed it last.")
    created_at: datetime
    spec: AnsweredSpec


class RecurringJobList(Document):
    """Every recurring job, by name."""

    recurring_jobs: list[RecurringJobDocument]


class RecurringForgotten(Document):
    name: str
    existed: bool = Field(description="False: there was none by that name.")
