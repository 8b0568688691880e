"""What a job is told by others, made such that every store can keep it.  Pure."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from datetime import datetime
from typing import Any, TypeVar, cast

from scheduler.core.model import Attempt, Job, JobEvent, Json, Outcome, Reason, Stop

STAND_IN = "\N{REPLACEMENT CHARACTER}"
UNKEEPABLE = re.compile("[\0\ud800-\udfff]")
"""What no text in PostgreSQL can hold: NUL, and one half of a surrogate pair."""
_HALVES = re.compile("[\ud800-\udfff]")
_DEEPEST = 64
_MOST_BITS = 3400
"""Some thousand digits: JSON readers end at a little over four thousand."""

_T = TypeVar("_T", Job, Attempt, Outcome, Stop)


def plain(value: Any, unkeepable: re.Pattern[str] = UNKEEPABLE) -> Any:
    """*value* as JSON that strict readers take.  What JSON has no word for becomes null; the same when it is fine."""
    return _plain(value, unkeepable, _DEEPEST)


def storable(job: Job) -> Job:
    """The same job; what a run said in it made plain."""
    said = _said(job, "progress", "result")
    return _changed(job, {**said, "reason": _reason(job.reason), "stop": job.stop and _stop(job.stop)})


def storable_event(event: JobEvent) -> JobEvent:
    reason, attempt = _reason(event.reason), event.attempt and storable_attempt(event.attempt)
    if reason is event.reason and attempt is event.attempt:
        return event
    return replace(event, reason=reason, attempt=attempt)


def storable_attempt(attempt: Attempt) -> Attempt:
    reason = attempt.reason and _reason(attempt.reason)
    return _changed(attempt, {**_said(attempt, "evidence"), "reason": reason})


def without_words(job: Job, event: JobEvent, why: str) -> tuple[Job, JobEvent]:
    """The same step without anything that a run said: that it was made counts for more than what was said."""
    reason = Reason(code=job.reason.code, message=f"what it said could not be kept: {why}")
    attempt = event.attempt and replace(event.attempt, evidence=None, reason=reason)
    stop = job.stop and replace(job.stop, evidence=None)
    return (
        replace(job, progress=None, result=None, reason=reason, stop=stop, last_failure=None),
        replace(event, reason=reason, attempt=attempt),
    )


def _stop(stop: Stop) -> Stop:
    return _changed(stop, {**_said(stop, "evidence"), "why": stop.why and _reason(stop.why)})


def _said(value: Any, *names: str) -> Json:
    return {name: plain(told, _HALVES) for name in names if (told := getattr(value, name)) is not None}


def _reason(reason: Reason) -> Reason:
    message, detail = plain(reason.message, _HALVES), plain(reason.detail, _HALVES)
    if message is reason.message and detail is reason.detail:
        return reason
    return replace(reason, message=message, detail=detail)


def _changed(value: _T, changes: Json) -> _T:
    new = {name: told for name, told in changes.items() if told is not getattr(value, name)}
    return replace(value, **new) if new else value


def _plain(value: Any, unkeepable: re.Pattern[str], deep: int) -> Any:
    match value:
        case str():
            return unkeepable.sub(STAND_IN, value) if unkeepable.search(value) else value
        case bool() | None:
            return value
        case int():
            return int(value) if value.bit_length() <= _MOST_BITS else None
        case float():
            return float(value) if math.isfinite(value) else None
        case datetime():
            return value.isoformat()
        case dict() | list() | tuple():
            return _inside(cast("Any", value), unkeepable, deep - 1) if deep else None
        case _:
            return None


def _inside(value: Any, unkeepable: re.Pattern[str], deep: int) -> Any:
    """The very same object when nothing in it changes: most need nothing, and it is shared."""
    if isinstance(value, dict):
        before = cast("dict[Any, Any]", value)
        items = before.items()
        after = {str(_plain(key, unkeepable, 1)): _plain(inner, unkeepable, deep) for key, inner in items}
        is_same = len(after) == len(before) and all(
            key in before and before[key] is inner for key, inner in after.items()
        )
        return before if is_same else after
    listed: list[Any] = [_plain(inner, unkeepable, deep) for inner in cast("list[Any]", value)]
    is_same = isinstance(value, list) and all(
        new is old for new, old in zip(listed, cast("list[Any]", value), strict=True)
    )
    return cast("list[Any]", value) if is_same else listed
