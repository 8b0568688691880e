"""Between values and rows: what one commit writes, and what is read back."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any

from pydantic import TypeAdapter

from scheduler.adapters.journal import listing
from scheduler.adapters.journal.files import QUERIES
from scheduler.adapters.journal.moments import microseconds
from scheduler.core.codec import encode, in_words
from scheduler.core.contender import SHARE, Share
from scheduler.core.model import ATTEMPT, EVENT, JOB, NOTE, JobId, Json
from scheduler.core.reconcile import Repair
from scheduler.errors import VersionConflict
from scheduler.ports import Change

log = logging.getLogger(__name__)

REPAIR: TypeAdapter[Repair] = TypeAdapter(Repair)
REPAIRS_KEPT = 10_000
NO_NUMBER = 2**63 - 1
"""Above every number that SQLite gives to a row."""


# Writing


def write(connection: sqlite3.Connection, changes: Sequence[Change], repairs: Sequence[Repair]) -> None:
    """All that belongs to one commit, within a transaction of the caller's."""
    _check_versions(connection, changes)
    docs = [encode(JOB, change.job, f"job {change.job.id}").decode() for change in changes]
    listed = [listing.columns(change.job) for change in changes]
    connection.executemany(QUERIES["leave_listing"], ((job_id, at) for at, job_id, *_ in listed))
    try:
        connection.executemany(QUERIES["put_job"], map(_columns, changes, docs))
    except sqlite3.IntegrityError as error:
        raise VersionConflict(
            "a job was not accepted: its user has another job with the same idempotency key; ask for that one"
        ) from error
    connection.executemany(QUERIES["put_listing"], listed)
    connection.executemany(
        QUERIES["add_event"],
        (
            (
                c.job.id,
                c.job.version,
                encode(EVENT, c.event, f"event {c.job.version} of job {c.job.id}").decode(),
            )
            for c in changes
        ),
    )
    runs = ((c.job.id, run) for c in changes for run in (*c.attempts, c.event.attempt) if run)
    connection.executemany(
        QUERIES["put_attempt"],
        (
            (of, run.fence, encode(ATTEMPT, run, f"attempt {run.fence} of job {of}").decode())
            for of, run in runs
        ),
    )
    unsent = [(c.job.id, c.job.version, doc) for c, doc in zip(changes, docs, strict=True)]
    connection.executemany(QUERIES["add_outbox"], unsent)
    news = [row for change, row in zip(changes, unsent, strict=True) if change.is_news]
    connection.executemany(QUERIES["add_notice"], news)
    if repairs:
        _add_repairs(connection, repairs)


def _check_versions(connection: sqlite3.Connection, changes: Sequence[Change]) -> None:
    """The transaction holds the write lock already: what is read here cannot change before the commit."""
    seen: dict[JobId, int] = {}
    for change in changes:
        job = change.job
        if (change.event.job_id, change.event.version) != (
            job.id,
            job.version,
        ) or job.version <= change.before:
            raise ValueError(
                f"the event of job {job.id} must be that of its new version, above {change.before}"
            )
        stored = seen.get(job.id)
        if stored is None:
            row = connection.execute(QUERIES["version"], (job.id,)).fetchone()
            stored = row[0] if row else 0
        if stored != change.before:
            raise _conflict(job.id, stored, change.before)
        seen[job.id] = job.version


def _conflict(job_id: JobId, stored: int, before: int) -> VersionConflict:
    if before == 0:
        return VersionConflict(f"job {job_id} exists already, at version {stored}; it was not created again")
    held = f"is at version {stored}" if stored else "does not exist"
    return VersionConflict(f"job {job_id} {held}, not at {before}: read it again and decide anew")


def _columns(change: Change, doc: str) -> tuple[Any, ...]:
    job = change.job
    return (
        job.id,
        job.status,
        job.spec.user,
        job.spec.project,
        microseconds(job.created_at),
        job.version,
        job.fence,
        job.queue_seq,
        job.idempotency_key,
        doc,
    )


def _add_repairs(connection: sqlite3.Connection, repairs: Sequence[Repair]) -> None:
    docs = ((encode(REPAIR, repair, f"a repair of job {repair.job_id}").decode(),) for repair in repairs)
    connection.executemany(QUERIES["add_repair"], docs)
    connection.execute(QUERIES["prune_repairs"], (REPAIRS_KEPT,))


def put_project(connection: sqlite3.Connection, name: str, share: Share | None) -> None:
    if share is None:
        connection.execute(QUERIES["forget_project"], (name,))
    else:
        document = encode(SHARE, share, f"the share of project {name}").decode()
        connection.execute(QUERIES["put_project"], (name, document))


def put_note(connection: sqlite3.Connection, name: str, document: str | None) -> None:
    if document is None:
        connection.execute(QUERIES["forget_note"], (name,))
    else:
        connection.execute(QUERIES["put_note"], (name, document))


# Reading


def numbered_repairs(rows: Iterable[tuple[int, str]]) -> list[tuple[int, Repair]]:
    """Without those that cannot be read: the log names them."""
    found: list[tuple[int, Repair]] = []
    for number, doc in rows:
        try:
            found.append((number, REPAIR.validate_json(doc)))
        except ValueError as error:
            log.warning("repair %s of the journal is left out: cannot read %s", number, in_words(error))
    return found


def shares(rows: Iterable[tuple[str, str]]) -> dict[str, Share]:
    """Without those that cannot be read: the log names them, and their projects have the default."""
    found: dict[str, Share] = {}
    for name, doc in rows:
        try:
            found[name] = SHARE.validate_json(doc)
        except ValueError as error:
            log.error("the share of project %r is left out: cannot read %s", name, in_words(error))
    return found


def newest_note(rows: Iterable[tuple[str]]) -> Json | None:
    """None also for one that cannot be read: the log says so."""
    return next((_note("a note of the policy", doc) for (doc,) in rows), None)


def notes(rows: Iterable[tuple[str, str]]) -> dict[str, Json | None]:
    return {name: _note(f"the note {name!r}", doc) for name, doc in rows}


def _note(what: str, doc: str) -> Json | None:
    try:
        return NOTE.validate_json(doc)
    except ValueError as error:
        log.error("%s is left out: cannot read %s", what, in_words(error))
        return None
