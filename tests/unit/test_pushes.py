"""Start Job Now under the policy `fair`: to the front, or with runs preempted for it; and what that would do, before."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import httpx
import pytest
from command_line import run
from served import LOOP, Served
from test_service import World, a_loop

from scheduler.client import AsyncClient, Client
from scheduler.core.commands import JobAction, pushed_by
from scheduler.core.contender import ABOVE_ALL
from scheduler.core.events import AskStop, Event, ForceStart, GiveUp, RunEnded
from scheduler.core.hangs import Pace
from scheduler.core.lifecycle import apply
from scheduler.core.model import (
    CheckpointId,
    Fence,
    Gang,
    Job,
    JobId,
    Pushed,
    Reason,
    Saved,
    Status,
    StopKind,
)
from scheduler.errors import InvalidRequest, NotAllowed
from scheduler.testing.builders import a_job
from scheduler.testing.clock import NOON
from scheduler.testing.fake_runner import COMPLETED, LOST
from tests.unit.edge import SUBMIT, client_of
from tests.unit.recording_registry import JOB_ID, RecordingRegistry, a_document, a_what_if

WHOLE = Gang(num_ranks=4)
FRONT = "moved to the front of its project's part of the queue"


def force_start(pushed: Pushed) -> ForceStart:
    return ForceStart(at=NOON, by="ann", queue_seq=99, pushed=pushed)


def after(job: Job, event: Event) -> Job:
    return apply(job, event)[0]


class TestLife:
    @pytest.mark.parametrize(
        ("fields", "pushed", "told"),
        [
            ({}, "front", f"{FRONT} by ann"),
            ({}, "preempt", f"{FRONT} by ann; runs are preempted for it"),
            ({"held": True}, "front", f"ann let it go; {FRONT}"),
            (
                {"retry_at": NOON + timedelta(hours=1)},
                "front",
                f"ann ended the pause before the next try; {FRONT}",
            ),
            ({"held": True}, "", "ann let it go"),
        ],
    )
    def test_one_that_waits_keeps_its_place_and_goes_before_others(
        self, fields: dict[str, Any], pushed: Pushed, told: str
    ) -> None:
        job = after(a_job(queue_seq=3, **fields), force_start(pushed))
        assert (job.pushed, job.queue_seq, job.held, job.retry_at) == (pushed, 3, False, None)
        assert job.reason.message == told

    @pytest.mark.parametrize(
        ("first", "second", "pushed"),
        [("front", "front", "front"), ("preempt", "front", "preempt"), ("preempt", "preempt", "preempt")],
    )
    def test_asking_again_changes_nothing(self, first: Pushed, second: Pushed, pushed: Pushed) -> None:
        job = after(a_job(queue_seq=3), force_start(first))
        assert after(job, force_start(second)) is job
        assert job.pushed == pushed

    def test_more_may_be_asked_for(self) -> None:
        job = after(a_job(queue_seq=3), force_start("front"))
        assert after(job, force_start("preempt")).pushed == "preempt"

    @pytest.mark.parametrize("status", ["pending", "failed", "cancelled"])
    def test_one_that_did_not_wait_joins_the_end_unless_runs_are_preempted_for_it(self, status: str) -> None:
        assert after(a_job(status), force_start("front")).pushed == ""
        job = after(a_job(status), force_start("preempt"))
        assert (job.pushed, job.queue_seq) == ("preempt", 99)
        assert job.reason.message == "put in the queue by ann; runs are preempted for it"

    def test_it_lasts_to_the_end_of_the_run(self) -> None:
        """Else those that were preempted for it would take the nodes back."""
        running = replace(a_job("running", fence=Fence(1)), pushed="preempt")
        lost = after(running, RunEnded(at=NOON, by="x", fence=Fence(1), outcome=LOST))
        assert (lost.status, lost.pushed) == (Status.QUEUED, "")
        done = after(running, RunEnded(at=NOON, by="x", fence=Fence(1), outcome=COMPLETED))
        assert (done.status, done.pushed) == (Status.COMPLETED, "")

    def test_who_withdraws_or_holds_it_takes_it_back(self) -> None:
        job = after(a_job(queue_seq=3), force_start("preempt"))
        for kind in (StopKind.CANCEL, StopKind.PAUSE):
            assert after(job, AskStop(at=NOON, by="ann", kind=kind)).pushed == ""
        given_up = GiveUp(at=NOON, by="ann", reason=Reason(code="given_up", message="-"))
        assert after(job, given_up).pushed == ""

    def test_what_is_asked_for_follows_from_action_and_policy(self) -> None:
        assert pushed_by(JobAction.FORCE_START, ranks=True, preempt=False) == "front"
        assert pushed_by(JobAction.FORCE_START, ranks=True, preempt=True) == "preempt"
        assert pushed_by(JobAction.FORCE_START, ranks=False, preempt=False) == ""
        assert pushed_by(JobAction.RESUME, ranks=True, preempt=False) == ""
        with pytest.raises(InvalidRequest, match="force-start does"):
            pushed_by(JobAction.RESUME, ranks=True, preempt=True)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World(policy="fair")
    await world.life()
    yield world


async def submit(world: World, name: str, **fields: Any) -> str:
    job_id = await world.submit(a_loop(name=name, **{"resources": WHOLE, "max_runtime_s": 600} | fields))
    await world.settle()
    return job_id


def known(world: World, job_id: str) -> Job:
    job = world.service.registry.get(JobId(job_id))
    assert job
    return job


async def start(world: World, job_id: str, preempt: bool = False) -> Any:
    return await world.service.commands.act(job_id, JobAction.FORCE_START, "ann", None, preempt)


class TestScheduler:
    async def test_one_that_waits_moves_to_the_front(self, world: World) -> None:
        """S9"""
        _, first, second = [await submit(world, name) for name in ("runs", "first", "second")]
        answer = await start(world, second)
        assert answer.message.startswith("Job queued successfully (position ")
        version = known(world, second).version
        await start(world, second)
        await world.settle()
        assert known(world, second).version == version
        assert [(await world.service.queries.status(one)).queue_position for one in (second, first)] == [1, 2]
        told = (await world.service.queries.events(second)).events[-1].reason.message
        assert told == f"{FRONT} by ann"

    async def test_one_for_which_runs_are_preempted_stands_above_all(self, world: World) -> None:
        await submit(world, "runs", priority=1000)
        wanted = await submit(world, "wanted", priority=-5)
        await start(world, wanted, preempt=True)
        policy: Any = world.service.policy
        scene = policy.scene([known(world, wanted)], {}, world.clock.now())
        assert [(one.priority, one.first) for one in scene.waiting] == [(ABOVE_ALL, True)]

    async def test_a_run_is_preempted_at_the_price_that_was_told(self) -> None:
        """S9: of its own the policy would not touch it, as these rules are."""
        world = World(policy="fair", policy_rules="preempt=class")
        await world.life()
        policy: Any = world.service.policy
        policy._habits.remembered(
            {"tests.loops:quick": {"stops": True, "saves": True}}
        )  # as it was seen to do
        runs = await submit(world, "runs", max_runtime_s=None)
        for _ in range(4):  # it is left alone for its first minutes
            world.clock.advance(60)
            saved = Saved(checkpoint=CheckpointId("1.1"), step=900, at=world.clock.now())
            pace = Pace(steps=9, typical_s=1.0, longest_s=1.0)
            world.runner.tells[(JobId(runs), Fence(1))] = {
                "progress": {"step": 900, "total_steps": 1500},
                "pace": pace,
                "stepped_at": world.clock.now(),
                "saved": saved,
            }
            await world.service.monitor.once()
        waits = await submit(world, "waits", max_runtime_s=90_000)
        assert known(world, runs).stop is None
        told = await world.service.queries.what_if(waits, preempt=True)
        (run_of,) = told.preempted
        assert (run_of.job_id, run_of.newcomer.name, run_of.price_gpu_s) == (runs, "waits", 240.0)
        assert "runs is preempted for waits, which costs 4 min of one CPU" in run_of.message
        await start(world, waits, preempt=True)
        await world.settle()
        assert [await world.status(one) for one in (runs, waits)] == ["queued", "running"]
        assert known(world, waits).pushed == "preempt"
        (reason,) = [
            event.reason.message
            for event in (await world.service.queries.events(runs)).events
            if event.reason.code == "preempt_asked"
        ]
        assert "preempted for waits" in reason

    async def test_fifo_does_as_before(self) -> None:
        world = World(policy="fifo")
        await world.life()
        await submit(world, "runs")
        waits = await submit(world, "waits")
        version = known(world, waits).version
        assert (await start(world, waits)).message == "Job queued successfully (position 1)"
        assert known(world, waits).version == version
        with pytest.raises(NotAllowed, match="SCHEDULER_POLICY=fair"):
            await start(world, waits, preempt=True)
        refused = await world.service.queries.effect(waits, "force-start", None, True)
        assert (refused.allowed, refused.what_if) == (False, None)
        assert "SCHEDULER_POLICY=fair" in refused.message
        with pytest.raises(NotAllowed, match="SCHEDULER_POLICY=fair"):
            await world.service.queries.what_if(waits, front=True)

    async def test_the_effect_says_who_would_start_later(self, world: World) -> None:
        """S11"""
        _, first, second = [await submit(world, name) for name in ("runs", "first", "second")]
        told = await world.service.queries.effect(second, "force-start")
        assert told.message.endswith(f"it moves{FRONT.removeprefix('moved')}")
        assert told.what_if
        (row,) = told.what_if.moved
        assert (row.job_id, row.name, row.by_s) == (first, "first", 600.0)
        assert row.message == "first starts about 10 min later"
        assert told.what_if.message == (
            "it starts in about 10 min; as things stand: starts in about 20 min; 1 other job starts about 10 min later"
        )
        assert told.forecast
        assert told.forecast.position == 1
        assert known(world, second).pushed == ""
        asked = await world.service.queries.what_if(second, front=True)
        assert asked == told.what_if
        by_priority = await world.service.queries.what_if(second, priority=5)
        assert [row.job_id for row in by_priority.moved] == [first]

    async def test_what_changes_nothing_says_so(self, world: World) -> None:
        await submit(world, "runs")
        waits = await submit(world, "waits")
        told = await world.service.queries.what_if(waits, priority=0)
        assert told.message == "nothing changes: it starts in about 10 min"
        await start(world, waits)
        effect = await world.service.queries.effect(waits, "force-start")
        assert effect.message == (
            "nothing changes: it is at the front of its project's part of the queue already"
        )

    async def test_of_one_that_does_not_wait_the_effect_says_whom_it_would_delay(self, world: World) -> None:
        await submit(world, "runs")
        waits, gone = [await submit(world, name) for name in ("waits", "gone")]
        await world.service.commands.act(gone, JobAction.CANCEL, "ann")
        told = await world.service.queries.effect(gone, "force-start", None, True)
        assert "runs are preempted for it" in told.message
        assert told.what_if
        assert told.what_if.now is None
        assert [row.job_id for row in told.what_if.moved] == [waits]

    async def test_what_cannot_be_asked_is_refused_in_words(self, world: World) -> None:
        runs = await submit(world, "runs")
        for wish in ({}, {"front": True, "preempt": True}, {"priority": 0, "front": True}):
            with pytest.raises(InvalidRequest, match="exactly one"):
                await world.service.queries.what_if(runs, **wish)
        with pytest.raises(NotAllowed, match="is running"):
            await world.service.queries.what_if(runs, front=True)


@pytest.fixture
def registry() -> RecordingRegistry:
    registry = RecordingRegistry()
    registry.known[JOB_ID] = a_document()
    return registry


@pytest.fixture
def client(registry: RecordingRegistry) -> httpx.AsyncClient:
    return client_of(registry)


class TestApi:
    async def test_the_wish_reaches_the_scheduler(
        self, client: httpx.AsyncClient, registry: RecordingRegistry
    ) -> None:
        answer = await client.post(f"{SUBMIT}/{JOB_ID}/force-start?preempt=true")
        assert answer.json()["message"] == "Job queued successfully (position 1)"
        await client.get(f"{SUBMIT}/{JOB_ID}/effect?action=force-start&preempt=true")
        asked = [await client.get(f"{SUBMIT}/{JOB_ID}/what-if?{one}") for one in ("priority=5", "front=true")]
        assert [one.json() for one in asked] == [a_what_if().model_dump(mode="json")] * 2
        assert registry.calls == [
            ("act", JOB_ID, JobAction.FORCE_START, "api", None, True),
            ("effect", JOB_ID, JobAction.FORCE_START, None, True),
            ("what_if", JOB_ID, 5, False, False),
            ("what_if", JOB_ID, None, True, False),
        ]

    @pytest.mark.parametrize("query", ["priority=1001", "priority=high", "front=perhaps", "start=true"])
    async def test_a_change_that_is_none_is_named(self, client: httpx.AsyncClient, query: str) -> None:
        refused = await client.get(f"{SUBMIT}/{JOB_ID}/what-if?{query}")
        assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, query.partition("=")[0])


class TestPages:
    async def test_the_question_has_a_table_and_a_box_to_tick(
        self, client: httpx.AsyncClient, registry: RecordingRegistry
    ) -> None:
        """Without a script the box is part of the form, and a link tells what would happen with it."""
        registry.is_fair = True
        page = (await client.get(f"/training/confirm?action=force-start&jobs={JOB_ID}")).text
        for told in ("sweep", "starts in about 6 min", "8 min of one GPU", "2 more jobs", "preempt=true"):
            assert told in page
        assert 'name="preempt" value="true" hx-get' in page
        ticked = (await client.get(f"/training/confirm?action=force-start&jobs={JOB_ID}&preempt=true")).text
        assert 'name="preempt" value="true" checked' in ticked
        assert ("effect", JOB_ID, JobAction.FORCE_START, None, True) in registry.calls

    async def test_what_was_ticked_is_done(
        self, client: httpx.AsyncClient, registry: RecordingRegistry
    ) -> None:
        page = (await client.get("/training")).text
        token = page.partition('name="csrf" value="')[2].partition('"')[0]
        form = {"csrf": token, "action": "force-start", "jobs": JOB_ID, "preempt": "true"}
        done = await client.post("/training/act", data=form)
        assert "Job queued successfully" in done.text
        assert [call[4:] for call in registry.calls if call[0] == "act"] == [(None, True)]

    async def test_fifo_has_neither(self, client: httpx.AsyncClient) -> None:
        page = (await client.get(f"/training/confirm?action=force-start&jobs={JOB_ID}")).text
        assert 'name="preempt"' not in page
        card = (await client.get(f"/training/monitor?jobId={JOB_ID}")).text
        assert "or preempt" not in card

    async def test_the_card_leads_to_the_question(
        self, client: httpx.AsyncClient, registry: RecordingRegistry
    ) -> None:
        registry.is_fair = True
        card = (await client.get(f"/training/monitor?jobId={JOB_ID}")).text
        assert "See who would wait, or preempt" in card
        assert "1 other job starts about 6 min later" in card

    async def test_no_other_action_takes_the_wish(self, client: httpx.AsyncClient) -> None:
        refused = await client.get(f"/training/confirm?action=resume&jobs={JOB_ID}&preempt=true")
        assert refused.status_code == 422


def test_commands_and_clients_ask_alike(served: Served) -> None:
    """Through a whole scheduler, on whose node one job leaves no room."""
    with Client(served.url) as client:
        whole = {"num_ranks": 4, "cpus_per_rank": 1}
        runs = client.submit(loop=LOOP, config={"seconds": 60}, resources=whole)
        while runs.status().status == "queued":
            time.sleep(0.05)
        waits = client.submit(loop=LOOP, name="waits", config={"seconds": 60}, resources=whole)
        told = client.what_if(waits.id, front=True)
        assert waits.what_if(front=True).job_id == told.job_id == waits.id
        assert run("what-if", waits.id, "--priority", "5", "--json").document["job_id"] == waits.id
        assert run("what-if", waits.id, "--front").out.startswith(told.message.partition(";")[0])
        assert "exactly one" in run("what-if", waits.id).err
        assert client.effect(waits.id, "force-start", preempt=True).allowed
        assert run("force-start", waits.id, "--preempt").out.startswith("Job queued successfully (position ")
        told_again = [event.reason.message for event in client.events(waits.id).events]
        assert any("runs are preempted for it" in one for one in told_again)


async def test_the_async_client_asks_the_same(served: Served) -> None:
    async with AsyncClient(served.url) as client:
        job = await client.submit(loop=LOOP, config={"seconds": 0})
        with pytest.raises(InvalidRequest, match="exactly one"):
            await client.what_if(job.id)
        with pytest.raises(InvalidRequest, match="exactly one"):
            await job.what_if(front=True, preempt=True)
