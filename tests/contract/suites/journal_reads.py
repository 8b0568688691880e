"""What every journal promises about what was written: it is read again, with its attempts and keys."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from scheduler.core.model import Attempt, Fence, JobId, Reason, Status
from scheduler.errors import VersionConflict
from scheduler.ports import Journal
from scheduler.testing.attempts import LOST, NODES, a_full_attempt, admitted, an_attempt, run_lost, telling
from scheduler.testing.builders import a_change, a_full_job, a_job, a_spec, advanced
from scheduler.testing.clock import NOON
from tests.contract.suites.journal_store import Store


class JournalReads:
    """Part of `JournalContract`."""

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
        assert await journal.attempts(JobId("nobody")) == []
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

    # Attempts

    async def test_each_run_of_a_job_is_a_row_from_its_start_to_its_end(
        self, store: Store, journal: Journal
    ) -> None:
        queued = a_job()
        await journal.commit([a_change(queued)])
        assert await journal.attempts(queued.id) == []
        steps = [queued]
        for step in (admitted, run_lost, admitted):
            change = step(steps[-1])
            await journal.commit([change])
            steps.append(change.job)
        first, second = await journal.attempts(queued.id)
        assert first == Attempt(
            fence=Fence(1),
            allocation=NODES,
            started_at=steps[1].updated_at,
            ended_at=steps[2].updated_at,
            ending=LOST.ending,
            cause=LOST.cause,
            reason=LOST.reason,
            last_step=7,
            saved=LOST.saved,
            steps_lost=2,
            evidence=LOST.evidence,
        )
        assert second == Attempt(fence=Fence(2), allocation=NODES, started_at=steps[3].updated_at)
        assert store.look().attempts == [(queued.id, 1), (queued.id, 2)]

    async def test_a_reopened_journal_holds_every_field_of_an_attempt(self, store: Store) -> None:
        job, runs = a_job("running"), [a_full_attempt(fence) for fence in (9, 10)]
        after = advanced(job)
        async with store.open() as journal:
            await journal.commit([telling(runs[1], job)])
            await journal.commit([telling(runs[0], after, before=job)])
        async with store.open() as journal:
            assert await journal.attempts(job.id) == runs

    async def test_two_events_of_one_attempt_may_share_a_commit(self, store: Store, journal: Journal) -> None:
        """A run that ends before its start was written: the end counts, not the beginning."""
        job, other = a_job("running"), a_job("running")
        ended = an_attempt(ended_at=NOON, reason=Reason(code="lost", message="its node is gone"))
        await journal.commit(
            [
                telling(an_attempt(), job),
                telling(an_attempt(), other),
                telling(ended, advanced(job), before=job),
            ]
        )
        assert (await journal.attempts(job.id), await journal.attempts(other.id)) == (
            [ended],
            [an_attempt()],
        )

    async def test_a_job_that_is_taken_in_brings_its_earlier_attempts(
        self, store: Store, journal: Journal
    ) -> None:
        job = a_job("running", version=7)
        earlier = (a_full_attempt(1), an_attempt(2))
        ended = an_attempt(2, ended_at=NOON)
        await journal.commit([replace(telling(ended, job), attempts=earlier)])
        assert await journal.attempts(job.id) == [earlier[0], ended]

    async def test_a_refused_commit_leaves_no_attempt_and_changes_none(
        self, store: Store, journal: Journal
    ) -> None:
        job, fresh = a_job("running"), a_job("running")
        await journal.commit([telling(an_attempt(), job)])
        before = store.look()
        ended = telling(an_attempt(ended_at=NOON), advanced(job), before=job)
        with pytest.raises(VersionConflict):
            await journal.commit([ended, telling(an_attempt(), fresh), a_change(job)])
        assert (store.look(), await journal.attempts(job.id)) == (before, [an_attempt()])

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
