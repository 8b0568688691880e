"""What every mirror tells: what front ends want, which jobs are active, full rows, pages."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from scheduler.core.model import JobId, Status
from scheduler.core.reconcile import Row, Stub
from scheduler.ports import JobQuery, Mirror, Place
from scheduler.testing.attempts import a_full_attempt, admitted, run_lost, telling
from scheduler.testing.builders import a_job, a_spec, advanced
from scheduler.testing.clock import NOON
from tests.contract.suites.mirror_store import ELSEWHERE, MirrorStore, a_mirrored, committed

NOBODY = JobId("00000000-0000-4000-8000-00000000dead")
NO_END = 100
"""More than any test writes: pages that go on so long begin anew."""


class MirrorReads:
    """Part of `MirrorContract`."""

    # The inbox

    async def test_the_inbox_shows_what_front_ends_wrote(self, store: MirrorStore, mirror: Mirror) -> None:
        """R4: what is not shown here stays pending for ever, which was P2."""
        job_id = store.insert_pending({"loop": "sft"}, name="mine")
        seen = await mirror.inbox(None, 10)
        (row,) = seen.rows
        assert (row.id, row.status, row.version, row.name, row.spec) == (
            job_id,
            Status.PENDING,
            0,
            "mine",
            {"loop": "sft"},
        )
        assert (row.job, row.user_id, row.requested_action, row.attempt) == (None, None, None, 0)
        assert row.updated_at <= seen.read_at

    async def test_the_inbox_is_empty_when_nobody_wants_anything(
        self, store: MirrorStore, mirror: Mirror
    ) -> None:
        """What was adopted, what was answered and what another cluster's front ends wrote is nobody's wish here."""
        adopted = store.insert_pending({"loop": "sft"})
        store.insert_pending({"loop": "sft"}, cluster=ELSEWHERE)
        await mirror.apply([a_mirrored(a_job("pending", id=adopted)), a_mirrored(a_job("running"))])
        store.request(adopted, "cancel")
        await mirror.answer(adopted, "cancel", None)
        assert (await mirror.inbox(None, 10)).rows == ()

    @pytest.mark.parametrize("status", ["pending", "queued", "running", "paused", "failed", "completed"])
    async def test_a_request_is_seen_whatever_the_status(
        self, store: MirrorStore, mirror: Mirror, status: str
    ) -> None:
        """P7: asking must be possible for every job; a refusal comes in words, not by silence."""
        job = a_job(status)
        await mirror.apply([a_mirrored(job)])
        store.request(job.id, "force_start")
        (row,) = (await mirror.inbox(None, 10)).rows
        assert (row.id, row.requested_action, row.job) == (job.id, "force_start", job)

    async def test_the_inbox_is_read_in_pages_oldest_first(self, store: MirrorStore, mirror: Mirror) -> None:
        """R2: after an outage many wait, and first come is first served."""
        job_ids = [store.insert_pending({"loop": "sft"}) for _ in range(7)]
        store.request(job_ids[0], "cancel")
        oldest_first = [*job_ids[1:], job_ids[0]]
        for limit in (1, 3, 7, 50):
            assert await _all_of_the_inbox(mirror, limit) == oldest_first

    async def test_a_spec_that_cannot_be_read_hides_no_other_row(
        self, store: MirrorStore, mirror: Mirror
    ) -> None:
        """R4: what one user writes must not keep all others waiting."""
        deep: dict[str, object] = {}
        for _ in range(300):
            deep = {"in": deep}
        job_ids = [store.insert_pending(spec) for spec in (None, {}, deep, {"loop": "sft"})]
        seen = {row.id: row.spec for row in (await mirror.inbox(None, 10)).rows}
        assert seen == dict(zip(job_ids, [None, {}, None, {"loop": "sft"}], strict=True))

    # Answers

    async def test_a_request_that_was_taken_is_gone(self, store: MirrorStore, mirror: Mirror) -> None:
        """Else it would be carried out again with every look into the inbox."""
        job = a_job("running")
        await mirror.apply([a_mirrored(job)])
        store.request(job.id, "pause")
        await mirror.answer(job.id, "pause", None)
        await mirror.answer(job.id, "pause", None)
        row = store.row(job.id) or {}
        assert (row["requested_action"], row["request_error"], row["status"]) == (None, None, "running")

    async def test_a_refusal_is_kept_in_words_until_the_next_request(
        self, store: MirrorStore, mirror: Mirror
    ) -> None:
        """The front end has no other way to hear why nothing happened."""
        job = a_job("completed")
        await mirror.apply([a_mirrored(job)])
        store.request(job.id, "force_start")
        await mirror.answer(job.id, "force_start", "it is completed and cannot be restarted")
        row = store.row(job.id) or {}
        assert (row["requested_action"], row["request_error"]) == (
            None,
            "it is completed and cannot be restarted",
        )
        store.request(job.id, "resume")
        assert (store.row(job.id) or {})["request_error"] is None

    async def test_a_request_that_was_replaced_meanwhile_stays(
        self, store: MirrorStore, mirror: Mirror
    ) -> None:
        """The answer to `pause` must not eat the `cancel` that came while pausing."""
        job = a_job("running")
        await mirror.apply([a_mirrored(job)])
        store.request(job.id, "pause")
        store.request(job.id, "cancel")
        await mirror.answer(job.id, "pause", None)
        (row,) = (await mirror.inbox(None, 10)).rows
        assert row.requested_action == "cancel"

    # Active jobs, and full rows

    async def test_the_active_jobs_come_by_id_and_in_pages(self, store: MirrorStore, mirror: Mirror) -> None:
        """R3: what the reconciler does not see it cannot put right, and what it sees twice it puts right twice."""
        jobs = [a_job(status) for status in (*Status, *Status)]
        await mirror.apply([a_mirrored(job) for job in reversed(jobs)])
        other = store.insert_pending(None, cluster=ELSEWHERE)
        stubs = [Stub(id=job.id, status=job.status, version=1) for job in jobs if not job.status.is_terminal]
        for limit in (1, 3, 8, 50):
            assert await _all_active(mirror, limit) == stubs
        assert other not in [stub.id for stub in stubs]

    async def test_a_row_set_by_hand_is_active_as_it_stands(self, store: MirrorStore, mirror: Mirror) -> None:
        """P1: a job that says it runs and does not is found by looking at exactly this."""
        job = a_job("failed")
        await mirror.apply([a_mirrored(job)])
        store.set(job.id, status="running")
        assert await mirror.active(None, 10) == [Stub(id=job.id, status=Status.RUNNING, version=1)]
        (row,) = (await mirror.rows([job.id])).rows
        assert (row.status, row.job) == (Status.RUNNING, job)

    async def test_rows_that_are_not_there_are_left_out(self, store: MirrorStore, mirror: Mirror) -> None:
        """L4, L5: a question about a job that nobody knows, or about no id at all, is no error."""
        job = a_job()
        await mirror.apply([a_mirrored(job)])
        theirs = store.insert_pending(None, cluster=ELSEWHERE)
        seen = await mirror.rows([job.id, job.id, NOBODY, theirs, JobId("no-uuid"), JobId("")])
        assert [row.id for row in seen.rows] == [job.id]
        assert (await mirror.rows([])).rows == ()

    async def test_full_rows_bring_the_attempts_of_their_jobs(
        self, store: MirrorStore, mirror: Mirror
    ) -> None:
        """A journal that was lost gets them back; a page, which shows no copy, does not carry them."""
        start = admitted(a_job())
        end = run_lost(start.job)
        again = admitted(end.job)
        full, none = telling(a_full_attempt(), a_job("failed")), a_job()
        await mirror.apply([committed(start, end, again), committed(full), a_mirrored(none)])
        store.request(start.job.id, "cancel")
        rows = {row.id: row for row in (await mirror.rows([start.job.id, full.job.id, none.id])).rows}
        assert rows[start.job.id].attempts == (end.event.attempt, again.event.attempt)
        assert rows[full.job.id].attempts[0].last_step == 10**30
        assert rows[none.id].attempts == ()
        assert (await mirror.inbox(None, 10)).rows[0].attempts == rows[start.job.id].attempts
        assert {row.attempts for row in await mirror.page(JobQuery())} == {()}

    async def test_a_copy_that_is_not_of_its_row_is_none(self, store: MirrorStore, mirror: Mirror) -> None:
        """A registry rebuilt from a copy of another job, or of another moment, would be wrong for long."""
        jobs = [a_job() for _ in range(5)]
        await mirror.apply([a_mirrored(job) for job in jobs])
        good = store.row(jobs[0].id) or {}
        store.set(jobs[1].id, job=good["job"])
        store.set(jobs[2].id, version=2)
        store.set(jobs[3].id, job={"id": jobs[3].id, "version": 1})
        store.set(jobs[4].id, reason=["no", "reason"], progress=5)
        rows = {row.id: row for row in (await mirror.rows([job.id for job in jobs])).rows}
        assert [rows[job.id].job for job in jobs] == [jobs[0], None, None, None, jobs[4]]
        assert (rows[jobs[4].id].reason, rows[jobs[4].id].progress) == (None, None)

    async def test_every_touch_is_told_by_the_clock_of_the_database(
        self, store: MirrorStore, mirror: Mirror
    ) -> None:
        """R3: the age of a row is the database's word, or a scheduler with a wrong clock fails healthy jobs."""
        job = a_job()
        await mirror.apply([a_mirrored(job)])
        first = await mirror.rows([job.id])
        store.request(job.id, "cancel")
        second = await mirror.rows([job.id])
        assert first.rows[0].updated_at <= first.read_at
        assert first.rows[0].updated_at < second.rows[0].updated_at <= second.read_at

    # Pages

    async def test_pages_go_through_all_jobs_once_newest_first(
        self, store: MirrorStore, mirror: Mirror
    ) -> None:
        """L6: the order and the cursor are the journal's, so that both lists can be laid over each other."""
        jobs = [a_job(created_at=NOON + timedelta(seconds=number // 4)) for number in range(14)]
        await mirror.apply([a_mirrored(job) for job in jobs])
        store.insert_pending(None, cluster=ELSEWHERE)
        newest_first = sorted(jobs, key=lambda job: (job.created_at, job.id), reverse=True)
        for limit in (1, 3, 14, 50):
            pages = await _all_pages(mirror, JobQuery(limit=limit))
            assert [row.id for row in pages] == [job.id for job in newest_first]

    async def test_pages_hold_only_what_was_asked_for(self, store: MirrorStore, mirror: Mirror) -> None:
        """L6: while the registry is silent, the database answers the same question."""
        statuses = [Status.QUEUED, Status.RUNNING, Status.FAILED]
        jobs = [
            a_job(statuses[number % 3], spec=a_spec(user=f"user{number % 2}", project=f"project{number % 5}"))
            for number in range(30)
        ]
        await mirror.apply([a_mirrored(job) for job in jobs])
        raw = a_job("failed", raw_spec={"loop": 7}, spec=a_spec(user="zoë"))
        await mirror.apply([a_mirrored(raw)])
        store.insert_pending({"user": "eve", "project": 3})
        two = frozenset({Status.QUEUED, Status.FAILED})
        cases = [
            (JobQuery(statuses=two, limit=4), lambda job: job.status in two),
            (JobQuery(user="user1", limit=4), lambda job: job.spec.user == "user1"),
            (JobQuery(project="project3", limit=4), lambda job: job.spec.project == "project3"),
            (
                JobQuery(statuses=two, user="user0", project="project0", limit=1),
                lambda job: job.status in two and (job.spec.user, job.spec.project) == ("user0", "project0"),
            ),
            (JobQuery(user="zoë"), lambda job: job is raw),
            (JobQuery(user="nobody"), lambda _: False),
        ]
        for query, wanted in cases:
            found = [row.id for row in await _all_pages(mirror, query)]
            assert found == [job.id for job in reversed([*jobs, raw]) if wanted(job)], query
        assert [row.spec for row in await mirror.page(JobQuery(user="eve"))] == [
            {"user": "eve", "project": 3}
        ]

    async def test_a_page_says_of_a_job_what_the_database_says(
        self, store: MirrorStore, mirror: Mirror
    ) -> None:
        """L6: such a row is served as it is, marked as not verified; nothing of it is made up."""
        job = advanced(a_job("failed"), status=Status.RUNNING)
        await mirror.apply([a_mirrored(job)])
        (shown,) = await mirror.page(JobQuery())
        (full,) = (await mirror.rows([job.id])).rows
        assert shown == replace(full, job=None)


async def _all_of_the_inbox(mirror: Mirror, limit: int) -> list[JobId]:
    found: list[JobId] = []
    after = None
    while rows := (await mirror.inbox(after, limit)).rows:
        assert len(rows) <= limit
        assert len(found) < NO_END
        found += [row.id for row in rows]
        after = rows[-1].updated_at, rows[-1].id
    return found


async def _all_active(mirror: Mirror, limit: int) -> list[Stub]:
    found: list[Stub] = []
    while stubs := await mirror.active(found[-1].id if found else None, limit):
        assert len(stubs) <= limit
        assert len(found) < NO_END
        found += stubs
    return found


async def _all_pages(mirror: Mirror, query: JobQuery) -> list[Row]:
    found: list[Row] = []
    while rows := await mirror.page(query):
        assert len(rows) <= query.limit
        assert len(found) < NO_END
        found += rows
        query = replace(query, after=Place(rows[-1].created_at, rows[-1].id))
    return found
