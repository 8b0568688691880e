"""What every journal promises about commits: all or nothing."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from scheduler.errors import Unstorable, VersionConflict
from scheduler.ports import Journal
from scheduler.testing.builders import a_change, a_job, a_repair, advanced
from tests.contract.suites.journal_store import Store, Stored


class JournalCommits:
    """Part of `JournalContract`."""

    # A commit is all or nothing

    async def test_a_commit_writes_job_event_and_outbox_row_together(
        self, store: Store, journal: Journal
    ) -> None:
        """L1: else a job could exist that the mirror never hears of, or a history could miss a step."""
        job = a_job()
        await journal.commit([a_change(job)])
        assert store.look() == Stored({job.id: 1}, [(job.id, 1)], [(job.id, 1)])

    async def test_a_commit_that_meets_a_newer_version_changes_nothing(
        self, store: Store, journal: Journal
    ) -> None:
        """Else two writers that read the same version would undo each other's step."""
        job = a_job()
        won, lost = advanced(job, progress={"step": 1}), advanced(job, progress={"step": 2})
        await journal.commit([a_change(job)])
        await journal.commit([a_change(won, before=job)])
        before = store.look()
        with pytest.raises(VersionConflict, match=job.id):
            await journal.commit([a_change(lost, before=job)])
        assert store.look() == before
        assert await journal.get(job.id) == won

    async def test_a_job_is_created_once(self, store: Store, journal: Journal) -> None:
        """A submit repeated after a lost answer must not overwrite the job, which may run by now."""
        job = a_job()
        await journal.commit([a_change(job)])
        with pytest.raises(VersionConflict, match=job.id):
            await journal.commit([a_change(replace(job, progress={"step": 0}))])
        assert await journal.get(job.id) == job

    async def test_a_job_that_is_not_there_cannot_be_changed(self, store: Store, journal: Journal) -> None:
        """Else a journal that was set back would take steps of jobs whose beginning it never saw."""
        job = a_job()
        with pytest.raises(VersionConflict, match=job.id):
            await journal.commit([a_change(advanced(job), before=job)])
        assert store.look() == Stored({}, [], [])

    async def test_one_bad_change_keeps_the_whole_commit_out(self, store: Store, journal: Journal) -> None:
        """A batch of jobs is accepted whole or not at all."""
        known = a_job()
        await journal.commit([a_change(known)])
        before = store.look()
        with pytest.raises(VersionConflict):
            await journal.commit([a_change(), a_change(replace(known, failures=1)), a_change()])
        assert store.look() == before

    async def test_an_event_of_another_version_is_refused(self, store: Store, journal: Journal) -> None:
        """Else the history of a job would not be that of the job."""
        job = a_job()
        change = a_change(job)
        with pytest.raises(ValueError, match=job.id):
            await journal.commit([replace(change, event=replace(change.event, version=7))])
        assert store.look() == Stored({}, [], [])

    async def test_a_version_grows_or_is_refused(self, store: Store, journal: Journal) -> None:
        """A mirror that takes only newer versions would never see the change."""
        job = a_job()
        await journal.commit([a_change(job)])
        with pytest.raises(ValueError, match=job.id):
            await journal.commit([a_change(replace(job, failures=1), before=job)])
        assert await journal.get(job.id) == job

    async def test_what_cannot_be_written_as_json_is_refused(self, store: Store, journal: Journal) -> None:
        """A loop may return anything; what cannot be read again must not get in, nor harm its neighbours."""
        bad, good = a_job(result={"model": object()}), a_job()
        outcomes = await asyncio.gather(
            journal.commit([a_change(bad)]), journal.commit([a_change(good)]), return_exceptions=True
        )
        assert isinstance(outcomes[0], Unstorable)
        assert outcomes[1] is None
        assert list(store.look().jobs) == [good.id]

    async def test_two_steps_of_one_job_may_share_a_commit(self, store: Store, journal: Journal) -> None:
        """Submit and admission in one go: both steps stay in the history."""
        job = a_job()
        after = advanced(job, progress={"step": 1})
        await journal.commit([a_change(job), a_change(after, before=job)])
        assert store.look() == Stored({job.id: 2}, [(job.id, 1), (job.id, 2)], [(job.id, 1), (job.id, 2)])
        assert await journal.get(job.id) == after

    async def test_commits_that_arrive_together_do_not_spoil_each_other(
        self, store: Store, journal: Journal
    ) -> None:
        """One transaction may carry many commits; a conflict is the business of its own caller alone."""
        job = a_job()
        await journal.commit([a_change(job)])
        fresh = [a_job() for _ in range(20)]
        changes = [[a_change(one)] for one in fresh]
        for place in (0, 7, 15, 23):
            changes.insert(place, [a_change(), a_change(job)])
        outcomes = await asyncio.gather(*map(journal.commit, changes), return_exceptions=True)
        refused = [place for place, outcome in enumerate(outcomes) if outcome is not None]
        assert refused == [0, 7, 15, 23]
        assert all(isinstance(outcomes[place], VersionConflict) for place in refused)
        assert set(store.look().jobs) == {job.id, *(one.id for one in fresh)}

    async def test_of_two_writers_that_arrive_together_one_wins(self, store: Store, journal: Journal) -> None:
        """The version check must also hold inside a shared transaction."""
        job = a_job()
        await journal.commit([a_change(job)])
        rivals = [advanced(job, progress={"writer": number}) for number in range(8)]
        outcomes = await asyncio.gather(
            *(journal.commit([a_change(rival, before=job)]) for rival in rivals), return_exceptions=True
        )
        winners = [rival for rival, outcome in zip(rivals, outcomes, strict=True) if outcome is None]
        assert len(winners) == 1
        assert await journal.get(job.id) == winners[0]
        assert store.look().jobs == {job.id: 2}

    async def test_a_caller_that_goes_away_leaves_the_others_their_commits(
        self, store: Store, journal: Journal
    ) -> None:
        """An HTTP client that hangs up cancels its own commit at most: not half of it, not a neighbour's."""
        jobs = [a_job() for _ in range(30)]
        tasks = [asyncio.ensure_future(journal.commit([a_change(job)])) for job in jobs]
        for turns, task in enumerate(tasks[::3]):
            task.cancel()
            if turns % 4 == 0:
                await asyncio.sleep(0)
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        stayed = {job.id for job, outcome in zip(jobs, outcomes, strict=True) if outcome is None}
        assert len(stayed) >= 20
        stored = store.look()
        assert stayed <= set(stored.jobs) <= {job.id for job in jobs}
        assert sorted(stored.events) == sorted(stored.outbox) == sorted(stored.jobs.items())
        await journal.commit([a_change()])

    async def test_a_job_that_others_saw_before_begins_at_its_version(
        self, store: Store, journal: Journal
    ) -> None:
        """R2: a job that only the database knew must not fall back below the version its row has."""
        job = a_job(version=7)
        after = advanced(job, progress={"step": 1})
        await journal.commit([a_change(job)])
        assert store.look() == Stored({job.id: 7}, [(job.id, 7)], [(job.id, 7)])
        with pytest.raises(VersionConflict, match=job.id):
            await journal.commit([a_change(replace(job, version=9))])
        await journal.commit([a_change(after, before=job)])
        assert await journal.get(job.id) == after

    async def test_a_refused_commit_leaves_no_notice_and_no_repair(
        self, store: Store, journal: Journal
    ) -> None:
        """R10: nobody is to be told, and nothing is to be shown, of what did not happen."""
        known = a_job()
        await journal.commit([a_change(known)])
        before = store.look()
        with pytest.raises(VersionConflict):
            await journal.commit([a_change(is_news=True), a_change(known)], [a_repair(known)])
        assert store.look() == before
