"""The memory mirror keeps the promises of the real one, on a real database behind the real API."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import pytest
from psycopg import sql
from psycopg.types.json import Jsonb

from scheduler.adapters.supabase.mirror import SupabaseMirror
from scheduler.core.model import JobId, Json
from scheduler.errors import MirrorUnavailable
from scheduler.ports import Mirror
from scheduler.testing import ManualClock, a_job
from scheduler.testing.memory_mirror import Database, Fault, MemoryMirror
from tests.contract.suites.mirror_contract import MirrorContract
from tests.contract.suites.mirror_store import a_mirrored
from tests.stack.stack import Stack


@dataclass
class MemoryStore:
    clock: ManualClock = field(default_factory=ManualClock)

    def __post_init__(self) -> None:
        self.database = Database(self.clock)

    @asynccontextmanager
    async def open(self, cluster: str = "here") -> AsyncIterator[Mirror]:
        yield MemoryMirror(self.database, cluster)

    def row(self, job_id: JobId) -> Json | None:
        row = self.database.rows.get(job_id)
        return row and dict(row)

    def events(self, job_id: JobId) -> list[Json]:
        return [event for (of, _), event in sorted(self.database.events.items()) if of == job_id]

    def attempts(self, job_id: JobId) -> list[Json]:
        return [dict(run) for (of, _), run in sorted(self.database.attempts.items()) if of == job_id]

    def insert_pending(
        self, spec: Json | None, *, name: str = "job", user_id: str | None = None, cluster: str = "here"
    ) -> JobId:
        self.clock.advance(1)
        return self.database.insert_pending(spec, name=name, user_id=user_id, cluster=cluster)

    def request(self, job_id: JobId, action: str) -> None:
        self.clock.advance(1)
        self.database.request(job_id, action)

    def set(self, job_id: JobId, **columns: Any) -> None:
        self.clock.advance(1)
        self.database.set(job_id, **columns)


@dataclass
class SupabaseStore:
    """Tests share the database; each has two clusters of its own in it."""

    stack: Stack
    test: str = field(default_factory=lambda: uuid4().hex)

    @asynccontextmanager
    async def open(self, cluster: str = "here") -> AsyncIterator[Mirror]:
        mirror = SupabaseMirror(self.stack.url, self.stack.service_key, self._name(cluster))
        try:
            yield mirror
        finally:
            await mirror.close()

    def row(self, job_id: JobId) -> Json | None:
        found = self.stack.sql("select to_jsonb(t) as row from training_jobs t where id = %s", job_id)
        return found[0]["row"] if found else None

    def events(self, job_id: JobId) -> list[Json]:
        query = "select to_jsonb(e) as event from training_job_events e where job_id = %s order by version"
        return [found["event"] for found in self.stack.sql(query, job_id)]

    def attempts(self, job_id: JobId) -> list[Json]:
        query = "select to_jsonb(a) as run from training_attempts a where job_id = %s order by attempt"
        return [found["run"] for found in self.stack.sql(query, job_id)]

    def insert_pending(
        self, spec: Json | None, *, name: str = "job", user_id: str | None = None, cluster: str = "here"
    ) -> JobId:
        (row,) = self.stack.sql(
            "insert into training_jobs (name, spec, user_id, cluster) values (%s, %s, %s, %s) returning id::text",
            name,
            None if spec is None else Jsonb(spec),
            user_id,
            self._name(cluster),
        )
        return JobId(row["id"])

    def request(self, job_id: JobId, action: str) -> None:
        self.set(job_id, requested_action=action)

    def set(self, job_id: JobId, **columns: Any) -> None:
        changes = sql.SQL(", ").join(sql.SQL("{} = %s").format(sql.Identifier(name)) for name in columns)
        query = sql.SQL("update training_jobs set {} where id = %s").format(changes).as_string()
        as_json = ("spec", "job", "reason", "progress")
        values = [Jsonb(value) if name in as_json else value for name, value in columns.items()]
        self.stack.sql(query, *values, job_id)  # pyright: ignore[reportArgumentType]

    def _name(self, cluster: str) -> str:
        return f"{cluster}-{self.test}"


class TestMemoryMirror(MirrorContract):
    @pytest.fixture
    def store(self) -> MemoryStore:
        return MemoryStore()


class TestSupabaseMirror(MirrorContract):
    @pytest.fixture
    def store(self, supabase_stack: Stack) -> SupabaseStore:
        return SupabaseStore(supabase_stack)


@pytest.mark.parametrize(("fault", "is_done"), [("unavailable", False), ("lost_answer", True)])
async def test_a_memory_mirror_that_is_away_says_so(fault: Fault, is_done: bool) -> None:
    """The simulation needs both sides of the instant in which a write takes effect."""
    database = Database(ManualClock())
    mirror = MemoryMirror(database)
    await mirror.claim(1)
    job = a_job()
    database.fault = lambda method: fault if method == "apply" else None
    with pytest.raises(MirrorUnavailable):
        await mirror.apply([a_mirrored(job)])
    assert (job.id in database.rows) == is_done
    assert len(await mirror.active(None, 10)) == is_done


async def test_a_memory_mirror_does_what_it_is_told_twice_when_the_network_does() -> None:
    """A request that arrives twice must be seen twice by what is behind it."""
    database = Database(ManualClock(), fault=lambda _method: "twice")
    mirror = MemoryMirror(database)
    assert [await mirror.claim(1), await mirror.claim(1)] == [2, 4]
