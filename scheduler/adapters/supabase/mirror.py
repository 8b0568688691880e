"""The mirror in Supabase.  What each call does to the rows is in `supabase/migrations/`."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

from scheduler.adapters.supabase.connection import MIGRATE, SET_KEY, SupabaseConnection, refused
from scheduler.adapters.supabase.row_codec import RowBatch, rows_of, to_apply, to_vouch
from scheduler.core.model import JobId, Status
from scheduler.core.reconcile import Row, Stub
from scheduler.ports import JobQuery, Mark, MirrorChange, ProgressUpdate, Pruned, Rows

T = TypeVar("T")

SCHEMA_VERSION = 3
"""What `scheduler_check()` answers in a database with the migrations of this release."""
UPGRADE = "pip install --upgrade training-scheduler"


@dataclass(frozen=True, slots=True)
class _Claimed:
    incarnation: int


@dataclass(frozen=True, slots=True)
class _Written:
    rows: int


@dataclass(frozen=True, slots=True)
class _Active:
    stubs: list[tuple[JobId, Status, int]]


@dataclass(frozen=True, slots=True)
class _Pruned:
    events: int
    evidence: int
    after: tuple[datetime, JobId] | None


@dataclass(frozen=True, slots=True)
class _Schema:
    schema_version: int
    role: str


class SupabaseMirror:
    """A `scheduler.ports.Mirror` in a Supabase project, for one event loop.  It opens with the first call.

    *timeout_s*: how long one request may take in all before it counts as unanswered.  A row that another cluster
    has under the same id is never touched: such a change is dropped without an error.
    """

    def __init__(self, url: str, key: str, cluster: str, timeout_s: float = 10.0) -> None:
        self._database = SupabaseConnection(url, key, timeout_s)
        self._cluster = cluster
        self._incarnation: int | None = None

    async def claim(self, at_least: int) -> int:
        claimed = await self._call("scheduler_claim", _Claimed, p_at_least=at_least)
        self._incarnation = claimed.incarnation
        return claimed.incarnation

    async def apply(self, changes: Collection[MirrorChange], *, forced: bool = False) -> None:
        if changes:
            jobs, events = await asyncio.to_thread(to_apply, changes)
            await self._write("scheduler_apply", _Written, p_changes=jobs, p_events=events, p_forced=forced)

    async def vouch(self, signs: Collection[ProgressUpdate]) -> None:
        await self._write("scheduler_vouch", _Written, p_signs=await asyncio.to_thread(to_vouch, signs))

    async def inbox(self, after: tuple[datetime, JobId] | None, limit: int) -> Rows:
        return await self._rows("scheduler_inbox", p_limit=limit, **_bounds(after))

    async def answer(self, job_id: JobId, action: str, refusal: str | None) -> None:
        await self._write("scheduler_answer", _Written, p_job_id=job_id, p_action=action, p_refusal=refusal)

    async def active(self, after: JobId | None, limit: int) -> list[Stub]:
        answer = await self._call("scheduler_active", _Active, p_after_id=after, p_limit=limit)
        return [Stub(id=job_id, status=status, version=version) for job_id, status, version in answer.stubs]

    async def prune(self, before: datetime, after: Mark | None, limit: int) -> Pruned:
        arguments = {"p_before": before.isoformat(), "p_limit": limit, **_bounds(after)}
        found = await self._write("scheduler_prune", _Pruned, **arguments)
        mark = Mark(*found.after) if found.after else None
        return Pruned(events=found.events, evidence=found.evidence, after=mark)

    async def rows(self, job_ids: Collection[JobId]) -> Rows:
        return await self._rows("scheduler_rows", p_ids=sorted(filter(_is_uuid, set(job_ids))))

    async def page(self, query: JobQuery) -> list[Row]:
        """Of a plain query, without `job`.  A row without a copy of it is filtered by user and project of its spec."""
        filters = {
            "p_statuses": sorted(query.statuses) or None,
            "p_user": query.user,
            "p_project": query.project,
        }
        bounds = _bounds(query.after and query.after[:2])
        found = await self._rows("scheduler_page", p_limit=query.limit, **filters, **bounds)
        return list(found.rows)

    async def check(self) -> str:
        found = await self._database.call("scheduler_check", _Schema)
        where = self._database.where
        if found.role != "service_role":
            raise refused(f"{where} takes the key for one of the role {found.role}", SET_KEY)
        if found.schema_version != SCHEMA_VERSION:
            remedy = MIGRATE if found.schema_version < SCHEMA_VERSION else UPGRADE
            told = f"{where} has schema version {found.schema_version}, this release needs {SCHEMA_VERSION}"
            raise refused(told, remedy)
        return f"{where} answers; schema version {found.schema_version}, role {found.role}"

    async def close(self) -> None:
        """Let the connections go.  Safe to repeat."""
        await self._database.close()

    async def _rows(self, function: str, **arguments: Any) -> Rows:
        batch = await self._call(function, RowBatch, **arguments)
        return await asyncio.to_thread(rows_of, batch)

    async def _write(self, function: str, returns: type[T], **arguments: Any) -> T:
        if self._incarnation is None:
            raise RuntimeError("claim the cluster before writing")
        return await self._call(function, returns, p_incarnation=self._incarnation, **arguments)

    async def _call(self, function: str, returns: type[T], **arguments: Any) -> T:
        return await self._database.call(function, returns, p_cluster=self._cluster, **arguments)


def _bounds(after: tuple[datetime, JobId] | None) -> dict[str, str | None]:
    at, job_id = after or (None, None)
    return {"p_after_at": at.isoformat() if at else None, "p_after_id": job_id}


def _is_uuid(job_id: JobId) -> bool:
    try:
        return str(UUID(job_id)) == job_id
    except ValueError:
        return False
