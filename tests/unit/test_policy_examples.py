"""The worked examples of docs/policy.md: the numbers are right, and the sentences are those that people read."""

from __future__ import annotations

from pathlib import Path

import pytest

from scheduler.core.contender import Share
from scheduler.core.model import JobId
from scheduler.core.policy import decide
from scheduler.core.turns import order
from scheduler.testing.contenders import RULES, a_scene, gpus, runner, waiter

PAGE = " ".join((Path(__file__).parents[2] / "docs/policy.md").read_text("utf-8").split())
HOUR_S = 3600.0


def test_a_short_job_on_a_full_node() -> None:
    long = runner("long", gpus(8), "a", left_s=10 * HOUR_S, save_s=10.0, start_s=50.0)
    scene = a_scene({"a": 8}, waiting=[waiter("short", gpus(1), left_s=HOUR_S / 2)], running=[long])
    made = decide(scene, RULES)
    reckoning = made.stops[JobId("long")]
    assert reckoning.price == pytest.approx(480)
    assert "= 480 GPU seconds" in PAGE
    assert f'"{reckoning.sentence({JobId("short"): "short"})}"' in PAGE
    assert made.starts[JobId("short")].after == ("long",)


def test_what_was_lent_is_asked_back() -> None:
    scene = a_scene(
        {"a": 8},
        waiting=[waiter(f"v{i}", gpus(1), project="vision", left_s=HOUR_S) for i in range(8)],
        running=[runner(f"s{i}", gpus(1), "a", project="speech", left_s=2 * HOUR_S) for i in range(8)],
        shares={"vision": Share(weight=3.0)},
    )
    made, parts = decide(scene, RULES), order(scene.waiting, scene, RULES).parts
    assert (parts["vision"].entitled, parts["speech"].entitled) == (6.0, 2.0)
    assert "It is entitled to 6 GPUs and `speech` to 2, so 6 runs are preempted" in PAGE
    assert len(made.stops) == 6
    first = next(reckoning for reckoning in made.stops.values() if reckoning.newcomer == "v0")
    assert f'"{first.sentence({})}"' in PAGE
    assert len(made.reasons) == 2
    assert all(f'"{reason.message}"' in PAGE for reason in made.reasons.values())


def test_a_gang_that_has_waited_a_day() -> None:
    scene = a_scene(
        {"a": 8},
        waiting=[
            waiter("gang", gpus(8), left_s=7 * HOUR_S, waited_s=25 * HOUR_S),
            waiter("other", gpus(1), left_s=600.0),
        ],
        running=[
            runner("new", gpus(4), "a", left_s=1800.0, for_s=30.0),
            runner("old", gpus(4), "a", left_s=1200.0, stops_when_asked=False),
        ],
    )
    made = decide(scene, RULES)
    assert not made.starts
    assert f'"{made.reasons[JobId("gang")].message}"' in PAGE
