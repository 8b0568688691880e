"""What a loop measured, as columns."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from scheduler.api.base import Document

LOSSES = ("loss", "train_loss")
"""The series that a curve is mostly looked at for; the first that there is."""


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
    resumptions: list[ResumptionMark] = Field(default_factory=list[ResumptionMark])
    samples: list[SampleDocument] = Field(default_factory=list[SampleDocument], description="Newest first.")
