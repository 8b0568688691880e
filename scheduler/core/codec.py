"""Between values and the JSON that keeps them.

What `encode` takes can be read back.  What can no longer be read (a hand in the file, another release, a bad disk) is
read as far as it goes, stands in its own place, and says so: one document never takes others with it.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, TypeVar, cast

from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json

from scheduler.core.model import (
    ATTEMPT,
    EVENT,
    JOB,
    Allocation,
    Attempt,
    Fence,
    Job,
    JobEvent,
    JobId,
    JobSpec,
    Json,
    Reason,
    Status,
)
from scheduler.errors import Unstorable

T = TypeVar("T")

UNREADABLE_LOOP = "(unreadable)"
"""The loop of the spec that stands in for one that cannot be read."""
UNREADABLE = "unreadable"
"""The code of the reason of whatever stands in for something."""
_COLUMNS = ("id", "status", "created_at", "version", "fence", "queue_seq", "idempotency_key")
_NAMED = 5
_TEXT = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """What is known of a job without its document."""

    id: JobId
    status: str
    user: str
    project: str
    created_at: datetime
    version: int
    fence: int
    queue_seq: int | None
    idempotency_key: str | None


def encode(adapter: TypeAdapter[T], value: T, of: str) -> bytes:
    """The JSON of *value*.  Raises Unstorable, naming *of*, for what JSON cannot hold, or no reader takes back."""
    try:
        document = adapter.dump_json(value, warnings="none")
        adapter.validate_json(document)
    except Exception as error:  # whatever a value may do when it is looked at
        words = in_words(error) if isinstance(error, ValueError) else repr(error)[:_TEXT]
        raise Unstorable(f"{of} cannot be kept: {words}; it was not written") from error
    return document


# What cannot be read


def in_words(error: ValueError) -> str:
    """Which parts of a document are wrong; of the whole, what is."""
    if not isinstance(error, ValidationError):
        return str(error)[:_TEXT]
    places = sorted({".".join(map(str, one["loc"][:3])) for one in error.errors(include_url=False)})
    return ", ".join(places[:_NAMED]) if all(places) else str(error.errors()[0]["msg"])[:_TEXT]


def broken_job(document: str, error: ValueError, columns: Columns) -> Job:
    """Of a job whose *document* raised *error*: what of it can be read, and its columns.

    Without a spec it never starts; a person can cancel it or mark it as failed.
    """
    found = _object(document)
    reason = Reason(
        code=UNREADABLE,
        message=f"its document in the journal cannot be read ({in_words(error)}); what is shown is what is left of "
        "it. Cancel it or mark it as failed, and submit it again",
    )
    stand_in = _job(columns, reason, found)
    # What the journal decides by is never the document's to say.
    known = {name: getattr(stand_in, name) for name in (*_COLUMNS, "reason")}
    readable = _readable(Job, found, error)
    if "spec" not in readable:
        known["raw_spec"] = stand_in.raw_spec
    with suppress(ValidationError):
        return JOB.validate_python(_values(stand_in) | readable | known)
    return stand_in


def broken_event(document: str, error: ValueError, job_id: JobId, version: int, at: datetime) -> JobEvent:
    """*at*: the best that is known of when it was."""
    found = _object(document)
    stand_in = JobEvent(
        job_id=job_id,
        version=version,
        kind=UNREADABLE,
        at=at,
        by="",
        from_status=None,
        to_status=_status(found.get("to_status")),
        reason=Reason(code=UNREADABLE, message=f"this line of its history cannot be read: {in_words(error)}"),
    )
    known = {"job_id": job_id, "version": version, "reason": stand_in.reason}
    with suppress(ValidationError):
        return EVENT.validate_python(_values(stand_in) | _readable(JobEvent, found, error) | known)
    return stand_in


def broken_attempt(document: str, error: ValueError, fence: int, started_at: datetime) -> Attempt:
    """*started_at*: the best that is known of it."""
    stand_in = Attempt(
        fence=Fence(fence),
        allocation=Allocation(ranks=()),
        started_at=started_at,
        reason=Reason(
            code=UNREADABLE, message=f"the record of this attempt cannot be read: {in_words(error)}"
        ),
    )
    known = {"fence": fence, "reason": stand_in.reason}
    with suppress(ValidationError):
        readable = _readable(Attempt, _object(document), error)
        return ATTEMPT.validate_python(_values(stand_in) | readable | known)
    return stand_in


def _job(columns: Columns, reason: Reason, found: Json) -> Job:
    status, at, raw = _status(columns.status), columns.created_at, found.get("spec")
    return Job(
        id=columns.id,
        spec=_spec(columns),
        raw_spec=cast("Json", raw) if isinstance(raw, dict) else None,
        status=status,
        reason=reason,
        created_at=at,
        updated_at=at,
        version=columns.version,
        fence=Fence(columns.fence),
        queue_seq=columns.queue_seq,
        queued_at=at,
        started_at=at if columns.fence else None,
        finished_at=at if status.is_terminal else None,
        allocation=Allocation(ranks=()) if status is Status.RUNNING else None,
        idempotency_key=columns.idempotency_key,
    )


def _spec(columns: Columns) -> JobSpec:
    return JobSpec(
        loop=UNREADABLE_LOOP,
        name=f"job {columns.id[:8]}",
        user=columns.user[:_TEXT],
        project=columns.project[:_TEXT],
    )


def _status(text: object) -> Status:
    """A status that is none claims nothing: nothing of the job runs or waits."""
    return next((status for status in Status if status.value == text), Status.FAILED)


def _object(document: str) -> Json:
    try:
        found = from_json(document)
    except ValueError:
        return {}
    return cast("Json", found) if isinstance(found, dict) else {}


def _readable(kind: type[Any], found: Json, error: ValueError) -> Json:
    """The fields of *found* of which *error* does not speak."""
    problems = error.errors(include_url=False) if isinstance(error, ValidationError) else []
    broken = {problem["loc"][0] for problem in problems if problem["loc"]}
    return {name: found[name] for name in _names(kind) if name in found and name not in broken}


def _values(value: Job | JobEvent | Attempt) -> Json:
    return {name: getattr(value, name) for name in _names(type(value))}


def _names(kind: type[Any]) -> list[str]:
    return [field.name for field in fields(kind)]
