"""Journals of earlier releases open with this one; one file for each schema version, kept for ever."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from scheduler.adapters.journal import SqliteJournal
from scheduler.adapters.journal.files import SCHEMA_VERSION
from scheduler.adapters.journal.listing import columns
from scheduler.core.model import ATTEMPT, Status
from scheduler.ports import JobQuery
from scheduler.testing import a_change, a_job, a_repair
from scheduler.testing.attempts import an_attempt, run_lost
from scheduler.testing.clock import NOON

sys.path.insert(0, str(Path(__file__).parent))
from make_journal import FOLDER, contents  # found by its file: tests are no package

GOLDEN = sorted(FOLDER.glob("journal-*.db"))
GONE = {"restarts"}
"""Fields of earlier releases that say nothing any more.  `restarts` was part of the name of a folder."""


def test_every_schema_version_has_its_golden_journal() -> None:
    """A schema released without one could be broken later and nobody would see."""
    versions = {int(re.findall(r"\d+", path.name)[0]) for path in GOLDEN}
    assert versions == set(range(1, SCHEMA_VERSION + 1)), "run tests/golden/make_journal.py"


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda path: path.name)
async def test_a_journal_of_an_earlier_release_keeps_all_it_held(golden: Path, tmp_path: Path) -> None:
    """R2: an upgrade must find every job, its history, and what was not mirrored yet."""
    path = shutil.copy(golden, tmp_path / "journal.db")
    expected = json.loads(golden.with_suffix(".json").read_text("utf-8"))
    journal = await SqliteJournal.open(path)
    try:
        assert _within(expected, await contents(journal))
        assert journal.incarnation == 2
        assert (await journal.find_by_key("bob", "first")) is not None
    finally:
        await journal.close()


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda path: path.name)
async def test_a_migrated_journal_has_the_schema_of_a_new_one(golden: Path, tmp_path: Path) -> None:
    """Else the next migration would meet two kinds of files."""
    old, new = shutil.copy(golden, tmp_path / "old.db"), tmp_path / "new.db"
    for path in (old, new):
        journal = await SqliteJournal.open(path)
        await journal.close()
    assert _schema(old) == _schema(new)


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda path: path.name)
async def test_a_migrated_journal_lists_each_job_as_a_new_one_would(golden: Path, tmp_path: Path) -> None:
    """Text that is hard to keep too, and to the microsecond: else old jobs were sorted, or found, in another way."""
    path = shutil.copy(golden, tmp_path / "journal.db")
    journal = await SqliteJournal.open(path)
    try:
        jobs = await journal.page(JobQuery(limit=1000))
        with closing(sqlite3.connect(path)) as file:
            listed = file.execute("SELECT * FROM listing ORDER BY created_at DESC, id DESC").fetchall()
            (num_jobs,) = file.execute("SELECT count(*) FROM jobs").fetchone()
        assert len(jobs) == num_jobs
        assert listed == [columns(job) for job in jobs]
        assert [job.id for job in await journal.page(JobQuery(search="TEAM=a"))] == [
            job.id for job in jobs if job.spec.labels.get("team") == "a"
        ]
    finally:
        await journal.close()


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda path: path.name)
async def test_a_journal_of_an_earlier_release_goes_on(golden: Path, tmp_path: Path) -> None:
    """R2: after the upgrade everything that this release writes finds its place."""
    path = shutil.copy(golden, tmp_path / "journal.db")
    news, repair = a_change(a_job("failed", id="new"), is_news=True), a_repair()
    journal = await SqliteJournal.open(path)
    await journal.commit([news], [repair])
    await journal.vouch(NOON)
    await journal.close()
    journal = await SqliteJournal.open(path)
    try:
        assert (await journal.notices(100))[-1].job == news.job
        assert (await journal.repairs(1))[0][1] == repair
        assert (journal.incarnation, journal.last_vouched_at) == (3, NOON)
    finally:
        await journal.close()


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda path: path.name)
async def test_a_run_that_an_earlier_release_started_gets_its_row_when_it_ends(
    golden: Path, tmp_path: Path
) -> None:
    path = shutil.copy(golden, tmp_path / "journal.db")
    journal = await SqliteJournal.open(path)
    try:
        running = next(job for job in await journal.active() if job.status is Status.RUNNING)
        known = await journal.attempts(running.id)
        ended = run_lost(running)
        await journal.commit([ended])
        (row,) = await journal.attempts(running.id)
        assert (known, row) == ([], ended.event.attempt)
        assert (row.started_at, row.ended_at) == (running.admitted_at, ended.job.updated_at)
    finally:
        await journal.close()


async def test_attempts_that_events_tell_of_become_rows_in_an_upgrade(tmp_path: Path) -> None:
    """The newest event of each counts; events that tell of none, as all of the released version do, add none."""
    path = shutil.copy(FOLDER / "journal-2.db", tmp_path / "journal.db")
    lines = [an_attempt(), an_attempt(ended_at=NOON, last_step=10**30), an_attempt(2)]
    with closing(sqlite3.connect(path)) as file:
        (job_id,) = file.execute("SELECT job_id FROM events LIMIT 1").fetchone()
        for version, attempt in enumerate(lines, start=100):
            doc = f'{{"attempt": {ATTEMPT.dump_json(attempt).decode()}}}'
            file.execute("INSERT INTO events (job_id, version, doc) VALUES (?, ?, ?)", (job_id, version, doc))
        file.commit()
    journal = await SqliteJournal.open(path)
    try:
        assert await journal.attempts(job_id) == lines[1:]
        others = [job.id for job in await journal.active() if job.id != job_id]
        assert [await journal.attempts(other) for other in others] == [[]] * len(others)
    finally:
        await journal.close()


def _schema(path: Path) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as file:
        return file.execute("SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY name").fetchall()


def _within(old: Any, new: Any) -> bool:
    """Fields that a later release added may be there as well."""
    if isinstance(old, dict):
        return isinstance(new, dict) and all(
            key in new and _within(value, new[key]) for key, value in old.items() if key not in GONE
        )
    if isinstance(old, list):
        return isinstance(new, list) and len(old) == len(new) and all(map(_within, old, new))
    return bool(old == new)
