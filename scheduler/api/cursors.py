"""Places in listings, and their cursors: the place of a page's last job, opaque to clients."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from datetime import datetime
from uuid import UUID

from scheduler.api.job_query import Place, Sort
from scheduler.core.model import Job, JobId
from scheduler.errors import InvalidRequest, Problem

_VALUE: dict[str, Callable[[Job], str | datetime]] = {
    "submitted": lambda job: "",
    "name": lambda job: job.spec.name.casefold(),
    "user": lambda job: job.spec.user,
    "status": lambda job: job.status.value,
    "updated": lambda job: job.updated_at,
}


def place_of(job: Job, sort: Sort) -> Place:
    return Place(job.created_at, job.id, _VALUE[sort.by](job))


def search_words(job: Job) -> list[str]:
    """What is found when it is searched for as a whole, in lower case: its labels, `value` and `key=value`, and its array,
    `array=ID`."""
    array = [f"array={job.spec.array.id}"] if job.spec.array else []
    labels = (words for key, value in job.spec.labels.items() for words in (value, f"{key}={value}"))
    return [words.casefold() for words in (*labels, *array)]


def is_found(job: Job, search: str) -> bool:
    wanted = search.casefold()
    return wanted in job.spec.name.casefold() or job.id.startswith(wanted) or wanted in search_words(job)


def cursor_of(place: Place, sort: Sort = Sort.NEWEST) -> str:
    """The cursor of the page that begins after *place*."""
    value = place.value.isoformat() if isinstance(place.value, datetime) else place.value
    order = [] if sort is Sort.NEWEST else [sort.value, value]
    text = " ".join([place.created_at.isoformat(), place.id, *order])
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def place_of_cursor(cursor: str, sort: Sort = Sort.NEWEST) -> Place:
    """Raises InvalidRequest when the cursor is not one of ours, or of a list in another order."""
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
        at, job_id, made_for, value = [*text.split(" ", 3), "", ""][:4]
        place = Place(datetime.fromisoformat(at), JobId(job_id))
        order = Sort(made_for or Sort.NEWEST)
        place = place._replace(value=datetime.fromisoformat(value) if order.by == "updated" else value)
        moments = [moment for moment in place if isinstance(moment, datetime)]
        if str(UUID(job_id)) != job_id or any(moment.tzinfo is None for moment in moments):
            raise ValueError(text)
    except (ValueError, binascii.Error) as error:
        raise _not_a_cursor() from error
    if order is not sort:
        raise _refused(
            f"is of a list sorted by {order}, and this one is sorted by {sort}; leave it out to begin anew"
        )
    return place


def cursor_of_number(number: int) -> str:
    return str(number)


def number_of_cursor(cursor: str) -> int:
    """Raises InvalidRequest when the cursor is not one of ours."""
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) < 19):
        raise _not_a_cursor()
    return int(cursor)


def _not_a_cursor() -> InvalidRequest:
    return _refused("this is not a cursor; pass the `next_cursor` of an earlier answer, or leave it out")


def _refused(words: str) -> InvalidRequest:
    return InvalidRequest(words, (Problem("cursor", words),))
