"""Usage accounting: the counting itself, the engine, HTTP, CSV and the page (O5)."""

from __future__ import annotations

import asyncio
import csv
import io
import re
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.api.usage import UsageDocument, UsageRow, csv_of, harmless
from scheduler.core.model import Fence, Gang, JobId
from scheduler.core.usage import GROUPINGS, Grouping, HeldRun, Ledger, Used, by_day
from scheduler.engine.queries import usage as accounts
from scheduler.errors import InvalidRequest, JournalUnwritable, RegistryUnavailable
from scheduler.ports import HeldRuns
from scheduler.testing.clock import NOON
from scheduler.testing.fake_runner import COMPLETED
from tests.unit.edge import SUBMIT, client_of, problem_of
from tests.unit.recording_registry import RecordingRegistry, a_usage
from tests.unit.test_queue import a_world, submit
from tests.unit.test_service import World, a_loop

USAGE, CSV = f"{SUBMIT}/usage", f"{SUBMIT}/usage.csv"
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
MIDNIGHT = datetime(2026, 1, 1, tzinfo=UTC)
HOSTILE = "<script>alert(1)</script>\"'"

moments = st.timedeltas(timedelta(0), 20 * DAY).map(MIDNIGHT.__add__)


@st.composite
def runs(draw: st.DrawFn) -> HeldRun:
    started_at = draw(moments)
    return HeldRun(
        job_id=JobId(draw(st.sampled_from("abc"))),
        fence=Fence(draw(st.integers(1, 5))),
        project=draw(st.sampled_from(["", "speech", "vision"])),
        user=draw(st.sampled_from(["ann", "zoë"])),
        gpus=draw(st.sampled_from([0.0, 0.1, 1 / 3, 1.0, 8.0])),
        cpus=draw(st.floats(0.1, 64)),
        started_at=started_at,
        ended_at=draw(st.none() | moments.filter(lambda at: at >= started_at)),
    )


many_runs = st.lists(runs(), max_size=12, unique_by=lambda run: (run.job_id, run.fence))
groupings = st.lists(st.sampled_from(GROUPINGS), max_size=3, unique=True)


def counted(found: list[HeldRun], by: list[Grouping], begin: datetime, end: datetime) -> Ledger:
    ledger = Ledger(by, begin, end)
    ledger.add(found)
    ledger.close()
    return ledger


class TestCounting:
    @given(moments, moments)
    def test_the_days_of_a_time_are_its_whole_and_none_is_longer_than_a_day(
        self, one: datetime, other: datetime
    ) -> None:
        begin, end = sorted((one, other))
        days = list(by_day(begin, end))
        assert sum((timedelta(microseconds=held) for _, held in days), timedelta()) == end - begin
        assert [day for day, _ in days] == sorted({day for day, _ in days})
        assert all(timedelta(0) < timedelta(microseconds=held) <= DAY for _, held in days)

    def test_days_are_those_of_utc_whatever_zone_a_moment_has(self) -> None:
        begin = datetime.fromisoformat("2026-01-02T00:30:00+01:00")
        assert [day for day, _ in by_day(begin, begin + HOUR)] == [date(2026, 1, 1), date(2026, 1, 2)]

    @given(many_runs, groupings, moments, moments)
    def test_rows_sum_up_to_the_total_and_the_total_is_what_every_run_held(
        self, found: list[HeldRun], by: list[Grouping], one: datetime, other: datetime
    ) -> None:
        """O5: whatever the runs are grouped by, no hour is lost and none is made up."""
        begin, end = sorted((one, other))
        ledger = counted(found, by, begin, end)
        rows, total = ledger.rows().values(), ledger.total()
        assert sum(row.gpu_hours for row in rows) == pytest.approx(total.gpu_hours)
        assert sum(row.cpu_hours for row in rows) == pytest.approx(total.cpu_hours)
        held = [
            (run, max(timedelta(0), min(run.ended_at or end, end) - max(run.started_at, begin)))
            for run in found
        ]
        assert total.gpu_hours == pytest.approx(sum(run.gpus * (time / HOUR) for run, time in held))
        assert total.cpu_hours == pytest.approx(sum(run.cpus * (time / HOUR) for run, time in held))
        assert total.num_jobs == len({run.job_id for run, time in held if time})

    @given(st.data(), many_runs, groupings)
    def test_the_order_in_which_runs_are_told_changes_nothing(
        self, data: st.DataObject, found: list[HeldRun], by: list[Grouping]
    ) -> None:
        """To the last bit: two replicas answer the same."""
        other = data.draw(st.permutations(found))
        period = (MIDNIGHT + DAY, MIDNIGHT + 15 * DAY)
        one, two = counted(found, by, *period), counted(other, by, *period)
        assert (dict(one.rows()), one.total()) == (dict(two.rows()), two.total())

    @given(many_runs, st.lists(st.booleans(), min_size=12, max_size=12))
    def test_a_run_that_is_told_again_counts_once_as_it_ended(
        self, found: list[HeldRun], was_open: list[bool]
    ) -> None:
        """A job that changes during the walk comes twice."""
        period = (MIDNIGHT, MIDNIGHT + 30 * DAY)
        before = [replace(run, ended_at=None) for run, was in zip(found, was_open, strict=False) if was]
        told, twice = counted(found, ["day"], *period), counted([*before, *found, *before], ["day"], *period)
        assert (dict(told.rows()), told.num_open) == (dict(twice.rows()), twice.num_open)

    def test_a_job_of_two_days_counts_on_both_and_once_in_all(self) -> None:
        run = HeldRun(
            job_id=JobId("a"),
            fence=Fence(1),
            project="vision",
            user="ann",
            gpus=2,
            cpus=4,
            started_at=MIDNIGHT - HOUR,
            ended_at=MIDNIGHT + 3 * HOUR,
        )
        ledger = counted([run], ["day"], MIDNIGHT - DAY, MIDNIGHT + DAY)
        assert ledger.rows() == {
            (date(2025, 12, 31),): Used(gpu_hours=2, cpu_hours=4, num_jobs=1),
            (date(2026, 1, 1),): Used(gpu_hours=6, cpu_hours=12, num_jobs=1),
        }
        assert ledger.total() == Used(gpu_hours=8, cpu_hours=16, num_jobs=1)


async def usage_of(world: World, *by: Grouping) -> UsageDocument:
    return await world.service.accounts.usage(None, None, by or ("project",))


class TestTheEngine:
    async def test_a_run_that_goes_on_is_counted_until_now_and_one_that_ended_until_then(self) -> None:
        world = await a_world()
        ended = (JobId(await submit(world, "vision", 2)), Fence(1))
        await submit(world, "speech", 1)
        await world.settle()
        world.clock.advance(3600)
        world.runner.end(ended, COMPLETED)
        await world.settle()
        world.clock.advance(3600)
        found = await usage_of(world)
        assert [(row.project, round(row.gpu_hours, 3), row.num_jobs) for row in found.rows] == [
            ("speech", 2, 1),
            ("vision", 2, 1),
        ]
        assert (round(found.total.gpu_hours, 3), found.total.num_jobs) == (4, 2)
        assert (found.num_open, found.num_left_out) == (1, 0)
        assert found.counted_until == world.clock.now()

    async def test_rows_are_told_by_what_was_asked_in_one_order(self) -> None:
        world = await a_world()
        await submit(world, "vision", 1)
        await world.settle()
        world.clock.advance(36 * 3600)
        found = await usage_of(world, "day", "project")
        first = NOON.date()
        assert found.by == ["project", "day"]
        assert [(row.project, row.user, row.day) for row in found.rows] == [
            ("vision", None, first),
            ("vision", None, first + DAY),
        ]

    async def test_it_is_complete_since_the_journal_began_also_in_the_next_life(self) -> None:
        """Nobody is told that hours are all there which an earlier journal may have had."""
        world = await a_world()
        began = world.clock.now()
        world.clock.advance(3600)
        await world.life()
        assert (await usage_of(world)).complete_since == began

    async def test_a_note_that_is_none_is_written_anew_and_a_full_disk_keeps_nobody_from_starting(
        self,
    ) -> None:
        world = await a_world()
        world.disk.notes[accounts.NOTE] = b'{"at": "some day"}'
        world.disk.fail_next = JournalUnwritable("the disk is full")
        world.clock.advance(3600)
        await world.service.accounts.begin()
        assert (await world.service.accounts.usage(None, None, ("user",))).complete_since is None
        await world.service.accounts.begin()
        assert (await usage_of(world)).complete_since == world.clock.now()

    async def test_the_days_are_thirty_up_to_now_and_nothing_is_told_of_days_to_come(self) -> None:
        world = await a_world()
        today = world.clock.now().date()
        found = await usage_of(world)
        assert (found.first_day, found.last_day) == (today - 29 * DAY, today)
        late = await world.service.accounts.usage(today, date.max, ("project",))
        assert (late.first_day, late.last_day) == (today, today)

    @pytest.mark.parametrize(
        ("first", "last", "words"),
        [
            (date(2025, 6, 2), date(2025, 6, 1), "is after 2025-06-01"),
            (date.max, None, "is after"),
            (date(2024, 1, 1), date(2025, 6, 1), "518 days, and 366 are the most"),
            (date.min, None, "is before 1970-01-01"),
            (None, date.min, "is before 1970-01-01"),
        ],
    )
    async def test_days_that_cannot_be_told_are_refused(
        self, first: date | None, last: date | None, words: str
    ) -> None:
        world = await a_world()
        with pytest.raises(InvalidRequest, match=words) as refused:
            await world.service.accounts.usage(first, last, ("project",))
        assert [problem.field for problem in refused.value.problems] == ["from"]

    async def test_more_rows_than_anybody_reads_are_refused_and_not_cut(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A table that is cut off looks like a whole one."""
        monkeypatch.setattr(accounts, "MAX_ROWS", 1)
        world = await a_world()
        for project in ("speech", "vision"):
            await submit(world, project)
        await world.settle()
        world.clock.advance(60)
        with pytest.raises(InvalidRequest, match="gives 2 rows, and 1 are the most"):
            await usage_of(world)

    async def test_all_pages_are_read(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(accounts, "_JOBS_A_PAGE", 1)
        world = await a_world()
        for _ in range(3):
            await submit(world, "vision")
        await world.settle()
        world.clock.advance(3600)
        assert (await usage_of(world)).total.num_jobs == 3

    async def test_who_asks_about_the_same_days_at_the_same_time_shares_one_reading(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The page asks by project and by day; a later question is read anew."""
        world = await a_world()
        journal, reads = world.service.journal, []
        held_runs = journal.held_runs

        async def seen(*asked: Any) -> HeldRuns:
            reads.append(asked)
            await asyncio.sleep(0)
            return await held_runs(*asked)

        monkeypatch.setattr(journal, "held_runs", seen)
        one, other = await asyncio.gather(usage_of(world, "project"), usage_of(world, "day"))
        assert (one.by, other.by, len(reads)) == (["project"], ["day"], 1)
        await usage_of(world)
        assert len(reads) == 2

    async def test_what_an_elastic_gang_got_is_counted_and_not_what_it_wanted(self) -> None:
        world = await a_world()
        gang = Gang(min_ranks=1, max_ranks=64, cpus_per_rank=1, gpus_per_rank=1)
        await world.submit(a_loop(resources=gang))
        await world.settle()
        world.clock.advance(3600)
        assert (await usage_of(world)).total.gpu_hours == pytest.approx(4)


class TestOverHttp:
    async def test_the_document_and_the_csv_are_of_one_question(self) -> None:
        registry = RecordingRegistry()
        query = {"from": "2026-11-01", "to": "2026-11-03", "by": "project, day"}
        async with client_of(registry) as client:
            told = UsageDocument.model_validate_json((await client.get(USAGE, params=query)).content)
            table = await client.get(CSV, params=query)
        asked = ("usage", date(2026, 11, 1), date(2026, 11, 3), ("project", "day"))
        assert registry.calls == [asked, asked]
        assert told.total.gpu_hours == 30
        assert table.headers["content-type"] == "text/csv; charset=utf-8"
        assert (
            table.headers["content-disposition"] == 'attachment; filename="usage-2026-11-01-2026-11-03.csv"'
        )
        assert table.text == (
            "project,day,gpu_hours,cpu_hours,num_jobs\r\n"
            "speech,2026-11-01,10.000000,20.000000,1\r\n"
            "vision,2026-11-03,20.000000,40.000000,2\r\n"
        )

    @pytest.mark.parametrize("path", [USAGE, CSV])
    @pytest.mark.parametrize(
        ("query", "field"),
        [
            ("from=2026-02-30", "from"),
            ("to=yesterday", "to"),
            ("from=20260101", "from"),
            ("by=", "by"),
            ("by=project,team", "by"),
            ("since=2026-01-01", "since"),
        ],
    )
    async def test_what_cannot_be_understood_is_refused_by_its_field(
        self, path: str, query: str, field: str
    ) -> None:
        async with client_of(RecordingRegistry()) as client:
            answer = await client.get(f"{path}?{query}")
        assert answer.status_code == 422
        assert [error.field for error in problem_of(answer).errors] == [field]


class TestCsv:
    @pytest.mark.parametrize(
        "name",
        ["=1+1", "+1", "-1", "@SUM(A1)", " =1", "\t=1", "\n=1", "\r1", "\tx", "\uff1d1", "\uff20x"],
    )
    def test_what_a_spreadsheet_would_carry_out_becomes_text(self, name: str) -> None:
        """Anybody who may submit chooses the names that somebody else's spreadsheet opens."""
        assert harmless(name) == f"'{name}"

    @pytest.mark.parametrize("name", ["", "vision", "a=b", "vision-2", "x@y", "'", "1", "2026-11-01"])
    def test_other_names_stay_as_they_are(self, name: str) -> None:
        assert harmless(name) == name

    def test_quotes_and_commas_come_back(self) -> None:
        names = ['say "hi", twice', "line\nbreak", "=cmd|' /C calc'!A0", "é"]
        rows = [UsageRow(project=name, gpu_hours=1.5, cpu_hours=0, num_jobs=1) for name in names]
        text = csv_of(a_usage(by=["project"], rows=rows))
        read = list(csv.reader(io.StringIO(text, newline="")))
        assert [line[0] for line in read[1:]] == [names[0], names[1], f"'{names[2]}", names[3]]
        assert read[0] == ["project", "gpu_hours", "cpu_hours", "num_jobs"]


class TestThePage:
    async def page(self, registry: RecordingRegistry, query: str = "") -> httpx.Response:
        async with client_of(registry) as client:
            return await client.get(f"/training/usage{query}")

    async def test_projects_and_days_are_told_in_words_beside_every_bar(self) -> None:
        page = (await self.page(RecordingRegistry())).text
        for told in (
            'aria-label="vision: 20.0 GPU hours"',
            'aria-label="speech: 10.0 GPU hours"',
            'aria-label="2026-11-01: 10.0 GPU hours"',
            'aria-label="2026-11-02: 0.0 GPU hours"',
            'width="50.0%"',
            "1 run had not ended, and is counted until",
            "No run since",
            'href="/api/training/usage.csv?from=2026-11-01&amp;to=2026-11-03&amp;by=project%2Cuser%2Cday"',
            'value="2026-11-01"',
            'href="/training/usage" aria-current="page"',
        ):
            assert told in page
        assert page.index("vision: 20") < page.index("speech: 10")

    async def test_runs_that_are_not_counted_are_named(self) -> None:
        registry = RecordingRegistry()
        registry.known_usage = a_usage(num_left_out=2, complete_since=None)
        page = (await self.page(registry)).text
        assert "2 runs are not counted" in page
        assert "It is not known since when no run is missing" in page

    async def test_where_no_run_held_a_gpu_the_bars_show_cpus(self) -> None:
        registry = RecordingRegistry()
        usage = a_usage()
        rows = [row.model_copy(update={"gpu_hours": 0.0}) for row in usage.rows]
        total = usage.total.model_copy(update={"gpu_hours": 0.0})
        registry.known_usage = a_usage(rows=rows, total=total)
        assert 'aria-label="vision: 40.0 CPU hours"' in (await self.page(registry)).text

    async def test_no_run_is_said_in_words(self) -> None:
        registry = RecordingRegistry()
        registry.known_usage = a_usage(rows=[], num_open=0)
        assert "No run held anything in these days" in (await self.page(registry)).text

    async def test_names_are_escaped_and_nothing_is_styled_in_place(self) -> None:
        registry = RecordingRegistry()
        row = UsageRow(project=HOSTILE, day=date(2026, 11, 1), gpu_hours=1, cpu_hours=1, num_jobs=1)
        registry.known_usage = a_usage(rows=[row])
        page = (await self.page(registry)).text
        assert "<script>alert" not in page
        assert "&lt;script&gt;alert(1)" in page
        assert not re.findall(r"<style|\sstyle=|\son[a-z]+=", page)

    async def test_a_day_that_is_none_is_refused_on_the_page_and_an_empty_field_is_no_day(self) -> None:
        refused = await self.page(RecordingRegistry(), "?from=2026-02-30&to=")
        assert (refused.status_code, "is no day" in refused.text) == (422, True)
        assert (await self.page(RecordingRegistry(), "?from=&to=")).status_code == 200

    async def test_a_silent_scheduler_is_said_on_the_page(self) -> None:
        registry = RecordingRegistry()
        registry.refuses = RegistryUnavailable("the scheduler is away")
        page = await self.page(registry)
        assert (page.status_code, "The usage cannot be shown" in page.text) == (200, True)

    async def test_the_queue_page_leads_here(self) -> None:
        async with client_of(RecordingRegistry()) as client:
            assert 'href="/training/usage">Usage' in (await client.get("/training/queue")).text
