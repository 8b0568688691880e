"""The database under the memory mirror: rows, and what others than the scheduler do to them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal
from uuid import uuid4

from scheduler.core.model import JobId, Json, Status
from scheduler.ports import Clock

Fault = Literal["unavailable", "lost_answer", "twice"]
"""Not done and not answered; done and not answered; done twice."""
NULLABLE = (
    "user_id",
    "spec",
    "reason",
    "progress",
    "queue_position",
    "verified_at",
    "queued_at",
    "started_at",
    "finished_at",
    "requested_action",
    "request_error",
    "job",
)


def _no_fault(_method: str) -> Fault | None:
    return None


@dataclass
class Database:
    """What survives a crash of the scheduler: give the same one to the next `MemoryMirror`.

    Rows are JSON documents with the columns of `training_jobs`, so that nothing a test holds is shared with them.
    """

    clock: Clock
    """The database's own: it tells when rows were touched, and when they were read."""
    rows: dict[JobId, Json] = field(default_factory=dict)
    events: dict[tuple[JobId, int], Json] = field(default_factory=dict)
    attempts: dict[tuple[JobId, int], Json] = field(default_factory=dict)
    """By job and fence, with the columns of `training_attempts`."""
    incarnations: dict[str, int] = field(default_factory=dict)
    vouched_at: dict[str, str] = field(default_factory=dict)
    fault: Callable[[str], Fault | None] = _no_fault
    """Asked at every call with the method's name.  It may also raise `Crash`."""

    def now(self) -> str:
        return self.clock.now().isoformat()

    # What a front end does

    def insert_pending(self, spec: Json | None, *, job_id: JobId | None = None, **columns: Any) -> JobId:
        """*columns* are those that a front end may set: `name`, `cluster`, `user_id`."""
        return self.insert(job_id or JobId(str(uuid4())), spec=spec, **columns)

    def request(self, job_id: JobId, action: str) -> None:
        self.set(job_id, requested_action=action, request_error=None)

    # What else may happen to a row, by hand

    def insert(self, job_id: JobId, **columns: Any) -> JobId:
        """A row with these *columns*, otherwise as a front end's."""
        if job_id in self.rows:
            raise ValueError(f"there is a row {job_id} already")
        now = self.now()
        defaults = dict.fromkeys(NULLABLE) | {
            "id": job_id,
            "cluster": "default",
            "status": Status.PENDING.value,
            "version": 0,
            "name": "job",
            "attempt": 0,
            "created_at": now,
            "updated_at": now,
        }
        self.rows[job_id] = _copy(defaults | columns)
        return job_id

    def set(self, job_id: JobId, **columns: Any) -> None:
        """Change *columns*; like every change it touches the row, unless `updated_at` is among them."""
        self.rows[job_id] |= _copy({"updated_at": self.now(), **columns})

    def delete(self, job_id: JobId) -> None:
        del self.rows[job_id]


def _copy(columns: Json) -> Json:
    return json.loads(json.dumps(columns, default=str))
