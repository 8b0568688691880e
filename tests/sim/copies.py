"""The rows of the database over time: what the scheduler wrote there, against what the journals said."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from scheduler.core.model import JobId, Json, Status
from scheduler.ports import Run
from scheduler.testing.memory_mirror import Database

Said = tuple[JobId, int, str]
"""(job, version, status), as some journal had it."""


class Copies:
    """Compares the rows at each write with those before it."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._last: dict[JobId, tuple[str, int]] = {}
        self._by_hand: set[JobId] = set()
        self._num_events = 0

    def written_by_hand(self, job_id: JobId) -> None:
        """Whatever the row says now, no scheduler is to blame for it, until one has written it again."""
        self._by_hand.add(job_id)
        row = self._database.rows.get(job_id)
        self._last.pop(job_id, None)
        if row:
            self._last[job_id] = _stands(row)

    def is_by_hand(self, job_id: JobId) -> bool:
        return job_id in self._by_hand

    def wants(self, run: Run) -> bool:
        """Whether the row says that this run is the one that should be alive."""
        row = self._database.rows.get(run[0])
        is_ours = row is not None and row["version"] > 0 and run[0] not in self._by_hand
        return is_ours and (row["status"], row["attempt"]) == (Status.RUNNING, run[1])

    def compare(self, said: Collection[Said], by: str) -> Iterator[str]:
        """What is wrong with the write that was made just now."""
        for job_id, row in self._database.rows.items():
            was, now = self._last.get(job_id), _stands(row)
            if was != now:
                yield from self._changed(job_id, was, now, said, by)
                self._last[job_id] = now
                self._by_hand.discard(job_id)
        if len(self._database.events) < self._num_events:
            yield f"{by} dropped events"
        self._num_events = len(self._database.events)

    def lacks(self, job_id: JobId, version: int) -> Iterator[str]:
        """What of this change, which is about to leave the outbox, the database does not have."""
        row = self._database.rows.get(job_id)
        if (row is None or row["version"] < version) and job_id not in self._by_hand:
            yield f"version {version} of job {job_id} leaves the outbox, and the database has {row and _stands(row)}"
        if (job_id, version) not in self._database.events:
            yield f"event {version} of job {job_id} leaves the outbox, and the database does not have it"

    def _changed(
        self,
        job_id: JobId,
        was: tuple[str, int] | None,
        now: tuple[str, int],
        said: Collection[Said],
        by: str,
    ) -> Iterator[str]:
        status, version = now
        if version and (job_id, version, status) not in said:
            yield f"{by} made the row of job {job_id} {status}, version {version}, which no journal ever said"
        if was and version < was[1] and job_id not in self._by_hand:
            yield f"{by} took the row of job {job_id} back from version {was[1]} to {version}"


def _stands(row: Json) -> tuple[str, int]:
    return row["status"], row["version"]
