"""The calls about projects, the queue and usage, as those of `calls`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any
from urllib.parse import quote

from pydantic import ValidationError

from scheduler.api.projects import CHANGES, ProjectDocument, ProjectList, ShareChanges
from scheduler.api.queue import QueueDocument
from scheduler.api.usage import UsageDocument
from scheduler.client.calls import API, Call
from scheduler.client.specs import is_sendable_text
from scheduler.core.usage import Grouping
from scheduler.errors import InvalidRequest, Problem

Day = date | str
"""A day of UTC; as text, 2026-11-01."""

_PATH = f"{API}/projects"
_MAX_NAME_CHARS = 200


def queue() -> Call[QueueDocument]:
    return Call(method="GET", path=f"{API}/queue", read=QueueDocument.model_validate_json)


def usage(first_day: Day | None, last_day: Day | None, by: Sequence[Grouping] | str) -> Call[UsageDocument]:
    """Raises InvalidRequest for what cannot be sent; which days can be asked for, the server says."""
    names = by if isinstance(by, str) else ",".join(by)
    given = {"from": _day("first_day", first_day), "to": _day("last_day", last_day), "by": names}
    params = {name: value for name, value in given.items() if value is not None}
    return Call(method="GET", path=f"{API}/usage", params=params, read=UsageDocument.model_validate_json)


def _day(field: str, day: Day | None) -> str | None:
    if day is None:
        return None
    try:
        return f"{date.fromisoformat(day) if isinstance(day, str) else day:%Y-%m-%d}"
    except ValueError:
        words = f"{str(day)[:60]!r} is no day; give a date, or text as 2026-11-01"
        raise InvalidRequest(f"{field}: {words}", (Problem(field, words),)) from None


def projects() -> Call[ProjectList]:
    return Call(method="GET", path=_PATH, read=ProjectList.model_validate_json)


def set_project(name: str, changes: ShareChanges) -> Call[ProjectDocument]:
    """Raises InvalidRequest naming each value that cannot be part of a share."""
    try:
        body = CHANGES.validate_python(changes, strict=True)
    except ValidationError as error:
        problems = tuple(map(_problem, error.errors(include_url=False)))
        words = "; ".join(map(str, problems))
        raise InvalidRequest(f"the project was not changed; {words}", problems) from None
    return Call(method="PUT", path=_path(name), json=body, read=ProjectDocument.model_validate_json)


def forget_project(name: str) -> Call[ProjectDocument]:
    return Call(method="DELETE", path=_path(name), read=ProjectDocument.model_validate_json)


def _path(name: str) -> str:
    """A name may hold anything, so nothing of it may be taken for a part of the path."""
    if not name or len(name) > _MAX_NAME_CHARS or not is_sendable_text(name):
        words = f"must be text of 1 to {_MAX_NAME_CHARS} characters, as the project of a job"
        raise InvalidRequest(f"the name of a project {words}", (Problem("name", words),))
    return f"{_PATH}/{quote(name, safe='').replace('.', '%2E')}"


def _problem(error: Any) -> Problem:
    path = ".".join(map(str, error["loc"]))
    if error["type"] == "extra_forbidden":
        return Problem(path, "is not known here; known are: weight, quota, limit")
    return Problem(path, f"{error['msg']} (it is {str(error['input'])[:60]})")
