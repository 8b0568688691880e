"""Many callers, one fsync: work that arrives while a transaction is under way shares the next one."""

from __future__ import annotations

import asyncio
import copy
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

from scheduler.adapters.journal.files import QUERIES
from scheduler.adapters.journal.reserve import Reserve, is_full
from scheduler.errors import JournalUnwritable, SchedulerError

Work = Callable[[sqlite3.Connection], object]
CLOSED = "the journal is closed; nothing was accepted. Ask the scheduler that runs now"
RESERVED = (
    "the disk of the journal is full, and what is kept in reserve is for cancels, pauses and ends of runs; nothing was "
    "accepted. Free space on the disk of SCHEDULER_STATE_DIR, then try again"
)


@dataclass(frozen=True, slots=True)
class Piece:
    """Work that somebody waits for.  What *gives_back* may use the reserve of the disk."""

    work: Work
    gives_back: bool
    done: asyncio.Future[None]


class GroupCommit:
    """Runs work on one connection, in one thread, in the order in which it was asked for.

    Each piece of work is all or nothing by itself; what it raises reaches its caller alone.  What the disk
    or *guard* (run first in every transaction) raises reaches every caller of the transaction; nothing stays.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        thread: ThreadPoolExecutor,
        guard: Work,
        explain: Callable[[sqlite3.Error | OSError], SchedulerError],
        reserve: Reserve,
    ) -> None:
        self._connection = connection
        self._thread = thread
        self._guard = guard
        self._explain = explain
        self._reserve = reserve
        self._loop = asyncio.get_running_loop()
        self._waiting: list[Piece] = []
        self._under_way = False
        self.closed = False

    async def run(self, work: Work, *, gives_back: bool = False) -> None:
        """Return when *work* is on disk.  A caller that is cancelled may find it done or not.

        On a full disk only work that *gives_back* is done, as long as the reserve lasts.
        """
        if self.closed:
            raise JournalUnwritable(CLOSED)
        done: asyncio.Future[None] = self._loop.create_future()
        self._waiting.append(Piece(work, gives_back, done))
        # Not at once: callers that became ready in the same turn of the loop belong in one transaction.
        self._loop.call_soon(self._begin)
        await done

    async def close(self) -> None:
        """Finish what was asked for, then refuse more.  Safe to repeat."""
        if self.closed:
            return
        last = asyncio.ensure_future(self.run(lambda _: None))
        await asyncio.sleep(0)
        self.closed = True
        with suppress(SchedulerError):
            await last
        await self._loop.run_in_executor(self._thread, self._connection.close)

    def _begin(self) -> None:
        if self._under_way:
            return
        batch = [piece for piece in self._waiting if not piece.done.cancelled()]
        self._waiting = []
        if not batch:
            return
        self._under_way = True
        write = self._loop.run_in_executor(self._thread, self._write, batch)
        write.add_done_callback(lambda written: self._settle(batch, written))

    def _settle(self, batch: Sequence[Piece], written: asyncio.Future[list[Exception | None]]) -> None:
        self._under_way = False
        error = written.exception()
        outcomes = [error] * len(batch) if error else written.result()
        for piece, outcome in zip(batch, outcomes, strict=True):
            if piece.done.cancelled():
                continue
            if outcome is None:
                piece.done.set_result(None)
            else:
                piece.done.set_exception(outcome)
        # After the callers just woken, whose next commits then share the transaction of those who waited.
        self._loop.call_soon(self._begin)

    def _write(self, batch: Sequence[Piece]) -> list[Exception | None]:
        if self._reserve.is_whole():
            try:
                return self._transact(batch)
            except (sqlite3.Error, OSError) as error:
                if not (is_full(error) and any(piece.gives_back for piece in batch)):
                    return [self._explain(error) for _ in batch]
                self._reserve.spend()
        return self._write_from_reserve(batch)

    def _write_from_reserve(self, batch: Sequence[Piece]) -> list[Exception | None]:
        """Nothing but what gives something back, so that it lasts."""
        allowed = [piece for piece in batch if piece.gives_back]
        try:
            written = iter(self._transact(allowed) if allowed else [])
            self._checkpoint()
        except (sqlite3.Error, OSError) as error:
            written = iter([self._explain(error) for _ in allowed])
        return [next(written) if piece.gives_back else JournalUnwritable(RESERVED) for piece in batch]

    def _checkpoint(self) -> None:
        """Empty the log as soon as it can be, so that the next commit finds its blocks and needs no others.  SQLite does
        so after every 1,000 pages, which a full disk may not have."""
        with suppress(sqlite3.Error):
            self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def _transact(self, batch: Sequence[Piece]) -> list[Exception | None]:
        """Raises what the disk raises; then nothing of the *batch* stays."""
        connection = self._connection
        try:
            connection.execute("BEGIN IMMEDIATE")
            self._guard(connection)
            outcomes = [self._attempt(piece.work) for piece in batch]
            self._commit()
            return outcomes
        except SchedulerError as error:
            return [copy.copy(error) for _ in batch]
        finally:
            self._roll_back()

    def _commit(self) -> None:
        try:
            self._connection.execute("COMMIT")
        except sqlite3.Error:
            # When only the fsync failed, the log ends with a transaction that is complete but was refused: a
            # crash now would bring it back.  Whatever is written next, durable or not, takes its place.
            self._roll_back()
            with suppress(sqlite3.Error):
                self._connection.execute(QUERIES["overwrite_refused"])
            raise

    def _roll_back(self) -> None:
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def _attempt(self, work: Work) -> Exception | None:
        self._connection.execute("SAVEPOINT attempt")
        try:
            work(self._connection)
            return None
        except sqlite3.Error:
            raise
        except Exception as error:  # noqa: BLE001 - raised in the caller; its neighbours go on
            self._connection.execute("ROLLBACK TO attempt")
            return error
        finally:
            if self._connection.in_transaction:
                self._connection.execute("RELEASE attempt")
