"""What every journal promises, whatever it is made of."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Protocol

import pytest
import pytest_asyncio

from scheduler.core.model import Job, JobId, Status
from scheduler.errors import Superseded, VersionConflict
from scheduler.ports import JobQuery, Journal
from scheduler.testing.builders import a_change, a_full_job, a_job, a_spec, advanced
from scheduler.testing.clock import NOON

Written = list[tuple[JobId, int]]
"""(job, version), in the order in which they were written."""


@dataclass(frozen=True)
class Stored:
    """What lies in a store."""

    jobs: dict[JobId, int]
    """The version of each."""
    events: Written
    outbox: Written


class Store(Protocol):
    """Where the journals of one test are kept.  It looks inside without asking the journal under test."""

    def open(self) -> AbstractAsyncContextManager[Journal]:
        """The next life of the journal."""
        ...

    def look(self) -> Stored: ...


class JournalContract:
    """Subclass it and give a `store` fixture."""

    @pytest_asyncio.fixture
    async def journal(self, store: Store) -> AsyncIterator[Journal]:
        async with store.open() as journal:
            yield journal

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
        assert isinstance(outcomes[0], ValueError)
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

    # What was written is read again

    async def test_a_reopened_journal_holds_what_memory_held(self, store: Store) -> None:
        """R2: after a restart every job is what it was, to the last field."""
        jobs = [a_full_job(status) for status in Status]
        async with store.open() as journal:
            await journal.commit([a_change(job) for job in jobs])
        async with store.open() as journal:
            assert [await journal.get(job.id) for job in jobs] == jobs
            assert await journal.active() == [job for job in jobs if not job.status.is_terminal]

    async def test_changes_of_the_caller_do_not_reach_what_was_written(
        self, store: Store, journal: Journal
    ) -> None:
        """A fake that shares objects with the test hides every forgotten commit."""
        config = {"steps": [1]}
        job = a_job(spec=a_spec(config=config))
        await journal.commit([a_change(job)])
        job.spec.config["steps"].append(2)
        (loaded,) = await journal.active()
        assert loaded.spec.config == {"steps": [1]}
        loaded.spec.config["steps"].append(3)
        assert (await journal.active())[0].spec.config == {"steps": [1]}

    async def test_the_active_jobs_come_in_the_order_of_their_creation(
        self, store: Store, journal: Journal
    ) -> None:
        """R2: the queue read again is the queue that was written; times compare as times, not as text."""
        moments = [NOON, NOON + timedelta(microseconds=500_000), NOON + timedelta(seconds=1)]
        jobs = [a_job(created_at=moment) for moment in reversed(moments)]
        await journal.commit([a_change(job) for job in jobs])
        assert [job.created_at for job in await journal.active()] == moments

    async def test_a_job_that_ended_is_no_longer_active_and_one_that_is_started_again_is(
        self, store: Store, journal: Journal
    ) -> None:
        """P3: what `active` forgets is forgotten after a restart."""
        running = a_job("running")
        failed = advanced(running, status=Status.FAILED)
        again = advanced(failed, status=Status.QUEUED)
        await journal.commit([a_change(running)])
        await journal.commit([a_change(failed, before=running)])
        assert await journal.active() == []
        await journal.commit([a_change(again, before=failed)])
        assert await journal.active() == [again]

    async def test_an_unknown_id_is_nothing(self, journal: Journal) -> None:
        """A question about a job that is not there is no error of the journal."""
        assert await journal.get(JobId("nobody")) is None
        assert await journal.events(JobId("nobody")) == []
        assert await journal.find_by_key("ann", "nothing") is None
        assert await journal.counts() == {}

    async def test_the_history_of_a_job_is_in_order_and_its_own(self, store: Store, journal: Journal) -> None:
        """Every move is an event; a history out of order tells another story."""
        job, other = a_job(), a_job()
        await journal.commit([a_change(job), a_change(other)])
        steps = [job]
        for number in range(12):
            steps.append(advanced(steps[-1], progress={"step": number}))
            await journal.commit([a_change(steps[-1], before=steps[-2], kind=f"Step{number}")])
        events = await journal.events(job.id)
        assert [event.kind for event in events] == ["Submitted", *(f"Step{number}" for number in range(12))]
        assert events[-1] == a_change(steps[-1], before=steps[-2], kind="Step11").event

    async def test_counts_follow_the_jobs(self, store: Store, journal: Journal) -> None:
        """L9: a count that lags behind shows jobs in a state they have left."""
        queued = a_job()
        await journal.commit([a_change(queued), a_change(), a_change(a_job("failed"))])
        assert await journal.counts() == {Status.QUEUED: 2, Status.FAILED: 1}
        await journal.commit([a_change(advanced(queued, status=Status.CANCELLED), before=queued)])
        assert await journal.counts() == {Status.QUEUED: 1, Status.FAILED: 1, Status.CANCELLED: 1}

    # Idempotency keys

    async def test_a_job_is_found_by_its_users_key(self, store: Store, journal: Journal) -> None:
        """L1: a repeated submit returns the first job; another user's key is another key."""
        job = a_job(idempotency_key="k")
        await journal.commit([a_change(job), a_change(a_job(spec=a_spec(user="bob"), idempotency_key="k"))])
        assert await journal.find_by_key("ann", "k") == job
        ended = advanced(job, status=Status.COMPLETED)
        await journal.commit([a_change(ended, before=job)])
        assert await journal.find_by_key("ann", "k") == ended
        assert await journal.find_by_key("eve", "k") is None

    async def test_a_users_key_makes_one_job(self, store: Store, journal: Journal) -> None:
        """L1: two submits that race with one key must not both be accepted, not even inside one commit."""
        first, second, third = (a_job(idempotency_key="k") for _ in range(3))
        with pytest.raises(VersionConflict, match="idempotency key"):
            await journal.commit([a_change(first), a_change(second)])
        outcomes = await asyncio.gather(
            *(journal.commit([a_change(job)]) for job in (first, second, third)), return_exceptions=True
        )
        assert [outcome is None for outcome in outcomes] == [True, False, False]
        assert list(store.look().jobs) == [first.id]

    async def test_jobs_without_a_key_are_many(self, store: Store, journal: Journal) -> None:
        """No key is not a key that all share."""
        await journal.commit([a_change(), a_change()])
        assert len(store.look().jobs) == 2

    # Pages

    async def test_pages_go_through_all_jobs_once_newest_first(self, store: Store, journal: Journal) -> None:
        """L6: jobs of one batch share their creation time; a page that cuts between them must lose none."""
        moments = [NOON + timedelta(seconds=number // 4) for number in range(14)]
        jobs = [a_job(created_at=moment) for moment in moments]
        await journal.commit([a_change(job) for job in jobs])
        newest_first = sorted(jobs, key=lambda job: (job.created_at, job.id), reverse=True)
        for limit in (1, 3, 14, 50):
            assert await _all_pages(journal, JobQuery(limit=limit)) == newest_first

    async def test_pages_hold_only_what_was_asked_for(self, store: Store, journal: Journal) -> None:
        """L6: a filter must not change the order or the paging."""
        statuses = [Status.QUEUED, Status.RUNNING, Status.FAILED]
        jobs = [
            a_job(
                statuses[number % 3],
                spec=a_spec(user=f"user{number % 2}", project=f"project{number % 5}"),
                created_at=NOON + timedelta(seconds=number // 3),
            )
            for number in range(30)
        ]
        await journal.commit([a_change(job) for job in jobs])
        newest_first = sorted(jobs, key=lambda job: (job.created_at, job.id), reverse=True)
        two = frozenset({Status.QUEUED, Status.FAILED})
        cases = [
            (JobQuery(statuses=two, limit=4), lambda job: job.status in two),
            (JobQuery(user="user1", limit=4), lambda job: job.spec.user == "user1"),
            (JobQuery(project="project3", limit=4), lambda job: job.spec.project == "project3"),
            (
                JobQuery(statuses=two, user="user0", project="project0", limit=1),
                lambda job: job.status in two and (job.spec.user, job.spec.project) == ("user0", "project0"),
            ),
            (JobQuery(user="nobody"), lambda _: False),
        ]
        for query, wanted in cases:
            assert await _all_pages(journal, query) == [job for job in newest_first if wanted(job)], query

    # The outbox

    async def test_the_outbox_gives_changes_in_commit_order_until_forgotten(
        self, store: Store, journal: Journal
    ) -> None:
        """R6: the mirror must see every change, each as it was, the oldest first."""
        job, other = a_job(), a_job()
        after = advanced(job, progress={"step": 1})
        await journal.commit([a_change(job), a_change(other)])
        await journal.commit([a_change(after, before=job)])
        rows = await journal.outbox(10)
        assert [row.job for row in rows] == [job, other, after]
        assert [row.event for row in rows] == [
            a_change(job).event,
            a_change(other).event,
            a_change(after, before=job).event,
        ]
        assert await journal.outbox(2) == rows[:2]
        await journal.forget([rows[0].seq, rows[2].seq])
        assert await journal.outbox(10) == [rows[1]]
        assert await journal.outbox_size() == 1

    async def test_forgetting_twice_is_fine_and_never_drops_a_newer_row(
        self, store: Store, journal: Journal
    ) -> None:
        """R6: a relay that is repeated after a crash forgets again; that must not eat what came since."""
        await journal.commit([a_change()])
        (row,) = await journal.outbox(10)
        await journal.forget([row.seq, 999_999])
        await journal.commit([a_change()])
        await journal.forget([row.seq])
        await journal.forget([])
        (newer,) = await journal.outbox(10)
        assert newer.seq > row.seq

    async def test_the_outbox_survives_a_restart(self, store: Store) -> None:
        """P5: a status update that was not delivered must be delivered by the next life."""
        job = a_job()
        async with store.open() as journal:
            await journal.commit([a_change(job)])
        async with store.open() as journal:
            assert [row.job for row in await journal.outbox(10)] == [job]
            assert await journal.outbox_size() == 1

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
                    await old.forget([row.seq for row in await new.outbox(10)])
                assert store.look() == before
                await new.commit([a_change(advanced(job), before=job)])


async def _all_pages(journal: Journal, query: JobQuery) -> list[Job]:
    found: list[Job] = []
    while page := await journal.page(query):
        assert len(page) <= query.limit
        found += page
        query = replace(query, after=(page[-1].created_at, page[-1].id))
    return found
