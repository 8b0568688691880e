"""Job arrays in the core: a grid of values, and a limit for how many of its jobs run at once (S8)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.core import arrays, forecast
from scheduler.core.arrays import ARRAY_LIMIT, MAX_CHILDREN
from scheduler.core.contender import Contender, Rules, Scene
from scheduler.core.model import ArrayPlace, Job, JobId, JobSpec
from scheduler.core.ordering import order
from scheduler.core.outlook import play
from scheduler.core.policy import decide
from scheduler.testing.builders import a_job, a_node, a_spec
from scheduler.testing.clock import NOON
from scheduler.testing.contenders import NOW_S, a_scene, carried_out, gpus, runner, waiter
from tests.unit.test_policy_properties import RULES, scenes

SPEC = JobSpec(loop="sft", name="sweep", config={"optimizer": {"lr": 1, "eps": 2}, "steps": 5})
NEVER = Rules(preempt="never")


def a_place(array: str = "one", at_most: int = 2, **fields: Any) -> ArrayPlace:
    return ArrayPlace(**{"id": array, "index": 1, "size": 100, "at_most": at_most, **fields})


def hundred_s(_: object) -> float | None:
    return 100.0


class TestMaking:
    def test_there_is_a_job_for_each_combination_the_last_parameter_changing_fastest(self) -> None:
        made = arrays.specs_of(SPEC, {"optimizer.lr": [0.1, 0.2], "config.seed": [1, 2, 3]})
        seen = [(spec.name, spec.config["optimizer"]["lr"], spec.config["seed"]) for spec, _ in made]
        assert seen == [
            ("sweep-1", 0.1, 1),
            ("sweep-2", 0.1, 2),
            ("sweep-3", 0.1, 3),
            ("sweep-4", 0.2, 1),
            ("sweep-5", 0.2, 2),
            ("sweep-6", 0.2, 3),
        ]
        assert {(spec.config["optimizer"]["eps"], spec.config["steps"]) for spec, _ in made} == {(2, 5)}
        assert SPEC.config["optimizer"]["lr"] == 1, "one job of an array must not change the spec of another"

    def test_the_values_of_a_job_are_read_from_its_config(self) -> None:
        ((spec, keys),) = arrays.specs_of(SPEC, {"optimizer.lr": [0.1], "seed": [7]})
        assert arrays.values_of(spec.config, keys) == {"optimizer.lr": 0.1, "seed": 7}
        assert arrays.values_of(SPEC.config, ["optimizer.lr.x", "y"]) == {"optimizer.lr.x": None, "y": None}

    def test_names_sort_as_the_jobs_are_numbered_and_stay_names(self) -> None:
        made = arrays.specs_of(replace(SPEC, name="x" * 200), {"seed": list(range(12))})
        names = [spec.name for spec, _ in made]
        assert names == sorted(names) and {len(name) for name in names} == {200}

    @pytest.mark.parametrize(
        ("parameters", "at_most", "field", "said"),
        [
            ({}, None, "parameters", "give 1 to 20"),
            ({"seed": []}, None, "parameters.seed", "has no values"),
            ({"seed": [1, 2, 1]}, None, "parameters.seed", "has the value 1 twice"),
            ({"a": range(40), "b": range(40)}, None, "parameters", "make 1,600 jobs"),
            ({"seed": range(1001)}, None, "parameters.seed", "has 1,001 values"),
            ({"seed": [1], "config.seed": [2]}, None, "parameters", "names one key of config twice"),
            ({"priority": [1, 2]}, None, "parameters.priority", "config.priority is one of config"),
            ({"steps.x": [1]}, None, "parameters.steps.x", "config.steps has no parts"),
            ({"optimizer..lr": [1]}, None, "parameters.optimizer..lr", "is no key of config"),
            ({"": [1]}, None, "parameters.", "is no key of config"),
            ({"seed": [1]}, 0, "at_most", "from 1 to 1,000"),
            ({"seed": [1]}, 1001, "at_most", "from 1 to 1,000"),
        ],
    )
    def test_what_cannot_be_an_array_is_refused_by_its_field(
        self, parameters: Any, at_most: int | None, field: str, said: str
    ) -> None:
        found = arrays.problems(SPEC, parameters, at_most)
        assert field in [one.field for one in found]
        assert any(said in one.message for one in found)

    def test_what_is_equal_only_to_python_is_not_given_twice(self) -> None:
        assert arrays.problems(SPEC, {"flag": [1, True, 1.0, "1", None, [1]]}, MAX_CHILDREN) == []


class TestBest:
    @given(st.lists(st.none() | st.floats(allow_nan=False, allow_infinity=False), max_size=8), st.booleans())
    def test_it_is_the_first_that_nobody_beats(self, values: list[float | None], is_max: bool) -> None:
        found = arrays.best(enumerate(values), "max" if is_max else "min")
        known = [value for value in values if value is not None]
        expected = (max if is_max else min)(known) if known else None
        assert found == (None if expected is None else values.index(expected))


class TestLimit:
    def queue(self, jobs: Iterable[Job], running: Iterable[Job] = ()) -> tuple[list[str], dict[str, str]]:
        found = arrays.limited(order(jobs, now=NOON), running)
        return [job.spec.name for job in found.ready], {
            job_id: reason.message for job_id, reason in found.paused.items()
        }

    def child(self, name: str, status: str = "queued", **fields: Any) -> Job:
        return a_job(status, id=JobId(name), spec=a_spec(name=name, array=a_place(**fields)))

    def test_only_so_many_are_ready_and_the_others_know_why(self) -> None:
        """S10: a job that rests for its array must not be told that it waits for room."""
        children = [self.child(name) for name in "abc"]
        other = a_job(spec=a_spec(name="other"))
        assert self.queue([*children, other]) == (
            ["a", "b", "other"],
            {"c": "0 of 2 jobs of this array run, and others of it are before this one"},
        )
        assert self.queue(children, [self.child("x", "running"), self.child("y", "running")]) == (
            [],
            dict.fromkeys("abc", "2 of 2 jobs of this array run; it may start when one of them ends"),
        )

    def test_each_array_has_its_own_limit(self) -> None:
        jobs = [self.child(f"{array}{n}", array=array, at_most=1) for array in "pq" for n in (1, 2)]
        ready, _ = self.queue(jobs)
        assert ready == ["p1", "q1"]

    def test_a_job_that_rests_leaves_its_turn_to_another(self) -> None:
        held = replace(self.child("a"), held=True)
        ready, paused = self.queue([held, self.child("b"), self.child("c"), self.child("d")])
        assert (ready, [*paused]) == (["b", "c"], ["a", "d"])


@st.composite
def scenes_with_arrays(draw: st.DrawFn) -> Scene:
    """Jobs of a scene as those of two arrays, or of none; what runs keeps to the limits."""
    scene = draw(scenes())
    limits = {array: draw(st.integers(1, 3)) for array in ("one", "two")}
    which = st.sampled_from([None, "one", "one", "two"])
    counts: Counter[str] = Counter()
    running: list[Contender] = []
    for job in scene.running:
        array = draw(which)
        if array and counts[array] < limits[array]:
            counts[array] += 1
            job = replace(job, array=a_place(array, limits[array]))
        running.append(job)
    waiting = [
        replace(job, array=a_place(array, limits[array])) if (array := draw(which)) else job
        for job in scene.waiting
    ]
    return replace(scene, waiting=tuple(waiting), running=tuple(running))


def over_limits(running: Iterable[Contender]) -> dict[str, int]:
    places = [job.array for job in running if job.array]
    counts = Counter(place.id for place in places)
    return {place.id: counts[place.id] for place in places if counts[place.id] > place.at_most}


class TestUnderFair:
    @settings(max_examples=100, deadline=None)
    @given(scenes_with_arrays(), st.sampled_from(RULES))
    def test_no_pass_starts_more_than_may_run_at_once(self, scene: Scene, rules: Rules) -> None:
        """S8: also when several are eligible at once, others are preempted for them, or nodes are kept for them."""
        made = decide(scene, rules)
        starting = [job for job in scene.waiting if job.id in made.starts]
        assert over_limits([*scene.running, *starting]) == {}
        kept = [
            replace(job, kept=made.starts[job.id].allocation)
            if job.id in made.starts and made.starts[job.id].after
            else job
            for job in scene.waiting
        ]
        again = decide(replace(scene, waiting=tuple(kept)), rules)
        holding = [job for job in kept if job.id in again.starts or job.kept]
        assert over_limits([*scene.running, *holding]) == {}
        assert over_limits(carried_out(scene, made, rules).running) == {}

    def test_an_array_without_a_limit_below_its_size_changes_nothing(self) -> None:
        jobs = [waiter(name, gpus(1)) for name in "abcd"]
        free = decide(a_scene({"a": 3}, waiting=jobs), NEVER)
        placed = [replace(job, array=a_place(at_most=4)) for job in jobs]
        assert decide(a_scene({"a": 3}, waiting=placed), NEVER).starts == free.starts

    def test_another_gets_the_room_that_the_array_may_not_use(self) -> None:
        children = [waiter(name, gpus(1), array=a_place()) for name in "abc"]
        made = decide(a_scene({"a": 3}, waiting=[*children, waiter("other", gpus(1))]), NEVER)
        assert set(made.starts) == {"a", "b", "other"}
        assert made.reasons[JobId("c")].code == ARRAY_LIMIT

    def test_who_was_put_in_front_starts_first(self) -> None:
        children = [waiter(name, gpus(1), array=a_place(at_most=1)) for name in "abc"]
        children[2] = replace(children[2], first=True)
        assert set(decide(a_scene({"a": 3}, waiting=children), NEVER).starts) == {"c"}


class TestWhatIsTold:
    def test_the_starts_follow_one_after_the_other(self) -> None:
        """S10: there is room for all, and still they do not start now."""
        children = [waiter(name, gpus(1), array=a_place(at_most=1)) for name in "abc"]
        seen = play(a_scene({"a": 8}, waiting=children), NEVER, hundred_s)
        assert {job: start.after_s for job, start in seen.starts.items()} == {
            "a": 0.0,
            "b": 100.0,
            "c": 200.0,
        }

    def test_runs_of_which_nobody_knows_the_end_are_not_guessed(self) -> None:
        running = [runner("r", gpus(1), "a", array=a_place(at_most=1))]
        waiting = [waiter("w", gpus(1), array=a_place(at_most=1))]
        ends = {"r": None, "w": 100.0}
        scene = a_scene({"a": 8}, waiting=waiting, running=[*running, runner("x", gpus(1), "a", left_s=5.0)])
        start = play(scene, NEVER, lambda job: ends.get(job.id), horizon_s=NOW_S).starts[JobId("w")]
        assert start.why == (
            "it is not known when: 1 of 1 jobs of this array run; it may start when one of them ends"
        )

    def test_fifo_tells_the_same(self) -> None:
        line = [
            a_job(id=JobId(name), spec=a_spec(name=name, array=a_place(at_most=1)))
            for name in ("a", "b", "c")
        ]
        scene = forecast.Scene(
            now=NOON, nodes=(a_node(cpus=8),), holds=(), line=tuple(line), length_s=hundred_s
        )
        assert [forecast.play(job.id, scene).after_s for job in line] == [0.0, 100.0, 200.0]
        blind = replace(scene, length_s=lambda _: None)
        assert forecast.play(JobId("b"), blind).why.startswith(
            "it is not known when: 0 of 1 jobs of this array run, and others of it are before this one"
        )
