"""What a change would do: two outlooks, and the rows that differ."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.core.contender import Rules, Scene
from scheduler.core.forecast import Start
from scheduler.core.model import JobId
from scheduler.core.what_if import in_front, preempting, what_if, with_priority
from scheduler.testing.contenders import a_scene, gpus, runner, waiter
from tests.unit.test_outlook import HOUR_S, NEVER, hundred_s, nobody_knows
from tests.unit.test_policy_properties import RULES, scenes


def test_a_higher_priority_says_who_waits_for_it() -> None:
    run = runner("r", gpus(1), "a", left_s=30.0, preemptible=False)
    scene = a_scene({"a": 1}, waiting=[waiter(name, gpus(1)) for name in "abc"], running=[run])
    answer = what_if(scene, with_priority(scene, JobId("c"), 1), Rules(), hundred_s, job_id=JobId("c"))
    assert (answer.before, answer.now) == (Start(after_s=230.0), Start(after_s=30.0))
    assert [(row.job_id, row.by_s, row.at_least) for row in answer.moved] == [
        ("a", 100.0, False),
        ("b", 100.0, False),
    ]
    assert not answer.preempted


def test_a_job_in_front_goes_before_its_project_only() -> None:
    run = runner("r", gpus(1), "a", left_s=30.0, preemptible=False)
    waiting = [
        waiter("v1", gpus(1), left_s=50.0, project="vision"),
        waiter("s1", gpus(1), left_s=100.0, project="speech"),
        waiter("v2", gpus(1), left_s=250.0, project="vision"),
    ]
    scene = a_scene({"a": 4}, waiting=waiting, running=[run, runner("q", gpus(3), "a", left_s=9e5)])
    answer = what_if(scene, in_front(scene, JobId("v2")), NEVER, nobody_knows, job_id=JobId("v2"))
    assert (answer.before, answer.now) == (Start(after_s=280.0), Start(after_s=30.0))
    assert {row.job_id: row.by_s for row in answer.moved} == {"v1": 300.0, "s1": 300.0}


def test_preempting_says_whose_run_and_at_what_price() -> None:
    run = runner("run", gpus(8), "a", left_s=600.0)
    scene = a_scene({"a": 8}, waiting=[waiter("w", gpus(8), left_s=9 * HOUR_S)], running=[run])
    answer = what_if(scene, preempting(scene, JobId("w")), Rules(), nobody_knows, job_id=JobId("w"))
    assert (answer.before, answer.now) == (Start(after_s=600.0), Start(after_s=0.0))
    (stopped,) = answer.preempted
    assert (stopped.job_id, stopped.newcomer, stopped.price) == ("run", "w", 480.0)
    assert stopped.again.after_s == 10.0 + 9 * HOUR_S + 50.0
    back = what_if(preempting(scene, JobId("w")), scene, Rules(), nobody_knows, job_id=JobId("w"))
    assert [run.job_id for run in back.spared] == ["run"]


def test_only_the_largest_rows_are_told() -> None:
    waiting = [waiter(f"w{number:02}", gpus(1), left_s=1.0 + number) for number in range(20)]
    scene = a_scene({"a": 1}, waiting=waiting)
    answer = what_if(scene, with_priority(scene, JobId("w19"), 1), NEVER, nobody_knows, job_id=JobId("w19"))
    assert (len(answer.moved), answer.num_more) == (10, 9)
    assert all(row.by_s == pytest.approx(70.0) for row in answer.moved)


def test_what_was_not_played_to_its_end_is_told_as_at_least() -> None:
    run = runner("r", gpus(1), "a", left_s=100.0, preemptible=False)
    scene = a_scene(
        {"a": 1}, waiting=[waiter("a", gpus(1)), waiter("long", gpus(1), left_s=1e12)], running=[run]
    )
    changed = with_priority(scene, JobId("long"), 1)
    answer = what_if(scene, changed, Rules(), hundred_s, job_id=JobId("long"), horizon_s=5000.0)
    (row,) = answer.moved
    assert (row.by_s, row.at_least) == (4900.0, True)


@settings(max_examples=25, deadline=None)
@given(scenes(), st.sampled_from(RULES))
def test_without_a_change_nothing_is_told(scene: Scene, rules: Rules) -> None:
    answer = what_if(scene, scene, rules, hundred_s, job_id=JobId("none"), looks=150)
    assert not answer.moved
    assert not answer.preempted
    assert not answer.spared
    assert answer.num_more == 0
