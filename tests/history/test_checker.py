"""The checker on forged histories: it says nothing of a good one, and names what is wrong with each bad one."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest

from tests.history.checker import RULES, Line, broken_promises

JOB, OTHER = "11", "22"


def lives(at: float, attempt: int = 1, **more: Any) -> Line:
    who = {"job": JOB, "rank": 0, "pid": 100 + attempt, "node": "n1"}
    return {"did": "lives", "at": at, "attempt": attempt, **who, **more}


def stepped(at: float, step: int, attempt: int = 1, **more: Any) -> Line:
    return {**lives(at, attempt, **more), "did": "stepped", "step": step}


def saw(at: float, status: str, attempt: int, **more: Any) -> Line:
    return {
        "did": "saw",
        "at": at,
        "until": at + 0.1,
        "job": JOB,
        "status": status,
        "attempt": attempt,
        **more,
    }


def called(at: float, what: str, outcome: str = "ok", **more: Any) -> Line:
    return {
        "did": "called",
        "at": at,
        "until": at + 0.1,
        "what": what,
        "job": JOB,
        "outcome": outcome,
        "status": "running",
        **more,
    }


def ended(at: float, status: str = "completed", **more: Any) -> Line:
    reason = {"code": status, "message": "in words"}
    weights = {"weights": "abc", "undisturbed": "abc", "may_end": ["completed"]}
    return {
        "did": "ended",
        "at": at,
        "job": JOB,
        "name": "one",
        "status": status,
        "reason": reason,
        **weights,
        **more,
    }


GOOD: list[Line] = [
    {"did": "joined", "at": 0.0, "node": "n1", "cpus": 1},
    {"did": "joined", "at": 0.0, "node": "n2", "cpus": 1},
    called(1, "submit", name="one", saves_every=2),
    saw(2, "running", 1),
    *(stepped(3 + step, step) for step in range(1, 9)),  # killed after step 8, at 11; 6 was saved
    {"did": "hurt", "at": 11.5, "what": "kill_rank", "victim": 101},
    saw(12, "queued", 1),
    *(stepped(13 + step, step, attempt=2) for step in range(7, 11)),  # paused after step 10, at 23
    called(22.5, "pause"),
    lives(23.5, 2),
    saw(24, "paused", 2),
    called(25, "resume"),
    saw(25.5, "queued", 2),
    *(stepped(16 + step, step, attempt=3) for step in range(11, 13)),
    ended(29),
    {"did": "rested", "at": 30.0, "node": "n1", "cpus": 1, "free": 1},
]
"""One job: killed, resumed, paused, resumed, completed."""


def test_a_good_history_breaks_no_promise() -> None:
    assert broken_promises(GOOD) == []


def test_a_submit_without_an_answer_may_have_made_a_job() -> None:
    history = deepcopy(GOOD)
    del history[2]["job"]
    history[2]["outcome"] = "unknown"
    assert broken_promises(history) == []


def test_a_job_that_ends_before_it_can_be_paused_is_no_broken_promise() -> None:
    assert broken_promises([*GOOD, called(28, "pause")]) == []


def test_a_pause_may_lose_steps_when_a_rank_was_killed_meanwhile() -> None:
    killed = {"did": "hurt", "at": 22.8, "what": "kill_rank", "victim": 102}
    later = [line for line in GOOD if line.get("attempt") != 3]
    redone = [stepped(17 + step, step, attempt=3) for step in range(9, 12)]
    assert broken_promises([*later, *redone, killed]) == []


def without(**values: Any) -> Callable[[list[Line]], list[Line]]:
    return lambda history: [line for line in history if not values.items() <= line.items()]


def plus(*lines: Line) -> Callable[[list[Line]], list[Line]]:
    return lambda history: [*history, *lines]


def with_end(**values: Any) -> Callable[[list[Line]], list[Line]]:
    return lambda history: [line | (values if line["did"] == "ended" else {}) for line in history]


CANCELLED = {"status": "cancelled", "reason": {"code": "cancelled", "message": "ann asked"}}

FORGED: dict[str, tuple[str, Callable[[list[Line]], list[Line]]]] = {
    "an accepted job never ends": ("jobs_are_lost", without(did="ended")),
    "a job ends that nobody submitted": (
        "jobs_come_from_nowhere",
        plus(ended(30, job=OTHER, name="other")),
    ),
    "a job runs that nobody submitted": ("jobs_come_from_nowhere", plus(lives(2, job=OTHER))),
    "a repeated submit makes a second job": (
        "a_submit_makes_two_jobs",
        plus(called(1.5, "submit", job=OTHER, name="one", saves_every=2), ended(30, job=OTHER)),
    ),
    "a job never comes to rest": ("an_end_has_no_stated_reason", with_end(status="running")),
    "a job fails without a word": (
        "an_end_has_no_stated_reason",
        with_end(status="failed", may_end=["failed"], reason={"code": "failed", "message": ""}),
    ),
    "a job fails that nobody broke": ("an_end_was_not_to_be", with_end(status="failed")),
    "a job is cancelled that nobody cancelled": ("an_end_was_not_to_be", with_end(**CANCELLED)),
    "a pause is acknowledged and nothing follows": (
        "a_call_is_forgotten",
        lambda history: [*without(did="ended")(without(did="saw", status="paused")(history))],
    ),
    "an attempt begins while the one before lives": ("runs_overlap", plus(lives(20.5, 1))),
    "a process sleeps, and wakes up beside its successor": ("runs_overlap", plus(lives(28.5, 2))),
    "a rank is started twice": ("a_rank_is_there_twice", plus(lives(21, 2, pid=999, node="n2"))),
    "a process outlives the end of its job": ("something_lives_after_the_end", plus(lives(29.5, 3))),
    "a process outlives the pause of its job": ("something_lives_after_the_end", plus(lives(24.5, 2))),
    "a step is left out": ("steps_are_skipped", without(did="stepped", step=8, attempt=2)),
    "a step is taken twice in one attempt": ("steps_are_skipped", plus(stepped(23.2, 10, 2))),
    "an attempt begins beyond what was done": (
        "steps_are_skipped",
        lambda history: without(step=11, attempt=3)(without(step=10, attempt=2)(history)),
    ),
    "an attempt begins again from the beginning": (
        "too_much_is_done_again",
        plus(*(stepped(14 + step, step, 2) for step in range(1, 7))),
    ),
    "steps are lost by a pause": ("a_polite_stop_loses_steps", plus(stepped(26.5, 10, 3))),
    "a finished job runs again unasked": (
        "a_status_goes_back",
        plus(saw(29.5, "completed", 3), saw(30.5, "queued", 3)),
    ),
    "an attempt is forgotten": ("a_status_goes_back", plus(saw(28, "running", 1))),
    "two ranks share a node with one CPU": (
        "a_node_is_oversubscribed",
        plus(
            called(1, "submit", job=OTHER, name="other", saves_every=2),
            *(lives(at, job=OTHER, pid=7) for at in (6, 9)),
            ended(30, job=OTHER, name="other"),
        ),
    ),
    "a rank lives on a node that nobody started": (
        "a_node_is_oversubscribed",
        without(did="joined"),
    ),
    "CPUs stay taken after the last job": (
        "something_is_held_by_nobody",
        plus({"did": "rested", "at": 31.0, "node": "n2", "cpus": 1, "free": 0}),
    ),
    "a completed job has other weights": ("weights_differ", with_end(weights="abd")),
    "a completed job has no weights": ("weights_differ", with_end(weights=None)),
}


@pytest.mark.parametrize("what", FORGED)
def test_a_forged_history_is_found_out(what: str) -> None:
    rule, forge = FORGED[what]
    history = sorted(forge(deepcopy(GOOD)), key=lambda line: line["at"])
    by_rule = {rule.__name__: list(rule(history)) for rule in RULES}
    assert by_rule[rule], f"{rule} says nothing"
    assert broken_promises(history)


def test_every_rule_has_a_history_that_breaks_it() -> None:
    assert {rule.__name__ for rule in RULES} == {rule for rule, _ in FORGED.values()}
