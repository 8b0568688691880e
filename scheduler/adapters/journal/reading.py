"""Reading what was written, whatever became of it: a document that cannot be read stands alone, and is named."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterable
from datetime import UTC, datetime

from pydantic_core import from_json

from scheduler.adapters.journal.files import QUERIES
from scheduler.adapters.journal.moments import moment
from scheduler.core import codec
from scheduler.core.codec import Columns
from scheduler.core.model import ATTEMPT, EVENT, JOB, Attempt, Job, JobEvent, JobId
from scheduler.ports import OutboxRow

log = logging.getLogger(__name__)

_LONG_AGO = datetime.fromtimestamp(0, UTC)


class Documents:
    """The documents of a journal, by one connection and in one thread."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        # One byte that is no text would else take the whole answer with it.
        connection.text_factory = lambda data: data.decode("utf-8", "replace")
        self._connection = connection
        self.unreadable: dict[JobId, str] = {}
        """Jobs of which something could not be read, as far as anybody has looked, and what."""

    def job(self, job_id: JobId, document: str) -> Job:
        try:
            return JOB.validate_json(document)
        except ValueError as error:
            self._note(job_id, "its document", error)
            return codec.broken_job(document, error, self._columns(job_id))

    def jobs_to_keep(self, rows: Iterable[tuple[JobId, str]]) -> list[Job]:
        """For the registry: equal keys and short words are one object in all of them, which halves their size."""
        return [self._job_to_keep(job_id, document) for job_id, document in rows]

    def event(self, job_id: JobId, version: int, document: str) -> JobEvent:
        try:
            return EVENT.validate_json(document)
        except ValueError as error:
            self._note(job_id, f"event {version}", error)
            return codec.broken_event(document, error, job_id, version, self._created_at(job_id))

    def attempt(self, job_id: JobId, fence: int, document: str) -> Attempt:
        try:
            return ATTEMPT.validate_json(document)
        except ValueError as error:
            self._note(job_id, f"attempt {fence}", error)
            return codec.broken_attempt(document, error, fence, self._created_at(job_id))

    def outbox_row(self, seq: int, job_id: JobId, version: int, job: str, event: str) -> OutboxRow:
        """For a copy that cannot be read stands the job itself, which is as new or newer."""
        told = self.event(job_id, version, event)
        try:
            return OutboxRow(seq=seq, job=JOB.validate_json(job), event=told)
        except ValueError as error:
            self._note(job_id, f"outbox {seq}", error)
        found = self._connection.execute(QUERIES["job"], (job_id,)).fetchone()
        newest = self.job(*found)
        is_whole = newest.reason.code != codec.UNREADABLE
        return OutboxRow(seq=seq, job=newest, event=told, unreadable=not is_whole)

    def forget(self, job_ids: Iterable[JobId]) -> None:
        """They were written anew."""
        for job_id in job_ids:
            self.unreadable.pop(job_id, None)

    def _job_to_keep(self, job_id: JobId, document: str) -> Job:
        try:
            return JOB.validate_python(from_json(document, cache_strings="all"))
        except ValueError:
            return self.job(job_id, document)

    def _columns(self, job_id: JobId) -> Columns:
        row = self._connection.execute(QUERIES["columns"], (job_id,)).fetchone()
        status, user, project, created_at, version, fence, queue_seq, key = row
        return Columns(
            id=job_id,
            status=status,
            user=user,
            project=project,
            created_at=moment(created_at) or _LONG_AGO,
            version=version,
            fence=fence,
            queue_seq=queue_seq,
            idempotency_key=key,
        )

    def _created_at(self, job_id: JobId) -> datetime:
        return self._columns(job_id).created_at

    def _note(self, job_id: JobId, what: str, error: ValueError) -> None:
        if job_id not in self.unreadable:
            words = codec.in_words(error)
            log.error("job %s cannot be read whole: %s: %s", job_id, what, words)
            self.unreadable[job_id] = f"{what}: {words}"
