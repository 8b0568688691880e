"""The journal in one SQLite file."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Self, TypeVar

from scheduler.adapters.journal import held_runs, listing, pruning, tables
from scheduler.adapters.journal.files import QUERIES, JournalLife, in_words, open_file
from scheduler.adapters.journal.group_commit import CLOSED, GroupCommit
from scheduler.adapters.journal.moments import microseconds, moment
from scheduler.adapters.journal.reading import Documents
from scheduler.adapters.journal.reserve import GIVES_BACK, Reserve
from scheduler.core.codec import encode
from scheduler.core.contender import Share
from scheduler.core.model import NOTE, Attempt, Job, JobEvent, JobId, Json, Status
from scheduler.core.reconcile import Repair
from scheduler.errors import JournalUnusable, JournalUnwritable, SchedulerError, Superseded
from scheduler.ports import Change, HeldRuns, JobQuery, Mark, OutboxRow, Pruned

T = TypeVar("T")


class SqliteJournal:
    """Write-ahead log, synchronous=FULL: a commit returns after its fsync.

    Writing and reading have a thread and a connection each; the event loop that opened the journal never
    waits for the disk.  Numbers that JSON cannot hold (NaN, infinity) come back as null.
    """

    incarnation: int
    last_vouched_at: datetime | None

    def __init__(
        self,
        path: Path,
        life: JournalLife,
        writing: tuple[ThreadPoolExecutor, sqlite3.Connection],
        reading: tuple[ThreadPoolExecutor, sqlite3.Connection],
        reserve: Reserve,
    ) -> None:
        self.path = path
        self._opened, self.incarnation = life.opened, life.incarnation
        self.last_vouched_at = moment(life.vouched_at)
        self._file = _identity(path)
        self._write_thread, writer = writing
        self._read_thread, self._reader = reading
        self._documents = Documents(self._reader)
        self._counted = listing.Counted(self._reader)
        self._reserve = reserve
        self._commits = GroupCommit(writer, self._write_thread, self._check_owner, self._explain, reserve)

    @classmethod
    async def open(cls, path: Path, *, busy_timeout_s: float = 2.0, reserve_bytes: int = 0) -> Self:
        """Open or make the file at *path* and take the next incarnation; close it with `close`.

        *reserve_bytes* of the disk are kept for cancels, pauses and ends of runs.
        Raises JournalUnusable for a file that is corrupt, foreign or newer (it is left as it is), and
        JournalUnwritable when the disk refuses or another program holds it locked for *busy_timeout_s*.
        """
        threads = [ThreadPoolExecutor(1, f"journal-{name}") for name in ("write", "read")]
        loop, reserve = asyncio.get_running_loop(), Reserve(path, reserve_bytes)
        try:
            writer, reader, life = await loop.run_in_executor(
                threads[0], lambda: open_file(path, busy_timeout_s=busy_timeout_s)
            )
            await loop.run_in_executor(threads[0], reserve.is_whole)
        except BaseException:
            for thread in threads:
                thread.shutdown(wait=False)
            raise
        return cls(path, life, (threads[0], writer), (threads[1], reader), reserve)

    async def close(self) -> None:
        """Finish the commits that were asked for, and let go of the file.  Safe to repeat."""
        await self._commits.close()
        await asyncio.get_running_loop().run_in_executor(None, self._read_thread.shutdown)
        self._reader.close()
        self._write_thread.shutdown(wait=False)

    async def commit(self, changes: Sequence[Change], repairs: Sequence[Repair] = ()) -> None:
        """See `Journal.commit`.  Raises ValueError when an event is not that of its job's new version."""
        changes, repairs = tuple(changes), tuple(repairs)
        gives_back = all(change.event.kind in GIVES_BACK for change in changes)
        await self._commits.run(
            lambda connection: tables.write(connection, changes, repairs),
            gives_back=bool(changes) and gives_back,
        )
        self._documents.forget(change.job.id for change in changes)

    def problem(self) -> str | None:
        return self._reserve.problem()

    async def forget(self, seqs: Sequence[int]) -> None:
        await self._delete("forget", seqs)

    async def forget_notices(self, seqs: Sequence[int]) -> None:
        await self._delete("forget_notice", seqs)

    async def vouch(self, at: datetime) -> None:
        said = microseconds(at)
        await self._commits.run(lambda connection: connection.execute(QUERIES["vouch"], (said,)))

    async def prune(self, before: datetime, after: Mark | None, limit: int) -> Pruned:
        taken: list[Pruned] = []
        await self._commits.run(
            lambda connection: taken.append(pruning.prune(connection, microseconds(before), after, limit))
        )
        return taken[0]

    async def raise_incarnation(self, at_least: int) -> None:
        await self._commits.run(
            lambda connection: connection.execute(QUERIES["raise_incarnation"], (at_least,))
        )
        self.incarnation = max(self.incarnation, at_least)

    async def set_project(self, name: str, share: Share | None) -> None:
        await self._commits.run(lambda connection: tables.put_project(connection, name, share))

    async def note(self, name: str, doc: Json | None) -> None:
        # Encoded now: whoever called may change it meanwhile.
        document = None if doc is None else encode(NOTE, doc, f"the note {name!r}").decode()
        await self._commits.run(lambda connection: tables.put_note(connection, name, document))

    @property
    def unreadable(self) -> Mapping[JobId, str]:
        return dict(self._documents.unreadable)

    async def active(self) -> list[Job]:
        return await self._read(self._documents.jobs_to_keep, "active")

    async def get(self, job_id: JobId) -> Job | None:
        return await self._first_job("job", job_id)

    async def find_by_key(self, user: str, idempotency_key: str) -> Job | None:
        return await self._first_job("job_by_key", user, idempotency_key)

    async def page(self, query: JobQuery) -> list[Job]:
        def read() -> list[Job]:
            return [self._documents.job(*row) for row in listing.page(self._reader, query)]

        return await self._in_read_thread(read)

    async def counts(self, query: JobQuery | None = None) -> dict[Status, int]:
        return await self._in_read_thread(lambda: self._counted.of(query or JobQuery()))

    async def events(self, job_id: JobId) -> list[JobEvent]:
        return await self._all(self._documents.event, "events", job_id)

    async def attempts(self, job_id: JobId) -> list[Attempt]:
        return await self._all(self._documents.attempt, "attempts", job_id)

    async def held_runs(self, since: datetime, until: datetime, after: Mark | None, limit: int) -> HeldRuns:
        return await self._in_read_thread(lambda: held_runs.page(self._reader, since, until, after, limit))

    async def outbox(self, limit: int, after: int = 0) -> list[OutboxRow]:
        return await self._all(self._documents.outbox_row, "outbox", after, limit)

    async def outbox_size(self) -> int:
        return await self._read(lambda found: next(iter(found))[0], "outbox_size")

    async def unsent(self, among: Collection[JobId] | None = None) -> frozenset[JobId]:
        name, values = ("unsent", []) if among is None else ("unsent_among", [json.dumps(list(among))])
        return await self._read(lambda found: frozenset(job_id for (job_id,) in found), name, *values)

    async def notices(self, limit: int, after: int = 0) -> list[OutboxRow]:
        return await self._all(self._documents.outbox_row, "notices", after, limit)

    async def repairs(self, limit: int, before: int | None = None) -> list[tuple[int, Repair]]:
        below = tables.NO_NUMBER if before is None else before
        return await self._read(tables.numbered_repairs, "repairs", below, limit)

    async def projects(self) -> dict[str, Share]:
        return await self._read(tables.shares, "projects")

    async def noted(self, name: str) -> Json | None:
        return await self._read(tables.newest_note, "note", name)

    async def notes(self, prefix: str) -> dict[str, Json | None]:
        return await self._read(tables.notes, "notes", prefix)

    async def _first_job(self, query: str, *values: object) -> Job | None:
        found = await self._all(self._documents.job, query, *values)
        return found[0] if found else None

    async def _all(self, parse: Callable[..., T], query: str, *values: object) -> list[T]:
        return await self._read(lambda found: [parse(*row) for row in found.fetchall()], query, *values)

    async def _delete(self, query: str, seqs: Sequence[int]) -> None:
        values = [(seq,) for seq in seqs]
        await self._commits.run(lambda connection: connection.executemany(QUERIES[query], values))

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
        life = JournalLife(*connection.execute(QUERIES["life"]).fetchone())
        if life.opened != self._opened:
            raise Superseded(
                f"the journal {self.path} was opened by incarnation {life.incarnation} of the scheduler; this one is "
                f"{self.incarnation}, wrote nothing, and must stop"
            )


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino
