"""Which runs held nodes between two moments: read along an index, a few jobs at a time."""

from __future__ import annotations

import json
import logging
import sqlite3
from datetime import datetime

from pydantic import TypeAdapter

from scheduler.adapters.journal.files import QUERIES
from scheduler.adapters.journal.moments import microseconds, moment
from scheduler.core.codec import in_words
from scheduler.core.model import ATTEMPT, Gang, JobId
from scheduler.core.usage import HeldRun, held_run, overlaps
from scheduler.ports import HeldRuns, Mark

log = logging.getLogger(__name__)

GANG: TypeAdapter[Gang] = TypeAdapter(Gang)


def page(
    connection: sqlite3.Connection, since: datetime, until: datetime, after: Mark | None, limit: int
) -> HeldRuns:
    """See `Journal.held_runs`."""
    began, ended = microseconds(since), microseconds(until)
    beyond = (microseconds(after.ended_at), after.id) if after else (began - 1, "")
    walked = connection.execute(QUERIES["held_jobs"], (ended, *beyond, limit)).fetchall()
    ids = [job_id for _, job_id in walked]
    if after is None:
        ids += [job_id for (job_id,) in connection.execute(QUERIES["held_open_jobs"], (began, ended))]
    rows = connection.execute(QUERIES["held_runs"], (json.dumps(ids),)).fetchall()
    runs = [_run(*row) for row in rows]
    changed_at = moment(walked[-1][0]) if len(walked) == limit else None
    return HeldRuns(
        runs=[run for run in runs if run and overlaps(run, since, until)],
        left_out=runs.count(None),
        after=Mark(changed_at, JobId(walked[-1][1])) if changed_at else None,
    )


def _run(
    job_id: str, project: str, user: str, gang: str | None, fence: int, runs: int, attempt: str | None
) -> HeldRun | None:
    """None for one that cannot be counted; one that cannot be read is named in the log."""
    try:
        needs, held = GANG.validate_json(gang or ""), ATTEMPT.validate_json(attempt or "")
    except ValueError as error:
        log.error("attempt %s of job %s is not counted: cannot read %s", fence, job_id, in_words(error))
        return None
    return held_run(JobId(job_id), project, user, needs, held, runs=bool(runs))
