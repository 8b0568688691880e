"""From a row of the database to a job: anybody may have written any part of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails, from_json

from scheduler.core.codec import UNREADABLE_LOOP
from scheduler.core.model import SPEC, Fence, Job, JobSpec, Reason
from scheduler.core.reconcile import Row
from scheduler.errors import InvalidSpec, Problem

MAX_SPEC_BYTES = 1_000_000
_MOST_WRAPPINGS = 3


def unwrapped(raw: Any) -> Any:
    """*raw*, or what it holds where a front end wrote it as JSON within a JSON string."""
    for _ in range(_MOST_WRAPPINGS):
        if not isinstance(raw, str) or len(raw) > MAX_SPEC_BYTES:
            break
        try:
            raw = from_json(raw)
        except ValueError:
            break
    return raw


def parse_spec(raw: object) -> JobSpec:
    """Any JSON as a job spec.  Raises InvalidSpec naming each field that is wrong."""
    if not isinstance(raw, dict):
        what = "is missing" if raw is None else "is not a JSON object, and no text that holds one"
        raise InvalidSpec.of(Problem("spec", f"{what}; write the job's spec as a JSON object"))
    try:
        return SPEC.validate_python(raw)
    except ValidationError as error:
        raise InvalidSpec.of(*map(_problem, error.errors(include_url=False))) from error


def spec_of(row: Row) -> JobSpec:
    """The spec of a row.  Raises InvalidSpec, also when there is none.

    Who submits is who the database says wrote the row, whatever the spec says.
    """
    if row.spec is None:
        raise InvalidSpec.of(Problem("spec", "the row has none; write the job's spec as a JSON object"))
    spec = parse_spec({"name": row.name} | row.spec)
    return replace(spec, user=row.user_id) if row.user_id else spec


def job_of(row: Row) -> Job:
    """The scheduler's own copy, or a job made of what the row says, at the row's version."""
    if row.job:
        return row.job
    try:
        spec, raw = spec_of(row), None
    except InvalidSpec:
        spec, raw = (
            JobSpec(loop=UNREADABLE_LOOP, name=(row.name or "job")[:200], user=row.user_id or ""),
            row.spec,
        )
    fence = max(row.attempt, 1 if row.started_at else 0)
    return Job(
        id=row.id,
        spec=spec,
        raw_spec=raw,
        status=row.status,
        reason=row.reason or Reason(code="found", message="known from the database only"),
        created_at=row.created_at,
        updated_at=row.updated_at,
        queued_at=row.queued_at,
        fence=Fence(fence),
        started_at=(row.started_at or row.created_at) if fence else None,
        finished_at=(row.finished_at or row.updated_at) if row.status.is_terminal else None,
        version=row.version,
        progress=row.progress,
    )


def _problem(detail: ErrorDetails) -> Problem:
    where = ".".join(["spec", *map(str, detail["loc"])])
    return Problem(where, detail["msg"].removeprefix("Value error, "))
