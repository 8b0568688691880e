"""Taking away what nobody asks for any more: the history of jobs that ended long ago, and what was seen at their ends."""

from __future__ import annotations

import sqlite3
from dataclasses import replace

from scheduler.adapters.journal.files import QUERIES
from scheduler.adapters.journal.moments import microseconds, moment
from scheduler.core.codec import encode
from scheduler.core.model import ATTEMPT, JobId
from scheduler.ports import Mark, Pruned


def prune(connection: sqlite3.Connection, before: int, after: Mark | None, limit: int) -> Pruned:
    """See `Journal.prune`; *before* in microseconds since the epoch.  Within a transaction of the caller's."""
    beyond = (microseconds(after.ended_at), after.id) if after else (-(2**63), "")
    ended = connection.execute(QUERIES["ended"], (before, *beyond, limit)).fetchall()
    ids = [JobId(job_id) for _, job_id in ended if not _is_unsent(connection, job_id)]
    events = sum(connection.execute(QUERIES["prune_events"], (job_id,)).rowcount for job_id in ids)
    evidence = sum(_drop_evidence(connection, job_id) for job_id in ids)
    ended_at = moment(ended[-1][0]) if len(ended) == limit else None
    return Pruned(
        events=events, evidence=evidence, after=Mark(ended_at, JobId(ended[-1][1])) if ended_at else None
    )


def _is_unsent(connection: sqlite3.Connection, job_id: str) -> bool:
    return bool(connection.execute(QUERIES["is_unsent"], (job_id,)).fetchone()[0])


def _drop_evidence(connection: sqlite3.Connection, job_id: JobId) -> int:
    """Attempts that had some.  One that cannot be read is left as it is."""
    rows = connection.execute(QUERIES["attempts"], (job_id,)).fetchall()
    bare = [doc for _, fence, document in rows if (doc := _bare(job_id, fence, document))]
    connection.executemany(QUERIES["put_attempt"], bare)
    return len(bare)


def _bare(job_id: JobId, fence: int, document: str) -> tuple[JobId, int, str] | None:
    try:
        attempt = ATTEMPT.validate_json(document)
    except ValueError:
        return None
    if attempt.evidence is None:
        return None
    bare = encode(ATTEMPT, replace(attempt, evidence=None), f"attempt {fence} of job {job_id}")
    return job_id, fence, bare.decode()
