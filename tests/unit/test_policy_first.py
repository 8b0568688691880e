"""A job that a person puts in front: before the others of its project, and at nobody else's cost."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.core.contender import Contender, Scene, Share
from scheduler.core.model import JobId
from scheduler.core.policy import decide
from scheduler.core.turns import order
from scheduler.testing.contenders import RULES, a_scene, gpus, runner, waiter
from tests.unit.test_policy_properties import scenes

HOUR_S = 3600.0


def line(*waiting: Contender, nodes: int = 1, **fields: object) -> list[str]:
    scene = a_scene({"a": nodes}, waiting=waiting, **fields)
    return [turn.job.id for turn in order(scene.waiting, scene, RULES).waiting]


def test_who_is_first_goes_before_shorter_jobs_of_its_project() -> None:
    long = waiter("long", gpus(1), left_s=9 * HOUR_S, first=True)
    assert line(waiter("short", gpus(1), left_s=60.0), long) == ["long", "short"]


def test_it_does_not_go_before_a_higher_priority() -> None:
    urgent = waiter("urgent", gpus(1), left_s=9 * HOUR_S, priority=1)
    assert line(urgent, waiter("first", gpus(1), left_s=60.0, first=True)) == ["urgent", "first"]


def test_it_takes_a_place_of_its_own_project_and_no_other() -> None:
    """Otherwise whoever clicks would take from people who cannot even see it."""
    waiting = [
        waiter("v1", gpus(1), left_s=100.0, project="vision"),
        waiter("s1", gpus(1), left_s=50.0, project="speech"),
        waiter("s2", gpus(1), left_s=200.0, project="speech"),
        waiter("v2", gpus(1), left_s=300.0, project="vision"),
        waiter("v3", gpus(1), left_s=400.0, project="vision"),
        waiter("s3", gpus(1), left_s=500.0, project="speech"),
    ]
    assert line(*waiting, nodes=8) == ["s1", "v1", "s2", "v2", "v3", "s3"]
    waiting[4] = replace(waiting[4], first=True)
    assert line(*waiting, nodes=8) == ["s1", "v3", "s2", "v1", "v2", "s3"]


def test_it_fills_the_share_of_its_project_first() -> None:
    waiting = [
        waiter("v1", gpus(4), left_s=100.0, project="vision"),
        waiter("v2", gpus(4), left_s=300.0, project="vision", first=True),
        waiter("s1", gpus(4), left_s=900.0, project="speech"),
    ]
    assert line(*waiting, nodes=8) == ["v2", "s1", "v1"]


@pytest.mark.parametrize("short", [True, False])
def test_a_short_job_behind_it_keeps_its_right_to_preempt(short: bool) -> None:
    """The longer one before it is refused; that says nothing of the shorter."""
    run = runner("run", gpus(8), "a", left_s=4 * HOUR_S)
    waiting = [waiter("long", gpus(8), left_s=9 * HOUR_S, first=True)]
    waiting += [waiter("short", gpus(8), left_s=600.0)] if short else []
    made = decide(a_scene({"a": 8}, waiting=waiting, running=[run]), RULES)
    assert sorted(made.stops) == (["run"] if short else [])


def test_who_is_behind_a_longer_one_is_not_said_to_be_longer() -> None:
    waiting = [
        waiter("long", gpus(1), left_s=9 * HOUR_S, first=True),
        waiter("short", gpus(1), left_s=600.0),
    ]
    run = runner("run", gpus(1), "a", left_s=60.0)
    made = decide(a_scene({"a": 1}, waiting=waiting, running=[run]), RULES)
    assert made.reasons[JobId("short")].message == (
        "behind 1 job, one of which a person put in front of its project's"
    )


@settings(max_examples=60, deadline=None)
@given(scenes(), st.data())
def test_the_places_of_each_project_stay_as_they_are(scene: Scene, data: st.DataObject) -> None:
    """By class, from front to back: only who stands in them changes.  Of those with one size and user, all places."""
    alike = tuple(replace(job, size=1.0, user="ann") for job in scene.waiting)
    scene = replace(
        scene, waiting=alike, shares=data.draw(st.sampled_from([{}, {"vision": Share(weight=2.0)}]))
    )
    chosen = data.draw(st.sets(st.sampled_from([job.id for job in alike]))) if alike else set()
    marked = replace(scene, waiting=tuple(replace(job, first=job.id in chosen) for job in alike))

    def places(of: Scene) -> list[tuple[int, str]]:
        return [(turn.rank, turn.job.project) for turn in order(of.waiting, of, RULES).waiting if turn.due]

    assert places(marked) == places(scene)
