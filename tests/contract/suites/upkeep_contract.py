"""What journal and mirror promise about old history, and about finished rows that somebody altered."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from scheduler.core.model import Job, JobId, Status
from scheduler.core.reconcile import Stub
from scheduler.ports import Change, JobQuery, Journal, Mark, Mirror, MirrorChange, Pruned
from scheduler.testing.attempts import admitted, run_lost
from scheduler.testing.builders import a_change, a_job, advanced
from scheduler.testing.clock import NOON
from tests.contract.suites.mirror_store import ELSEWHERE, MirrorStore, a_mirrored, committed

DAY = timedelta(days=1)
Prune = Callable[[datetime, Mark | None, int], Awaitable[Pruned]]


def a_life(ended_at: datetime, status: Status | str = Status.FAILED) -> list[Change]:
    """Four commits: accepted, admitted, lost (with evidence), and over at *ended_at*."""
    job = a_job(created_at=ended_at - DAY)
    start = admitted(job)
    lost = run_lost(start.job)
    over = replace(
        advanced(lost.job, status=Status(status)), updated_at=ended_at, finished_at=ended_at, queue_seq=None
    )
    return [a_change(job), start, lost, a_change(over, before=lost.job)]


async def walked(prune: Prune, before: datetime, limit: int = 2) -> list[Pruned]:
    """Every batch, until nothing older is left."""
    found: list[Pruned] = []
    after: Mark | None = None
    while not found or after:
        assert len(found) < 50, "the walk does not end"
        found.append(await prune(before, after, limit))
        after = found[-1].after
    return found


class JournalUpkeep:
    """Part of `JournalContract`."""

    async def test_of_a_job_that_ended_long_ago_only_the_history_goes(self, journal: Journal) -> None:
        """O5: events and evidence; the job, what became of each attempt, and its last event stay."""
        old, young = a_life(NOON - 100 * DAY), a_life(NOON - 80 * DAY)
        await _keep(journal, old + young)
        before = {change.job.id: await journal.events(change.job.id) for change in old + young}
        (told,) = await walked(journal.prune, NOON - 90 * DAY)
        assert (told.events, told.evidence) == (3, 1)
        job = old[-1].job
        assert await journal.events(job.id) == before[job.id][-1:]
        (run,) = await journal.attempts(job.id)
        assert run.evidence is None
        assert (run.ending, run.reason) == ("lost", old[2].event.attempt and old[2].event.attempt.reason)
        assert await journal.get(job.id) == job
        assert len(await journal.page(JobQuery())) == 2
        other = young[-1].job
        assert await journal.events(other.id) == before[other.id]
        assert (await journal.attempts(other.id))[0].evidence is not None
        assert await walked(journal.prune, NOON - 90 * DAY) == [Pruned(events=0, evidence=0, after=None)]

    async def test_a_job_that_goes_on_keeps_its_history_however_old(self, journal: Journal) -> None:
        """O5: a job may wait, pause or train for a year."""
        for status in (Status.QUEUED, Status.PAUSED):
            await _keep(journal, a_life(NOON - 400 * DAY, status))
        assert await walked(journal.prune, NOON) == [Pruned(events=0, evidence=0, after=None)]

    @pytest.mark.parametrize("limit", [1, 2, 3, 100])
    async def test_the_walk_takes_each_job_once_whatever_the_batch(
        self, journal: Journal, limit: int
    ) -> None:
        """O5: small batches so that commits go in between; none is left out, also of those that ended together."""
        for number in (1, 2, 2, 2, 3, 5, 4):
            await _keep(journal, a_life(NOON - (100 + number) * DAY))
        batches = await walked(journal.prune, NOON - 90 * DAY, limit)
        assert sum(batch.events for batch in batches) == 7 * 3
        assert max(batch.events for batch in batches) <= 3 * limit

    async def test_what_is_still_to_be_sent_is_kept_whole(self, journal: Journal) -> None:
        """R6, R10: an outage of months costs the mirror, and whoever is to be told, nothing."""
        unsent, untold = a_life(NOON - 100 * DAY), a_life(NOON - 100 * DAY)
        await _keep(journal, [replace(untold[0], is_news=True), *untold[1:]], forget_notices=False)
        for change in unsent:
            await journal.commit([change])
        assert sum(batch.events for batch in await walked(journal.prune, NOON)) == 0
        assert [row.event for row in await journal.outbox(10)] == [change.event for change in unsent]
        assert [row.event for row in await journal.notices(10)] == [untold[0].event]

    async def test_a_pruned_job_can_go_on(self, journal: Journal) -> None:
        """L8: resumed after a year, its history begins with how it had ended."""
        life = a_life(NOON - 100 * DAY)
        await _keep(journal, life)
        await walked(journal.prune, NOON)
        ended = life[-1].job
        again = replace(advanced(ended, status=Status.QUEUED), queue_seq=7, finished_at=None)
        await journal.commit([a_change(again, before=ended)])
        assert [event.version for event in await journal.events(ended.id)] == [4, 5]
        assert await walked(journal.prune, NOON) == [Pruned(events=0, evidence=0, after=None)]


class MirrorUpkeep:
    """Part of `MirrorContract`."""

    async def test_history_of_jobs_that_ended_long_ago_goes_and_the_rest_stays(
        self, store: MirrorStore, mirror: Mirror
    ) -> None:
        """O5: in the database as in the journal; rows of another cluster are nobody's to prune."""
        old, young, open_ = (
            a_life(NOON - 100 * DAY),
            a_life(NOON - 80 * DAY),
            a_life(NOON - 400 * DAY, "queued"),
        )
        for life in (old, young, open_):
            await mirror.apply([_told(life)])
        theirs = a_life(NOON - 100 * DAY)
        async with store.open(ELSEWHERE) as other:
            await other.claim(1)
            await other.apply([_told(theirs)])
        rows = {life[0].job.id: store.row(life[0].job.id) for life in (old, young, open_, theirs)}
        (told,) = await walked(mirror.prune, NOON - 90 * DAY, 100)
        assert (told.events, told.evidence) == (3, 1)
        assert [line["version"] for line in store.events(old[0].job.id)] == [4]
        (run,) = store.attempts(old[0].job.id)
        assert (run["evidence"], run["ending"]) == (None, "lost")
        for life in (young, open_, theirs):
            assert len(store.events(life[0].job.id)) == 4
            assert store.attempts(life[0].job.id)[0]["evidence"] is not None
        assert {job_id: store.row(job_id) for job_id in rows} == rows, (
            "no row is touched: its age is told by that"
        )

    @pytest.mark.parametrize("limit", [1, 2, 100])
    async def test_the_walk_through_the_rows_takes_each_once(self, mirror: Mirror, limit: int) -> None:
        """O5."""
        for number in (1, 2, 2, 2, 3):
            await mirror.apply([_told(a_life(NOON - (100 + number) * DAY))])
        batches = await walked(mirror.prune, NOON - 90 * DAY, limit)
        assert sum(batch.events for batch in batches) == 5 * 3
        assert await walked(mirror.prune, NOON - 90 * DAY, 100) == [Pruned(events=0, evidence=0, after=None)]

    @pytest.mark.parametrize(
        "columns",
        [{"status": "failed"}, {"version": 7}, {"status": "cancelled", "version": 9}, {"job": {"id": "?"}}],
        ids=["status", "version", "both", "copy"],
    )
    async def test_a_finished_row_that_was_altered_is_looked_at(
        self, store: MirrorStore, mirror: Mirror, columns: dict[str, Any]
    ) -> None:
        """P1: `completed` made `failed` by hand is a lie like any other; one that nobody touched costs nothing."""
        altered, honest = a_job("completed"), a_job("completed")
        theirs = a_job("completed")
        await mirror.apply([a_mirrored(altered), a_mirrored(honest)])
        async with store.open(ELSEWHERE) as other:
            await other.claim(1)
            await other.apply([a_mirrored(theirs)])
        assert await mirror.active(None, 10) == []
        for job in (altered, theirs):
            store.set(job.id, **columns)
        status, version = Status(columns.get("status", "completed")), columns.get("version", 1)
        assert await mirror.active(None, 10) == [Stub(id=altered.id, status=status, version=version)]
        await mirror.apply([a_mirrored(altered)], forced=True)
        assert await mirror.active(None, 10) == []

    async def test_altered_rows_and_active_ones_come_by_id_and_in_pages(
        self, store: MirrorStore, mirror: Mirror
    ) -> None:
        """R3: what a page leaves out is never put right."""
        jobs = [a_job(status) for status in (*Status, *Status)]
        await mirror.apply([a_mirrored(job) for job in jobs])
        for job in jobs[: len(Status)]:
            if job.status is Status.COMPLETED:
                store.set(job.id, status="cancelled")
        wanted = sorted(job.id for job in jobs if not job.status.is_terminal or _is_altered(job, jobs))
        for limit in (1, 3, 50):
            found: list[JobId] = []
            while stubs := await mirror.active(found[-1] if found else None, limit):
                assert len(stubs) <= limit
                found += [stub.id for stub in stubs]
            assert found == wanted


def _is_altered(job: Job, jobs: Sequence[Job]) -> bool:
    return job.status is Status.COMPLETED and job in jobs[: len(Status)]


def _told(life: Sequence[Change]) -> MirrorChange:
    return committed(*life)


async def _keep(journal: Journal, life: Sequence[Change], *, forget_notices: bool = True) -> None:
    """Written, and sent to whoever is to have it."""
    for change in life:
        await journal.commit([change])
    await journal.forget([row.seq for row in await journal.outbox(1000)])
    if forget_notices:
        await journal.forget_notices([row.seq for row in await journal.notices(1000)])
