"""The queue as the policy sees it: what projects are entitled to and hold, whose turn it is, and who holds nodes."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field

from scheduler.api.base import Document, ReasonDocument
from scheduler.api.projects import ProjectDocument
from scheduler.api.shadow import ShadowDocument


class ProjectInQueue(ProjectDocument):
    """A project, with what the policy makes of its share at this moment."""

    entitled: float | None = Field(
        default=None,
        description="Its part of the cluster now: never more than its jobs want.  As the newest pass divided it; null: "
        "the policy knows no shares, or has made no pass yet.",
    )
    lent: float | None = Field(
        default=None, description="Of `held`, what is beyond `entitled`: asked back when others need it."
    )
    usage_h: float | None = Field(
        default=None,
        description="GPU hours (CPU hours where `unit` is CPU) of the last days, older ones counting less.",
    )


class WaitingJob(Document):
    """A job that waits in the queue."""

    position: int | None = Field(default=None, description="1 is next.")
    job_id: str
    name: str
    project: str
    user: str
    size: float = Field(description="What it needs at the fewest, counted as `unit` says.")
    reason: ReasonDocument = Field(description="Why it waits.")
    kept: bool = Field(description="Nodes are kept for it: it starts when those who hold them have stopped.")
    starts_in_s: float | None = Field(default=None, description="0: now; null: nobody can tell.")
    starts_after_s: float | None = Field(
        default=None,
        description="It starts later than this: so far the outlook goes.  Null: see `starts_in_s`.",
    )


class HoldingJob(Document):
    """A job that runs, and holds nodes."""

    job_id: str
    name: str
    project: str
    user: str
    size: float = Field(description="What it holds, counted as `unit` says.")
    left_s: float | None = Field(
        default=None, description="How much longer it holds its nodes; null: nobody can tell."
    )
    on_loan: bool = Field(
        description="It holds nodes that are kept for another job, or is beyond the share of its project: it gives "
        "them back when they are needed."
    )
    stopping: bool = Field(description="It was asked to stop already.")


class QueueDocument(Document):
    """The queue, as the policy in charge sees it."""

    at: datetime
    policy: Literal["fair", "fifo"]
    rules: str | None = Field(
        default=None,
        description="Fingerprint of the rules of the policy: equal for equal rules.  Null: it has none.",
    )
    unit: Literal["GPU", "CPU"] = Field(description="Of what sizes, shares and `size` count.")
    size: float = Field(description="What the nodes that are not drained have together.")
    projects: list[ProjectInQueue] = Field(description="By name, as in the list of projects.")
    num_waiting: int
    waiting: list[WaitingJob] = Field(description="In the order of their turn; at most the first 100.")
    num_holding: int
    holding: list[HoldingJob] = Field(
        description="Those that run, who ends soonest first; at most 100.  Those of which nobody can tell are last."
    )
    shadow: ShadowDocument | None = Field(
        default=None,
        description="The policy that is asked in shadow, as SCHEDULER_POLICY_SHADOW has it; null: none is.",
    )
