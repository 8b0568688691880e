"""What every journal promises about the lives of the scheduler: each newer than the last."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from scheduler.errors import Superseded
from scheduler.ports import Journal
from scheduler.testing.builders import a_change, a_job, a_repair, advanced
from scheduler.testing.clock import NOON
from tests.contract.suites.journal_store import Store


class JournalLives:
    """Part of `JournalContract`."""

    # Lives of the scheduler

    async def test_each_opening_is_a_new_incarnation(self, store: Store) -> None:
        """Without a number that grows nobody can tell an old scheduler from its successor."""
        seen = []
        for _ in range(3):
            async with store.open() as journal:
                seen.append(journal.incarnation)
        assert seen == [1, 2, 3]

    async def test_an_older_incarnation_writes_nothing(self, store: Store) -> None:
        """A scheduler that was thought dead and wakes up must not undo what its successor did."""
        job = a_job()
        async with store.open() as old:
            await old.commit([a_change(job)])
            async with store.open() as new:
                before = store.look()
                with pytest.raises(Superseded):
                    await old.commit([a_change()])
                with pytest.raises(Superseded):
                    await old.commit([], [a_repair()])
                with pytest.raises(Superseded):
                    await old.forget([row.seq for row in await new.outbox(10)])
                with pytest.raises(Superseded):
                    await old.forget_notices([row.seq for row in await new.notices(10)])
                with pytest.raises(Superseded):
                    await old.prune(NOON, None, 10)
                assert store.look() == before
                await new.commit([a_change(advanced(job), before=job)])

    async def test_an_older_incarnation_does_not_vouch(self, store: Store) -> None:
        """R2: else jobs would look looked-after while nobody who may act looks after them."""
        async with store.open() as old:
            await old.vouch(NOON)
            async with store.open():
                with pytest.raises(Superseded):
                    await old.vouch(NOON + timedelta(hours=1))
        async with store.open() as third:
            assert third.last_vouched_at == NOON

    async def test_each_life_reads_when_an_earlier_one_vouched_last(self, store: Store) -> None:
        """R2: the outage is as long as nobody vouched, however often a scheduler tried to start meanwhile."""
        moments = [NOON, NOON + timedelta(seconds=9, microseconds=123_456)]
        async with store.open() as first:
            assert first.last_vouched_at is None
            for moment in moments:
                await first.vouch(moment)
            assert first.last_vouched_at is None
        for _ in range(2):
            async with store.open() as later:
                assert later.last_vouched_at == moments[-1]

    async def test_a_raised_incarnation_goes_on_writing_and_the_next_life_is_above_it(
        self, store: Store
    ) -> None:
        """R6: when the database knows of later lives than a new journal, this life must be newer than they."""
        async with store.open() as journal:
            before = journal.incarnation
            await journal.raise_incarnation(40)
            assert (before, journal.incarnation) == (1, 40)
            await journal.commit([a_change()])
            await journal.vouch(NOON)
        async with store.open() as later:
            assert later.incarnation == 41

    async def test_an_incarnation_is_never_lowered(self, store: Store) -> None:
        """A number that was given out must not be given out again."""
        async with store.open() as journal:
            await journal.raise_incarnation(40)
            await journal.raise_incarnation(3)
            assert journal.incarnation == 40
        async with store.open() as later:
            assert later.incarnation == 41

    async def test_commits_under_way_pass_while_the_incarnation_is_raised(
        self, store: Store, journal: Journal
    ) -> None:
        """The scheduler serves while it claims its place in the database: no submit may fail of that."""
        for number in range(10):
            commits = [journal.commit([a_change()]) for _ in range(6)]
            await asyncio.gather(*commits[:3], journal.raise_incarnation(100 + number), *commits[3:])
        assert journal.incarnation == 109
        assert len(store.look().jobs) == 60

    async def test_a_raise_that_its_caller_gave_up_locks_nobody_out(
        self, store: Store, journal: Journal
    ) -> None:
        """It may be on disk or not; a scheduler that took itself for its own successor would stop."""
        for turns in range(6):
            raising = asyncio.create_task(journal.raise_incarnation(100 + turns))
            for _ in range(turns):
                await asyncio.sleep(0)
            raising.cancel()
            await asyncio.gather(raising, return_exceptions=True)
            await journal.commit([a_change()])
        await journal.raise_incarnation(200)
        assert journal.incarnation == 200

    async def test_an_older_incarnation_cannot_raise_itself_above_its_successor(self, store: Store) -> None:
        """Two schedulers that outbid each other would both go on."""
        async with store.open() as old, store.open() as new:
            with pytest.raises(Superseded):
                await old.raise_incarnation(50)
            assert (old.incarnation, new.incarnation) == (1, 2)
            await new.raise_incarnation(50)
            with pytest.raises(Superseded):
                await old.raise_incarnation(60)
            with pytest.raises(Superseded):
                await old.commit([a_change()])
            await new.commit([a_change()])
