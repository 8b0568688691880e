"""What every journal promises about pages and counts of jobs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from scheduler.api.cursors import place_of
from scheduler.core.model import Job, JobId, Status
from scheduler.ports import JobQuery, Journal, Sort
from scheduler.testing.builders import a_change, a_job, a_spec, advanced
from scheduler.testing.clock import NOON
from tests.contract.suites.journal_store import Store

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


class JournalPages:
    """Part of `JournalContract`."""

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
