"""What a request may carry besides its body: queries and headers."""

from __future__ import annotations

import contextlib
from typing import Annotated

from fastapi import Depends, Header, Request
from pydantic import BaseModel, ConfigDict, Field

from scheduler.core.model import Status
from serve_app import problems


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
    limit: int = Field(50, ge=1, le=500, description="Jobs on a page.")
    cursor: str | None = Field(None, max_length=500, description="`next_cursor` of the page before.")


class RepairsQuery(BaseModel):
    model_config = ConfigDict(extra="forbid")
    limit: int = Field(50, ge=1, le=500, description="Repairs on a page.")
    cursor: str | None = Field(None, max_length=500, description="`next_cursor` of the page before.")


class ReconcileQuery(BaseModel):
    model_config = ConfigDict(extra="forbid")
    dry_run: bool = Field(False, description="Only say what would be done.")


class ResumeQuery(BaseModel):
    model_config = ConfigDict(extra="forbid")
    checkpoint: str | None = Field(
        None,
        pattern=r"^[0-9]{1,10}\.[0-9]{1,10}$",
        description="Go on from this one, `<attempt>.<number>`, as GET .../checkpoints lists them.",
        examples=["2.3"],
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


def statuses_in(text: str | None) -> frozenset[Status]:
    """Those named in a query, separated by commas."""
    names = [name.strip() for name in (text or "").split(",") if name.strip()]
    unknown = [name for name in names if name not in set(Status)]
    if unknown:
        known = ", ".join(Status)
        raise problems.invalid("status", f"{problems.shown(unknown[0])} is not a status; known are: {known}")
    return frozenset(map(Status, names))
