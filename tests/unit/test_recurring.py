"""Recurring jobs in the engine and over HTTP: each moment once, never two at once, and every skipped one says why (S8)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.api.recurring import RecurringChanges, RecurringJobDocument, SkippedMoment, SubmittedMoment
from scheduler.core import cron
from scheduler.core.commands import JobAction
from scheduler.core.model import After, Fence, Job, JobSpec, Status
from scheduler.engine.recurring import NOTES, RecurringJobs
from scheduler.errors import (
    InvalidRequest,
    InvalidSpec,
    JournalUnwritable,
    RecurringJobNotFound,
    SchedulerError,
)
from scheduler.testing.clock import NOON
from scheduler.testing.fake_runner import COMPLETED
from scheduler.testing.memory import MemoryJournal
from tests.unit.edge import SUBMIT, client_of, problem_of
from tests.unit.recording_registry import RecordingRegistry, a_recurring_job
from tests.unit.test_service import World, a_loop

RECURRING = f"{SUBMIT}/recurring"
BERLIN = ZoneInfo("Europe/Berlin")
HOUR_S = 3600.0


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    await world.life()
    yield world


def recurring(world: World) -> RecurringJobs:
    return world.service.recurring


async def every(world: World, expression: str = "0 * * * *", **changes: Any) -> RecurringJobDocument:
    wanted: RecurringChanges = {"cron": expression, "spec": a_loop(user="ana")} | changes  # type: ignore[assignment]
    return await recurring(world).set_recurring_job("nightly", wanted, "ann")


async def stands(world: World) -> RecurringJobDocument:
    return await recurring(world).recurring_job("nightly")


async def after(world: World, hours: float) -> None:
    """The clock goes on, and the scheduler gets round to what is due."""
    world.clock.advance(hours * HOUR_S)
    await recurring(world).once()


def made(world: World) -> list[Job]:
    """Its jobs, in the order of their moments."""
    return sorted(world.disk.all_jobs(), key=lambda job: job.idempotency_key or "")


async def end(world: World, job: Job) -> None:
    await world.settle()
    world.runner.end((job.id, Fence(1)), COMPLETED)
    await world.settle()


class TestExpressions:
    @pytest.mark.parametrize(
        ("expression", "said"),
        [
            ("61 * * * *", "its field minute is '61'; it takes 0 to 59"),
            ("0 25 * * *", "its field hour is '25'; it takes 0 to 23"),
            ("0 3 * * FOO", "its field day-of-week is 'FOO'"),
            ("60 0 3 * * *", "its field second is '60'"),
            ("0 0 30 2 *", "its field day-of-month is '30'"),
            ("* * *", "has 3 fields; it takes five (minute, hour, day-of-month, month, day-of-week)"),
            ("@daily", "has 1 field; it takes five"),
            ("", "has 0 fields"),
            ("* * */20 * 1L", "names no moment within the next 50 years"),
            ("0" * 300, "is 300 characters long"),
        ],
    )
    def test_one_that_is_wrong_is_told_by_its_field_and_with_an_example(
        self, expression: str, said: str
    ) -> None:
        words = cron.problem_of(expression)
        assert words is not None
        assert words.startswith(said)
        assert words.endswith("as `0 3 * * *` is 03:00 every day")

    @given(st.text(alphabet="0123456789*/-,#LW MONFEB?", max_size=30))
    def test_whatever_is_written_is_refused_in_words_or_has_a_next_moment(self, expression: str) -> None:
        """Nothing that a person types may end the pass that submits the others."""
        if cron.problem_of(expression) is None:
            found = cron.next_after(expression, BERLIN, NOON)
            assert found is None or found > NOON
            assert cron.explained(expression)

    def test_the_hour_that_summer_time_leaves_out_does_not_lose_the_night(self) -> None:
        """02:30 does not exist on that day in Berlin: the job comes when the hour is over, at 03:00."""
        before = datetime(2026, 3, 28, 12, tzinfo=UTC)
        first = cron.next_after("30 2 * * *", BERLIN, before)
        assert first == datetime(2026, 3, 29, 1, tzinfo=UTC)
        assert cron.next_after("30 2 * * *", BERLIN, first) == datetime(2026, 3, 30, 0, 30, tzinfo=UTC)

    def test_the_hour_that_comes_twice_has_one_night(self) -> None:
        """The clocks show 02:30 twice on that day: it is the first of them, also when asked between the two."""
        first = cron.next_after("30 2 * * *", BERLIN, datetime(2026, 10, 24, 12, tzinfo=UTC))
        assert first == datetime(2026, 10, 25, 0, 30, tzinfo=UTC)
        for minutes in (0, 40, 61):
            later = cron.next_after("30 2 * * *", BERLIN, first + timedelta(minutes=minutes))
            assert later == datetime(2026, 10, 26, 1, 30, tzinfo=UTC)

    @settings(deadline=None)
    @given(
        st.sampled_from(
            ["30 2 * * *", "0 * * * *", "*/20 2 * * *", "0 0 2 * * *", "5 */2 * * 7", "0 3 1 * *"]
        ),
        st.sampled_from(
            ["Europe/Berlin", "UTC", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu"]
        ),
        st.datetimes(datetime(2026, 1, 1), datetime(2026, 12, 31)),
    )
    def test_the_newest_moment_is_one_of_those_that_come(
        self, expression: str, zone: str, moment: datetime
    ) -> None:
        """Forwards and backwards name the same moments, or one of them would be submitted twice, or never."""
        now = moment.replace(tzinfo=UTC)
        newest = cron.newest_until(expression, ZoneInfo(zone), now)
        assert newest is not None
        assert newest <= now
        assert cron.next_after(expression, ZoneInfo(zone), newest - timedelta(seconds=1)) == newest
        following = cron.next_after(expression, ZoneInfo(zone), newest)
        assert following is not None
        assert following > now


class TestMoments:
    async def test_a_job_is_submitted_when_its_moment_comes_and_says_of_what_it_is(
        self, world: World
    ) -> None:
        """S8"""
        found = await every(world, "0 3 * * *", timezone="Europe/Berlin")
        assert (found.words, found.next_at) == ("At 03:00 every day", datetime(2026, 1, 2, 2, tzinfo=UTC))
        await after(world, 13.99)
        assert made(world) == []
        await after(world, 0.02)
        (job,) = made(world)
        assert (job.spec.labels, job.spec.user, job.status) == ({"recurring": "nightly"}, "ana", "queued")
        now = await stands(world)
        assert now.last is not None
        assert (now.last.job_id, now.last.status, now.last.at) == (job.id, "queued", found.next_at)
        assert now.next_at == datetime(2026, 1, 3, 2, tzinfo=UTC)

    async def test_it_is_on_disk_before_it_is_answered(self, world: World) -> None:
        """S8, L1: what was acknowledged is there in the next life, with what it did."""
        await every(world)
        await after(world, 1)
        before = await stands(world)
        await world.life()
        assert await stands(world) == before
        await end(world, made(world)[0])
        await after(world, 1)
        assert len(made(world)) == 2

    async def test_nothing_is_true_before_the_journal_has_it(self, world: World) -> None:
        await every(world)
        world.disk.fail_next = JournalUnwritable("the disk is full")
        with pytest.raises(JournalUnwritable):
            await every(world, "5 * * * *")
        world.disk.fail_next = JournalUnwritable("the disk is full")
        with pytest.raises(JournalUnwritable):
            await recurring(world).forget_recurring_job("nightly", "ann")
        assert (await stands(world)).cron == "0 * * * *"

    async def test_a_caller_that_goes_away_leaves_memory_as_the_journal_is(self, world: World) -> None:
        """Else what is submitted would not be what the next life submits."""
        await every(world)
        note, written = world.service.journal.note, asyncio.Event()

        async def slowly(name: str, doc: Any) -> None:
            await note(name, doc)
            written.set()
            await asyncio.sleep(0)

        world.service.journal.note = slowly  # type: ignore[method-assign]
        asked = asyncio.create_task(every(world, "5 * * * *"))
        await written.wait()
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
        assert (await recurring(world).set_recurring_job("nightly", {}, "ann")).cron == "5 * * * *"

    async def test_a_moment_is_skipped_while_the_job_before_has_not_ended(self, world: World) -> None:
        """S8: two of them would write the same files."""
        await every(world)
        await after(world, 1)
        await world.settle()
        await after(world, 1)
        (first,) = made(world)
        now = await stands(world)
        assert now.skipped is not None
        assert (now.skipped.code, now.skipped.at) == ("overlap", NOON + timedelta(hours=2))
        assert now.skipped.message == f"job {first.id} of 2026-01-01 13:00 UTC is still running"
        await end(world, first)
        await after(world, 1)
        assert len(made(world)) == 2

    async def test_an_older_job_that_a_person_let_go_on_counts_too(self, world: World) -> None:
        """Not only the last one: none of them may meet another."""
        await every(world)
        await after(world, 1)
        (first,) = made(world)
        await world.service.commands.act(first.id, JobAction.CANCEL, "ann")
        await after(world, 1)
        second = made(world)[1]
        await world.service.commands.act(second.id, JobAction.CANCEL, "ann")
        await world.service.commands.act(first.id, JobAction.RESUME, "ann")
        await after(world, 1)
        assert len(made(world)) == 2
        now = await stands(world)
        assert now.skipped and first.id in now.skipped.message

    @pytest.mark.parametrize("has_ended", [False, True])
    async def test_a_crash_between_submit_and_note_makes_no_second_job(
        self, has_ended: bool, world: World
    ) -> None:
        """The job is there, and the note of it is not: the moment comes once more, and finds its job."""
        await every(world)
        note, world.service.journal.note = world.service.journal.note, _refuses  # type: ignore[method-assign]
        with pytest.raises(JournalUnwritable):
            await after(world, 1)
        world.service.journal.note = note  # type: ignore[method-assign]
        (job,) = made(world)
        if has_ended:
            await end(world, job)
        await world.life()
        assert (await stands(world)).last is None
        await recurring(world).once()
        assert [one.id for one in made(world)] == [job.id]
        now = await stands(world)
        assert now.last and now.last.job_id == job.id
        assert now.skipped is None

    async def test_of_the_moments_that_were_missed_only_the_newest_is_made_up_for(self, world: World) -> None:
        """A night without a scheduler is followed by one job, not by ten."""
        await every(world)
        world.clock.advance(10.5 * HOUR_S)
        await world.life()
        await recurring(world).once()
        (job,) = made(world)
        now = await stands(world)
        assert now.last and (now.last.at, now.last.job_id) == (NOON + timedelta(hours=10), job.id)
        assert now.skipped and (now.skipped.code, now.skipped.at) == ("missed", NOON + timedelta(hours=1))
        assert "only the newest is made up for, 2026-01-01 22:00 UTC" in now.skipped.message
        assert now.next_at == NOON + timedelta(hours=11)
        await recurring(world).once()
        assert len(made(world)) == 1

    async def test_a_clock_that_is_set_back_repeats_no_moment(self, world: World) -> None:
        await every(world)
        await after(world, 1)
        await end(world, made(world)[0])
        world.clock.jump(-1.5 * HOUR_S)
        for _ in range(3):
            await after(world, 0.5)
        assert len(made(world)) == 1

    async def test_a_spec_that_is_no_longer_valid_is_seen_at_the_recurring_job(
        self, world: World, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Nobody is there at 03:00 to read an answer.  Logged once for the same words, counted each time."""
        await every(world)
        world.service.validator._allowed = ()
        await after(world, 1)
        await after(world, 1)
        now = await stands(world)
        assert now.skipped and (now.skipped.code, now.num_invalid) == ("invalid", 2)
        assert "loop: 'tests.loops:quick' is not allowed here" in now.skipped.message
        assert now.next_at == NOON + timedelta(hours=3)
        assert [one.levelname for one in caplog.records].count("ERROR") == 1
        assert made(world) == []

    async def test_one_that_fails_does_not_hold_up_the_others(self, world: World) -> None:
        """A job that waits for one that only a database that is away could know."""
        parent = await world.submit()
        spec = a_loop(after=[After(job=parent)])
        await every(world, spec=spec)
        await recurring(world).set_recurring_job("other", {"cron": "0 * * * *", "spec": a_loop()}, "ann")
        submit = world.service.commands.submit
        world.service.commands.submit = _only_without_parents(world)  # type: ignore[method-assign]
        with pytest.raises(SchedulerError):
            await after(world, 1)
        assert (await recurring(world).recurring_job("other")).last is not None
        world.service.commands.submit = submit  # type: ignore[method-assign]
        await recurring(world).once()
        assert (await stands(world)).last is not None

    async def test_seconds_may_be_given(self, world: World) -> None:
        await every(world, "*/10 * * * * *")
        await after(world, 10 / HOUR_S)
        assert len(made(world)) == 1

    async def test_the_engine_does_it_by_itself(self, world: World) -> None:
        """The periodic task, not a test, looks at the clock."""
        world.settings = world.settings.model_copy(update={"tick_every_s": 0.001})
        await world.life()
        await every(world)
        world.clock.advance(HOUR_S)
        running = asyncio.create_task(world.service.run_forever())
        async with asyncio.timeout(30):
            while not made(world):
                await asyncio.sleep(0.001)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert len(made(world)) == 1


async def _refuses(name: str, doc: object) -> None:
    raise JournalUnwritable("killed between the two")


def _only_without_parents(world: World) -> Any:
    submit = world.service.commands.submit

    async def only(job_id: str, spec: JobSpec, key: str | None) -> Any:
        if spec.after:
            raise JournalUnwritable("asked too soon")
        return await submit(job_id, spec, key)

    return only


class TestChanges:
    async def test_what_is_left_out_stays_and_the_same_again_writes_nothing(self, world: World) -> None:
        first = await every(world, timezone="Europe/Berlin")
        writes = world.disk.num_writes
        assert await recurring(world).set_recurring_job("nightly", {"cron": "0 * * * *"}, "bob") == first
        assert world.disk.num_writes == writes
        changed = await recurring(world).set_recurring_job("nightly", {"cron": "30 * * * *"}, "bob")
        assert (changed.timezone, changed.by) == ("Europe/Berlin", "bob")
        assert changed.next_at == NOON + timedelta(minutes=30)

    async def test_a_pause_is_not_made_up_for(self, world: World) -> None:
        await every(world)
        paused = await recurring(world).set_recurring_job("nightly", {"paused": True}, "ann")
        assert (paused.paused, paused.next_at) == (True, None)
        await after(world, 5.5)
        await world.life()
        resumed = await recurring(world).set_recurring_job("nightly", {"paused": False}, "ann")
        assert resumed.next_at == NOON + timedelta(hours=6)
        await recurring(world).once()
        assert made(world) == []

    async def test_what_is_due_is_submitted_before_it_is_changed(self, world: World) -> None:
        """A change at 03:00:00 must not cost the night."""
        await every(world)
        world.clock.advance(HOUR_S)
        await every(world, "30 * * * *")
        assert len(made(world)) == 1

    async def test_one_that_is_forgotten_comes_no_more_and_leaves_its_jobs(self, world: World) -> None:
        await every(world)
        await after(world, 1)
        for existed in (True, False):
            said = await recurring(world).forget_recurring_job("nightly", "ann")
            assert said.existed is existed
        await world.life()
        await after(world, 1)
        assert len(made(world)) == 1
        with pytest.raises(RecurringJobNotFound):
            await stands(world)

    async def test_one_made_anew_by_the_same_name_has_jobs_of_its_own(self, world: World) -> None:
        await every(world)
        await after(world, 1)
        await end(world, made(world)[0])
        await recurring(world).forget_recurring_job("nightly", "ann")
        await every(world)
        await after(world, 1)
        assert len(made(world)) == 2

    @pytest.mark.parametrize(
        ("changes", "fields"),
        [
            ({"cron": "0 61 * * *"}, ["cron"]),
            ({"timezone": "Berlin"}, ["timezone"]),
            ({"timezone": "../etc"}, ["timezone"]),
            ({"timezone": "Mars/Olympus", "cron": "x"}, ["cron", "timezone"]),
            ({"spec": a_loop(labels={f"l{number}": "" for number in range(64)})}, ["spec.labels"]),
        ],
    )
    async def test_what_cannot_be_meant_is_refused_by_its_field(
        self, changes: dict[str, Any], fields: list[str], world: World
    ) -> None:
        with pytest.raises(InvalidRequest) as refused:
            await every(world, **{"expression": changes.pop("cron", "0 3 * * *"), **changes})
        assert [problem.field for problem in refused.value.problems] == fields
        assert (await recurring(world).recurring_jobs()).recurring_jobs == []

    async def test_a_spec_that_is_not_valid_is_refused_now_and_not_at_night(self, world: World) -> None:
        with pytest.raises(InvalidSpec) as refused:
            await every(world, spec=JobSpec(loop="nobody:knows"))
        assert [problem.field for problem in refused.value.problems] == ["spec.loop"]
        with pytest.raises(InvalidSpec) as refused:
            await every(world, spec=a_loop(after=[After(job="nobody")]))
        assert [problem.field for problem in refused.value.problems] == ["spec.after.0.job"]

    async def test_a_new_one_needs_an_expression_and_a_spec(self, world: World) -> None:
        with pytest.raises(RecurringJobNotFound):
            await recurring(world).set_recurring_job("nightly", {"paused": True}, "ann")
        for changes, field in (({"cron": "0 3 * * *"}, "spec"), ({"spec": a_loop()}, "cron")):
            with pytest.raises(InvalidRequest) as refused:
                await recurring(world).set_recurring_job("nightly", changes, "ann")  # type: ignore[arg-type]
            assert [problem.field for problem in refused.value.problems] == [field]

    @pytest.mark.parametrize("name", ["", "a b", "é", "x" * 101, "../x", "a:b", ".x", "a\n"])
    async def test_a_name_that_cannot_stand_in_a_key_is_refused(self, name: str, world: World) -> None:
        with pytest.raises(InvalidRequest) as refused:
            await recurring(world).set_recurring_job(name, {"cron": "0 3 * * *", "spec": a_loop()}, "ann")
        assert [problem.field for problem in refused.value.problems] == ["name"]

    async def test_one_that_cannot_be_read_is_shown_and_stops_no_other(self, world: World) -> None:
        """Broken in the journal, or of a time zone that this machine does not know: never silently left out."""
        await every(world)
        await recurring(world).set_recurring_job("other", {"cron": "0 * * * *", "spec": a_loop()}, "ann")
        journal = MemoryJournal(world.disk)
        doc = await journal.noted(f"{NOTES}nightly")
        assert doc is not None
        await journal.note(f"{NOTES}nightly", {**doc, "timezone": "Mars/Olympus"})
        await world.life()
        (problem,) = [words for words in world.service.problems() if "recurring" in words]
        assert "'nightly' (timezone: there is no time zone 'Mars/Olympus'" in problem
        await after(world, 1)
        assert len(made(world)) == 1
        await every(world)
        assert recurring(world).problem() is None

    async def test_secrets_of_its_spec_are_covered(self, world: World) -> None:
        found = await every(world, spec=a_loop(config={"api_token": "hunter2hunter2"}))
        assert "hunter2" not in found.model_dump_json()


class TestOverHttp:
    @pytest.fixture
    def registry(self) -> RecordingRegistry:
        return RecordingRegistry()

    @pytest.fixture
    def client(self, registry: RecordingRegistry) -> httpx.AsyncClient:
        return client_of(registry)

    @pytest.mark.parametrize("name", ["nightly", "explain", "events", "a.b-c_9"])
    async def test_one_is_made_shown_and_forgotten_whatever_its_name(
        self, name: str, client: httpx.AsyncClient, registry: RecordingRegistry
    ) -> None:
        """Also one that is called as a question about a job."""
        body = {"cron": "0 3 * * *", "timezone": "Europe/Berlin", "spec": {"loop": "sft"}}
        made = await client.put(f"{RECURRING}/{name}", json=body, headers={"X-User": "ann"})
        assert (made.status_code, made.json()["name"], made.json()["spec"]["user"]) == (200, name, "ann")
        registry.known_recurring = [a_recurring_job(name)]
        assert (await client.get(f"{RECURRING}/{name}")).json()["words"] == "At 03:00 every day"
        assert [one["name"] for one in (await client.get(RECURRING)).json()["recurring_jobs"]] == [name]
        assert (await client.delete(f"{RECURRING}/{name}")).json() == {"name": name, "existed": True}
        changes = {**body, "spec": JobSpec(loop="sft", user="ann")}
        assert registry.calls[0] == ("set_recurring_job", name, changes, "ann")
        assert registry.calls[-1] == ("forget_recurring_job", name, "api")

    @pytest.mark.parametrize("name", ["a%20b", "x" * 101, "%C2%84", "a%0A", ".x"])
    @pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
    async def test_a_name_that_none_can_have_is_refused(
        self, method: str, name: str, client: httpx.AsyncClient, registry: RecordingRegistry
    ) -> None:
        problem = problem_of(await client.request(method, f"{RECURRING}/{name}", content="{}"))
        assert (problem.status, [one.field for one in problem.errors]) == (422, ["name"])
        assert registry.calls == []

    async def test_one_that_is_not_there_is_answered_404_in_words(self, client: httpx.AsyncClient) -> None:
        problem = problem_of(await client.get(f"{RECURRING}/nightly"))
        assert (problem.status, problem.code) == (404, "recurring_job_not_found")
        assert "`scheduler every` makes one" in problem.detail

    @pytest.mark.parametrize(
        ("body", "field"),
        [
            ('{"cron": 3}', "cron"),
            ('{"paused": "yes"}', "paused"),
            ('{"spec": {}}', "spec.loop"),
            ('{"spec": {"loop": "sft", "ranks": 2}}', "spec.ranks"),
            ('{"schedule": "0 3 * * *"}', "schedule"),
            ("[]", "body"),
            ("", "body"),
        ],
    )
    async def test_a_body_that_is_none_is_refused_by_its_field(
        self, body: str, field: str, client: httpx.AsyncClient, registry: RecordingRegistry
    ) -> None:
        problem = problem_of(await client.put(f"{RECURRING}/nightly", content=body))
        assert (problem.status, [one.field for one in problem.errors]) == (422, [field])
        assert registry.calls == []

    async def test_a_page_of_another_site_changes_none(
        self, client: httpx.AsyncClient, registry: RecordingRegistry
    ) -> None:
        foreign = {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}
        for method in ("PUT", "DELETE"):
            answer = await client.request(method, f"{RECURRING}/nightly", content="{}", headers=foreign)
            assert problem_of(answer).code == "forbidden"
        assert registry.calls == []


class TestPage:
    @pytest.fixture
    def registry(self) -> RecordingRegistry:
        return RecordingRegistry()

    @pytest.fixture
    def client(self, registry: RecordingRegistry) -> httpx.AsyncClient:
        return client_of(registry)

    async def test_each_is_shown_with_its_last_job_and_why_one_was_skipped(
        self, client: httpx.AsyncClient, registry: RecordingRegistry
    ) -> None:
        """S8: nobody has to ask why the night brought no job."""
        at = datetime(2026, 11, 22, 3, tzinfo=BERLIN)
        registry.known_recurring = [
            a_recurring_job(
                last=SubmittedMoment(at=at, job_id="0b2f", status=Status.RUNNING),
                skipped=SkippedMoment(at=at, code="overlap", message="job <0b2f> is still running"),
                by="<script>alert(1)",
            ),
            a_recurring_job("held", paused=True, next_at=None),
        ]
        for headers in ({}, {"hx-request": "true"}):
            page = (await client.get("/training/recurring", headers=headers)).text
            assert ("<html" in page) is not bool(headers)
            for told in (
                "At 03:00 every day, Europe/Berlin",
                'href="/training/monitor?jobId=0b2f">',
                '<span class="status running">running</span>',
                "2026-11-22 03:00</time>: job &lt;0b2f&gt; is still running",
                'href="/training?search=recurring%3Dnightly"',
                '<span class="tag">paused</span>',
            ):
                assert told in page
            assert "<script>alert" not in page

    async def test_without_one_it_says_how_to_make_one(self, client: httpx.AsyncClient) -> None:
        assert "scheduler every" in (await client.get("/training/recurring")).text
        assert 'href="/training/recurring"' in (await client.get("/training")).text

    async def test_a_form_pauses_and_resumes_without_a_script(
        self, client: httpx.AsyncClient, registry: RecordingRegistry
    ) -> None:
        registry.known_recurring = [a_recurring_job()]
        page = await client.get("/training/recurring")
        form = {"csrf": page.cookies["scheduler_csrf"], "name": "nightly"}
        client.cookies.set("scheduler_csrf", form["csrf"])
        for action in ("pause", "resume", "explode"):
            done = await client.post("/training/recurring", data={**form, "action": action})
            assert done.status_code == (422 if action == "explode" else 303)
        done = await client.post("/training/recurring", data={"name": "nightly", "action": "pause"})
        assert done.status_code == 403
        changes = [call for call in registry.calls if call[0] == "set_recurring_job"]
        assert changes == [
            ("set_recurring_job", "nightly", {"paused": True}, "page"),
            ("set_recurring_job", "nightly", {"paused": False}, "page"),
        ]

    async def test_a_registry_that_is_away_is_told(
        self, client: httpx.AsyncClient, registry: RecordingRegistry
    ) -> None:
        registry.refuses = JournalUnwritable("the disk is full")
        assert "the disk is full" in (await client.get("/training/recurring")).text
