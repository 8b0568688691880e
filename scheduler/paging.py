"""Cursors of listings: the place of a page's last job, opaque to clients."""

from __future__ import annotations

import base64
import binascii
from datetime import datetime
from uuid import UUID

from scheduler.core.model import Job, JobId
from scheduler.errors import InvalidRequest, Problem


def cursor_after(job: Job) -> str:
    return cursor_of(job.created_at, job.id)


def cursor_of(created_at: datetime, job_id: str) -> str:
    """The cursor of the page that begins after this job."""
    return base64.urlsafe_b64encode(f"{created_at.isoformat()} {job_id}".encode()).decode().rstrip("=")


def position_of_cursor(cursor: str) -> tuple[datetime, JobId]:
    """Raises InvalidRequest when the cursor is not one of ours."""
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
        at, _, job_id = text.partition(" ")
        when = datetime.fromisoformat(at)
        if str(UUID(job_id)) != job_id or when.tzinfo is None:
            raise ValueError(text)
    except (ValueError, binascii.Error) as error:
        raise _not_a_cursor() from error
    return when, JobId(job_id)


def cursor_of_number(number: int) -> str:
    return str(number)


def number_of_cursor(cursor: str) -> int:
    """Raises InvalidRequest when the cursor is not one of ours."""
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) < 19):
        raise _not_a_cursor()
    return int(cursor)


def _not_a_cursor() -> InvalidRequest:
    words = "this is not a cursor; pass the `next_cursor` of an earlier answer, or leave it out"
    return InvalidRequest(words, (Problem("cursor", words),))
