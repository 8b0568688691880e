"""The memory journal keeps the promises of the real one, so tests that use it mean something."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from scheduler.core.model import EVENT, JOB
from scheduler.errors import JournalUnwritable
from scheduler.ports import Journal
from scheduler.testing import Crash, Disk, MemoryJournal, a_change, a_job, a_repair
from scheduler.testing.attempts import an_attempt, telling
from tests.contract.suites.journal_contract import JournalContract
from tests.contract.suites.journal_store import Stored, Written


@dataclass
class MemoryStore:
    disk: Disk = field(default_factory=Disk)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Journal]:
        yield MemoryJournal(self.disk)

    def look(self) -> Stored:
        return Stored(
            jobs={job_id: JOB.validate_json(doc).version for job_id, doc in self.disk.jobs.items()},
            events=[
                (event.job_id, event.version)
                for docs in self.disk.events.values()
                for event in map(EVENT.validate_json, docs)
            ],
            outbox=_stand(self.disk.outbox),
            notices=_stand(self.disk.notices),
            num_repairs=len(self.disk.repairs),
            attempts=sorted((job_id, fence) for job_id, runs in self.disk.attempts.items() for fence in runs),
        )


def _stand(rows: dict[int, tuple[bytes, bytes]]) -> Written:
    jobs = [JOB.validate_json(job) for _, (job, _) in sorted(rows.items())]
    return [(job.id, job.version) for job in jobs]


class TestMemoryJournal(JournalContract):
    @pytest.fixture
    def store(self) -> MemoryStore:
        return MemoryStore()


async def test_an_injected_failure_strikes_once_and_leaves_nothing() -> None:
    """Else a test of a full disk would test something a full disk does not do."""
    disk = Disk()
    journal = MemoryJournal(disk)
    disk.fail_next = JournalUnwritable("the disk is full")
    with pytest.raises(JournalUnwritable, match="full"):
        await journal.commit([a_change(is_news=True), telling(an_attempt(), a_job())], [a_repair()])
    assert disk.jobs == disk.events == disk.attempts == disk.outbox == disk.notices == {}
    assert disk.repairs == []
    await journal.commit([a_change()])
    assert len(disk.jobs) == 1


@pytest.mark.parametrize(("moment", "survivors"), [("before_commit", 0), ("after_commit", 1)])
async def test_a_crash_loses_what_was_not_durable_and_keeps_what_was(moment: str, survivors: int) -> None:
    """The simulation needs both sides of the instant in which a commit becomes durable."""
    disk = Disk()

    def crash() -> None:
        raise Crash

    setattr(disk, moment, crash)
    with pytest.raises(Crash):
        await MemoryJournal(disk).commit([a_change(a_job())])
    assert len(await MemoryJournal(disk).active()) == survivors
