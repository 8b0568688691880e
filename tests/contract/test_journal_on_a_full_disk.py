"""A real disk that is really full: a small file system of its own.  What ends something is written all the same."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from scheduler.adapters.journal import SqliteJournal
from scheduler.core.contender import Share
from scheduler.core.model import Job, Status
from scheduler.errors import JournalUnwritable
from scheduler.ports import Change
from scheduler.testing import a_change, a_job, advanced
from scheduler.testing.builders import a_spec

DISK_BYTES = 24_000_000
RESERVE_BYTES = 8_000_000


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs: it keeps count of its blocks like any disk, and needs no device."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "none", str(tmp_path)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("only root may mount a small file system, and here nobody may")
    try:
        yield tmp_path
    finally:
        subprocess.run(["umount", "--lazy", str(tmp_path)], check=True)


def fill(disk: Path) -> Path:
    """Down to the last block, as a training loop does that writes until it cannot."""
    filler = disk / "filler"
    with filler.open("ab", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"x" * 4096)
    return filler


async def opened(disk: Path) -> SqliteJournal:
    return await SqliteJournal.open(disk / "journal.db", reserve_bytes=RESERVE_BYTES)


def a_cancel(job: Job) -> Change:
    return a_change(advanced(job), before=job, kind="AskStop")


def an_end(job: Job) -> Change:
    after = advanced(job, status=Status.CANCELLED, finished_at=job.updated_at, allocation=None)
    return a_change(after, before=job, kind="RunEnded")


async def refused(journal: SqliteJournal, change: Change) -> str:
    with pytest.raises(JournalUnwritable) as error:
        await journal.commit([change])
    return error.value.message


async def test_on_a_full_disk_runs_are_cancelled_and_submits_refused(disk: Path) -> None:
    """GPUs must be free again although somebody filled the disk; and whoever is told yes finds it after a crash."""
    journal = await opened(disk)
    jobs = [a_job("running") for _ in range(40)]
    await journal.commit([a_change(job) for job in jobs])
    assert journal.problem() is None
    filler = fill(disk)
    assert "free space" in await refused(journal, a_change()), "the reserve is not for submits"
    assert journal.problem() is None, "which do not use it up"
    for job in jobs:
        cancelled = a_cancel(job)
        await journal.commit([cancelled])
        await journal.commit([an_end(cancelled.job)])
    assert "kept in reserve" in await refused(journal, a_change())
    assert "is full: cancels, pauses and ends of runs are still written" in (journal.problem() or "")

    # A crash: nothing is closed, and another life reads what is on the disk.
    later = await opened(disk)
    assert await later.active() == []
    assert "is full" in (later.problem() or "")

    filler.unlink()
    await later.commit([a_change()])
    assert later.problem() is None
    assert (disk / "journal.db.reserve").stat().st_blocks * 512 >= RESERVE_BYTES, "real blocks, and no hole"
    await later.close()
    await journal.close()


async def test_whoever_fills_the_disk_does_not_take_the_reserve_either(disk: Path) -> None:
    """It writes on beside us: what the reserve gives up must go to the journal, and not to it."""
    journal = await opened(disk)
    jobs = [a_job("running") for _ in range(30)]
    await journal.commit([a_change(job) for job in jobs])
    for job in jobs:
        fill(disk)
        await journal.commit([a_cancel(job)])
    later = await opened(disk)
    assert {job.version for job in await later.active()} == {2}
    await later.close()
    await journal.close()


async def test_a_cancel_is_not_held_up_by_the_submits_of_its_batch(disk: Path) -> None:
    """They share one transaction, until it meets the full disk."""
    journal = await opened(disk)
    job = a_job("running")
    await journal.commit([a_change(job)])
    fill(disk)
    large = [a_change(a_job(spec=a_spec(config={"text": "x" * 100_000}))) for _ in range(3)]
    outcomes = await asyncio.gather(
        *(journal.commit([one]) for one in [*large, a_cancel(job)]), return_exceptions=True
    )
    assert [type(one) for one in outcomes] == [JournalUnwritable] * 3 + [type(None)]
    assert [one.version for one in await journal.active()] == [2]
    await journal.close()


async def test_a_reserve_that_finds_no_room_at_the_start_is_told(disk: Path) -> None:
    journal = await opened(disk)
    await journal.close()
    (disk / "journal.db.reserve").unlink()
    filler = fill(disk)
    os.truncate(filler, filler.stat().st_size - RESERVE_BYTES // 2)
    journal = await opened(disk)
    assert "is full" in (journal.problem() or "")
    assert "kept in reserve" in await refused(journal, a_change())
    await journal.close()


async def test_the_reserve_is_neither_for_shares_nor_for_notes(disk: Path) -> None:
    """They are refused in words, and what was there stays."""
    journal = await opened(disk)
    await journal.set_project("vision", Share(quota=4.0))
    fill(disk)
    for write in (
        journal.note("ledger", {"text": "x" * 100_000}),
        journal.set_project("x" * 100_000, Share(quota=8.0)),
    ):
        with pytest.raises(JournalUnwritable, match="nothing was accepted"):
            await write
    assert await journal.projects() == {"vision": Share(quota=4.0)}
    await journal.close()


async def test_without_a_reserve_nothing_is_refused_before_the_disk_does(tmp_path: Path) -> None:
    journal = await SqliteJournal.open(tmp_path / "journal.db")
    await journal.commit([a_change()])
    assert journal.problem() is None
    assert not (tmp_path / "journal.db.reserve").exists()
    await journal.close()
