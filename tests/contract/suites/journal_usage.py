"""What every journal promises about the runs that held nodes between two moments."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from scheduler.core.model import Job, JobId, Status
from scheduler.core.usage import HeldRun
from scheduler.ports import HeldRuns, Journal, Mark
from scheduler.testing.attempts import admitted, an_attempt, run_lost, telling
from scheduler.testing.builders import a_change, a_job, a_spec, advanced
from scheduler.testing.clock import NOON

HOUR = timedelta(hours=1)


async def ran(journal: Journal, start: datetime, end: datetime | None) -> Job:
    """A job that got its nodes at *start*, and completed at *end*; None: it still runs."""
    job = a_job(created_at=start - HOUR, updated_at=start - timedelta(seconds=1))
    began = admitted(job)
    await journal.commit([a_change(job)])
    await journal.commit([began])
    if end is None:
        return began.job
    assert began.event.attempt
    over = replace(advanced(began.job, status=Status.COMPLETED, allocation=None), updated_at=end)
    change = telling(replace(began.event.attempt, ended_at=end), over, began.job)
    await journal.commit([change])
    return over


async def walked(journal: Journal, since: datetime, until: datetime, limit: int = 2) -> list[HeldRun]:
    found: list[HeldRuns] = []
    after: Mark | None = None
    while not found or after:
        assert len(found) < 50, "the walk does not end"
        found.append(await journal.held_runs(since, until, after, limit))
        after = found[-1].after
    assert sum(page.left_out for page in found) == 0
    return [run for page in found for run in page.runs]


async def ids_of(journal: Journal, since: datetime, until: datetime, limit: int = 2) -> set[JobId]:
    return {run.job_id for run in await walked(journal, since, until, limit)}


class JournalUsage:
    """Part of `JournalContract`."""

    async def test_a_run_is_told_with_who_had_it_and_all_that_its_ranks_held(self, journal: Journal) -> None:
        """O5: three ranks of two GPUs each are six."""
        spec = a_spec(ranks=3, gpus=2, cpus=1.5, project="vision é", user="zoë")
        job = a_job(spec=spec)
        start = admitted(job)
        lost = run_lost(start.job)
        for change in (a_change(job), start, lost):
            await journal.commit([change])
        (run,) = await walked(journal, NOON - HOUR, NOON + HOUR)
        assert (run.job_id, run.fence, run.project, run.user) == (start.job.id, 1, "vision é", "zoë")
        assert (run.gpus, run.cpus) == (6.0, 4.5)
        assert (run.started_at, run.ended_at) == (start.job.updated_at, lost.job.updated_at)

    @pytest.mark.parametrize("limit", [1, 2, 100])
    async def test_those_are_told_that_overlap_the_period_and_no_others(
        self, journal: Journal, limit: int
    ) -> None:
        """Whatever the size of the pages, and wherever a run begins and ends."""
        begin, end = NOON, NOON + 10 * HOUR
        await ran(journal, begin - 3 * HOUR, begin - HOUR)
        await ran(journal, begin - HOUR, begin)
        await ran(journal, end, None)
        await ran(journal, end, end + HOUR)
        inside = [
            await ran(journal, begin - 5 * HOUR, None),
            await ran(journal, begin - HOUR, begin + HOUR),
            await ran(journal, begin + HOUR, begin + 2 * HOUR),
            await ran(journal, begin + 2 * HOUR, None),
            await ran(journal, begin - HOUR, end + HOUR),
            await ran(journal, end - HOUR, end),
        ]
        assert await ids_of(journal, begin, end, limit) == {job.id for job in inside}

    async def test_a_job_that_waits_again_is_told_with_its_earlier_runs(self, journal: Journal) -> None:
        """Each of its runs held nodes."""
        job = a_job()
        await journal.commit([a_change(job)])
        for _ in range(2):
            start = admitted(job)
            lost = run_lost(start.job)
            await journal.commit([start])
            await journal.commit([lost])
            job = replace(lost.job, retry_at=None)
        assert [run.fence for run in await walked(journal, NOON, NOON + HOUR)] == [1, 2]

    async def test_a_job_that_changes_during_the_walk_is_not_missed(self, journal: Journal) -> None:
        """It moves on in the order of the walk: else the hours of whatever is busy would be lost."""
        jobs = [await ran(journal, NOON + minutes * timedelta(minutes=1), None) for minutes in (1, 2, 3)]
        first = await journal.held_runs(NOON, NOON + 2 * HOUR, None, 2)
        moved = run_lost(replace(jobs[2], updated_at=NOON + HOUR))
        await journal.commit([replace(moved, before=jobs[2].version)])
        second = await journal.held_runs(NOON, NOON + 2 * HOUR, first.after, 2)
        assert {run.job_id for run in (*first.runs, *second.runs)} == {job.id for job in jobs}
        assert [run.ended_at for run in second.runs] == [moved.job.updated_at]

    async def test_a_run_that_is_over_without_a_known_end_is_left_out_and_counted_as_such(
        self, journal: Journal
    ) -> None:
        """Taken for one that goes on, it would hold its nodes for ever."""
        over = a_job("failed", created_at=NOON)
        again = a_job("running", created_at=NOON, fence=2)
        await journal.commit([telling(an_attempt(), over)])
        await journal.commit([telling(an_attempt(), again)])
        found = await journal.held_runs(NOON - HOUR, NOON + HOUR, None, 10)
        assert (found.runs, found.left_out) == ([], 2)

    async def test_pruning_takes_no_run_away(self, journal: Journal) -> None:
        """O5: the usage of last year can still be told."""
        await ran(journal, NOON, NOON + HOUR)
        before = await walked(journal, NOON, NOON + HOUR)
        assert (await journal.prune(NOON + 2 * HOUR, None, 10)).events == 0
        change = (await journal.outbox(10))[-1]
        await journal.forget([row.seq for row in await journal.outbox(10)])
        assert (await journal.prune(NOON + 2 * HOUR, None, 10)).events == change.event.version - 1
        assert await walked(journal, NOON, NOON + HOUR) == before != []
