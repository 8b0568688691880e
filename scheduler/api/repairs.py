"""What the reconciler repaired."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from scheduler.api.base import Document


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
