"""The process dies at any moment; what it acknowledged stays, and nothing is there twice or in part."""

from __future__ import annotations

import asyncio
import random
import shutil
import sqlite3
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

import pytest

from scheduler.adapters.journal import SqliteJournal

sys.path.insert(0, str(Path(__file__).parent))
import journal_child  # found by its file: tests are no package

KILLS_EACH = 10
LANES = 3
SEED = 20261122

processes = get_context("forkserver")
processes.set_forkserver_preload([journal_child.__name__])


@dataclass
class Told:
    """What the outside heard from the children of one journal."""

    begun: set[str] = field(default_factory=set)
    done: dict[str, str] = field(default_factory=dict)
    """Idempotency key to job id."""

    def hear(self, line: str) -> None:
        word, key, *job_id = line.split()
        if word == "begun":
            self.begun.add(key)
            return
        assert self.done.get(key, job_id[0]) == job_id[0], f"key {key} made two jobs"
        self.done[key] = job_id[0]

    @property
    def unanswered(self) -> list[str]:
        """A client asks again for these: it does not know whether its job was accepted."""
        return sorted(self.begun - self.done.keys())


@pytest.mark.parametrize("journals", [3, pytest.param(10, marks=pytest.mark.long)])
def test_every_acknowledged_job_survives_its_kills(tmp_path: Path, journals: int) -> None:
    """L1: "recorded" must mean on disk, also for the last job before the process was killed.

    Killed are both lives that accept jobs and lives that are just opening what the one before left.
    """
    with ThreadPoolExecutor(LANES) as lanes:
        told = list(lanes.map(lambda number: _one_journal(tmp_path / f"{number}", number), range(journals)))
    acknowledged = sum(len(one.done) for one in told)
    taken_in = sum(key.endswith(journal_child.ROW) for one in told for key in one.done)
    assert acknowledged > 20 * journals, f"only {acknowledged} jobs were acknowledged: this proves too little"
    assert taken_in > journals, f"only {taken_in} rows were taken in: this proves too little"


def _one_journal(folder: Path, number: int) -> Told:
    rng = random.Random(SEED + number)
    path, told = folder / "journal.db", Told()
    for kill in range(KILLS_EACH):
        _live_and_die(path, told, f"{number}-{kill}", rng)
        if path.exists():
            _check(path, told)
    asyncio.run(_check_reopened(path, told))
    return told


def _live_and_die(path: Path, told: Told, name: str, rng: random.Random) -> None:
    hears, reports = processes.Pipe(duplex=False)
    child = processes.Process(target=journal_child.main, args=(path, reports, name, told.unanswered))
    child.start()
    reports.close()
    if rng.random() < 0.8:
        assert hears.poll(30), "the child did not begin to work within 30 s"
        until_s = time.monotonic() + rng.uniform(0.0, 0.15)
    else:
        until_s = time.monotonic() + rng.uniform(0.0, 0.05)
    with suppress(EOFError):
        while (left_s := until_s - time.monotonic()) > 0:
            if hears.poll(left_s):
                told.hear(hears.recv_bytes().decode())
        child.kill()
        while True:
            told.hear(hears.recv_bytes().decode())
    child.join(30)
    assert child.exitcode == -9, f"the child ended by itself with exit code {child.exitcode}"
    child.close()


def _check(path: Path, told: Told) -> None:
    """On a copy, so that the next life finds exactly what the kill left."""
    copy = path.parent / "copy"
    copy.mkdir()
    for file in path.parent.glob(f"{path.name}*"):
        if not file.name.endswith("-shm"):
            shutil.copy(file, copy)
    with closing(sqlite3.connect(copy / path.name)) as file:
        assert file.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert file.execute("PRAGMA foreign_key_check").fetchall() == []
        jobs = file.execute("SELECT id, idempotency_key, version FROM jobs").fetchall()
        events = file.execute("SELECT job_id, version FROM events ORDER BY seq").fetchall()
        outbox = file.execute("SELECT job_id, version FROM outbox ORDER BY seq").fetchall()
        notices = file.execute("SELECT job_id, version FROM notices ORDER BY seq").fetchall()
        repairs = file.execute("SELECT doc ->> 'job_id' FROM repairs ORDER BY number").fetchall()
    shutil.rmtree(copy)
    stored = {key: job_id for job_id, key, _ in jobs}
    lost = [key for key, job_id in told.done.items() if stored.get(key) != job_id]
    assert not lost, f"acknowledged, but not in the journal: {lost}"
    assert len(stored) == len(jobs), "a key has two jobs"
    assert stored.keys() <= told.begun, "a job that nobody submitted"
    assert events == outbox
    taken_in = {job_id for job_id, key, _ in jobs if key.endswith(journal_child.ROW)}
    begun_at = {job_id: journal_child.ROW_VERSION + 1 if job_id in taken_in else 1 for job_id, _, _ in jobs}
    steps = [(job_id, step) for job_id, _, newest in jobs for step in range(begun_at[job_id], newest + 1)]
    assert sorted(events) == sorted(steps)
    assert [job_id for job_id, _ in notices] == [job_id for (job_id,) in repairs]
    assert sorted(notices) == sorted(step for step in steps if step[0] in taken_in)
    assert {newest - begun_at[job_id] for job_id, _, newest in jobs} <= {0, 1}, "submitted, perhaps cancelled"


async def _check_reopened(path: Path, told: Told) -> None:
    journal = await SqliteJournal.open(path)
    try:
        found = {key: await journal.find_by_key("ann", key) for key in told.done}
        assert {key: job.id for key, job in found.items() if job} == told.done
        assert await journal.outbox_size() == len(await journal.outbox(1_000_000))
    finally:
        await journal.close()
