"""A policy in shadow tells where it would have decided otherwise, and decides nothing (S12)."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import run
from served import LOOP, Served, scheduler_at

from scheduler.client import Client
from scheduler.core import shadow
from scheduler.core.commands import JobAction
from scheduler.core.contender import Rules
from scheduler.core.model import Allocation, JobId, NodeId, Reason, Status
from scheduler.core.policy import Decision, Start
from scheduler.core.policy_choice import PolicyChoice, choice_of
from scheduler.core.shadow import Names
from scheduler.engine import shadow as engine_shadow
from scheduler.engine import telemetry
from scheduler.engine.policies import Fair, Fifo
from scheduler.engine.shadow import RECENT, REST
from scheduler.errors import InvalidRequest
from scheduler.server.gauges import Gauges
from scheduler.settings import Settings
from scheduler.testing.fake_runner import COMPLETED
from scheduler.testing.memory_telemetry import MemoryTelemetry
from tests.unit.edge import client_of
from tests.unit.recording_registry import RecordingRegistry, a_queue, a_share
from tests.unit.test_fair_scheduling import World, with_a_long_run


async def a_world(**settings: Any) -> World:
    world = World(**settings)
    world.knows_that_it_stops()
    await world.life()
    return world


def seen(world: World) -> engine_shadow.ShadowDocument:
    return shadow_in(world).document()


def shadow_in(world: World) -> engine_shadow.Shadow:
    found = world.engine.shadow
    assert isinstance(found, engine_shadow.Shadow)
    return found


class TestDifferences:
    async def test_what_would_have_been_preempted_for_whom_is_told_once_as_long_as_it_lasts(self) -> None:
        """In charge nobody is preempted; by the default rules `long` would be, for one that has much less left."""
        world = await a_world(policy_rules="preempt=never", policy_shadow="fair")
        await with_a_long_run(world)
        short = await world.submit(name="short")
        await world.settle()
        await world.passes(5)
        found = seen(world)
        assert (found.policy, found.faults, found.problem) == ("fair", 0, None)
        assert found.differences == {"start": 0, "preempt": 1, "wait": 0, "place": 0}
        (one,) = found.recent
        assert (one.job_id, one.name, one.kind, one.until) == (short, "short", "preempt", None)
        assert one.message == "would have preempted long for it, on node-1"
        assert world.job(short).status is Status.QUEUED

    async def test_one_that_is_over_says_when(self) -> None:
        world = await a_world(policy_rules="preempt=never", policy_shadow="fair")
        run_ = await with_a_long_run(world)
        short = await world.submit(name="short")
        await world.settle()
        world.runner.end(run_, COMPLETED)
        await world.settle()
        assert world.job(short).status is Status.RUNNING
        (one,) = seen(world).recent
        assert one.until is not None and one.until >= one.at

    async def test_what_would_have_waited_is_told_with_its_reason(self) -> None:
        """And whose run would have gone on."""
        world = await a_world(policy_shadow="preempt=never")
        await with_a_long_run(world)
        short = await world.submit(name="short")
        await world.settle()
        (one,) = [one for one in seen(world).recent if one.kind == "wait"]
        assert (one.job_id, one.kind) == (short, "wait")
        assert one.message.startswith("would wait: ")
        assert one.message.endswith("; long would not have been preempted")

    async def test_fifo_may_be_in_charge_and_fair_in_shadow(self) -> None:
        """Which then measures for itself: here that the loop stops when it is asked."""
        world = await a_world(policy="fifo", policy_shadow="worth=3")
        await with_a_long_run(world)
        await world.submit(name="short")
        await world.settle()
        found = seen(world)
        assert found.policy == "fair:worth=3.0"
        assert found.differences["preempt"] == 1

    async def test_fifo_may_be_in_shadow(self) -> None:
        """Two that came first, and one in front of them by its priority: with room for one, both agree."""
        world = await a_world(policy_shadow="fifo")
        await world.submit(4, name="holds")
        await world.settle()
        await world.submit(1, name="waits")
        await world.settle()
        assert isinstance(world.engine.policy, Fair)
        assert isinstance(shadow_in(world)._other, Fifo)  # pyright: ignore[reportPrivateUsage]
        assert seen(world).differences == dict.fromkeys(shadow.KINDS, 0)
        assert seen(world).passes > 0

    def test_each_kind_in_words(self) -> None:
        """Of five jobs; the first two are decided alike."""
        a, b, c, d, e = map(JobId, "abcde")
        on = {node: Allocation(ranks=((NodeId(node), 1),)) for node in ("n1", "n2")}
        decided = decision(
            {
                a: Start(allocation=on["n1"]),
                c: Start(allocation=on["n1"], after=(JobId("v"),)),
                d: Start(allocation=on["n1"]),
            }
        )
        other = decision(
            {
                a: Start(allocation=on["n1"]),
                b: Start(allocation=on["n2"]),
                c: Start(allocation=on["n1"], after=(JobId("w"),)),
                d: Start(allocation=on["n2"]),
                e: Start(allocation=on["n2"], after=tuple(map(JobId, "vwxyz"))),
            }
        )  # fmt: skip
        names = Names(job=str.upper, node={NodeId("n1"): "one"})
        words = {one.job_id: (one.kind, one.words) for one in shadow.differences(decided, other, names)}
        assert words == {
            b: ("start", "would have started now on n2"),
            c: ("preempt", "would have preempted W for it, not V, on one"),
            d: ("place", "would have got n2, not one"),
            e: ("preempt", "would have preempted V, W, X and 2 more for it, on n2"),
        }
        back = {one.job_id: one.words for one in shadow.differences(other, decided, names)}
        assert back[b] == "would wait: because"
        assert back[e] == "would wait: because; V, W, X and 2 more would not have been preempted"

    def test_one_that_starts_without_preempting_spares_those_who_were(self) -> None:
        there = Allocation(ranks=((NodeId("n1"), 1),))
        job, victim = JobId("a"), JobId("v")
        names = Names(job=str, node={})
        decided, other = (decision({job: Start(allocation=there, after=after)}) for after in ((victim,), ()))
        (one,) = shadow.differences(decided, other, names)
        assert (one.kind, one.words) == ("start", "would have started now on n1, and not have preempted v")


def decision(starts: dict[JobId, Start]) -> Decision:
    reason = Reason(code="test", message="because")
    waits = {job_id: reason for job_id in map(JobId, "abcde") if job_id not in starts}
    return Decision(starts=starts, stops={}, reasons=waits)


async def story(**settings: Any) -> tuple[dict[str, list[str]], dict[str, bytes]]:
    """What became of jobs that wait, are preempted, pushed and end; and all that was written down."""
    world = await a_world(**settings)
    run_ = await with_a_long_run(world)
    ids = [
        run_[0],
        *[await world.submit(ranks, name=f"job-{ranks}", priority=ranks % 2) for ranks in (1, 2, 3)],
    ]
    await world.settle()
    await world.engine.commands.act(ids[2], JobAction.FORCE_START, by="ann")
    await world.passes(120)
    ends = world.engine.registry.running()[0]
    world.runner.end((ends.id, ends.fence), COMPLETED)
    await world.passes(60)
    return {job_id: await world.events(job_id) for job_id in ids}, dict(world.disk.notes)


class TestItNeverInfluences:
    @pytest.mark.parametrize("policy", ["fair", "fifo"])
    @pytest.mark.parametrize("other", ["fair", "fifo", "preempt=never", "preempt=class,lost_share=1"])
    async def test_what_is_done_and_written_is_the_same_with_it_and_without(
        self, policy: str, other: str
    ) -> None:
        assert await story(policy=policy) == await story(policy=policy, policy_shadow=other)

    @pytest.mark.parametrize("part", ["recall", "decide", "committed"])
    async def test_a_fault_in_any_part_of_it_is_counted_logged_once_shown_and_breaks_nothing(
        self, part: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        plain = await story()
        built = engine_shadow.policy_of

        def broken(*args: Any) -> Any:
            other = built(*args)
            monkeypatch.setattr(other, part, fails)
            return other

        def fails(*_: object) -> None:
            raise ZeroDivisionError("planted")

        monkeypatch.setattr(engine_shadow, "policy_of", broken)
        with caplog.at_level(logging.ERROR, logger="scheduler.engine.shadow"):
            assert plain == await story(policy_shadow="fair")
        assert [record.message for record in caplog.records if record.name == "scheduler.engine.shadow"] == [
            "the policy in shadow failed; what is decided does not depend on it"
        ]

    async def test_health_shows_the_fault_until_a_pass_succeeds(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        world = await a_world(policy_shadow="fair")
        found = shadow_in(world)
        whole = found._compare  # pyright: ignore[reportPrivateUsage]

        def fails(*_: object) -> None:
            raise ZeroDivisionError("planted")

        monkeypatch.setattr(found, "_compare", fails)
        await world.engine.scheduling.once()
        (problem,) = [words for words in world.engine.problems() if "in shadow" in words]
        assert "failed 1 times, last with ZeroDivisionError: planted" in problem
        monkeypatch.setattr(found, "_compare", whole)
        await world.engine.scheduling.once()
        assert not [words for words in world.engine.problems() if "in shadow" in words]
        assert (seen(world).faults, seen(world).problem) == (1, None)


class TestItsCost:
    async def test_it_rests_nineteen_times_as_long_as_it_took(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A twentieth of a processor at the most; ticks that it does not see are counted."""
        world = await a_world(policy_shadow="fair")
        found = shadow_in(world)
        whole = found._compare  # pyright: ignore[reportPrivateUsage]

        def slow(*args: Any) -> None:
            world.clock.advance(1.0)
            whole(*args)

        monkeypatch.setattr(found, "_compare", slow)
        await world.engine.scheduling.once()
        for passed_s, passes, skipped in ((0, 1, 1), (REST - 0.5, 1, 2), (1, 2, 2)):
            world.clock.advance(passed_s)
            await world.engine.scheduling.once()
            assert (found.passes, found.skipped) == (passes, skipped)

    def test_only_so_many_differences_are_kept(self) -> None:
        """The counts tell of the others."""
        world = World(policy_shadow="fair")
        found = engine_shadow.Shadow(PolicyChoice(), *[None] * 4, world.clock)  # type: ignore[arg-type]
        found._name = str  # type: ignore[method-assign]
        for number in range(RECENT + 10):
            one = shadow.Difference(job_id=JobId(f"{number}"), kind="start", words="would")
            found._see([one], world.clock.now())  # pyright: ignore[reportPrivateUsage]
            world.clock.advance(1)
        said = found.document()
        assert (len(said.recent), said.differences["start"]) == (RECENT, RECENT + 10)
        assert [one.job_id for one in said.recent[:2]] == [f"{RECENT + 9}", f"{RECENT + 8}"]
        assert (said.recent[0].until, said.recent[1].until is None) == (None, False)


class TestTheSetting:
    @pytest.mark.parametrize(
        ("text", "choice"),
        [
            ("fifo", PolicyChoice(name="fifo")),
            ("fair", PolicyChoice()),
            ("preempt=class, worth=3", PolicyChoice(rules=Rules(preempt="class", worth=3.0))),
            ("fair:preempt=class", PolicyChoice(rules=Rules(preempt="class"))),
        ],
    )
    def test_it_is_read_and_written_in_the_words_of_the_rules(
        self, text: str, choice: PolicyChoice, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("SCHEDULER_POLICY_SHADOW", text)
        settings = Settings()
        assert settings.policy_shadow == choice
        written = settings.environment()["SCHEDULER_POLICY_SHADOW"]
        assert choice_of(written) == choice
        monkeypatch.setenv("SCHEDULER_POLICY_SHADOW", written)
        assert Settings().policy_shadow == choice

    def test_empty_is_none_also_when_it_is_handed_on(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SCHEDULER_POLICY_SHADOW", "")
        assert (Settings().policy_shadow, Settings().environment()["SCHEDULER_POLICY_SHADOW"]) == (None, "")

    @pytest.mark.parametrize("text", ["fair:worht=2", "fifo:worth=2", "worth=0"])
    def test_what_is_none_is_refused_in_words(self, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
        with pytest.raises(InvalidRequest):
            choice_of(text)
        monkeypatch.setenv("SCHEDULER_POLICY_SHADOW", text)
        with pytest.raises(ValueError, match="policy_shadow"):
            Settings()


class TestWhereItIsShown:
    async def test_metrics_count_differences_by_kind_and_faults(self) -> None:
        world = await a_world(policy_rules="preempt=never", policy_shadow="fair")
        await with_a_long_run(world)
        await world.submit(name="short")
        await world.settle()
        measured = MemoryTelemetry()
        gauges = Gauges(world.engine, measured)
        await gauges.once()
        await gauges.once()
        assert measured.value(telemetry.SHADOW_DIFFERENCES, kind="preempt") == 1
        assert measured.value(telemetry.SHADOW_FAULTS) == 0

    async def test_the_queue_tells_it_and_nothing_where_there_is_none(self) -> None:
        world = await a_world(policy_shadow="fifo")
        assert (await world.engine.queue.queue()).shadow == seen(world)
        assert (await (await a_world()).engine.queue.queue()).shadow is None

    async def test_the_queue_page_shows_what_it_would_have_done(self) -> None:
        world = await a_world(policy_rules="preempt=never", policy_shadow="fair")
        await with_a_long_run(world)
        await world.submit(name="short")
        await world.settle()
        registry = RecordingRegistry()
        registry.known_queue = a_queue(projects=[a_share()], shadow=seen(world))
        page = (await client_of(registry).get("/training/queue")).text
        assert "would have preempted long for it, on node-1" in page
        assert "preempted others for 1 job," in page
        registry.known_queue = a_queue(projects=[a_share()])
        assert "In shadow" not in (await client_of(registry).get("/training/queue")).text

    def test_the_command_says_how_to_have_one_and_prints_what_it_would_do(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("SCHEDULER_TOKEN", raising=False)
        with scheduler_at(tmp_path / "without") as served:
            monkeypatch.setenv("SCHEDULER_URL", served.url)
            ran = run("policy", "shadow")
            assert ran.code and "set SCHEDULER_POLICY_SHADOW" in " ".join(ran.err.split())
        with scheduler_at(tmp_path / "with", policy="fifo", policy_shadow="fair") as served:
            monkeypatch.setenv("SCHEDULER_URL", served.url)
            said = two_that_wait_for_another(served)
            line = run("policy", "shadow")
            assert line.out.split("\t")[2:5] == ["start", said, "second"]
            assert "fair was asked" in line.err and "start 1" in line.err
            found = run("policy", "shadow", "--json").document
            assert found["differences"] == {"start": 1, "preempt": 0, "wait": 0, "place": 0}


def two_that_wait_for_another(served: Served) -> str:
    """Of four CPUs one is free; `fifo` keeps it for the first, which needs all, and `fair` lends it to the second."""
    with Client(served.url) as client:
        client.submit(loop=LOOP, config={"seconds": 60}, resources={"num_ranks": 3})
        wait_until(lambda: client.queue().num_holding == 1)
        client.submit(loop=LOOP, name="first", resources={"num_ranks": 4})
        second = client.submit(loop=LOOP, name="second", max_runtime_s=1e6)
        wait_until(lambda: bool(client.queue().shadow and client.queue().shadow.recent))
        return second.id


def wait_until(so: Callable[[], bool]) -> None:
    while not so():
        time.sleep(0.05)
