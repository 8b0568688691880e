"""Cursors of listings: the place of a page's last job, opaque to clients."""

from __future__ import annotations

import base64
import binascii
from datetime import datetime

from scheduler.core.model import Job, JobId
from scheduler.errors import InvalidRequest, Problem


def cursor_after(job: Job) -> str:
    return base64.urlsafe_b64encode(f"{job.created_at.isoformat()} {job.id}".encode()).decode().rstrip("=")


def position_of_cursor(cursor: str) -> tuple[datetime, JobId]:
    """Raises InvalidRequest when the cursor is not one of ours."""
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
        at, _, job_id = text.partition(" ")
        when = datetime.fromisoformat(at)
        if not job_id or when.tzinfo is None:
            raise ValueError(text)
    except (ValueError, binascii.Error) as error:
        words = "this is not a cursor; pass the `next_cursor` of an earlier answer, or leave it out"
        raise InvalidRequest(words, (Problem("cursor", words),)) from error
    return when, JobId(job_id)
