"""The policy played forward: who starts when, and what a change would do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.core import outlook
from scheduler.core.bin_packing import free_now
from scheduler.core.contender import Contender, Rules, Scene, Tenure, Told, preempted
from scheduler.core.entitlements import decayed
from scheduler.core.forecast import HORIZON_S, Start, sentence
from scheduler.core.model import Allocation, Gang, JobId, NodeId, Reason, Snapshot
from scheduler.core.outlook import Outlook, play
from scheduler.core.policy import Decision, after, decide
from scheduler.testing.builders import a_node
from scheduler.testing.contenders import NOW_S, a_scene, carried_out, gpus, on, runner, waiter
from tests.unit.test_policy_properties import RULES, scenes

HOUR_S, DAY_S = 3600.0, 86_400.0
NEVER = Rules(preempt="never")
HELD = Reason(code="held", message="held for a person")
AFTER = Reason(code="after", message="waits for parent")


def hundred_s(_: Contender) -> float | None:
    return 100.0


def nobody_knows(_: Contender) -> float | None:
    return None


def starts(seen: Outlook) -> dict[str, float | None]:
    return {job_id: start.after_s for job_id, start in seen.starts.items()}


# -- when it starts


def test_who_has_room_starts_in_the_first_pass_and_the_next_when_that_one_ends() -> None:
    scene = a_scene({"a": 1}, waiting=[waiter(name, gpus(1)) for name in "abc"])
    assert starts(play(scene, NEVER, hundred_s)) == {"a": 0.0, "b": 100.0, "c": 200.0}


def test_a_run_ends_when_its_steps_say_so_and_else_as_runs_like_it() -> None:
    running = [runner("r", gpus(1), "a", left_s=40.0), runner("s", gpus(1), "b")]
    waiting = [waiter("w", gpus(1)), waiter("x", gpus(1))]
    seen = play(a_scene({"a": 1, "b": 1}, waiting=waiting, running=running), NEVER, hundred_s)
    assert starts(seen) == {"w": 40.0, "x": 100.0}


def test_steps_count_from_the_first_new_one() -> None:
    """What they told before holds once the run has started again."""
    waiting = [waiter("w", gpus(1), left_s=30.0), waiter("x", gpus(1), left_s=60.0)]
    assert starts(play(a_scene({"a": 1}, waiting=waiting), NEVER, nobody_knows)) == {"w": 0.0, "x": 80.0}


def test_a_run_of_unknown_length_is_named() -> None:
    """A guess would be shown as if it were known."""
    scene = a_scene({"a": 1}, waiting=[waiter("w", gpus(1))], running=[runner("endless", gpus(1), "a")])
    start = play(scene, NEVER, nobody_knows).starts[JobId("w")]
    assert start == Start(why="it is not known when: endless has not reported its steps")
    assert sentence(1, [], start) == f"next; {start.why}"


def test_an_endless_run_elsewhere_keeps_nobody_from_a_known_time() -> None:
    running = [runner("endless", gpus(2), "b"), runner("r", gpus(4), "a", left_s=9.0)]
    scene = a_scene({"a": 4, "b": 2}, waiting=[waiter("w", gpus(4))], running=running)
    assert starts(play(scene, NEVER, nobody_knows)) == {"w": 9.0}


def test_who_can_never_start_says_so() -> None:
    waiting = [
        waiter("large", gpus(64)),
        waiter("held", gpus(1), rests=HELD),
        waiter("assured", gpus(1), preemptible=False),
    ]
    seen = play(a_scene({"a": 1}, waiting=waiting), NEVER, hundred_s).starts
    assert seen[JobId("large")].why.startswith("does not fit on this cluster: needs 64 ranks at once")
    assert seen[JobId("held")] == Start(why="held for a person")
    assert seen[JobId("assured")].why.startswith("not as things stand: it must not be preempted")


def test_a_long_queue_is_not_played_to_its_end() -> None:
    scene = a_scene({"a": 1}, waiting=[waiter(f"w{number}", gpus(1)) for number in range(100)])
    seen = play(scene, NEVER, hundred_s, looks=1000)
    more_than_s = seen.starts[JobId("w99")].more_than_s
    assert more_than_s
    assert more_than_s == max(at_s for at_s in starts(seen).values() if at_s is not None)


def test_a_run_that_takes_longer_than_any_calendar() -> None:
    scene = a_scene(
        {"a": 1}, waiting=[waiter("w", gpus(1))], running=[runner("r", gpus(1), "a", left_s=1e12)]
    )
    assert play(scene, NEVER, hundred_s).starts[JobId("w")] == Start(more_than_s=HORIZON_S)


def test_what_others_use_of_a_node_stays_used() -> None:
    """They are no jobs of ours: a run that ends gives back its own and no more."""
    run = runner("r", gpus(2), "a", left_s=30.0)
    scene = a_scene({"a": 4}, waiting=[waiter("w2", gpus(2)), waiter("w3", gpus(3))], running=[run])
    scene = replace(scene, free={NodeId("a"): (scene.free[NodeId("a")][0], (0, ()))})
    seen = play(scene, NEVER, hundred_s).starts
    assert seen[JobId("w2")].after_s == 30.0
    assert seen[JobId("w3")].why.startswith("it is not known when: what it needs is in use by something else")


# -- rests and parents


def test_a_rest_ends_at_its_moment() -> None:
    scene = a_scene({"a": 1}, waiting=[waiter("w", gpus(1), rests=AFTER)])
    rest_ends_s = {JobId("w"): NOW_S + 7.0}
    assert starts(play(scene, NEVER, hundred_s, rest_ends_s=rest_ends_s)) == {"w": 7.0}


def test_a_child_starts_when_its_parents_have_ended() -> None:
    parent, child = waiter("parent", gpus(1)), waiter("child", gpus(1), rests=AFTER)
    scene = a_scene(
        {"a": 1, "b": 1}, waiting=[child, parent], running=[runner("r", gpus(1), "b", left_s=300.0)]
    )
    parents = {JobId("child"): frozenset({JobId("parent"), JobId("r"), JobId("ended before")})}
    assert starts(play(scene, NEVER, hundred_s, parents=parents)) == {"child": 300.0, "parent": 0.0}


def test_a_child_of_a_job_of_unknown_length_waits_for_nobody_knows_how_long() -> None:
    waiting = [waiter("child", gpus(1), rests=AFTER), waiter("parent", gpus(1))]
    parents = {JobId("child"): frozenset({JobId("parent")})}
    seen = play(a_scene({"a": 2}, waiting=waiting), NEVER, nobody_knows, parents=parents)
    assert seen.starts[JobId("child")] == Start(why="it is not known when: waits for parent")


# -- preemption, due jobs, loans


def test_a_run_that_is_preempted_saves_waits_and_makes_good_what_that_cost() -> None:
    long = runner("long", gpus(8), "a", left_s=10 * HOUR_S)
    scene = a_scene(
        {"a": 8},
        waiting=[waiter("short", gpus(8), left_s=600.0), waiter("last", gpus(8), left_s=90 * HOUR_S)],
        running=[long],
    )
    seen = play(scene, Rules(), nobody_knows)
    (run,) = seen.preempted
    assert (run.job_id, run.newcomer, run.price) == ("long", "short", 8 * 60.0)
    assert run.again.after_s == 10.0 + 50.0 + 600.0
    assert starts(seen) == {"short": 0.0, "last": 660.0 + 10 * HOUR_S + 50.0}


def test_work_that_is_not_saved_is_done_again() -> None:
    long = runner("long", gpus(8), "a", left_s=10 * HOUR_S, for_s=1050.0, saves_when_asked=False)
    waiting = [waiter("short", gpus(8), left_s=600.0), waiter("last", gpus(8), left_s=90 * HOUR_S)]
    seen = play(a_scene({"a": 8}, waiting=waiting, running=[long]), Rules(lost_share=1.0), nobody_knows)
    assert starts(seen)["last"] == 660.0 + 10 * HOUR_S + 50.0 + 1000.0


def test_a_run_is_preempted_once_it_has_had_its_minimum() -> None:
    long = runner("long", gpus(1), "a", left_s=10 * HOUR_S, for_s=20.0)
    scene = a_scene({"a": 1}, waiting=[waiter("short", gpus(1), left_s=600.0)], running=[long])
    assert starts(play(scene, Rules(), nobody_knows))["short"] == pytest.approx(100.0, abs=0.01)


def test_a_job_preempts_a_run_at_the_moment_when_it_becomes_due() -> None:
    run = runner("run", gpus(8), "a", left_s=HOUR_S)
    old = waiter("old", gpus(8), left_s=9 * HOUR_S, waited_s=DAY_S - 500.0)
    seen = starts(play(a_scene({"a": 8}, waiting=[old], running=[run]), Rules(), nobody_knows))
    assert seen["old"] == pytest.approx(500.0, abs=0.01)


def test_a_job_that_becomes_due_goes_next() -> None:
    """Also in the future: nobody waits a day for an hour, however many short ones there are."""
    old = waiter("old", gpus(8), left_s=9 * HOUR_S, waited_s=DAY_S - 900.0)
    short = [waiter(f"s{number}", gpus(8), left_s=550.0) for number in range(5)]
    seen = starts(play(a_scene({"a": 8}, waiting=[old, *short]), NEVER, nobody_knows))
    assert [seen["s0"], seen["s1"], seen["old"], seen["s2"]] == [
        0.0,
        600.0,
        1200.0,
        1200.0 + 9 * HOUR_S + 50.0,
    ]


def test_a_kept_place_is_lent_and_given_back() -> None:
    due = waiter("due", gpus(8), left_s=HOUR_S, waited_s=2 * DAY_S)
    run = runner("run", gpus(6), "a", left_s=1000.0, preemptible=False)
    waiting = [due, waiter("loan", gpus(2), left_s=500.0), waiter("long", gpus(2), left_s=2000.0)]
    scene = a_scene({"a": 8}, waiting=waiting, running=[run])
    assert decide(scene, Rules()).starts[JobId("loan")].loan_of == "due"
    assert starts(play(scene, Rules(), nobody_knows)) == {"due": 1000.0, "loan": 0.0, "long": 1000.0 + 3650.0}


def test_who_waits_for_runs_that_are_stopping_starts_when_they_have_saved() -> None:
    tenure = Tenure(allocation=on("a", 8), since_s=NOW_S - 500.0, stopping=True)
    run = runner("run", gpus(8), "a", left_s=9 * HOUR_S, tenure=tenure)
    scene = a_scene({"a": 8}, waiting=[waiter("w", gpus(8), kept=on("a", 8))], running=[run])
    assert starts(play(scene, Rules(), hundred_s)) == {"w": 100.0}
    assert starts(play(scene, Rules(), nobody_knows)) == {"w": 10.0}, "as long as saving took before"


def test_a_run_that_is_stopped_for_good_does_not_come_back() -> None:
    """It was cancelled: nobody waits for its nodes."""
    tenure = Tenure(allocation=on("a", 8), since_s=NOW_S - 500.0, stopping=True)
    run = runner("run", gpus(8), "a", left_s=600.0, tenure=tenure)
    waiting = [waiter("w", gpus(8), left_s=800.0), waiter("x", gpus(8), left_s=900.0)]
    seen = play(a_scene({"a": 8}, waiting=waiting, running=[run]), NEVER, nobody_knows)
    assert starts(seen) == {"w": 10.0, "x": 10.0 + 850.0}


# -- over scenes made up by Hypothesis


def known(scene: Scene) -> Scene:
    """All tell their steps."""

    def one(job: Contender) -> Contender:
        return job if job.told else replace(job, told=Told(left_s=700.0, at_s=NOW_S))

    return replace(scene, waiting=tuple(map(one, scene.waiting)), running=tuple(map(one, scene.running)))


@settings(max_examples=40, deadline=None)
@given(scenes(), st.sampled_from(RULES))
def test_whoever_starts_now_has_zero_and_nobody_else(scene: Scene, rules: Rules) -> None:
    seen = play(scene, rules, hundred_s, looks=200)
    made = decide(scene, rules)
    assert {job_id for job_id, start in seen.starts.items() if start.after_s == 0} == set(made.starts)
    assert set(seen.starts) == {job.id for job in scene.waiting}
    assert {run.job_id: run.price for run in seen.preempted} == {
        job_id: why.price_of(job_id) for job_id, why in made.stops.items()
    }
    for start in seen.starts.values():
        assert [start.after_s is not None, start.more_than_s is not None, bool(start.why)].count(True) == 1


def free_of(scene: Scene, running: Mapping[JobId, Contender]) -> dict[NodeId, object]:
    held = tuple((job.need.gang, job.tenure.allocation) for job in running.values() if job.tenure)
    return dict(free_now(Snapshot(nodes=scene.cluster.nodes, running=held)))


class ByHand:
    """The same, with nothing clever: each pass begins with what is really there."""

    def __init__(self, scene: Scene, rules: Rules) -> None:
        self.scene, self.rules = scene, rules
        self.began: dict[str, float] = {}
        self.ends = {
            job.id: max(job.told.at_s + job.told.left_s, NOW_S + 1) for job in scene.running if job.told
        }
        self.saved: dict[JobId, float] = {}
        self.rest_s: dict[JobId, float] = {}

    def look(self, now_s: float) -> Scene:
        """What the pass sees."""
        scene = self.scene
        held = {(job.project, job.user) for job in (*scene.running, *scene.waiting)} | set(scene.usage)
        usage = {
            who: decayed(
                scene.usage.get(who, 0.0),
                sum(job.size for job in scene.running if (job.project, job.user) == who),
                now_s - scene.now_s,
                self.rules.half_life_s,
            )
            for who in held
        }
        gone = {job.id for job in scene.running if self.ends[job.id] <= now_s}
        back = {job.id for job in scene.running if self.saved.get(job.id, 9e9) <= now_s} - gone
        running = {job.id: job for job in scene.running if job.id not in gone | back}
        for job_id in gone | back:
            self.saved.pop(job_id, None)
        again = [preempted(job, now_s) for job in scene.running if job.id in back]
        self.scene = replace(
            scene,
            now_s=now_s,
            usage=usage,
            running=tuple(running.values()),
            waiting=(*scene.waiting, *again),
            free=free_of(scene, running),
        )
        seen = self.scene
        self.carry_out(decide(seen, self.rules), now_s)
        return seen

    def carry_out(self, made: Decision, now_s: float) -> None:
        running = {job.id: job for job in self.scene.running}
        waiting = {job.id: job for job in self.scene.waiting}
        ledger = after(
            made, self.scene.ledger, {one.id: one.size for one in self.scene.waiting}, self.rules, now_s
        )
        for job_id in made.stops:
            job = running[job_id]
            assert job.tenure
            self.saved[job_id] = now_s + 10.0
            lost_s = 0.0 if job.saves_when_asked else max(0.0, now_s - job.tenure.since_s - 50.0)
            self.rest_s[job_id] = self.ends[job_id] - now_s + lost_s + 50.0
            running[job_id] = replace(job, tenure=replace(job.tenure, stopping=True))
        for job_id, start in made.starts.items():
            self.began.setdefault(job_id, now_s - NOW_S)
            if start.after:
                waiting[job_id] = replace(waiting[job_id], kept=start.allocation)
                continue
            job = waiting.pop(job_id)
            assert job.told
            length_s = self.rest_s.pop(job_id, job.told.left_s + 50.0)
            self.ends[job_id] = now_s + length_s
            tenure = Tenure(allocation=start.allocation, since_s=now_s, due=start.due, loan_of=start.loan_of)
            told = replace(job.told, at_s=now_s + length_s - job.told.left_s)
            running[job_id] = replace(job, tenure=tenure, kept=None, told=told)
        self.scene = replace(
            self.scene,
            running=tuple(running.values()),
            waiting=tuple(waiting.values()),
            ledger=ledger,
            free=free_of(self.scene, running),
        )


@settings(max_examples=40, deadline=None)
@given(scenes(), st.sampled_from(RULES))
def test_it_is_the_policy_itself_at_every_moment(scene: Scene, rules: Rules) -> None:
    """Beside it the same moments are decided upon what is really there, step by step."""
    scene, passes = known(scene), []

    def seen_by(at: Scene, with_rules: Rules) -> Decision:
        passes.append(at)
        return decide(at, with_rules)

    with patch.object(outlook, "decide", seen_by):
        seen = play(scene, rules, nobody_knows, looks=250)
    by_hand = ByHand(scene, rules)
    for one in passes:
        really = by_hand.look(one.now_s)
        assert {job.id: job for job in one.waiting} == {job.id: job for job in really.waiting}
        assert {job.id: job for job in one.running} == {job.id: job for job in really.running}
        assert (dict(one.free), one.ledger) == (really.free, really.ledger)
        used = {who: gpu_s for who, gpu_s in really.usage.items() if gpu_s}
        assert {who: gpu_s for who, gpu_s in one.usage.items() if gpu_s} == pytest.approx(used)
    known_starts = {
        job_id: start.after_s for job_id, start in seen.starts.items() if start.after_s is not None
    }
    waited = {job.id for job in scene.waiting}
    assert known_starts == {job_id: at_s for job_id, at_s in by_hand.began.items() if job_id in waited}


LENGTHS = st.sampled_from([10.0, 30.0, 100.0, 600.0])


@st.composite
def simple(draw: st.DrawFn) -> Scene:
    """One project and nobody is preempted, so that only ends and starts, and who becomes due, change anything."""
    nodes = [
        a_node(f"n{number}", cpus=64, gpus=size)
        for number, size in enumerate(draw(st.sampled_from([[2], [4, 2]])))
    ]
    gangs = st.sampled_from([Gang(num_ranks=ranks, gpus_per_rank=1.0) for ranks in (1, 2, 3, 4)])
    waited = st.sampled_from([10.0, DAY_S - 300.0, DAY_S + 50.0])
    waiting = [
        waiter(
            f"w{number}", gang, left_s=draw(LENGTHS), waited_s=draw(waited), priority=draw(st.integers(0, 1))
        )
        for number, gang in enumerate(draw(st.lists(gangs, max_size=8)))
    ]
    held = Allocation(ranks=((nodes[0].id, 2),))
    running = [runner("r", gpus(2), held, left_s=draw(LENGTHS))] if draw(st.booleans()) else []
    return a_scene(nodes, waiting=waiting, running=running)


@settings(max_examples=40, deadline=None)
@given(simple())
def test_looking_at_every_moment_finds_nothing_sooner(scene: Scene) -> None:
    """It looks only when something changes; a scheduler that looks every ten seconds starts the same jobs then."""
    seen = {job_id: start.after_s for job_id, start in play(scene, NEVER, nobody_knows).starts.items()}
    ends = {job.id: job.told.at_s + job.told.left_s for job in scene.running if job.told}
    began: dict[JobId, float] = {}
    for tick in range(600):
        now_s = NOW_S + 10.0 * tick
        running = {job.id: job for job in scene.running if ends[job.id] > now_s}
        scene = replace(scene, now_s=now_s, running=tuple(running.values()), free=free_of(scene, running))
        made = decide(scene, NEVER)
        lengths = {job.id: job.start_s + job.told.left_s for job in scene.waiting if job.told}
        ends |= {job_id: now_s + lengths[job_id] for job_id in made.starts}
        began |= dict.fromkeys(made.starts, now_s - NOW_S)
        scene = carried_out(scene, made, NEVER)
        told = {
            job.id: replace(job, told=Told(left_s=job.told.left_s, at_s=now_s + 50.0))
            for job in scene.running
            if job.told and job.id in made.starts
        }
        scene = replace(scene, running=tuple(told.get(job.id, job) for job in scene.running))
        if all(job.id not in ends and seen[job.id] is None for job in scene.waiting):
            break
    assert {job_id: at_s for job_id, at_s in seen.items() if at_s is not None} == began
