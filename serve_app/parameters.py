"""What a request may carry besides its body: queries and headers."""

from __future__ import annotations

import contextlib
from datetime import date
from typing import Annotated

from fastapi import Depends, Header, Request
from pydantic import BaseModel, ConfigDict, Field

from scheduler.api.cursors import place_of_cursor
from scheduler.core.commands import JobAction
from scheduler.core.model import Status
from scheduler.core.usage import GROUPINGS, Grouping
from scheduler.ports import JobQuery, Sort
from serve_app import problems

CHECKPOINT = r"[0-9]{1,10}\.[0-9]{1,10}"
"""The id of one, `<attempt>.<number>`."""


_DAY = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$"


def each_once(request: Request) -> None:
    """Raises InvalidRequest for a parameter that is given twice: which of the two was meant?"""
    names = [name for name, _ in request.query_params.multi_items()]
    for name in names:
        if names.count(name) > 1:
            raise problems.invalid(problems.shown(name), "is given more than once; give it once")


class JobsQuery(BaseModel):
    model_config = ConfigDict(extra="forbid")
    status: str | None = Field(
        None, description="Only these, separated by commas.", examples=["running,queued"], max_length=200
    )
    user: str | None = Field(None, max_length=200)
    project: str | None = Field(None, max_length=200)
    search: str | None = Field(
        None,
        max_length=200,
        pattern=r"^[^\x00-\x1f]*$",
        description="Only jobs whose name contains it, whose id begins with it, or that have it as a label, `value` "
        "or `key=value`; upper and lower case are one.",
    )
    sort: str = Field(
        Sort.NEWEST.value,
        max_length=200,
        description="Downwards with a `-`; the newest first when not given.",
        json_schema_extra={"enum": [sort.value for sort in Sort]},
    )
    limit: int = Field(50, ge=1, le=500, description="Jobs on a page.")
    cursor: str | None = Field(
        None, max_length=2000, description="`next_cursor` of the page before, which has the same `sort`."
    )


def job_query(asked: JobsQuery) -> JobQuery:
    """Raises InvalidRequest."""
    sort = sort_in(asked.sort)
    return JobQuery(
        statuses=statuses_in(asked.status),
        user=asked.user,
        project=asked.project,
        search=asked.search or None,
        sort=sort,
        after=place_of_cursor(asked.cursor, sort) if asked.cursor else None,
        limit=asked.limit,
    )


class UsageQuery(BaseModel):
    model_config = ConfigDict(extra="forbid")
    first_day: str | None = Field(
        None,
        alias="from",
        pattern=_DAY,
        description="The first day, as 2026-11-01; 30 days up to `to` when not given.",
    )
    last_day: str | None = Field(
        None, alias="to", pattern=_DAY, description="The last day, counted whole; today when not given."
    )
    by: str = Field(
        "project",
        max_length=200,
        description="Any of project, user and day, separated by commas: a row for each.",
        examples=["project,day"],
    )


class RepairsQuery(BaseModel):
    model_config = ConfigDict(extra="forbid")
    limit: int = Field(50, ge=1, le=500, description="Repairs on a page.")
    cursor: str | None = Field(None, max_length=500, description="`next_cursor` of the page before.")


class ReconcileQuery(BaseModel):
    model_config = ConfigDict(extra="forbid")
    dry_run: bool = Field(False, description="Only say what would be done.")


class ShutdownQuery(BaseModel):
    model_config = ConfigDict(extra="forbid")
    save: bool = Field(True, description="Whoever ends the scheduler waits until each run has saved.")


class ResumeQuery(BaseModel):
    model_config = ConfigDict(extra="forbid")
    checkpoint: str | None = Field(
        None,
        pattern=f"^{CHECKPOINT}$",
        description="Go on from this one, `<attempt>.<number>`, as GET .../checkpoints lists them.",
        examples=["2.3"],
    )


class ForceStartQuery(BaseModel):
    model_config = ConfigDict(extra="forbid")
    preempt: bool = Field(
        False,
        description="Other runs are preempted for it, by the rules of the policy `fair`; refused under `fifo`.",
    )


class EffectQuery(ResumeQuery, ForceStartQuery):
    action: JobAction = Field(description="As in the path of the action.")


class WhatIfQuery(BaseModel):
    """Exactly one of them."""

    model_config = ConfigDict(extra="forbid")
    priority: int | None = Field(None, ge=-1000, le=1000, description="If it had this priority.")
    front: bool = Field(False, description="If it were at the front of its project's part of the queue.")
    preempt: bool = Field(False, description="If other runs were preempted for it.")


class MetricsQuery(BaseModel):
    model_config = ConfigDict(extra="forbid")
    points: int = Field(
        1000,
        ge=2,
        le=5000,
        description="Rows at most; of a longer history, those with the extremes are kept.",
    )


class LogsQuery(BaseModel):
    model_config = ConfigDict(extra="forbid")
    rank: int = Field(0, ge=0, le=4095)
    attempt: int | None = Field(None, ge=1, le=2**31 - 1, description="Which run; the newest when not given.")
    offset: int = Field(0, ge=-(2**53), le=2**53, description="Bytes; below 0: so many before the end.")
    limit: int = Field(65536, ge=1, le=1_000_000, description="Bytes.")


IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        pattern=r"^[!-~]{1,200}$",
        description="A submit repeated with the same key returns the first job.",
    ),
]


def who_asked(
    x_user: Annotated[
        str | None, Header(max_length=200, description="Who asks, for the job's history.")
    ] = None,
) -> str | None:
    text = (x_user or "").strip()
    with contextlib.suppress(UnicodeError):  # headers arrive as latin-1; most clients write UTF-8
        text = text.encode("latin-1").decode()
    return text or None


Asker = Annotated[str | None, Depends(who_asked)]


def sort_in(text: str) -> Sort:
    if text not in set(Sort):
        known = ", ".join(Sort)
        raise problems.invalid("sort", f"{problems.shown(text)} is no order of jobs; known are: {known}")
    return Sort(text)


def day_in(text: str | None, name: str) -> date | None:
    """None for an empty field of a form."""
    if not text:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise problems.invalid(name, f"{problems.shown(text)} is no day; give one as 2026-11-01") from None


def groupings_in(text: str) -> tuple[Grouping, ...]:
    """Those named in a query, separated by commas; at least one."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    known: dict[str, Grouping] = {name: name for name in GROUPINGS}
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        words = f"{problems.shown(unknown[0])} is not known" if unknown else "is empty"
        raise problems.invalid("by", f"{words}; give any of {', '.join(known)}, separated by commas")
    return tuple(known[name] for name in names)


def statuses_in(text: str | None) -> frozenset[Status]:
    """Those named in a query, separated by commas."""
    names = [name.strip() for name in (text or "").split(",") if name.strip()]
    unknown = [name for name in names if name not in set(Status)]
    if unknown:
        known = ", ".join(Status)
        raise problems.invalid("status", f"{problems.shown(unknown[0])} is not a status; known are: {known}")
    return frozenset(map(Status, names))
