"""A mirror without a network, which keeps the promises of the real one and fails when it is told to."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from datetime import datetime
from typing import TypeVar
from uuid import UUID

from scheduler.adapters.supabase.row_codec import RowBatch, rows_of, to_apply, to_vouch
from scheduler.core.model import JobId, Json, Status
from scheduler.core.reconcile import Row, Stub
from scheduler.errors import MirrorRefused, MirrorUnavailable, Superseded
from scheduler.ports import JobQuery, Mark, MirrorChange, ProgressUpdate, Pruned, Rows
from scheduler.testing.memory_database import Database, Fault

__all__ = ["Database", "Fault", "MemoryMirror"]

T = TypeVar("T")

SIGNED = ("reason", "progress", "queue_position", "verified_at")
TIMES = ("created_at", "queued_at", "started_at", "finished_at")


class MemoryMirror:
    """A `scheduler.ports.Mirror` on a `Database`.  It never waits."""

    def __init__(self, database: Database, cluster: str = "default") -> None:
        self.database, self.cluster = database, cluster
        self._incarnation: int | None = None

    async def claim(self, at_least: int) -> int:
        def work() -> int:
            known = self.database.incarnations
            known[self.cluster] = max(1, at_least, known.get(self.cluster, 0) + 1)
            return known[self.cluster]

        self._incarnation = self._ask("claim", work)
        return self._incarnation

    async def apply(self, changes: Collection[MirrorChange], *, forced: bool = False) -> None:
        if changes:
            jobs, events = (json.loads(text) for text in to_apply(changes))
            self._write("apply", lambda: self._apply(jobs, events, forced))

    async def vouch(self, signs: Collection[ProgressUpdate]) -> None:
        said = json.loads(to_vouch(signs))
        self._write("vouch", lambda: self._vouch(said))

    async def inbox(self, after: tuple[datetime, JobId] | None, limit: int) -> Rows:
        def wanted(row: Json) -> bool:
            is_new = row["status"] == Status.PENDING and row["version"] == 0
            return is_new or row["requested_action"] is not None

        def work() -> Rows:
            rows = sorted(filter(wanted, self._ours()), key=_touched)
            return self._read([row for row in rows if after is None or _touched(row) > after][:limit])

        return self._ask("inbox", work)

    async def answer(self, job_id: JobId, action: str, refusal: str | None) -> None:
        def work() -> None:
            row = self.database.rows.get(job_id)
            if row and row["cluster"] == self.cluster and row["requested_action"] == action:
                self.database.set(job_id, requested_action=None, request_error=refusal)

        self._write("answer", work)

    async def active(self, after: JobId | None, limit: int) -> list[Stub]:
        def work() -> list[Stub]:
            rows = sorted((row for row in self._ours() if _is_looked_at(row)), key=lambda row: row["id"])
            stubs = [Stub(id=row["id"], status=Status(row["status"]), version=row["version"]) for row in rows]
            return [stub for stub in stubs if after is None or stub.id > after][:limit]

        return self._ask("active", work)

    async def prune(self, before: datetime, after: Mark | None, limit: int) -> Pruned:
        taken: list[Pruned] = []
        self._write("prune", lambda: taken.append(self._prune(before, after, limit)))
        return taken[-1]

    async def rows(self, job_ids: Collection[JobId]) -> Rows:
        return self._ask("rows", lambda: self._read(row for row in self._ours() if row["id"] in job_ids))

    async def page(self, query: JobQuery) -> list[Row]:
        def work() -> list[Row]:
            newest_first = sorted(self._ours(), key=_created, reverse=True)
            found = self._read([row for row in newest_first if _matches(row, query)][: query.limit])
            return [replace(row, job=None, attempts=()) for row in found.rows]

        return self._ask("page", work)

    async def check(self) -> str:
        return self._ask("check", lambda: "in memory")

    async def close(self) -> None:
        """Nothing to let go of."""

    def _ask(self, method: str, work: Callable[[], T]) -> T:
        fault = self.database.fault(method)
        if fault == "unavailable":
            raise MirrorUnavailable("the database is away")
        answer = work()
        if fault == "twice":
            answer = work()
        if fault == "lost_answer":
            raise MirrorUnavailable("the answer of the database was lost")
        return answer

    def _write(self, method: str, work: Callable[[], None]) -> None:
        assert self._incarnation is not None, "claim the cluster before writing"

        def guarded() -> None:
            self._guard(self._incarnation or 0)
            work()

        self._ask(method, guarded)

    def _guard(self, incarnation: int) -> None:
        newest = self.database.incarnations.get(self.cluster, 0)
        if newest > incarnation:
            raise Superseded(f"cluster {self.cluster} belongs to incarnation {newest}, not {incarnation}")
        self.database.incarnations[self.cluster] = incarnation

    def _apply(self, changes: list[Json], events: list[Json], forced: bool) -> None:
        _refuse_bad_ids([change["job"]["id"] for change in changes])
        for change in changes:
            columns = _columns(change, self.cluster)
            row = self.database.rows.get(columns["id"])
            if row is None:
                self.database.insert(columns["id"], **columns)
            elif row["cluster"] == self.cluster and (row["version"] <= columns["version"] or forced):
                self.database.set(columns["id"], **columns | _progress(row, columns))
        for event in events:
            row = self.database.rows.get(event["job_id"])
            if row and row["cluster"] == self.cluster:
                self._keep(event, forced)

    def _prune(self, before: datetime, after: Mark | None, limit: int) -> Pruned:
        over = sorted(
            (datetime.fromisoformat(row["finished_at"]), row["id"], row["version"])
            for row in self._ours()
            if Status(row["status"]).is_terminal and row["finished_at"]
        )
        page = [place for place in over if place[0] < before and (after is None or place[:2] > after)][:limit]
        versions = {job_id: version for _, job_id, version in page}
        events, attempts = self.database.events, self.database.attempts
        old = [key for key in events if key[1] < versions.get(key[0], 0)]
        told = [key for key, run in attempts.items() if key[0] in versions and run["evidence"] is not None]
        for key in old:
            del events[key]
        for key in told:
            attempts[key] = attempts[key] | {"evidence": None}
        mark = Mark(*page[-1][:2]) if len(page) == limit else None
        return Pruned(events=len(old), evidence=len(told), after=mark)

    def _keep(self, event: Json, forced: bool) -> None:
        job_id, version, run = event["job_id"], event["version"], event["attempt"]
        line = {name: value for name, value in event.items() if name != "attempt"}
        self.database.events.setdefault((job_id, version), line | {"cluster": self.cluster})
        if run is None:
            return
        known = self.database.attempts.get((job_id, run["fence"]))
        if known is None or known["version"] <= version or forced:
            self.database.attempts[job_id, run["fence"]] = _run_columns(event, run, self.cluster)

    def _vouch(self, signs: list[Json]) -> None:
        self.database.vouched_at[self.cluster] = self.database.now()
        for sign in signs:
            row = self.database.rows.get(sign["job_id"])
            if row and (row["cluster"], row["version"]) == (self.cluster, sign["version"]):
                self.database.set(row["id"], **{name: sign[name] for name in SIGNED})

    def _ours(self) -> Iterable[Json]:
        return (row for row in self.database.rows.values() if row["cluster"] == self.cluster)

    def _read(self, rows: Iterable[Json]) -> Rows:
        vouched_at = self.database.vouched_at.get(self.cluster)
        return rows_of(
            RowBatch(
                rows=[_document(row) | {"attempts": self._runs_of(row["id"])} for row in rows],
                read_at=self.database.clock.now(),
                vouched_at=datetime.fromisoformat(vouched_at) if vouched_at else None,
            )
        )

    def _runs_of(self, job_id: JobId) -> str:
        return json.dumps([run for (of, _), run in sorted(self.database.attempts.items()) if of == job_id])


def _is_looked_at(row: Json) -> bool:
    if not Status(row["status"]).is_terminal:
        return True
    copy = row["job"]
    return copy is not None and (row["status"], row["version"]) != (copy.get("status"), copy.get("version"))


def _columns(change: Json, cluster: str) -> Json:
    """As `scheduler_apply` makes them from the job."""
    job = change["job"]
    return {
        "id": job["id"],
        "cluster": cluster,
        "name": job["spec"]["name"],
        "spec": job["spec"] if job["raw_spec"] is None else job["raw_spec"],
        "attempt": job["fence"],
        "queue_position": change["queue_position"],
        "verified_at": job["updated_at"],
        "progress": None if job["status"] == Status.RUNNING else job["progress"],
        "job": job,
        **{name: job[name] for name in ("status", "reason", "version", *TIMES)},
    }


def _run_columns(event: Json, run: Json, cluster: str) -> Json:
    same = {name: value for name, value in run.items() if name not in ("fence", "allocation")}
    return same | {
        "job_id": event["job_id"],
        "attempt": run["fence"],
        "cluster": cluster,
        "version": event["version"],
        "nodes": run["allocation"]["ranks"],
    }


def _progress(row: Json, columns: Json) -> Json:
    goes_on = row["status"] == columns["status"] == Status.RUNNING and row["attempt"] == columns["attempt"]
    return {"progress": row["progress"]} if goes_on else {}


def _refuse_bad_ids(job_ids: list[str]) -> None:
    if bad := [job_id for job_id in job_ids if not _is_uuid(job_id)]:
        raise MirrorRefused(f"{bad[0]} is no uuid")
    if len(set(job_ids)) < len(job_ids):
        raise MirrorRefused("a job may be in a batch only once")


def _is_uuid(job_id: str) -> bool:
    try:
        return bool(UUID(job_id))
    except ValueError:
        return False


def _document(row: Json) -> Json:
    """As `scheduler_rows` answers it: columns of JSON as text."""
    as_text = ("spec", "job", "reason", "progress")
    return row | {name: None if row[name] is None else json.dumps(row[name]) for name in as_text}


def _matches(row: Json, query: JobQuery) -> bool:
    spec = (row["job"] or {}).get("spec") or row["spec"] or {}
    return (
        (not query.statuses or row["status"] in query.statuses)
        and query.user in (None, spec.get("user", ""))
        and query.project in (None, spec.get("project", ""))
        and (query.after is None or _created(row) < query.after[:2])
    )


def _touched(row: Json) -> tuple[datetime, JobId]:
    return datetime.fromisoformat(row["updated_at"]), row["id"]


def _created(row: Json) -> tuple[datetime, JobId]:
    return datetime.fromisoformat(row["created_at"]), row["id"]
