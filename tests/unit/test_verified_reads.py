"""Lists and states compared with the database: whose word each of them is, and what is said when one is silent."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.api.cursors import cursor_of, place_of_cursor
from scheduler.api.health import Health
from scheduler.api.jobs import JobDocument, JobPage
from scheduler.core.model import JobId, Json, Status
from scheduler.core.reconcile import Row
from scheduler.engine.periodic import SystemClock
from scheduler.errors import (
    InvalidRequest,
    MirrorRefused,
    MirrorUnavailable,
    RegistryUnavailable,
    Superseded,
)
from scheduler.ports import JobQuery, Place, Rows, Sort
from scheduler.testing.memory_mirror import Database, MemoryMirror
from serve_app.verified_reads import VerifiedReads
from tests.unit.edge import SUBMIT, client_of, problem_of
from tests.unit.recording_registry import NOW, RecordingRegistry, a_document

BUDGET_S = 0.05
"""Of tests in which somebody never answers; elsewhere it is as long as it likes to be."""


def an_id(number: int) -> JobId:
    return JobId(str(UUID(int=number)))


def a_known_job(number: int, status: Status | str = Status.QUEUED, **changes: Any) -> JobDocument:
    """The higher the number, the younger."""
    at = NOW + timedelta(seconds=number)
    return a_document(an_id(number), status=Status(status), created_at=at, updated_at=at, **changes)


def a_row(number: int, status: Status | str = Status.QUEUED, **columns: Any) -> Json:
    """The row of `a_known_job`."""
    at = NOW + timedelta(seconds=number)
    likely = {"version": 1, "spec": {"loop": "torch_ddp"}, "created_at": at, "updated_at": at}
    return {"id": an_id(number), "status": Status(status)} | likely | columns


class PagingRegistry(RecordingRegistry):
    """Lists as the real one does: filtered, newest first, page by page."""

    def __init__(self, *jobs: JobDocument) -> None:
        super().__init__()
        self.known = {job.job_id: job for job in jobs}

    async def jobs(self, query: JobQuery) -> JobPage:
        found = [
            job
            for job in sorted(self.known.values(), key=_place, reverse=query.sort.is_down)
            if (not query.statuses or job.status in query.statuses)
            and (query.search or "") in job.name
            and (query.after is None or (_place(job) < query.after) == query.sort.is_down)
        ][: query.limit]
        more = cursor_of(_place(found[-1]), query.sort) if len(found) == query.limit else None
        return JobPage(jobs=found, next_cursor=more, counts={Status.QUEUED: 7})


def _place(job: JobDocument) -> Place:
    return Place(job.created_at, JobId(job.job_id))


class Copy(MemoryMirror):
    """A database with these rows.  Calls whose name is in `refuses` raise, those in `hangs` never answer."""

    def __init__(self, *rows: Json) -> None:
        super().__init__(Database(SystemClock(), fault=self._heard))
        self.calls: list[str] = []
        self.refuses: dict[str, Exception] = {}
        self.hangs: set[str] = set()
        for row in rows:
            self.database.insert(row["id"], **row)

    async def page(self, query: JobQuery) -> list[Row]:
        await self._hang("page")
        return await super().page(query)

    async def rows(self, job_ids: Collection[JobId]) -> Rows:
        await self._hang("rows")
        return await super().rows(job_ids)

    def _heard(self, name: str) -> None:
        self.calls.append(name)
        if error := self.refuses.get(name):
            raise error

    async def _hang(self, name: str) -> None:
        if name in self.hangs:
            await asyncio.Event().wait()


def reading(registry: PagingRegistry, database: Copy, *, budget_s: float = 30.0) -> httpx.AsyncClient:
    return client_of(registry, database, list_budget_s=budget_s)


async def listed(registry: PagingRegistry, database: Copy, query: str = "", **how: Any) -> JobPage:
    async with reading(registry, database, **how) as client:
        response = await client.get(f"{SUBMIT}/jobs{query}")
    assert response.status_code == 200, response.text
    return JobPage.model_validate_json(response.content)


def marks(job: JobDocument) -> tuple[Any, ...]:
    return job.stale, job.database_status, job.registry_status, job.verified


AGREES = (False, None, None, True)


class TestBothAnswer:
    async def test_rows_that_say_the_same_carry_no_mark(self) -> None:
        """L6: and nobody is asked twice."""
        registry = PagingRegistry(a_known_job(1), a_known_job(2, "running"))
        database = Copy(a_row(1), a_row(2, "running"))
        page = await listed(registry, database)
        assert [marks(job) for job in page.jobs] == [AGREES, AGREES]
        assert [job.job_id for job in page.jobs] == [an_id(2), an_id(1)]
        assert (page.verified, page.note, page.next_cursor) == (True, None, None)
        assert ([call[0] for call in registry.calls], database.calls) == (["jobs"], ["page"])

    @pytest.mark.parametrize("query", ["", "?status=failed", "?status=running"])
    async def test_a_row_that_says_something_else_is_stale_under_either_status(self, query: str) -> None:
        """L6, P1: whoever looks for running jobs finds the row that lies, and what is true of it."""
        page = await listed(PagingRegistry(a_known_job(1, "failed")), Copy(a_row(1, "running")), query)
        [job] = page.jobs
        assert job.status is Status.FAILED
        assert marks(job) == (True, Status.RUNNING, Status.FAILED, True)

    async def test_a_job_whose_row_is_gone_is_stale(self) -> None:
        """L6: somebody deleted it, or the database does not have it yet."""
        page = await listed(PagingRegistry(a_known_job(1)), Copy())
        assert [marks(job) for job in page.jobs] == [(True, None, Status.QUEUED, True)]

    @pytest.mark.parametrize("status", list(Status))
    async def test_a_row_that_the_registry_does_not_know_is_not_verified(self, status: Status) -> None:
        """L6, P2: a new `pending` row waits to be adopted; one that says `running` claims what cannot be."""
        page = await listed(PagingRegistry(), Copy(a_row(1, status, version=0)))
        [job] = page.jobs
        claims = status in (Status.QUEUED, Status.RUNNING, Status.PAUSED)
        assert job.status is status
        assert marks(job) == (claims, status if claims else None, None, False)
        assert job.evidence is not None
        assert job.evidence.endswith("the registry does not know this job")
        assert page.verified

    async def test_a_job_that_has_moved_on_between_the_two_answers_is_not_stale(self) -> None:
        """L6: the row is newer than what the registry said a moment ago; it is asked again."""
        registry = PagingRegistry(a_known_job(1, "completed", version=3))
        before, registry.jobs = registry.jobs, None  # type: ignore[method-assign]

        async def a_moment_ago(*query: Any) -> JobPage:
            page = await before(*query)
            return page.model_copy(update={"jobs": [a_known_job(1, "running", version=2)]})

        registry.jobs = a_moment_ago  # type: ignore[method-assign]
        page = await listed(registry, Copy(a_row(1, "completed", version=3)))
        assert [(job.status, marks(job)) for job in page.jobs] == [(Status.COMPLETED, AGREES)]

    async def test_a_row_that_no_scheduler_wrote_is_stale_whatever_version_it_claims(self) -> None:
        """L6, P1: a version can be written by hand as well."""
        page = await listed(PagingRegistry(a_known_job(1, "failed")), Copy(a_row(1, "running", version=99)))
        assert [marks(job) for job in page.jobs] == [(True, Status.RUNNING, Status.FAILED, True)]

    async def test_a_row_whose_spec_is_none_is_listed_all_the_same(self) -> None:
        """P2: one bad row of a front end must not hide all others."""
        rows = [a_row(1, "pending", spec=None), a_row(2, "pending", spec={"lop": 1}, name="n" * 300)]
        page = await listed(PagingRegistry(a_known_job(3)), Copy(*rows, a_row(3)))
        assert [job.status for job in page.jobs] == ["queued", "pending", "pending"]

    @given(
        st.lists(st.tuples(st.sampled_from([None, *Status]), st.sampled_from([None, *Status])), max_size=9),
        st.integers(1, 4),
    )
    @settings(max_examples=150, deadline=None)
    def test_pages_show_each_job_of_either_side_once_in_order_and_as_it_is(
        self, jobs: list[tuple[Status | None, Status | None]], limit: int
    ) -> None:
        """L6: pages of the two sides end at different jobs; nothing may be lost, doubled, or marked for that."""
        known = {number: statuses for number, statuses in enumerate(jobs, 1) if any(statuses)}
        registry = PagingRegistry(*(a_known_job(n, told) for n, (told, _) in known.items() if told))
        database = Copy(*(a_row(n, said) for n, (_, said) in known.items() if said))
        shown = asyncio.run(all_pages(reads_of(registry, database), limit))
        assert [job.job_id for job in shown] == [an_id(number) for number in sorted(known, reverse=True)]
        for job, (told, said) in zip(shown, (known[n] for n in sorted(known, reverse=True)), strict=True):
            assert job.status is (told or said)
            if told:
                assert (job.verified, job.stale) == (True, told is not said)


def reads_of(
    registry: PagingRegistry, database: Copy, budget_s: float = 30.0, pause_s: float = 5.0
) -> VerifiedReads:
    return VerifiedReads(registry, database, budget_s=budget_s, overdue_after_s=600.0, pause_s=pause_s)


async def all_pages(reads: VerifiedReads, limit: int) -> list[JobDocument]:
    cursor, shown = None, []
    while True:
        after = place_of_cursor(cursor) if cursor else None
        page = await reads.jobs(JobQuery(after=after, limit=limit))
        assert len(page.jobs) <= limit
        shown += page.jobs
        cursor = page.next_cursor
        if cursor is None:
            return shown


class TestOnItsWay:
    """L6: a job that moved a moment ago is no lie of the database's."""

    async def test_a_change_that_is_still_to_be_sent_is_not_stale(self) -> None:
        """The row is as old as the last pass of the relay, however long that is ago."""
        job = a_known_job(1, "failed", version=3, unmirrored=True)
        for row in ([a_row(1, "running", version=2)], []):
            page = await listed(PagingRegistry(job), Copy(*row))
            assert [(job.status, marks(job)) for job in page.jobs] == [(Status.FAILED, AGREES)]

    async def test_a_lie_is_one_whatever_is_on_its_way(self) -> None:
        """A row of the same version, or of none that any scheduler wrote, is not explained by what is to come."""
        job = a_known_job(1, "failed", version=3, unmirrored=True)
        for version in (3, 99):
            page = await listed(PagingRegistry(job), Copy(a_row(1, "running", version=version)))
            assert [marks(job) for job in page.jobs] == [(True, Status.RUNNING, Status.FAILED, True)]

    @pytest.mark.parametrize("was", ["running", None])
    @pytest.mark.parametrize("query", ["", "?sort=name"])
    async def test_a_change_that_arrives_between_the_two_answers_is_not_stale(
        self, was: str | None, query: str
    ) -> None:
        """The row was read, the relay wrote it anew, the registry answered that nothing is on its way any more."""
        database = Copy(*([a_row(1, was, version=2)] if was else []))

        class Moving(PagingRegistry):
            async def jobs(self, query: JobQuery) -> JobPage:
                await asyncio.sleep(0.01)  # the database is read meanwhile
                database.database.rows.pop(an_id(1), None)
                row = a_row(1, "failed", version=3)
                database.database.insert(row.pop("id"), **row)
                return await super().jobs(query)

        registry = Moving(a_known_job(1, "failed", version=3))
        page = await listed(registry, database, query)
        assert [marks(job) for job in page.jobs] == [AGREES]

    async def test_a_row_that_stays_old_with_nothing_on_its_way_is_stale(self) -> None:
        """Somebody put an old state back: it is looked at twice, and it is a lie."""
        database = Copy(a_row(1, "running", version=2))
        page = await listed(PagingRegistry(a_known_job(1, "failed", version=3)), database)
        assert [marks(job) for job in page.jobs] == [(True, Status.RUNNING, Status.FAILED, True)]
        assert database.calls == ["page", "rows"]

    async def test_a_database_that_is_silent_at_the_second_look_makes_nothing_stale(self) -> None:
        database = Copy(a_row(1, "running", version=2))
        database.refuses = {"rows": MirrorUnavailable("connection reset")}
        page = await listed(PagingRegistry(a_known_job(1, "failed", version=3)), database)
        assert [marks(job) for job in page.jobs] == [AGREES]


class TestWhoHangs:
    """L6: whoever hangs is waited for once, and not by every list."""

    @staticmethod
    async def timed(reads: VerifiedReads, query: JobQuery | None = None) -> tuple[float, JobPage]:
        began_s = time.monotonic()
        page = await reads.jobs(query or JobQuery())
        return time.monotonic() - began_s, page

    @pytest.mark.parametrize("query", [JobQuery(), JobQuery(sort=Sort.NAME)], ids=["plain", "sorted"])
    async def test_a_database_that_hangs_costs_one_list_its_time(self, query: JobQuery) -> None:
        database = Copy(a_row(1))
        database.hangs = {"page", "rows"}
        reads = reads_of(PagingRegistry(a_known_job(1)), database, budget_s=1.0, pause_s=0.1)
        first_s, first = await self.timed(reads, query)
        assert first_s >= 1.0
        for _ in range(20):
            took_s, page = await self.timed(reads, query)
            assert took_s < 0.5
            assert [marks(job) for job in page.jobs] == [AGREES]
            assert "the database did not answer within" in (page.note or "")
        assert "not waited for" in (page.note or "")
        assert "not compared" in (first.note or "")
        database.hangs = set()
        async with asyncio.timeout(30):
            while (await reads.jobs(query)).note is not None:
                await asyncio.sleep(0.01)

    async def test_a_registry_that_hangs_costs_one_list_its_time(self) -> None:
        """The state of one job is asked for all the same: the registry alone can vouch for it."""
        registry = PagingRegistry(a_known_job(1, "failed"))
        registry.hangs = {"jobs", "documents", "status"}
        reads = reads_of(registry, Copy(a_row(1, "running")), budget_s=1.0, pause_s=0.1)
        first_s, first = await self.timed(reads)
        assert (first_s >= 1.0, first.verified) == (True, False)
        began_s = time.monotonic()
        for _ in range(10):
            page = await reads.jobs(JobQuery())
            assert (page.verified, page.jobs[0].status) == (False, Status.RUNNING)
        assert time.monotonic() - began_s < 0.9
        assert not (await reads.status(an_id(1))).verified
        registry.hangs = set()
        assert (await reads.status(an_id(1))).verified, (
            "it answers again, and nobody waits for the next probe"
        )
        async with asyncio.timeout(30):
            while not (await reads.jobs(JobQuery())).verified:
                await asyncio.sleep(0.01)
        assert [marks(job) for job in (await reads.jobs(JobQuery())).jobs] == [
            (True, Status.RUNNING, Status.FAILED, True)
        ]

    async def test_many_lists_at_once_make_one_probe(self) -> None:
        """A database that is ill is not helped by a hundred questions in each second."""
        database = Copy(a_row(1))
        database.hangs = {"page", "rows"}
        asked: list[str] = []
        before = database.rows

        async def rows(job_ids: Collection[JobId]) -> Rows:
            asked.append("rows")
            return await before(job_ids)

        database.rows = rows  # type: ignore[method-assign]
        reads = reads_of(PagingRegistry(a_known_job(1)), database, budget_s=0.2, pause_s=0.05)
        await asyncio.gather(*(reads.jobs(JobQuery()) for _ in range(50)))
        asked.clear()
        for _ in range(60):
            await reads.jobs(JobQuery())
            await asyncio.sleep(0.01)
        assert 1 <= len(asked) <= 6

    async def test_what_is_refused_at_once_is_asked_again_at_once(self) -> None:
        """An error costs nobody time, and the next answer may be a good one."""
        database = Copy(a_row(1))
        database.refuses = {"page": MirrorUnavailable("connection refused")}
        reads = reads_of(PagingRegistry(a_known_job(1)), database)
        assert "connection refused" in ((await reads.jobs(JobQuery())).note or "")
        database.refuses = {}
        assert (await reads.jobs(JobQuery())).note is None


class TestOneIsSilent:
    @pytest.mark.parametrize(
        ("refuses", "why"),
        [
            (None, "the registry did not answer within 0.0"),
            (RegistryUnavailable("the actor is restarting"), "the actor is restarting"),
            (Superseded("a newer scheduler owns the journal"), "a newer scheduler owns the journal"),
        ],
    )
    async def test_a_silent_registry_leaves_rows_that_are_not_verified(
        self, refuses: Exception | None, why: str
    ) -> None:
        """L6: as the database has them, and the answer says so; nothing is called stale by hearsay."""
        registry = PagingRegistry(a_known_job(1, "failed"))
        registry.refuses, registry.hangs = refuses, set() if refuses else {"jobs"}
        database = Copy(a_row(1, "running"), a_row(2, "running"), a_row(3))
        first = await listed(registry, database, "?status=running&limit=1", budget_s=BUDGET_S)
        assert not first.verified
        assert first.note is not None
        assert why in first.note
        assert [(job.job_id, marks(job)) for job in first.jobs] == [(an_id(2), (False, None, None, False))]
        assert "the registry did not answer" in (first.jobs[0].evidence or "")
        rest = await listed(
            registry, database, f"?status=running&cursor={first.next_cursor}", budget_s=BUDGET_S
        )
        assert [job.job_id for job in rest.jobs] == [an_id(1)]
        assert rest.next_cursor is None

    @pytest.mark.parametrize(
        ("refuses", "why"),
        [
            (None, "the database did not answer within 0.0"),
            (MirrorUnavailable("connection refused"), "connection refused"),
            (MirrorRefused("the key is wrong"), "the key is wrong"),
        ],
    )
    async def test_a_silent_database_leaves_the_registrys_word(
        self, refuses: Exception | None, why: str
    ) -> None:
        """L6, P6: the jobs are true; that nothing was compared is said, not passed over."""
        database = Copy()
        database.refuses, database.hangs = ({"page": refuses}, set()) if refuses else ({}, {"page"})
        page = await listed(PagingRegistry(a_known_job(1)), database, budget_s=BUDGET_S)
        assert [marks(job) for job in page.jobs] == [AGREES]
        assert page.verified
        assert (page.note or "").startswith(f"not compared with the database: {why}")

    async def test_when_nobody_answers_both_reasons_are_told(self) -> None:
        """L9: either of them may be the one to mend."""
        registry, database = PagingRegistry(), Copy()
        registry.refuses = RegistryUnavailable("the actor is gone")
        database.refuses = {"page": MirrorUnavailable("connection refused")}
        async with reading(registry, database) as client:
            problem = problem_of(await client.get(f"{SUBMIT}/jobs"))
        assert (problem.status, problem.code) == (503, "registry_unavailable")
        assert "the actor is gone; connection refused" in problem.detail

    async def test_a_registry_that_falls_silent_in_between_makes_nothing_stale(self) -> None:
        """L6: about a job that it did not list, nobody knows; about the others, the note says nothing."""
        registry = PagingRegistry(a_known_job(1))
        registry.hangs = {"documents"}
        page = await listed(registry, Copy(a_row(1), a_row(2, "running")), budget_s=BUDGET_S)
        assert [marks(job) for job in page.jobs] == [(False, None, None, False), AGREES]
        assert not page.verified
        assert (page.note or "").startswith("1 not verified: the registry did not answer")

    async def test_a_row_that_is_newer_than_the_last_word_of_the_registry_is_not_stale(self) -> None:
        """L6: the registry listed the job, the job ended, and then the registry fell silent."""
        registry = PagingRegistry(a_known_job(1, "running", version=2))
        registry.refuses_in = {"documents": RegistryUnavailable("the actor is gone")}
        page = await listed(registry, Copy(a_row(1, "completed", version=3)))
        assert [(job.status, marks(job)) for job in page.jobs] == [(Status.RUNNING, AGREES)]
        assert (page.verified, page.note) == (False, "1 not verified: the actor is gone")

    async def test_a_database_that_falls_silent_in_between_makes_nothing_stale(self) -> None:
        """L6: whether the row is there, nobody knows."""
        database = Copy(a_row(2))
        database.refuses = {"rows": MirrorUnavailable("connection reset")}
        page = await listed(PagingRegistry(a_known_job(1), a_known_job(2)), database)
        assert [marks(job) for job in page.jobs] == [AGREES, AGREES]
        assert (page.verified, page.note) == (True, "1 not compared with the database: connection reset")

    async def test_a_database_that_hangs_in_between_leaves_time_for_the_registry(self) -> None:
        """L6: two questions, one after the other; the silence of one is not laid at the other's door."""
        database = Copy(a_row(2, "running"))
        database.hangs = {"rows"}
        registry = PagingRegistry(a_known_job(1), a_known_job(2, "failed"))
        page = await listed(registry, database, "?status=queued,running", budget_s=BUDGET_S)
        assert [marks(job) for job in page.jobs] == [(True, "running", "failed", True), AGREES]
        assert page.verified
        assert (page.note or "").startswith("1 not compared with the database: the database did not answer")

    async def test_what_the_registry_refuses_is_refused(self) -> None:
        """A cursor that is none must not be answered with a page of old rows."""
        registry = PagingRegistry()
        registry.refuses = InvalidRequest("this is not a cursor")
        async with reading(registry, Copy(a_row(1))) as client:
            assert problem_of(await client.get(f"{SUBMIT}/jobs")).status == 422
            for cursor in ("nonsense", "MjAyNi0wMS0wMVQwMDowMDowMCswMDowMCB4LGlkLmVxLjE"):
                problem = problem_of(await client.get(f"{SUBMIT}/jobs?cursor={cursor}"))
                assert (problem.status, problem.errors[0].field) == (422, "cursor")


class TestOverdue:
    @pytest.mark.parametrize(("after_s", "is_overdue"), [(60.0, True), (3600.0, False)])
    async def test_a_row_alone_is_overdue_when_the_settings_say_so(
        self, after_s: float, is_overdue: bool
    ) -> None:
        """What is shown while the registry is away is judged as the registry does it."""
        since = datetime.now(UTC) - timedelta(minutes=10)
        database = Copy(a_row(1, created_at=since, queued_at=since))
        unknown, silent = PagingRegistry(), PagingRegistry()
        silent.refuses = RegistryUnavailable("the actor is gone")
        for registry in (unknown, silent):
            async with client_of(registry, database, overdue_after_s=after_s) as client:
                (job,) = JobPage.model_validate_json((await client.get(f"{SUBMIT}/jobs")).content).jobs
                assert (job.overdue, job.verified) == (is_overdue, False)
        async with client_of(silent, database, overdue_after_s=after_s) as client:
            job = JobDocument.model_validate_json((await client.get(f"{SUBMIT}/status/{an_id(1)}")).content)
            assert (job.overdue, job.verified) == (is_overdue, False)


class TestOtherOrders:
    """What the database cannot do by itself: the registry says which jobs, and the rows are compared by id."""

    async def test_the_page_is_the_registrys_and_its_rows_are_compared(self) -> None:
        """P1: a list by name must not hide that a row lies; rows of other pages say nothing here."""
        registry = PagingRegistry(a_known_job(1, "failed"), a_known_job(2), a_known_job(3))
        database = Copy(a_row(1, "running"), a_row(2), a_row(3), a_row(9))
        page = await listed(registry, database, "?sort=submitted&limit=2")
        assert [job.job_id for job in page.jobs] == [an_id(1), an_id(2)]
        assert [marks(job) for job in page.jobs] == [(True, "running", "failed", True), AGREES]
        assert (page.verified, page.note, page.counts) == (True, None, {Status.QUEUED: 7})
        assert page.next_cursor is not None
        assert database.calls == ["rows"]

    async def test_a_job_whose_row_is_newer_is_asked_for_again(self) -> None:
        registry = PagingRegistry(a_known_job(1, "completed", version=3))
        listed_before = a_known_job(1, "running", version=2)

        async def a_moment_ago(query: JobQuery) -> JobPage:
            return JobPage(jobs=[listed_before])

        registry.jobs = a_moment_ago  # type: ignore[method-assign]
        page = await listed(registry, Copy(a_row(1, "completed", version=3)), "?sort=name")
        assert [(job.status, marks(job)) for job in page.jobs] == [(Status.COMPLETED, AGREES)]

    async def test_a_silent_database_leaves_the_registrys_word(self) -> None:
        database = Copy()
        database.refuses = {"rows": MirrorUnavailable("connection reset")}
        page = await listed(PagingRegistry(a_known_job(1)), database, "?search=job")
        assert [marks(job) for job in page.jobs] == [AGREES]
        assert (page.verified, page.note) == (True, "1 not compared with the database: connection reset")

    async def test_without_the_registry_the_newest_rows_are_served_and_the_answer_says_so(self) -> None:
        """P2: in another order than was asked for, which nobody must take for the one that was."""
        registry = PagingRegistry()
        registry.refuses = RegistryUnavailable("the actor is restarting")
        database = Copy(a_row(1, name="llama"), a_row(2, name="other"), a_row(3, name="LLAMA 2"))
        page = await listed(registry, database, "?search=llama&sort=name&limit=3")
        assert [job.job_id for job in page.jobs] == [an_id(3), an_id(1)]
        assert (page.verified, page.next_cursor, page.counts) == (False, None, None)
        assert page.note is not None
        assert "the actor is restarting" in page.note
        assert page.note.endswith("newest first, and searched for in the newest 3 alone")
        sorted_only = await listed(registry, database, "?sort=-name")
        assert (sorted_only.note or "").endswith("newest first")

    async def test_without_the_registry_a_later_page_is_refused(self) -> None:
        """The database would begin anew, and whoever follows cursors would never come to an end."""
        registry = PagingRegistry(a_known_job(1), a_known_job(2))
        database = Copy(a_row(1), a_row(2))
        first = await listed(registry, database, "?sort=submitted&limit=1")
        registry.refuses = RegistryUnavailable("the actor is restarting")
        async with reading(registry, database) as client:
            url = f"{SUBMIT}/jobs?sort=submitted&limit=1&cursor={first.next_cursor}"
            problem = problem_of(await client.get(url))
        assert (problem.status, problem.code) == (503, "registry_unavailable")
        assert "sorted by submitted" in problem.detail

    async def test_when_nobody_answers_both_reasons_are_told(self) -> None:
        registry, database = PagingRegistry(), Copy()
        registry.refuses = RegistryUnavailable("the actor is gone")
        database.refuses = {"page": MirrorUnavailable("connection refused")}
        async with reading(registry, database) as client:
            problem = problem_of(await client.get(f"{SUBMIT}/jobs?sort=name"))
        assert "the actor is gone; connection refused" in problem.detail


class TestOneJob:
    async def test_the_registrys_word_is_enough(self) -> None:
        """L5: no request to the database for each look at a job."""
        database = Copy(a_row(1, "running"))
        async with reading(PagingRegistry(a_known_job(1, "failed")), database) as client:
            job = (await client.get(f"{SUBMIT}/status/{an_id(1)}")).json()
            assert (job["status"], job["verified"]) == ("failed", True)
            assert problem_of(await client.get(f"{SUBMIT}/status/{an_id(2)}")).status == 404
        assert database.calls == []

    async def test_while_the_registry_is_away_the_row_is_served_as_such(self) -> None:
        """L6: with when the database was last written, and that nobody vouches for it."""
        registry, row = PagingRegistry(), a_row(1, "running", attempt=2, progress={"step": 3})
        registry.hangs = {"status"}
        async with reading(registry, Copy(row), budget_s=BUDGET_S) as client:
            job = JobDocument.model_validate_json((await client.get(f"{SUBMIT}/status/{an_id(1)}")).content)
        assert (job.status, job.attempt, job.progress) == (Status.RUNNING, 2, {"step": 3})
        assert (job.verified, job.stale, job.spec.loop) == (False, False, "torch_ddp")
        assert job.evidence is not None
        assert job.evidence.startswith("as the database has it, written ")
        assert job.evidence.endswith(" ago; the registry does not answer")

    @pytest.mark.parametrize(
        ("refuses", "words"),
        [({}, "the database has no job"), ({"rows": MirrorRefused("the key is wrong")}, "the key is wrong")],
    )
    async def test_what_nobody_can_tell_is_not_called_missing(
        self, refuses: dict[str, Exception], words: str
    ) -> None:
        """P5: a job that was just submitted may not be in the database yet; a 404 would be a lie."""
        registry, database = PagingRegistry(), Copy()
        registry.refuses, database.refuses = RegistryUnavailable("the actor is gone"), refuses
        async with reading(registry, database) as client:
            problem = problem_of(await client.get(f"{SUBMIT}/status/{an_id(1)}"))
        assert problem.status == 503
        assert "the actor is gone" in problem.detail
        assert words in problem.detail


class TestHealth:
    @pytest.mark.parametrize(
        ("refuses", "ok", "problems"),
        [
            ({}, True, ["the actor is gone"]),
            (
                {"check": MirrorRefused("a migration is missing")},
                False,
                ["the actor is gone", "a migration is missing"],
            ),
        ],
    )
    async def test_without_a_registry_it_says_whether_the_database_answers(
        self, refuses: dict[str, Exception], ok: bool, problems: list[str]
    ) -> None:
        """L9: that decides whether lists can be served, and which of the two is to be mended."""
        registry, database = PagingRegistry(), Copy()
        registry.refuses, database.refuses = RegistryUnavailable("the actor is gone"), refuses
        async with reading(registry, database) as client:
            response = await client.get("/health")
        health = Health.model_validate_json(response.content)
        assert (response.status_code, health.status, health.problems) == (503, "degraded", problems)
        assert (health.database.configured, health.database.ok) == (True, ok)


async def test_without_a_database_nothing_is_compared_and_nothing_said() -> None:
    """L6: a journal alone is a whole scheduler; its answers need no second word, and no budget."""
    registry = PagingRegistry(a_known_job(1))
    async with client_of(registry, list_budget_s=BUDGET_S) as client:
        page = JobPage.model_validate_json((await client.get(f"{SUBMIT}/jobs")).content)
        assert (await client.get(f"{SUBMIT}/status/{an_id(1)}")).status_code == 200
        registry.refuses = RegistryUnavailable("the actor is gone")
        assert problem_of(await client.get(f"{SUBMIT}/jobs")).detail == "the actor is gone"
    assert (page.jobs, page.verified, page.note) == ([a_known_job(1)], True, None)
    assert [call[0] for call in registry.calls] == ["jobs", "status", "jobs"]
