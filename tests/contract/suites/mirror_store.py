"""What the contract of mirrors asks of a database under test, and the values it writes there."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from itertools import pairwise
from typing import Any, Protocol

from scheduler.core.lifecycle import record
from scheduler.core.model import Job, JobId, Json, Reason
from scheduler.ports import Change, Mirror, MirrorChange, ProgressUpdate
from scheduler.testing.clock import NOON

ELSEWHERE = "elsewhere"
"""The name of another cluster in the same database."""


class MirrorStore(Protocol):
    """The database of one test, in which nobody else has rows.

    It looks inside, and writes by hand, without asking the mirror under test.  *cluster* is one of two.
    """

    def open(self, cluster: str = "here") -> AbstractAsyncContextManager[Mirror]:
        """A mirror that has claimed nothing yet."""
        ...

    def row(self, job_id: JobId) -> Json | None:
        """Every column, as JSON."""
        ...

    def events(self, job_id: JobId) -> list[Json]:
        """Oldest first."""
        ...

    def attempts(self, job_id: JobId) -> list[Json]:
        """Every column, as JSON; the first run first."""
        ...

    def insert_pending(
        self, spec: Json | None, *, name: str = "job", user_id: str | None = None, cluster: str = "here"
    ) -> JobId:
        """What a front end does.  Each is inserted later than the one before."""
        ...

    def request(self, job_id: JobId, action: str) -> None: ...

    def set(self, job_id: JobId, **columns: Any) -> None:
        """What a person does with psql."""
        ...


def a_mirrored(job: Job, *before: Job, **fields: Any) -> MirrorChange:
    """*job* at its newest, with the events of the steps that led there from *before*."""
    steps = [None, *before, job] if job.version == len(before) + 1 else [*before, job]
    pairs = pairwise(steps)
    return MirrorChange(job=job, events=tuple(record(was, now, None) for was, now in pairs), **fields)


def committed(*changes: Change) -> MirrorChange:
    """What a relay makes of commits of one job, the oldest first."""
    return MirrorChange(job=changes[-1].job, events=tuple(change.event for change in changes))


def a_sign(job: Job, **fields: Any) -> ProgressUpdate:
    likely = {
        "reason": Reason(code="running", message="step 5"),
        "progress": {"step": 5},
        "queue_position": None,
    }
    return ProgressUpdate(
        **{"job_id": job.id, "version": job.version, "verified_at": NOON, **likely, **fields}
    )
