"""Usage accounting: how long runs held GPUs and CPUs, as a document and as CSV."""

from __future__ import annotations

import csv
import io
from datetime import date, datetime
from typing import Literal

from pydantic import Field

from scheduler.api.base import Document
from scheduler.core.usage import GROUPINGS

DEFAULT_DAYS, MAX_DAYS, MAX_ROWS = 30, 366, 10_000
MEDIA_TYPE = "text/csv; charset=utf-8"
_STARTS_A_FORMULA = frozenset("=+-@\uff1d\uff0b\uff0d\uff20")
"""To spreadsheets, the wide forms too."""


class UsedDocument(Document):
    """What runs held together."""

    gpu_hours: float = Field(description="GPUs that a run held, times the hours it held them.")
    cpu_hours: float = Field(description="CPUs in the same way; runs that held GPUs held CPUs too.")
    num_jobs: int = Field(description="Jobs that held something: one that ran on two days counts on both.")


class UsageRow(UsedDocument):
    """One group.  What was not asked for in `by` is null."""

    project: str | None = Field(default=None, description="Empty for jobs without one.")
    user: str | None = None
    day: date | None = Field(default=None, description="From midnight to midnight, UTC.")


class UsageDocument(Document):
    """What runs held in some days.  A run counts from when it got its nodes until all of its processes were gone."""

    first_day: date
    last_day: date = Field(description="Counted whole, or until `counted_until`.  Days are those of UTC.")
    by: list[Literal["project", "user", "day"]]
    counted_until: datetime = Field(description="Runs that have not ended are counted until then.")
    complete_since: datetime | None = Field(
        default=None,
        description="From then on no run is missing: this journal has all of them.  What was before is counted as far as "
        "the journal has it.  Null: not known.",
    )
    num_open: int = Field(description="Runs that had not ended then.")
    num_left_out: int = Field(
        description="Runs that are not counted: their record cannot be read, or does not tell when they ended."
    )
    total: UsedDocument
    rows: list[UsageRow] = Field(description="In the order of `by`.")


def csv_of(usage: UsageDocument) -> str:
    """A line for each row, below a line of titles; lines end as RFC 4180 has it."""
    names = [name for name in GROUPINGS if name in usage.by]
    text = io.StringIO()
    lines = csv.writer(text)
    lines.writerow([*names, "gpu_hours", "cpu_hours", "num_jobs"])
    for row in usage.rows:
        told = [harmless(str(getattr(row, name))) for name in names]
        lines.writerow([*told, f"{row.gpu_hours:.6f}", f"{row.cpu_hours:.6f}", row.num_jobs])
    return text.getvalue()


def harmless(text: str) -> str:
    """A spreadsheet takes what starts so for a formula and carries it out; with an apostrophe before it, it is text."""
    return f"'{text}" if text.lstrip()[:1] in _STARTS_A_FORMULA or text[:1] in ("\t", "\r", "\n") else text
