"""Between values and what goes over the wire to the functions of the database."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json

from scheduler.core.model import ATTEMPT, EVENT, JOB, Attempt, Job, JobEvent, Json, Reason
from scheduler.core.plain_values import plain
from scheduler.core.reconcile import Row
from scheduler.core.rows import unwrapped
from scheduler.errors import MirrorRefused
from scheduler.ports import MirrorChange, ProgressUpdate, Rows

STAND_IN = "\N{REPLACEMENT CHARACTER}"
"""For NUL, which no text of PostgreSQL holds."""
log = logging.getLogger(__name__)

ROW: TypeAdapter[Row] = TypeAdapter(Row)
REASON: TypeAdapter[Reason] = TypeAdapter(Reason)
NUL_IN_JSON = re.compile(r"(?<!\\)((?:\\\\)*)\\u0000")
"""An escaped NUL; after an odd number of backslashes it is only text that looks like one."""


@dataclass(frozen=True, slots=True)
class RowBatch:
    """What the database answers when it is asked for rows."""

    rows: list[Json]
    read_at: datetime
    vouched_at: datetime | None


def to_apply(changes: Collection[MirrorChange]) -> tuple[str, str]:
    """The changes, and their events, as `scheduler_apply` takes them.

    Each job goes over the wire once; the database makes the columns from it.  Raises MirrorRefused, naming the job,
    for one that JSON cannot hold.
    """
    jobs = (_document(change) for change in changes)
    events = (_told(event) for change in changes for event in change.events)
    return f"[{','.join(jobs)}]", f"[{','.join(events)}]"


def to_vouch(signs: Collection[ProgressUpdate]) -> str:
    """The signs as `scheduler_vouch` takes them.  A run may say anything: what JSON cannot hold is left out."""
    return json.dumps([plain(asdict(sign)).value for sign in signs], ensure_ascii=False)


def rows_of(batch: RowBatch) -> Rows:
    """Rows that cannot be read at all are left out, and the log names them."""
    rows = tuple(row for row in map(row_of, batch.rows) if row is not None)
    return Rows(rows=rows, read_at=batch.read_at, vouched_at=batch.vouched_at)


def row_of(document: Json) -> Row | None:
    parts = {"spec": _object(document.get("spec"), unwrapped), "progress": _object(document.get("progress"))}
    parts |= {"reason": _reason(document.get("reason")), "job": _copy(document)}
    parts |= {"attempts": _attempts(document.get("attempts"))}
    try:
        return ROW.validate_python(document | parts)
    except ValidationError as error:
        where = ", ".join(".".join(map(str, problem["loc"])) for problem in error.errors())
        log.warning("row %s of training_jobs is left out: cannot read %s", document.get("id"), where)
        return None


def attempt_of(row: Json) -> Attempt:
    """What a row of `training_attempts` says.  Raises ValidationError."""
    return ATTEMPT.validate_python(row | {"fence": row["attempt"], "allocation": {"ranks": row["nodes"]}})


def _document(change: MirrorChange) -> str:
    try:
        job = _keepable(JOB.dump_json(change.job))
    except ValueError as error:
        raise MirrorRefused(f"job {change.job.id} cannot be written as JSON: {error}") from error
    return f'{{"job":{job},"queue_position":{json.dumps(change.queue_position)}}}'


def _told(event: JobEvent) -> str:
    try:
        return _keepable(EVENT.dump_json(event))
    except ValueError as error:
        raise MirrorRefused(f"an event of job {event.job_id} cannot be written as JSON: {error}") from error


def _keepable(document: bytes) -> str:
    text = document.decode()
    return NUL_IN_JSON.sub(rf"\1{STAND_IN}", text) if "\\u0000" in text else text


def _object(text: str | None, inner: Callable[[Any], Any] = lambda value: value) -> Json | None:
    """None for what is no object, and for what is nested too deep to stand inside a job."""
    if text is None:
        return None
    try:
        (value,) = from_json(f"[{text}]")
        value = inner(value)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _reason(text: str | None) -> Reason | None:
    try:
        return REASON.validate_json(text) if text else None
    except ValidationError:
        return None


def _attempts(text: str | None) -> list[Attempt]:
    """Without those that cannot be read."""
    found: list[Attempt] = []
    for row in json.loads(text or "[]"):
        with suppress(ValidationError):
            found.append(attempt_of(row))
    return found


def _copy(document: Json) -> Job | None:
    """The scheduler's own copy, if it is one and of this row as it stands."""
    if (text := document.get("job")) is None:
        return None
    try:
        job = JOB.validate_json(text)
    except ValidationError:
        return None
    return job if (job.id, job.version) == (document.get("id"), document.get("version")) else None
