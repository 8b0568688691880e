"""What every journal promises, whatever it is made of."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Protocol
from uuid import UUID

import pytest
import pytest_asyncio

from scheduler.api.cursors import place_of
from scheduler.core.model import Attempt, Fence, Job, JobId, Reason, Status
from scheduler.errors import Superseded, Unstorable, VersionConflict
from scheduler.ports import JobQuery, Journal, Sort
from scheduler.testing.attempts import LOST, NODES, a_full_attempt, admitted, an_attempt, run_lost, telling
from scheduler.testing.builders import a_change, a_full_job, a_job, a_repair, a_spec, advanced
from scheduler.testing.clock import NOON
from tests.contract.suites.upkeep_contract import JournalUpkeep

Written = list[tuple[JobId, int]]
"""(job, version), in the order in which they were written."""


@dataclass(frozen=True)
class Stored:
    """What lies in a store."""

    jobs: dict[JobId, int]
    """The version of each."""
    events: Written
    outbox: Written
    notices: Written = field(default_factory=list)
    num_repairs: int = 0
    attempts: list[tuple[JobId, int]] = field(default_factory=list)
    """(job, fence), sorted."""


class Store(Protocol):
    """Where the journals of one test are kept.  It looks inside without asking the journal under test."""

    def open(self) -> AbstractAsyncContextManager[Journal]:
        """The next life of the journal."""
        ...

    def look(self) -> Stored: ...


class JournalContract(JournalUpkeep):
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

    @pytest.mark.parametrize("sort", list(Sort))
    async def test_every_order_goes_through_all_jobs_once(self, sort: Sort, journal: Journal) -> None:
        """A page that begins at the wrong place hides jobs, or shows them twice, and nobody sees that."""
        jobs = _various_jobs()
        await journal.commit([a_change(job) for job in jobs])
        moved = [advanced(job, seconds=30.0 - number) for number, job in enumerate(jobs[::3])]
        await journal.commit([a_change(job, before=was) for job, was in zip(moved, jobs[::3], strict=True)])
        now = {job.id: job for job in [*jobs, *moved]}.values()
        for statuses in (frozenset[Status](), frozenset({Status.QUEUED, Status.FAILED})):
            shown = [job for job in now if not statuses or job.status in statuses]
            in_order = sorted(shown, key=_ORDER[sort.by], reverse=sort.is_down)
            for limit in (1, 4, 50):
                query = JobQuery(statuses=statuses, sort=sort, limit=limit)
                assert await _all_pages(journal, query) == in_order, query

    @pytest.mark.parametrize(
        ("search", "names"),
        [
            ("LLAMA", ["Llama 8B", "tiny llama"]),
            ("été", ["ÉTÉ 100%"]),
            ("0%", ["ÉTÉ 100%"]),
            ("_", ["under_score"]),
            ("blue", ["under_score"]),
            ("Team=Blue", ["under_score"]),
            ("team", []),
            ("blu", []),
            ("00000000-0000-0000-0000-000000BEE", ["plain"]),
            ("bee", []),
            ("'", ["it's"]),
            ("", ["Llama 8B", "tiny llama", "ÉTÉ 100%", "under_score", "plain", "it's"]),
        ],
    )
    async def test_a_search_finds_part_of_a_name_the_beginning_of_an_id_and_a_whole_label(
        self, search: str, names: list[str], journal: Journal
    ) -> None:
        """What a person types into the box: no pattern of SQL, and no difference of upper and lower case."""
        every = ["Llama 8B", "tiny llama", "ÉTÉ 100%", "under_score", "plain", "it's"]
        labels = {"under_score": {"Team": "blue"}}
        ids = {"plain": JobId(str(UUID(int=0xBEE123)))}
        jobs = [
            a_job(
                spec=a_spec(name=name, labels=labels.get(name, {})),
                id=ids.get(name, JobId(str(UUID(int=0xD00000 + n)))),
            )
            for n, name in enumerate(every)
        ]
        await journal.commit([a_change(job) for job in jobs])
        for query in (
            JobQuery(search=search, sort=Sort.OLDEST, limit=2),
            JobQuery(search=search, user="ann", sort=Sort.UPDATED, limit=2),
            JobQuery(search=search, statuses=frozenset({Status.QUEUED}), sort=Sort.OLDEST, limit=2),
        ):
            assert [job.spec.name for job in await _all_pages(journal, query)] == names, query
        assert await journal.counts(JobQuery(search=search)) == ({Status.QUEUED: len(names)} if names else {})

    async def test_counts_are_of_all_that_match_but_the_status(self, journal: Journal) -> None:
        """They stand on the tabs of the statuses: the one that is chosen must not empty the others."""
        jobs = _various_jobs()
        await journal.commit([a_change(job) for job in jobs])
        asked = [
            (JobQuery(), lambda _: True),
            (JobQuery(statuses=frozenset({Status.FAILED}), limit=1), lambda _: True),
            (JobQuery(user="user1"), lambda job: job.spec.user == "user1"),
            (JobQuery(project="project2"), lambda job: job.spec.project == "project2"),
            (
                JobQuery(user="user1", search="a"),
                lambda job: job.spec.user == "user1" and "a" in job.spec.name.lower(),
            ),
        ]
        for query, wanted in asked:
            assert await journal.counts(query) == Counter(job.status for job in jobs if wanted(job)), query

    async def test_counts_and_lists_are_those_of_the_last_commit(self, journal: Journal) -> None:
        """What was counted or listed before must not be told again after a change."""
        job, other = a_job(), a_job()
        for known in (job, other):
            await journal.commit([a_change(known)])
            seen = await journal.counts()
        assert seen == {Status.QUEUED: 2}
        ended = advanced(job, status=Status.FAILED, spec=a_spec(name="renamed", user="bob"))
        await journal.commit([a_change(ended, before=job)])
        assert await journal.counts() == {Status.QUEUED: 1, Status.FAILED: 1}
        assert await journal.counts(JobQuery(user="bob")) == {Status.FAILED: 1}
        assert await journal.page(JobQuery(search="renamed")) == [ended]
        assert await journal.page(JobQuery(statuses=frozenset({Status.QUEUED}))) == [other]

    async def test_a_job_that_turns_out_to_be_older_stands_in_lists_once(self, journal: Journal) -> None:
        """A job that is taken in from the database brings the time of its creation along."""
        job = a_job()
        await journal.commit([a_change(job)])
        older = advanced(job, created_at=job.created_at - timedelta(days=1))
        await journal.commit([a_change(older, before=job)])
        assert await journal.page(JobQuery()) == [older]
        assert await journal.counts() == {Status.QUEUED: 1}

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

    async def test_the_outbox_is_read_on_behind_what_was_seen(self, store: Store, journal: Journal) -> None:
        """R6: one row that the database refuses must not keep the relay from those behind it."""
        jobs = [a_job() for _ in range(7)]
        for job in jobs:
            await journal.commit([a_change(job)])
        seen: list[JobId] = []
        after = 0
        while rows := await journal.outbox(3, after):
            after = rows[-1].seq
            seen += [row.job.id for row in rows]
            await journal.forget([row.seq for row in rows[1:]])
        assert seen == [job.id for job in jobs]
        assert [row.job.id for row in await journal.outbox(10)] == [jobs[0].id, jobs[3].id, jobs[6].id]

    async def test_unsent_names_each_job_in_the_outbox(self, store: Store, journal: Journal) -> None:
        """R7: a row that is on its way differs, and is no drift."""
        job, sent = a_job(), a_job()
        assert await journal.unsent() == frozenset()
        await journal.commit([a_change(job), a_change(sent)])
        await journal.commit([a_change(advanced(job), before=job)])
        rows = await journal.outbox(10)
        await journal.forget([row.seq for row in rows[:2]])
        assert await journal.unsent() == {job.id}

    # Notices

    async def test_what_is_news_is_in_the_outbox_and_among_the_notices(
        self, store: Store, journal: Journal
    ) -> None:
        """R10: written with the change itself, so that a crash right after it cannot lose the news."""
        job = a_job("running")
        lost = advanced(job, status=Status.FAILED)
        await journal.commit([a_change(job)])
        await journal.commit([a_change(), a_change(lost, before=job, is_news=True)])
        assert store.look().notices == [(job.id, 2)]
        (notice,) = await journal.notices(10)
        assert (notice.job, notice.event) == (lost, a_change(lost, before=job).event)
        assert len(await journal.outbox(10)) == 3

    async def test_mirror_and_webhook_do_not_take_from_each_other(
        self, store: Store, journal: Journal
    ) -> None:
        """R10: a webhook that is away for a day must still hear what the mirror has long taken."""
        jobs = [a_job() for _ in range(4)]
        await journal.commit([a_change(job, is_news=number > 0) for number, job in enumerate(jobs)])
        rows, notices = await journal.outbox(10), await journal.notices(10)
        await journal.forget([row.seq for row in rows])
        assert await journal.notices(10) == notices
        await journal.commit([a_change(advanced(jobs[0]), before=jobs[0])])
        rows = await journal.outbox(10)
        await journal.forget_notices([notice.seq for notice in notices])
        assert (await journal.outbox(10), await journal.notices(10)) == (rows, [])

    async def test_notices_come_in_commit_order_until_forgotten(self, store: Store, journal: Journal) -> None:
        """R10: a late repeat of a delivery must not eat what came since."""
        jobs = [a_job() for _ in range(3)]
        for job in jobs:
            await journal.commit([a_change(job, is_news=True)])
        notices = await journal.notices(10)
        assert [notice.job for notice in notices] == jobs
        assert await journal.notices(2) == notices[:2]
        await journal.forget_notices([notice.seq for notice in notices])
        await journal.commit([a_change(is_news=True)])
        await journal.forget_notices([999_999, *(notice.seq for notice in notices)])
        (newer,) = await journal.notices(10)
        assert newer.seq > notices[-1].seq

    async def test_notices_and_repairs_survive_a_restart(self, store: Store) -> None:
        """R10: the next life tells what this one could not."""
        job, repair = a_job("failed"), a_repair()
        async with store.open() as journal:
            await journal.commit([a_change(job, is_news=True)], [repair])
        async with store.open() as journal:
            assert [notice.job for notice in await journal.notices(10)] == [job]
            assert [kept for _, kept in await journal.repairs(10)] == [repair]

    # Repairs

    async def test_repairs_are_kept_newest_first_and_paged_by_their_numbers(
        self, store: Store, journal: Journal
    ) -> None:
        """L10: what was put right is shown; a page must not shift when new repairs arrive."""
        repairs = [a_repair(why=f"an 'é' in reason {number}") for number in range(7)]
        await journal.commit([a_change()], repairs[:2])
        await journal.commit([a_change(), a_change()], repairs[2:6])
        page = await journal.repairs(4)
        await journal.commit([], repairs[6:])
        rest = await journal.repairs(4, before=page[-1][0])
        assert [repair for _, repair in page + rest] == repairs[5::-1]
        assert (await journal.repairs(1))[0][1] == repairs[6]
        assert await journal.repairs(4, before=rest[-1][0]) == []

    async def test_a_repair_needs_no_change_of_a_job(self, store: Store, journal: Journal) -> None:
        """L10: a row that was mirrored again is a repair too, and the job stays what it was."""
        await journal.commit([], [a_repair()])
        assert store.look() == Stored({}, [], [], num_repairs=1)
        await journal.commit([])
        assert store.look().num_repairs == 1

    async def test_many_repairs_do_not_push_out_the_newest(self, store: Store, journal: Journal) -> None:
        """L10: the newest 10,000 are promised, also when one pass brings more than that."""
        job = a_job()
        await journal.commit([a_change(job)], [a_repair(job, why=f"{number}") for number in range(10_007)])
        await journal.commit([], [a_repair(job, why="the last")])
        kept = [repair.why for _, repair in await journal.repairs(10_000)]
        assert kept == ["the last", *(f"{number}" for number in range(10_006, 7, -1))]

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


_ORDER: dict[str, Callable[[Job], Any]] = {
    "submitted": lambda job: (job.created_at, job.id),
    "name": lambda job: (job.spec.name.casefold(), job.created_at, job.id),
    "user": lambda job: (job.spec.user, job.created_at, job.id),
    "status": lambda job: (job.status, job.created_at, job.id),
    "updated": lambda job: (job.updated_at, job.created_at, job.id),
}


def _various_jobs() -> list[Job]:
    """With few names, users and moments, so that many are equal in each of them."""
    names, statuses = ["b", "A", "a", "Ä", "été", "日本"], [Status.QUEUED, Status.RUNNING, Status.FAILED]
    return [
        a_job(
            statuses[number % 3],
            spec=a_spec(name=names[number % 6], user=f"user{number % 2}", project=f"project{number % 5}"),
            created_at=NOON + timedelta(seconds=number // 4),
        )
        for number in range(24)
    ]


async def _all_pages(journal: Journal, query: JobQuery) -> list[Job]:
    found: list[Job] = []
    while page := await journal.page(query):
        assert len(page) <= query.limit
        found += page
        query = replace(query, after=place_of(page[-1], query.sort))
    return found
