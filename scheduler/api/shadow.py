"""Where the policy in shadow would have decided otherwise than the one in charge."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field

from scheduler.api.base import Document


class ShadowDifference(Document):
    """Something that the policy in shadow would have done, and the one in charge did not."""

    job_id: str
    name: str
    kind: Literal["start", "preempt", "wait", "place"] = Field(
        description="`start`: it would have started a job that waits; `preempt`: and preempted others for it; `wait`: it "
        "would have let a job wait that was started; `place`: it would have started it on other nodes."
    )
    message: str
    at: datetime = Field(description="When this was first so.")
    until: datetime | None = Field(description="When it was no longer so; null: it still is.")


class ShadowDocument(Document):
    """A policy that is asked about everything and decides nothing."""

    policy: str = Field(description="As SCHEDULER_POLICY_SHADOW has it.")
    since: datetime = Field(description="Counts begin there: with this life of the scheduler.")
    passes: int = Field(description="How often it was asked.")
    skipped: int = Field(description="Ticks in which it was not asked, so that it takes little time.")
    differences: dict[str, int] = Field(
        description="How many there were, by kind; one that goes on from pass to pass is counted once."
    )
    recent: list[ShadowDifference] = Field(
        description="At most the last 50; first those that still are, the newest first."
    )
    faults: int = Field(description="How often it failed; what is decided does not depend on it.")
    problem: str | None = Field(description="What is wrong with it now, in words.")
