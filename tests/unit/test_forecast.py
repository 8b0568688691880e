"""When a job would start: placement played forward, and what is said where nobody can know."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.core import ordering, placement
from scheduler.core.forecast import (
    HORIZON_S,
    MAX_LOOKS,
    Hold,
    Scene,
    Start,
    Usual,
    about,
    left_s,
    play,
    sentence,
)
from scheduler.core.hangs import Pace
from scheduler.core.model import Allocation, CheckpointId, Job, Node, NodeId, Saved, Stop, StopKind
from scheduler.testing.builders import a_job, a_node, a_spec
from scheduler.testing.clock import NOON


def waiting(name: str, *, ranks: int = 1, cpus: float = 1.0, **fields: object) -> Job:
    return a_job(id=name, spec=a_spec(ranks=ranks, cpus=cpus, name=name), **fields)


def running(name: str, left_s: float | None, *, ranks: int = 1, returns: bool = False) -> Hold:
    job = a_job("running", id=name, spec=a_spec(ranks=ranks, name=name))
    return Hold(
        job=job, allocation=Allocation(ranks=((NodeId("node-1"), ranks),)), left_s=left_s, returns=returns
    )


def scene(
    line: Sequence[Job],
    *holds: Hold,
    nodes: Sequence[Node] = (),
    length_s: Callable[[Job], float | None] = lambda job: 100.0,
) -> Scene:
    """One node with four CPUs, unless told otherwise."""
    return Scene(
        now=NOON,
        nodes=tuple(nodes) or (a_node(cpus=4),),
        holds=holds,
        line=tuple(line),
        length_s=length_s,
    )


class TestPlay:
    def test_a_job_with_room_starts_now(self) -> None:
        assert play("a", scene([waiting("a")])) == Start(after_s=0)

    def test_a_job_starts_when_the_run_before_it_has_ended(self) -> None:
        assert play("a", scene([waiting("a", ranks=4)], running("r", 30))) == Start(after_s=30)

    def test_who_waits_before_it_runs_first_and_as_long_as_such_runs_take(self) -> None:
        """A forecast that forgot the line would promise everybody the same minute."""
        line = [waiting("a", ranks=4), waiting("b", ranks=4), waiting("c", ranks=4)]
        starts = [play(name, scene(line, running("r", 30))).after_s for name in "abc"]
        assert starts == [30, 130, 230]

    def test_a_small_job_does_not_wait_for_a_large_one_it_does_not_hinder(self) -> None:
        line = [waiting("large", cpus=4), waiting("small")]
        nodes = [a_node(cpus=4), a_node("node-2", cpus=1)]
        assert play("small", scene(line, running("r", 30), nodes=nodes)) == Start(after_s=0)

    def test_a_run_that_has_not_told_its_steps_is_named(self) -> None:
        """A guess would be shown as if it were known."""
        start = play("a", scene([waiting("a", ranks=4)], running("r", None)))
        assert start == Start(why="it is not known when: r has not reported its steps")

    def test_two_runs_that_tell_nothing_are_both_named(self) -> None:
        start = play("a", scene([waiting("a", ranks=4)], running("r", None), running("s", None)))
        assert start.why == "it is not known when: r and s have not reported their steps"

    def test_a_job_ahead_of_which_no_run_is_known_is_named(self) -> None:
        line = [waiting("a", ranks=4), waiting("b", ranks=4)]
        start = play("b", scene(line, length_s=lambda job: None))
        assert start.why == "it is not known when: no run like a has completed yet, and no time limit is set"

    def test_an_endless_run_elsewhere_keeps_nobody_from_a_known_time(self) -> None:
        nodes = [a_node(cpus=4), a_node("node-2", cpus=2)]
        endless = replace(running("e", None), allocation=Allocation(ranks=((NodeId("node-2"), 2),)))
        assert play("a", scene([waiting("a", ranks=4)], endless, running("r", 9), nodes=nodes)).after_s == 9

    def test_what_others_use_of_a_node_stays_used(self) -> None:
        """They are no jobs of ours: nobody knows when they go."""
        nodes = [a_node(cpus=4, available_cpus=1.0)]
        start = play("a", scene([waiting("a", ranks=4)], nodes=nodes))
        assert start.why.endswith("in use by something else than the jobs of this scheduler")

    def test_what_a_run_gives_back_is_free_although_ray_has_not_said_so_yet(self) -> None:
        nodes = [a_node(cpus=4, available_cpus=1.0)]
        assert play("a", scene([waiting("a", ranks=4)], running("r", 5, ranks=3), nodes=nodes)).after_s == 5

    def test_what_started_meanwhile_is_not_free_although_ray_said_so(self) -> None:
        nodes = [a_node(cpus=4, available_cpus=4.0)]
        line = [waiting("a", ranks=4), waiting("b", ranks=4)]
        assert play("b", scene(line, nodes=nodes)).after_s == 100

    def test_what_a_job_takes_and_gives_back_leaves_what_others_use(self) -> None:
        """Two CPUs are somebody else's: a run that ends gives back its own and no more."""
        nodes = [a_node(cpus=4, available_cpus=2.0)]
        line = [waiting("a"), waiting("c", ranks=3)]
        assert play("c", scene(line, nodes=nodes)).why.endswith("than the jobs of this scheduler")

    def test_a_job_that_takes_no_time_ends_all_the_same(self) -> None:
        line = [waiting("a", ranks=4), waiting("b", ranks=4)]
        assert play("b", scene(line, running("r", 30), length_s=lambda job: 0.0)).after_s == 31

    def test_a_job_that_can_never_start_here_says_so(self) -> None:
        start = play("a", scene([waiting("a", ranks=9)]))
        assert start.why.startswith("does not fit on this cluster: needs 9 ranks at once")

    def test_a_held_job_waits_for_a_person(self) -> None:
        assert play("a", scene([waiting("a", held=True)])) == Start(why="held for a person")

    def test_a_held_job_ahead_holds_nobody_up(self) -> None:
        line = [waiting("a", ranks=4, held=True), waiting("b", ranks=4)]
        assert play("b", scene(line)) == Start(after_s=0)

    def test_a_pause_between_two_tries_is_waited_for(self) -> None:
        line = [waiting("a", queued_at=NOON, retry_at=NOON + timedelta(seconds=7))]
        assert play("a", scene(line)) == Start(after_s=7)

    def test_a_run_that_gives_way_waits_in_the_line_again(self) -> None:
        """It keeps its old place: whoever is told that its nodes become free must know who wants them first."""
        line = [waiting("b", ranks=4, queue_seq=9)]
        hold = running("a", 5, ranks=4, returns=True)
        hold = replace(hold, job=replace(hold.job, queue_seq=1))
        assert play("b", scene(line, hold)).after_s == 105
        assert play("a", scene(line, hold)).after_s == 5

    def test_a_run_that_should_have_ended_by_now_is_not_taken_as_gone(self) -> None:
        start = play("a", scene([waiting("a", ranks=4)], running("r", 0)))
        assert start.after_s is not None
        assert start.after_s > 0

    def test_a_long_line_is_not_played_to_its_end(self) -> None:
        """The answer must come in time; what was seen of it is said."""
        line = [waiting(f"j{number}", ranks=4) for number in range(40)]
        start = play("j39", scene(line), max_looks=300)
        assert start.more_than_s is not None
        assert 100 < start.more_than_s < 3900
        assert play("j39", scene(line)).after_s == 3900


JOBS = st.lists(st.tuples(st.integers(1, 6), st.booleans(), st.sampled_from([0, 3])), min_size=1, max_size=6)
LEFT = st.none() | st.sampled_from([0.0, 1.0, 5.0, 5.0, 40.0])


@st.composite
def scenes(draw: st.DrawFn) -> Scene:
    """A line, on up to three nodes, some of which hold runs that placement put there."""
    sizes = draw(st.lists(st.integers(1, 6), min_size=1, max_size=3))
    nodes = [
        a_node(f"n{i}", cpus=cpus, available_cpus=draw(st.none() | st.just(cpus / 2)))
        for i, cpus in enumerate(sizes)
    ]
    begun = [waiting(f"run-{i}", ranks=ranks) for i, (ranks, _, _) in enumerate(draw(JOBS))]
    placed = placement.plan(begun, scene([], nodes=nodes).snapshot()).start
    holds = [
        Hold(job=job, allocation=placed[job.id], left_s=draw(LEFT), returns=draw(st.booleans()))
        for job in begun
        if job.id in placed
    ]
    line = [
        waiting(
            f"job-{i}",
            ranks=ranks,
            held=held,
            retry_at=NOON + timedelta(seconds=pause_s) if pause_s else None,
        )
        for i, (ranks, held, pause_s) in enumerate(draw(JOBS))
    ]
    lengths = {job.id: draw(LEFT) for job in line}
    return scene(line, *holds, nodes=nodes, length_s=lambda job: lengths.get(job.id))


class TestAgreement:
    @pytest.mark.parametrize("steps", [sys.maxsize, 10**300, 10**400])
    def test_a_run_without_an_end_keeps_nobody_from_a_forecast(self, steps: int) -> None:
        """Loops that run until somebody stops them tell such numbers; no calendar reaches so far."""
        job = a_job("running", admitted_at=NOON)
        pace = Pace(steps=9, typical_s=2.0, longest_s=3.0)
        told = {"step": 10, "total_steps": steps}
        left = left_s(job, progress=told, pace=pace, stepped_at=NOON, now=NOON)
        start = play("a", scene([waiting("a", ranks=4)], running("endless", left)))
        assert start.after_s is None
        assert (start.more_than_s == HORIZON_S) == (left is not None)

    @given(scenes())
    def test_now_is_said_exactly_when_placement_would_start_it(self, seen: Scene) -> None:
        """Else the scheduler promises what it does not do."""
        ready = ordering.order(seen.line, now=NOON).ready
        plan = placement.plan(ready, seen.snapshot())
        for job in seen.line:
            assert (play(job.id, seen).after_s == 0) == (job.id in plan.start)

    @given(scenes())
    def test_every_job_is_told_a_time_or_why_there_is_none(self, seen: Scene) -> None:
        for job in seen.line:
            start = play(job.id, seen)
            known = [start.after_s is not None, start.more_than_s is not None, bool(start.why)]
            assert sum(known) == 1

    @given(scenes(), st.integers(1, 4))
    def test_of_equal_jobs_the_one_further_ahead_never_starts_later(self, seen: Scene, ranks: int) -> None:
        """L2: first in, first out must hold in what is told, too."""
        line = [replace(job, spec=a_spec(ranks=ranks), held=False, retry_at=None) for job in seen.line]
        equal = replace(seen, line=tuple(line), length_s=lambda job: 10.0)
        starts = [play(job.id, equal) for job in line]
        known = [start.after_s for start in starts if start.after_s is not None]
        assert known == sorted(known)
        assert all(start.after_s is None for start in starts[len(known) :])

    @given(scenes(), st.integers(1, 30))
    def test_what_is_told_of_a_long_line_is_a_bound(self, seen: Scene, max_looks: int) -> None:
        for job in seen.line:
            short, whole = play(job.id, seen, max_looks), play(job.id, seen, MAX_LOOKS)
            if short.more_than_s is None:
                assert short == whole
            elif whole.after_s is not None:
                assert whole.after_s > short.more_than_s


class TestLeft:
    def test_the_steps_that_are_left_take_as_long_as_its_own_steps_did(self) -> None:
        job = a_job("running")
        pace = Pace(steps=9, typical_s=2.0, longest_s=3.0)
        stepped = NOON - timedelta(seconds=1)
        left = left_s(job, progress={"step": 10, "total_steps": 40}, pace=pace, stepped_at=stepped, now=NOON)
        assert left == 59

    def test_the_time_limit_ends_it_sooner(self) -> None:
        job = a_job("running", spec=a_spec(max_runtime_s=50), admitted_at=NOON - timedelta(seconds=20))
        pace = Pace(steps=9, typical_s=2.0, longest_s=3.0)
        told = {"step": 10, "total_steps": 40}
        assert left_s(job, progress=told, pace=pace, stepped_at=NOON, now=NOON) == 30
        assert left_s(job, progress=None, pace=None, stepped_at=None, now=NOON) == 30

    @pytest.mark.parametrize("told", [None, {}, {"step": 3}, {"step": 3, "total_steps": "many"}])
    def test_a_run_that_does_not_tell_how_far_it_goes_is_not_guessed_at(
        self, told: dict[str, object]
    ) -> None:
        pace = Pace(steps=9, typical_s=2.0, longest_s=3.0)
        assert left_s(a_job("running"), progress=told, pace=pace, stepped_at=NOON, now=NOON) is None


def completed(seconds: float, *, ranks: int = 1, **fields: object) -> Job:
    return a_job(
        "completed",
        spec=a_spec(ranks=ranks),
        admitted_at=NOON,
        finished_at=NOON + timedelta(seconds=seconds),
        **fields,
    )


class TestUsual:
    def test_the_median_of_equal_gangs_then_of_the_loop(self) -> None:
        usual = Usual([completed(10), completed(20), completed(90), completed(7, ranks=2)])
        assert usual.length_s(waiting("a")) == 20
        assert usual.length_s(waiting("a", ranks=2)) == 7
        assert usual.length_s(waiting("a", ranks=3)) == 15

    def test_another_loop_says_nothing(self) -> None:
        job = a_job(spec=a_spec(loop="sft"))
        assert Usual([completed(10)]).length_s(job) is None

    def test_a_job_that_was_interrupted_is_no_measure(self) -> None:
        """Its last run is only a part of it."""
        assert Usual([completed(10, fence=2)]).length_s(waiting("a")) is None

    def test_its_own_time_limit_bounds_it(self) -> None:
        job = a_job(spec=a_spec(max_runtime_s=5))
        assert Usual([completed(10)]).length_s(job) == 5
        assert Usual([]).length_s(job) == 5

    def test_what_a_checkpoint_holds_is_not_run_again(self) -> None:
        saved = Saved(checkpoint=CheckpointId("1.1"), step=75, at=NOON)
        job = waiting("a", saved=saved, progress={"step": 80, "total_steps": 100})
        assert Usual([completed(40)]).length_s(job) == 10


UNTOLD = "it is not known when: A has not reported its steps"


@pytest.mark.parametrize(
    ("words", "position", "ahead", "start"),
    [
        ("next; starts now", 1, "", Start(after_s=0)),
        ("next; starts in about 6 min", 1, "", Start(after_s=360)),
        ("position 3, behind A and B; starts in about 6 min", 3, "AB", Start(after_s=360)),
        ("position 2; starts now", 2, "A", Start(after_s=0)),
        ("position 4, behind A, B and C; starts in about 12 s", 4, "ABC", Start(after_s=11.2)),
        (
            "position 99, behind A, B and 96 more; starts in more than 3.0 h",
            99,
            "ABC",
            Start(more_than_s=10800),
        ),
        (f"position 2, behind A; {UNTOLD}", 2, "A", Start(why=UNTOLD)),
    ],
)
def test_a_forecast_is_a_sentence(words: str, position: int, ahead: list[str], start: Start) -> None:
    assert sentence(position, ahead, start) == words


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.2, "about 1 s"), (89, "about 89 s"), (5400, "about 1.5 h")]
)
def test_what_lies_ahead_is_never_about_0_s(seconds: float, words: str) -> None:
    assert about(seconds) == words


def test_a_stop_is_no_part_of_a_hold() -> None:
    """The play goes by `left_s` and `returns` alone; a stop that is written on the job changes nothing."""
    stop = Stop(kind=StopKind.PREEMPT, by="ann", at=NOON)
    hold = running("r", 5, ranks=4)
    stopped = replace(hold, job=replace(hold.job, stop=stop))
    line = [waiting("a", ranks=4)]
    assert play("a", scene(line, hold)) == play("a", scene(line, stopped))
