"""The journal in one SQLite file."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self, TypeVar

from scheduler.core.model import EVENT, JOB, Job, JobEvent, JobId, Status, compact
from scheduler.errors import JournalUnusable, JournalUnwritable, SchedulerError, Superseded, VersionConflict
from scheduler.journal.files import QUERIES, in_words, open_file
from scheduler.journal.group_commit import CLOSED, GroupCommit
from scheduler.ports import Change, JobQuery, OutboxRow

T = TypeVar("T")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class SqliteJournal:
    """Write-ahead log, synchronous=FULL: a commit returns after its fsync.

    Writing and reading have a thread and a connection each; the event loop that opened the journal never
    waits for the disk.  Numbers that JSON cannot hold (NaN, infinity) come back as null.
    """

    incarnation: int

    def __init__(
        self,
        path: Path,
        incarnation: int,
        writing: tuple[ThreadPoolExecutor, sqlite3.Connection],
        reading: tuple[ThreadPoolExecutor, sqlite3.Connection],
    ) -> None:
        self.path = path
        self.incarnation = incarnation
        self._file = _identity(path)
        self._write_thread, writer = writing
        self._read_thread, self._reader = reading
        self._commits = GroupCommit(writer, self._write_thread, self._check_owner, self._explain)

    @classmethod
    async def open(cls, path: Path, *, busy_timeout_s: float = 2.0) -> Self:
        """Open or make the file at *path* and take the next incarnation; close it with `close`.

        Raises JournalUnusable for a file that is torn, foreign or newer (it is left as it is), and
        JournalUnwritable when the disk refuses or another program holds it locked for *busy_timeout_s*.
        """
        threads = [ThreadPoolExecutor(1, f"journal-{name}") for name in ("write", "read")]
        loop = asyncio.get_running_loop()
        try:
            writer, reader, incarnation = await loop.run_in_executor(
                threads[0], lambda: open_file(path, busy_timeout_s=busy_timeout_s)
            )
        except BaseException:
            for thread in threads:
                thread.shutdown(wait=False)
            raise
        return cls(path, incarnation, (threads[0], writer), (threads[1], reader))

    async def close(self) -> None:
        """Finish the commits that were asked for, and let go of the file.  Safe to repeat."""
        await self._commits.close()
        await asyncio.get_running_loop().run_in_executor(None, self._read_thread.shutdown)
        self._reader.close()
        self._write_thread.shutdown(wait=False)

    async def commit(self, changes: Sequence[Change]) -> None:
        """See `Journal.commit`.  Raises ValueError when an event is not that of its job's new version."""
        changes = tuple(changes)
        await self._commits.run(lambda connection: _write(connection, changes))

    async def forget(self, seqs: Sequence[int]) -> None:
        rows = [(seq,) for seq in seqs]
        await self._commits.run(lambda connection: _forget(connection, rows))

    async def active(self) -> list[Job]:
        return await self._read(lambda rows: [_to_keep(JOB.validate_json(doc)) for (doc,) in rows], "active")

    async def get(self, job_id: JobId) -> Job | None:
        return await self._read(_first_job, "job", job_id)

    async def find_by_key(self, user: str, idempotency_key: str) -> Job | None:
        return await self._read(_first_job, "job_by_key", user, idempotency_key)

    async def page(self, query: JobQuery) -> list[Job]:
        return await self._in_read_thread(lambda: _page(self._reader, query))

    async def counts(self) -> dict[Status, int]:
        return await self._read(lambda rows: {Status(status): count for status, count in rows}, "counts")

    async def events(self, job_id: JobId) -> list[JobEvent]:
        return await self._read(lambda rows: [EVENT.validate_json(doc) for (doc,) in rows], "events", job_id)

    async def outbox(self, limit: int) -> list[OutboxRow]:
        return await self._read(lambda rows: [_outbox_row(*row) for row in rows], "outbox", limit)

    async def outbox_size(self) -> int:
        return await self._read(lambda rows: next(iter(rows))[0], "outbox_size")

    async def _read(self, parse: Callable[[sqlite3.Cursor], T], query: str, *values: object) -> T:
        return await self._in_read_thread(lambda: parse(self._reader.execute(QUERIES[query], values)))

    async def _in_read_thread(self, read: Callable[[], T]) -> T:
        if self._commits.closed:
            raise JournalUnwritable(CLOSED)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._read_thread, read)
        except sqlite3.Error as error:
            raise self._explain(error) from error

    def _explain(self, error: sqlite3.Error | OSError) -> SchedulerError:
        return in_words(error, self.path)

    def _check_owner(self, connection: sqlite3.Connection) -> None:
        """In the transaction of each commit: the file is still the one at *path*, and still ours."""
        if _identity(self.path) != self._file:
            raise JournalUnusable(
                f"the journal {self.path} was removed or replaced while it was open; what was written now "
                "would be lost. Put the file back and restart the scheduler"
            )
        (newest,) = connection.execute(QUERIES["incarnation"]).fetchone()
        if newest != self.incarnation:
            raise Superseded(
                f"the journal {self.path} was opened by incarnation {newest} of the scheduler; this one is "
                f"{self.incarnation}, wrote nothing, and must stop"
            )


def _write(connection: sqlite3.Connection, changes: Sequence[Change]) -> None:
    _check_versions(connection, changes)
    docs = [JOB.dump_json(change.job).decode() for change in changes]
    try:
        connection.executemany(QUERIES["put_job"], map(_columns, changes, docs))
    except sqlite3.IntegrityError as error:
        raise VersionConflict(
            "a job was not accepted: its user has another job with the same idempotency key; ask for that one"
        ) from error
    connection.executemany(
        QUERIES["add_event"], ((c.job.id, c.job.version, EVENT.dump_json(c.event).decode()) for c in changes)
    )
    connection.executemany(
        QUERIES["add_outbox"],
        ((c.job.id, c.job.version, doc) for c, doc in zip(changes, docs, strict=True)),
    )


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
        _microseconds(job.created_at),
        job.version,
        job.fence,
        job.queue_seq,
        job.idempotency_key,
        doc,
    )


def _forget(connection: sqlite3.Connection, rows: Sequence[tuple[int]]) -> None:
    connection.executemany(QUERIES["forget"], rows)


def _page(connection: sqlite3.Connection, query: JobQuery) -> list[Job]:
    """One walk down an index for each status asked for: none of them reads more than *limit* rows."""
    found: list[tuple[int, str, str]] = []
    for status in sorted(query.statuses) or [None]:
        clauses, values = _filters(query, status)
        where = f"WHERE {' AND '.join(clauses)}" if clauses else ""
        found += connection.execute(
            f"SELECT created_at, id, doc FROM jobs {where} ORDER BY created_at DESC, id DESC LIMIT ?",
            [*values, query.limit],
        )
    found.sort(reverse=True)
    return [JOB.validate_json(doc) for _, _, doc in found[: query.limit]]


def _filters(query: JobQuery, status: Status | None) -> tuple[list[str], list[object]]:
    equal = {"status": status, "user": query.user, "project": query.project}
    clauses = [f"{column} = ?" for column, value in equal.items() if value is not None]
    values: list[object] = [value for value in equal.values() if value is not None]
    if query.after is not None:
        created_at, job_id = query.after
        clauses.append("(created_at, id) < (?, ?)")
        values += [_microseconds(created_at), job_id]
    return clauses, values


def _to_keep(job: Job) -> Job:
    return replace(job, spec=compact(job.spec))


def _first_job(rows: sqlite3.Cursor) -> Job | None:
    row = rows.fetchone()
    return JOB.validate_json(row[0]) if row else None


def _outbox_row(seq: int, job: str, event: str) -> OutboxRow:
    return OutboxRow(seq=seq, job=JOB.validate_json(job), event=EVENT.validate_json(event))


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _microseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // _MICROSECOND
