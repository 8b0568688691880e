"""What every journal promises about what is still to be sent, and about repairs."""

from __future__ import annotations

from scheduler.core.model import JobId, Status
from scheduler.ports import Journal
from scheduler.testing.builders import a_change, a_job, a_repair, advanced
from tests.contract.suites.journal_store import Store, Stored


class JournalOutbox:
    """Part of `JournalContract`."""

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
