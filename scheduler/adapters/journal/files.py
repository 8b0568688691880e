"""Opening a journal file: is it ours, is it whole, and does this release know its schema?"""

from __future__ import annotations

import os
import re
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from tempfile import mkstemp

from scheduler.adapters.journal import listing
from scheduler.core.model import Fence, JobId
from scheduler.errors import JournalUnusable, JournalUnwritable

APPLICATION_ID = 0x54534A4C  # "TSJL", at offset 68 of the file
SCHEMA_VERSION = 5


def _sql(name: str) -> str:
    return files("scheduler.adapters.journal").joinpath(name).read_text("utf-8")


SCHEMA = _sql("schema.sql")
QUERIES: dict[str, str] = dict(
    re.findall(r"^-- name: (\w+)\n(.+?;)$", _sql("queries.sql"), re.MULTILINE | re.DOTALL)
)
MIGRATIONS: dict[int, str] = {
    1: _sql("to_version_2.sql"),
    2: _sql("to_version_3.sql"),
    3: _sql("to_version_4.sql"),
    4: _sql("to_version_5.sql"),
}
"""From a schema version to the SQL that makes the next one of it.  What was released is never changed."""

_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_HEADER_BYTES = 100
_WAL_LIMIT_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class JournalLife:
    """What a scheduler is told when it opens the file."""

    opened: int
    """Which opening of the file this is.  Whoever had an earlier one may not write any more."""
    incarnation: int
    vouched_at: int | None
    """When an earlier life said last that it was alive.  Microseconds since the epoch."""


def open_file(
    path: Path, *, busy_timeout_s: float
) -> tuple[sqlite3.Connection, sqlite3.Connection, JournalLife]:
    """Return a connection that writes, one that reads, and the life that begins.

    Makes the file when there is none.  Raises JournalUnusable for a file that must not be written to,
    JournalUnwritable when the disk refuses; both name the file.
    """
    connections: list[sqlite3.Connection] = []
    try:
        _make_unless_there(path, busy_timeout_s)
        connections.append(_connect(path, busy_timeout_s))
        life = _take(connections[0], path)
        connections.append(_connect(path, busy_timeout_s))
        connections[1].execute("PRAGMA query_only = ON")
        return connections[0], connections[1], life
    except BaseException as error:
        for connection in connections:
            connection.close()
        if isinstance(error, sqlite3.Error | OSError):
            raise in_words(error, path) from error
        raise


def inspect(path: Path) -> str:
    """What a look at the journal finds, without taking it.  Raises what `open_file` would."""
    if not path.exists():
        return f"{path} is not there yet; it will be made"
    try:
        check_is_not_cut(path)
        with closing(_connect(path, busy_timeout_s=1.0)) as connection:
            check_is_ours(connection, path)
            _check_is_whole(connection, path)
            (jobs,) = connection.execute("SELECT count(*) FROM jobs").fetchone()
    except (sqlite3.Error, OSError) as error:
        raise in_words(error, path) from error
    return f"{path} is whole, {jobs} jobs"


def running_in(path: Path) -> tuple[tuple[JobId, Fence], ...]:
    """The newest run of each job that runs, as the file has it now, whoever owns it.  Raises what `inspect` raises."""
    if not path.exists():
        return ()
    try:
        with closing(_connect(path, busy_timeout_s=5.0)) as connection:
            check_is_ours(connection, path)
            rows = connection.execute("SELECT id, fence FROM jobs WHERE status = 'running'").fetchall()
    except (sqlite3.Error, OSError) as error:
        raise in_words(error, path) from error
    return tuple((JobId(job_id), Fence(fence)) for job_id, fence in rows)


def in_words(error: sqlite3.Error | OSError, path: Path) -> JournalUnusable | JournalUnwritable:
    """What SQLite or the disk said, and what to do about it."""
    if getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGED:
        return corrupt(path, str(error))
    return JournalUnwritable(
        f"the disk refused the journal {path}: {error}; nothing was accepted. Check free space, permissions, "
        "and that no other program holds the file locked, then try again"
    )


def corrupt(path: Path, finding: str) -> JournalUnusable:
    return JournalUnusable(
        f"the journal {path} is damaged ({finding}). Do not delete it: move it aside together with its "
        "-wal file, check the disk, and put a backup in its place"
    )


def _make_unless_there(path: Path, busy_timeout_s: float) -> None:
    """A journal appears whole or not at all, so that a file cut short is always a corrupt one."""
    if path.exists():
        check_is_not_cut(path)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = mkstemp(
        dir=path.parent, prefix=f".{path.name}.", suffix=".new"
    )  # readable by its owner alone
    os.close(handle)
    draft = Path(name)
    try:
        with closing(_connect(draft, busy_timeout_s)) as connection:
            _run_whole(connection, SCHEMA, SCHEMA_VERSION)
        _publish(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def check_is_not_cut(path: Path) -> None:
    size = path.stat().st_size
    if size < _HEADER_BYTES:  # SQLite would take it for a new, empty database
        raise corrupt(path, f"the file ends after {size} bytes")


def _publish(draft: Path, path: Path) -> None:
    try:
        os.link(draft, path)
    except FileExistsError:  # another scheduler was faster: its file is as good
        return
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _connect(path: Path, busy_timeout_s: float) -> sqlite3.Connection:
    """Each connection is used by one thread at a time, but not by the one that made it."""
    uri = f"{path.absolute().as_uri()}?mode=rw"
    connection = sqlite3.connect(
        uri, uri=True, timeout=busy_timeout_s, isolation_level=None, check_same_thread=False
    )
    connection.execute("PRAGMA foreign_keys = ON")
    return connection


def _take(connection: sqlite3.Connection, path: Path) -> JournalLife:
    check_is_ours(connection, path)
    _check_is_whole(connection, path)
    mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    if mode != "wal":
        raise JournalUnusable(
            f"the disk of the journal {path} cannot do write-ahead logging (mode {mode!r}); "
            "put SCHEDULER_STATE_DIR on a local disk"
        )
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA temp_store = MEMORY")
    connection.execute(f"PRAGMA journal_size_limit = {_WAL_LIMIT_BYTES}")
    _migrate(connection, path)
    return _begin_life(connection)


def check_is_ours(connection: sqlite3.Connection, path: Path) -> None:
    owner, version = _pragma(connection, "application_id"), _pragma(connection, "user_version")
    if owner != APPLICATION_ID:
        raise JournalUnusable(
            f"{path} is an SQLite file of another program (application_id {owner}, a journal has "
            f"{APPLICATION_ID}); it was left as it is. Point SCHEDULER_STATE_DIR at a folder of "
            "the scheduler's own"
        )
    if version > SCHEMA_VERSION:
        raise JournalUnusable(
            f"the journal {path} has schema version {version}, and this release knows versions up to "
            f"{SCHEMA_VERSION}; it was left as it is. Install the newer release again, or restore a backup "
            "made before the upgrade"
        )


def _check_is_whole(connection: sqlite3.Connection, path: Path) -> None:
    finding = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if finding != "ok":
        raise corrupt(path, finding)


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    listing.teach(connection)
    while (version := _pragma(connection, "user_version")) < SCHEMA_VERSION:
        if version not in MIGRATIONS:
            raise JournalUnusable(
                f"the journal {path} has schema version {version}, too old for this release (it knows "
                f"{min(MIGRATIONS, default=SCHEMA_VERSION)} to {SCHEMA_VERSION}); open it once with a "
                "release between the two"
            )
        _run_whole(connection, MIGRATIONS[version], version + 1)


def _run_whole(connection: sqlite3.Connection, script: str, version: int) -> None:
    """The script and the version it leads to, in one transaction."""
    marks = f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {version};"
    try:
        connection.executescript(f"BEGIN IMMEDIATE; {script}\n{marks} COMMIT;")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _begin_life(connection: sqlite3.Connection) -> JournalLife:
    connection.execute("BEGIN IMMEDIATE")
    try:
        connection.execute(QUERIES["take"])
        life = JournalLife(*connection.execute(QUERIES["life"]).fetchone())
        connection.execute("COMMIT")
        return life
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return connection.execute(f"PRAGMA {name}").fetchone()[0]
