"""The journal on disk: the contract, and what only a file can do wrong."""

from __future__ import annotations

import asyncio
import os
import re
import resource
import shutil
import sqlite3
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from scheduler.adapters.journal import SqliteJournal, files, listing
from scheduler.api.cursors import place_of
from scheduler.core.model import Status
from scheduler.errors import JournalUnusable, JournalUnwritable, Superseded, VersionConflict
from scheduler.ports import JobQuery, Journal, Sort
from scheduler.testing import a_change, a_job, a_repair, a_spec, advanced
from scheduler.testing.disk_shim import build
from tests.contract.suites.journal_contract import JournalContract
from tests.contract.suites.journal_store import Stored


class FileStore:
    """Looks at the file with plain SQLite."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Journal]:
        async with opened(self.path) as journal:
            yield journal

    def look(self) -> Stored:
        with closing(sqlite3.connect(self.path)) as file:
            return Stored(
                jobs=dict(file.execute("SELECT id, version FROM jobs ORDER BY rowid")),
                events=file.execute("SELECT job_id, version FROM events ORDER BY seq").fetchall(),
                outbox=file.execute("SELECT job_id, version FROM outbox ORDER BY seq").fetchall(),
                notices=file.execute("SELECT job_id, version FROM notices ORDER BY seq").fetchall(),
                num_repairs=file.execute("SELECT count(*) FROM repairs").fetchone()[0],
                attempts=file.execute("SELECT job_id, fence FROM attempts ORDER BY 1, 2").fetchall(),
            )


class TestSqliteJournal(JournalContract):
    @pytest.fixture
    def store(self, path: Path) -> FileStore:
        return FileStore(path)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "journal.db"


@asynccontextmanager
async def opened(path: Path, **options: float) -> AsyncIterator[SqliteJournal]:
    journal = await SqliteJournal.open(path, **options)
    try:
        yield journal
    finally:
        await journal.close()


# Durable, together, and off the event loop


async def test_an_acknowledged_commit_is_in_the_files_before_anything_is_closed(
    path: Path, tmp_path: Path
) -> None:
    """L1: a power cut right after the answer must find the job; nothing may wait in memory for `close`."""
    async with opened(path) as journal:
        job = a_job()
        await journal.commit([a_change(job)])
        shutil.copytree(path.parent, tmp_path / "after the cut")
    async with opened(tmp_path / "after the cut" / path.name) as journal:
        assert await journal.active() == [job]


async def test_each_commit_is_synced_before_it_is_answered(path: Path) -> None:
    """WAL without synchronous=FULL answers before the fsync and loses the last jobs in a power cut."""
    async with opened(path) as journal:
        settings: list[tuple[str, int]] = []

        def read_settings(connection: sqlite3.Connection) -> None:
            for name in ("journal_mode", "synchronous", "foreign_keys"):
                settings.append(connection.execute(f"PRAGMA {name}").fetchone()[0])

        await journal._commits.run(read_settings)
    assert settings == ["wal", 2, 1]


async def test_commits_that_arrive_together_share_transactions(path: Path) -> None:
    """One fsync for each of 64 clients would make 64 clients as slow as one."""
    async with opened(path) as journal:
        await journal.commit([a_change()])
        before = transactions_in_log(path)
        await asyncio.gather(*(_submit_in_turn(journal, 5) for _ in range(64)))
        assert transactions_in_log(path) - before <= 5 + 1


async def _submit_in_turn(journal: Journal, times: int) -> None:
    for _ in range(times):
        await journal.commit([a_change()])


def transactions_in_log(path: Path) -> int:
    """Frames of the write-ahead log that end a transaction (their header has the size of the file)."""
    log = path.with_name(path.name + "-wal").read_bytes()
    page_size = struct.unpack(">I", log[8:12])[0]
    headers = range(32, len(log) - 24, 24 + page_size)
    return sum(struct.unpack(">I", log[at + 4 : at + 8])[0] > 0 for at in headers)


async def test_the_event_loop_goes_on_while_the_disk_is_slow(path: Path) -> None:
    """A status call must be answered while a commit waits for the disk."""
    async with opened(path, busy_timeout_s=5) as journal:
        with locked(path):
            commit = asyncio.ensure_future(journal.commit([a_change()]))
            turns = 0
            for _ in range(20):
                await asyncio.sleep(0.01)
                turns += not commit.done()
            assert await journal.active() == []
            assert turns == 20
        await commit
        assert len(await journal.active()) == 1


async def test_closing_finishes_what_was_asked_for(path: Path) -> None:
    """A shutdown that drops the commits under way would lose answers it is about to give."""
    async with opened(path) as journal:
        commits = [asyncio.ensure_future(journal.commit([a_change()])) for _ in range(20)]
        await asyncio.sleep(0)
        await journal.close()
        await asyncio.gather(*commits)
        with pytest.raises(JournalUnwritable, match="closed"):
            await journal.commit([a_change()])
        with pytest.raises(JournalUnwritable, match="closed"):
            await journal.active()
    assert len(FileStore(path).look().jobs) == 20


# The disk refuses


async def test_a_locked_file_refuses_and_accepts_again_when_it_is_free(path: Path) -> None:
    """The caller must hear 503 within the busy timeout, and nothing may appear later."""
    async with opened(path, busy_timeout_s=0.05) as journal:
        with locked(path):
            refused = await asyncio.gather(
                *(journal.commit([a_change()]) for _ in range(3)), return_exceptions=True
            )
        assert [type(error) for error in refused] == [JournalUnwritable] * 3
        assert str(path) in str(refused[0])
        assert FileStore(path).look() == Stored({}, [], [])
        await journal.commit([a_change()])
        assert len(FileStore(path).look().jobs) == 1


async def test_a_full_disk_refuses_and_leaves_nothing(path: Path) -> None:
    """A job half accepted on a full disk would start although its submit was answered with 503."""
    async with opened(path) as journal:
        kept = a_job()
        await journal.commit([a_change(kept)])
        before = FileStore(path).look()
        with no_file_grows_beyond(path.with_name(path.name + "-wal").stat().st_size):
            for _ in range(3):
                with pytest.raises(JournalUnwritable, match="free space"):
                    await journal.commit([a_change(), a_change(advanced(kept), before=kept)])
            assert await journal.active() == [kept]
        assert FileStore(path).look() == before
        await journal.commit([a_change(advanced(kept), before=kept)])


FAILING_FSYNC = """
import asyncio, os, sys
from pathlib import Path
from scheduler.errors import JournalUnwritable
from scheduler.adapters.journal import SqliteJournal
from scheduler.testing import a_change, a_job

async def main():
    journal = await SqliteJournal.open(Path(sys.argv[1]))
    await journal.commit([a_change(a_job(id="kept"))])
    Path(os.environ["DISK_SHIM_BROKEN_FILE"]).touch()
    try:
        await journal.commit([a_change(a_job(id="refused")), a_change(a_job(id="refused too"))])
    except JournalUnwritable:
        print("refused", flush=True)
    os._exit(0)

asyncio.run(main())
"""


async def test_a_commit_whose_fsync_failed_does_not_come_back_after_a_crash(
    path: Path, tmp_path: Path
) -> None:
    """The log holds the whole transaction when its fsync fails: recovery would bring the refused job in."""
    shim = build(tmp_path)
    if shim is None:
        pytest.skip("no C compiler to make a disk that fails")
    broken = {"LD_PRELOAD": str(shim), "DISK_SHIM_BROKEN_FILE": str(tmp_path / "broken")}
    command = [sys.executable, "-c", FAILING_FSYNC, str(path)]
    child = subprocess.run(
        command, env=os.environ | broken, capture_output=True, text=True, timeout=60, check=True
    )
    assert child.stdout == "refused\n", child.stderr
    async with opened(path) as journal:
        assert [job.id for job in await journal.active()] == ["kept"]


async def test_a_file_that_was_taken_away_is_noticed(path: Path) -> None:
    """SQLite writes on into a deleted file: every job acknowledged from then on would be lost."""
    async with opened(path) as journal:
        await journal.commit([a_change()])
        shutil.move(path.parent, path.parent.with_name("elsewhere"))
        with pytest.raises(JournalUnusable, match="removed or replaced"):
            await journal.commit([a_change()])


# Files that must not be written to


async def test_a_newer_schema_is_refused_with_both_versions_and_left_alone(path: Path) -> None:
    """An old release that writes into a newer file would break it for both."""
    await _a_closed_journal(path)
    _change_file(path, f"PRAGMA user_version = {files.SCHEMA_VERSION + 41}")
    before = path.read_bytes()
    with pytest.raises(JournalUnusable) as refusal:
        await SqliteJournal.open(path)
    for part in (
        str(path),
        f"version {files.SCHEMA_VERSION + 41}",
        f"to {files.SCHEMA_VERSION}",
        "newer release",
        "backup",
    ):
        assert part in str(refusal.value)
    assert path.read_bytes() == before


async def test_a_file_of_another_program_is_refused_and_left_alone(path: Path) -> None:
    """A wrong path must not turn somebody's database into a journal."""
    path.parent.mkdir()
    _change_file(path, "CREATE TABLE jobs (id TEXT)")
    before = path.read_bytes()
    with pytest.raises(JournalUnusable, match="another program"):
        await SqliteJournal.open(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("keep", [0, 50, 4096, 0.5, 0.95], ids=lambda keep: f"keep {keep}")
async def test_a_torn_file_is_refused_in_words(path: Path, keep: float) -> None:
    """A journal that opens although half of it is gone forgets jobs in silence."""
    await _a_closed_journal(path, num_jobs=300)
    size = path.stat().st_size
    os.truncate(path, int(keep * size) if isinstance(keep, float) else keep)
    with pytest.raises(JournalUnusable, match=r"journal\.db is damaged .* backup"):
        await SqliteJournal.open(path)


async def test_a_file_with_an_overwritten_page_is_refused(path: Path) -> None:
    """Disks return garbage now and then; it must be noticed before it is built upon."""
    await _a_closed_journal(path, num_jobs=300)
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2 // 4096 * 4096)
        file.write(os.urandom(4096))
    with pytest.raises(JournalUnusable, match="damaged"):
        await SqliteJournal.open(path)


async def test_a_log_torn_in_its_last_transaction_loses_only_what_was_never_acknowledged(
    path: Path, tmp_path: Path
) -> None:
    """A crash in mid-write is the normal case, not damage: the scheduler must start again by itself."""
    copy = tmp_path / "copy"
    async with opened(path) as journal:
        first, second = a_job(), a_job(spec=a_spec(config={"text": "x" * 50_000}))
        await journal.commit([a_change(first)])
        await journal.commit([a_change(second)])
        shutil.copytree(path.parent, copy)
    log = copy / (path.name + "-wal")
    os.truncate(log, log.stat().st_size - 5000)
    async with opened(copy / path.name) as journal:
        assert await journal.active() == [first]


async def test_text_that_is_no_database_is_refused(path: Path) -> None:
    """The commonest foreign file of all."""
    path.parent.mkdir()
    path.write_text("this is not a journal\n" * 100)
    with pytest.raises(JournalUnusable, match="damaged"):
        await SqliteJournal.open(path)


async def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """Start-up must say which path the disk refused, not end in a traceback of SQLite."""
    (tmp_path / "state").write_text("a file where a folder should be")
    with pytest.raises(JournalUnwritable, match="state"):
        await SqliteJournal.open(tmp_path / "state" / "journal.db")


async def test_a_journal_is_readable_by_its_owner_alone(path: Path) -> None:
    """Specs hold paths and notes of users; a generous umask must not publish them."""
    async with opened(path) as journal:
        await journal.commit([a_change()])
        assert {file.stat().st_mode & 0o077 for file in path.parent.iterdir()} == {0}


# Schemas to come


async def test_an_older_schema_is_brought_forward_and_keeps_its_jobs(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An upgrade must not lose the queue."""
    (job,) = await _a_closed_journal(path)
    monkeypatch.setattr(files, "SCHEMA_VERSION", files.SCHEMA_VERSION + 1)
    monkeypatch.setitem(
        files.MIGRATIONS,
        files.SCHEMA_VERSION - 1,
        "CREATE TABLE shelf (id TEXT); CREATE INDEX i ON shelf (id);",
    )
    async with opened(path) as journal:
        assert await journal.active() == [job]
    with closing(sqlite3.connect(path)) as file:
        assert file.execute("PRAGMA user_version").fetchone() == (files.SCHEMA_VERSION,)
        assert file.execute("SELECT count(*) FROM shelf").fetchone() == (0,)


async def test_a_migration_that_fails_leaves_the_old_schema(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a migration opens with neither release."""
    (job,) = await _a_closed_journal(path)
    with monkeypatch.context() as patch:
        patch.setattr(files, "SCHEMA_VERSION", files.SCHEMA_VERSION + 1)
        patch.setitem(
            files.MIGRATIONS, files.SCHEMA_VERSION - 1, "CREATE TABLE shelf (id TEXT); SELECT * FROM nowhere;"
        )
        with pytest.raises(JournalUnwritable):
            await SqliteJournal.open(path)
    with closing(sqlite3.connect(path)) as file:
        assert file.execute("SELECT * FROM sqlite_master WHERE name = 'shelf'").fetchall() == []
    async with opened(path) as journal:
        assert await journal.active() == [job]


async def test_a_superseded_journal_can_still_be_closed(path: Path) -> None:
    """The older scheduler must be able to leave."""
    async with opened(path) as old, opened(path):
        with pytest.raises(Superseded):
            await old.commit([a_change()])
        await old.close()


async def test_every_list_reads_an_index(path: Path) -> None:
    """L6: with a million finished jobs a page, or the active jobs, must not read them all."""
    await _a_closed_journal(path)
    asked = {
        files.QUERIES["active"]: "jobs_active",
        files.QUERIES["outbox_size"]: "outbox_by_event",
        files.QUERIES["attempts"].replace("?", "'x'"): "sqlite_autoindex_attempts_1",
        files.QUERIES["job_by_key"].replace("?", "'x'"): "jobs_by_key",
    }
    with closing(sqlite3.connect(path)) as file:
        for query, index in asked.items():
            plan = " ".join(row[3] for row in file.execute(f"EXPLAIN QUERY PLAN {query}"))
            assert f"INDEX {index}" in plan and "TEMP B-TREE" not in plan, f"{query}: {plan}"


_WALKS = {
    JobQuery(): "SCAN listing",
    JobQuery(statuses=frozenset({Status.FAILED})): "SCAN listing USING COVERING INDEX listing_by_status",
    JobQuery(user="ann"): "SCAN listing USING COVERING INDEX listing_by_user",
    JobQuery(project="p"): "SCAN listing USING COVERING INDEX listing_by_project",
    JobQuery(sort=Sort.NAME): "SCAN listing USING COVERING INDEX listing_by_name",
    JobQuery(sort=Sort.USER_DOWN): "SCAN listing USING COVERING INDEX listing_by_user",
    JobQuery(sort=Sort.STATUS): "SCAN listing USING COVERING INDEX listing_by_status",
    JobQuery(sort=Sort.UPDATED_DOWN): "SCAN listing USING COVERING INDEX listing_by_updated",
    JobQuery(user="ann", project="p", search="x"): "SCAN listing",
}


@pytest.mark.parametrize(("query", "walk"), _WALKS.items(), ids=str)
async def test_a_page_is_a_walk_that_sorts_nothing(path: Path, query: JobQuery, walk: str) -> None:
    """L6: with a million finished jobs a page must not read them all, and never their documents."""
    job, *_ = await _a_closed_journal(path)
    for after in (None, place_of(job, query.sort)):
        (step,) = _steps(path, replace(query, after=after))
        assert step.replace("SEARCH", "SCAN").startswith(walk), step


async def test_a_list_in_another_order_with_a_filter_reads_the_narrow_table_alone(path: Path) -> None:
    """Sorting is cheap; looking each row up in an index's order is not."""
    await _a_closed_journal(path)
    query = JobQuery(sort=Sort.NAME, statuses=frozenset({Status.QUEUED}))
    assert _steps(path, query) == ["SCAN listing", "USE TEMP B-TREE FOR ORDER BY"]


def _steps(path: Path, query: JobQuery) -> list[str]:
    """How SQLite finds the keys of a page."""
    with closing(sqlite3.connect(path)) as file:
        said: list[str] = []
        file.set_trace_callback(said.append)
        listing.page(file, query)
        file.set_trace_callback(None)
        return [row[3] for row in file.execute(f"EXPLAIN QUERY PLAN {said[0]}")]


async def test_every_queue_is_read_from_where_it_is_asked(path: Path) -> None:
    """R6: with a million rows unsent after an outage, each batch must cost what the first one cost."""
    await _a_closed_journal(path)
    asked = {
        "outbox": ["SEARCH outbox USING INTEGER PRIMARY KEY (rowid>?)", "SEARCH events USING INDEX"],
        "notices": ["SEARCH notices USING INTEGER PRIMARY KEY", "SEARCH events USING INDEX"],
        "repairs": ["SEARCH repairs USING INTEGER PRIMARY KEY (rowid<?)"],
        "unsent": ["SCAN outbox USING COVERING INDEX outbox_by_event"],
        "ended": [
            "SEARCH listing USING INDEX listing_by_updated ((updated_at,created_at,id)>(?,?,?) AND updated_at<?)",
            "SCALAR SUBQUERY",
            "SEARCH jobs USING INDEX",
            "REUSE SUBQUERY",
        ],
        "prune_events": ["SEARCH events USING INDEX", "SCALAR SUBQUERY", "SEARCH jobs USING INDEX"],
    }
    with closing(sqlite3.connect(path)) as file:
        for name, steps in asked.items():
            query = files.QUERIES[name]
            rows = file.execute(f"EXPLAIN QUERY PLAN {query}", [1] * _values_of(query)).fetchall()
            assert len(rows) == len(steps), f"{name}: {rows}"
            assert all(row[3].startswith(step) for row, step in zip(rows, steps, strict=True)), rows


def _values_of(query: str) -> int:
    numbered = [int(number) for number in re.findall(r"\?(\d)", query)]
    return max(numbered, default=query.count("?"))


async def test_old_repairs_leave_the_file(path: Path) -> None:
    """L10: a reconciler that mends one row a minute for years must not fill the disk."""
    job = a_job()
    async with opened(path) as journal:
        for _ in range(3):
            await journal.commit([], [a_repair(job) for _ in range(4_000)])
    assert FileStore(path).look().num_repairs == 10_000


async def test_jobs_read_for_the_registry_share_their_words(path: Path) -> None:
    """100,000 queued jobs of one team with a copy each of the same keys and names take twice the memory."""
    async with opened(path) as journal:
        await journal.commit([a_change(a_job(spec=a_spec(config={"model": "smollm2"}))) for _ in range(2)])
        one, other = (job.spec for job in await journal.active())
    assert one.config["model"] is other.config["model"]
    assert next(iter(one.config)) is next(iter(other.config))
    assert one.user is other.user


async def test_two_journals_opened_at_once_on_no_file_agree_on_one(path: Path) -> None:
    """Two schedulers started in one second: one file, two incarnations, the newer one writes."""
    async with asyncio.timeout(30):
        first, second = await asyncio.gather(SqliteJournal.open(path), SqliteJournal.open(path))
    try:
        assert sorted([first.incarnation, second.incarnation]) == [1, 2]
        older, newer = sorted([first, second], key=lambda journal: journal.incarnation)
        await newer.commit([a_change()])
        with pytest.raises(Superseded):
            await older.commit([a_change()])
    finally:
        await first.close()
        await second.close()
    assert sorted(file.name for file in path.parent.iterdir()) == [path.name]


async def test_a_conflict_in_a_thousand_jobs_names_the_job(path: Path) -> None:
    """Whoever reads the log must not have to search a batch of 1,000 for the one that exists."""
    known = a_job()
    async with opened(path) as journal:
        await journal.commit([a_change(known)])
        with pytest.raises(VersionConflict, match=known.id):
            await journal.commit([*(a_change() for _ in range(999)), a_change(known)])


async def _a_closed_journal(path: Path, num_jobs: int = 1) -> list:
    jobs = [a_job() for _ in range(num_jobs)]
    async with opened(path) as journal:
        await journal.commit([a_change(job) for job in jobs])
    return jobs


def _change_file(path: Path, sql: str) -> None:
    with closing(sqlite3.connect(path)) as file:
        file.execute(sql)
        file.commit()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


@contextmanager
def no_file_grows_beyond(size: int) -> Iterator[None]:
    """The kernel refuses this process's writes, as it does when the disk is full."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
