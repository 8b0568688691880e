"""The past of a journal, read beside a scheduler that may be writing to it: nothing is written, nobody has to wait."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path

from scheduler.adapters.journal import tables
from scheduler.adapters.journal.files import (
    QUERIES,
    SCHEMA_VERSION,
    check_is_not_cut,
    check_is_ours,
    in_words,
)
from scheduler.adapters.journal.moments import microseconds
from scheduler.adapters.journal.reading import Documents
from scheduler.core.contender import Share
from scheduler.core.history import PastJob
from scheduler.core.model import JobId
from scheduler.errors import JournalUnusable, NotReady

AT_ONCE = 500
"""Jobs that are read in one transaction: while it is open, the write-ahead log cannot be taken back."""
_PATIENCE_S = 5.0


class JournalHistory:
    """A journal that is only read."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection, self._documents = connection, Documents(connection)

    @classmethod
    @contextmanager
    def of(cls, path: Path) -> Iterator[JournalHistory]:
        """Raises NotReady where there is no file, JournalUnusable for one that is none of ours, cut or of another schema."""
        if not path.exists():
            raise NotReady(
                f"there is no journal {path}; name it with --journal, or set SCHEDULER_STATE_DIR or "
                "SCHEDULER_CLUSTER to those of your scheduler"
            )
        try:
            check_is_not_cut(path)
            with closing(_connect(path)) as connection:
                check_is_ours(connection, path)
                _check_schema(connection, path)
                yield cls(connection)
        except (sqlite3.Error, OSError) as error:
            raise in_words(error, path) from error

    def jobs(self, since: datetime, until: datetime) -> Iterator[PastJob]:
        """Jobs that were submitted in that time, the oldest first, each with its attempts."""
        after, last = (microseconds(since), ""), microseconds(until)
        while rows := self._page(after, last):
            yield from (past for _, past in rows)
            after = rows[-1][0]

    def shares(self) -> Mapping[str, Share]:
        """Of the projects, as they are now."""
        return tables.shares(self._connection.execute(QUERIES["projects"]).fetchall())

    def _page(self, after: tuple[int, str], last: int) -> list[tuple[tuple[int, str], PastJob]]:
        """Of one moment of the file, each with its place in it."""
        self._connection.execute("BEGIN")
        try:
            rows = self._connection.execute(QUERIES["submitted"], (*after, last, AT_ONCE)).fetchall()
            return [((at, job_id), self._past(job_id, document)) for at, job_id, document in rows]
        finally:
            self._connection.execute("COMMIT")

    def _past(self, job_id: JobId, document: str) -> PastJob:
        rows = self._connection.execute(QUERIES["attempts"], (job_id,)).fetchall()
        job = self._documents.job(job_id, document)
        return PastJob(job=job, attempts=tuple(self._documents.attempt(*row) for row in rows))


def _connect(path: Path) -> sqlite3.Connection:
    """SQLite keeps an index of its log beside the file; where it may not write that, a file at rest needs none."""
    uri = path.absolute().as_uri()
    connection = sqlite3.connect(f"{uri}?mode=ro", uri=True, timeout=_PATIENCE_S, isolation_level=None)
    try:
        connection.execute("PRAGMA user_version").fetchone()
        return connection
    except sqlite3.Error as error:
        connection.close()
        is_at_rest = not path.with_name(f"{path.name}-wal").exists()
        if not (is_at_rest and isinstance(error, sqlite3.OperationalError)):
            raise
    return sqlite3.connect(f"{uri}?mode=ro&immutable=1", uri=True, isolation_level=None)


def _check_schema(connection: sqlite3.Connection, path: Path) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version < SCHEMA_VERSION:
        raise JournalUnusable(
            f"the journal {path} has schema version {version}, and is only read here, not upgraded (to "
            f"{SCHEMA_VERSION}); start the scheduler of this release with it once"
        )
