"""The policy, decision by decision; among them what users of other schedulers complained of."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from scheduler.core.contender import Contender, Grant, Ledger, Loss, Rules, Share, Tenure, Told
from scheduler.core.eligible import rests
from scheduler.core.model import Allocation, JobId, Node, NodeId, Reason, Snapshot
from scheduler.core.ordering import order
from scheduler.core.placement import plan
from scheduler.core.policy import Decision, decide, fifo
from scheduler.testing.builders import a_job, a_node, a_spec
from scheduler.testing.clock import NOON
from scheduler.testing.contenders import NOW_S, a_scene, carried_out, gpus, on, ranks_of, runner, waiter

RULES = Rules()
HOUR_S, DAY_S = 3600.0, 86_400.0


def starts(decision: Decision) -> list[str]:
    return sorted(decision.starts)


def stops(decision: Decision) -> list[str]:
    return sorted(decision.stops)


def code(decision: Decision, name: str) -> str:
    return decision.reasons[JobId(name)].code


def says(decision: Decision, name: str) -> str:
    return decision.reasons[JobId(name)].message


# -- the order


def test_least_left_goes_first() -> None:
    """Otherwise an hour of everybody else is spent on a day of one."""
    scene = a_scene(
        {"a": 1}, waiting=[waiter("day", gpus(1), left_s=DAY_S), waiter("hour", gpus(1), left_s=HOUR_S)]
    )
    made = decide(scene, RULES)
    assert starts(made) == ["hour"]
    assert code(made, "day") == "waiting_for_resources"


def test_a_job_that_never_ran_goes_before_one_that_had_an_hour() -> None:
    """Most jobs are short; one that is not shows it soon enough."""
    scene = a_scene({"a": 1}, waiting=[waiter("old", gpus(1), attained=HOUR_S), waiter("new", gpus(1))])
    assert starts(decide(scene, RULES)) == ["new"]


def test_priority_goes_before_everything() -> None:
    scene = a_scene(
        {"a": 1},
        waiting=[waiter("short", gpus(1), left_s=60.0), waiter("urgent", gpus(1), left_s=DAY_S, priority=1)],
    )
    assert starts(decide(scene, RULES)) == ["urgent"]


def test_who_waits_behind_others_is_told_how_many_and_how_long_they_are() -> None:
    waiting = [waiter(f"w{hours}", gpus(1), left_s=hours * HOUR_S) for hours in (1, 2, 3)]
    made = decide(a_scene({"a": 1}, waiting=waiting), RULES)
    assert code(made, "w3") == "behind"
    assert says(made, "w3") == "behind 1 job with less left: 2.0 h; this one has 3.0 h"


def test_every_waiting_job_starts_or_has_a_reason() -> None:
    held = waiter("held", gpus(1), rests=Reason(code="held", message="held for a person"))
    waiting = [waiter("a", gpus(1)), waiter("b", gpus(1)), waiter("big", gpus(64)), held]
    made = decide(a_scene({"n": 1}, waiting=waiting), RULES)
    assert set(made.starts) | set(made.reasons) == {"a", "b", "big", "held"}
    assert len(made.starts) + len(made.reasons) == 4
    assert (code(made, "big"), code(made, "held")) == ("does_not_fit_here", "held")


def test_a_gang_that_fits_on_one_node_does_not_start_on_two() -> None:
    scene = a_scene(
        {"a": 4, "b": 4}, waiting=[waiter("w", gpus(4))], running=[runner("r", gpus(1), "a", for_s=1)]
    )
    made = decide(replace(scene, running=scene.running), RULES)
    assert [node for node, _ in made.starts[JobId("w")].allocation.ranks] == ["b"]
    full = [runner("r1", gpus(1), "a", for_s=1), runner("r2", gpus(1), "b", for_s=1)]
    assert (
        starts(decide(a_scene({"a": 4, "b": 4}, waiting=[waiter("w", gpus(4))], running=full), RULES)) == []
    )
    anywhere = decide(
        a_scene({"a": 4, "b": 4}, waiting=[waiter("w", gpus(4))], running=full), Rules(one_node=False)
    )
    assert ranks_of(anywhere.starts[JobId("w")]) == 4


# -- preemption


def test_a_long_run_is_preempted_for_a_short_job_and_the_event_says_why() -> None:
    long = runner("long", gpus(8), "a", left_s=10 * HOUR_S)
    made = decide(a_scene({"a": 8}, waiting=[waiter("short", gpus(8), left_s=600.0)], running=[long]), RULES)
    assert made.starts[JobId("short")].after == ("long",)
    reckoning = made.stops[JobId("long")]
    assert (reckoning.claim, reckoning.price, reckoning.policy) == ("length", 480.0, RULES.fingerprint)
    assert reckoning.sentence({JobId("short"): "short"}) == (
        "preempted for short, which has much less left; this costs 60 s of the time of its nodes"
    )


@pytest.mark.parametrize(
    ("why", "run"),
    [
        ("too_little_left", {"left_s": 1300.0}),
        ("just_started", {"for_s": 100.0}),
        ("just_started", {"for_s": 400.0, "preemptions": 2}),
        ("not_preemptible", {"preemptible": False}),
        ("not_seen_to_stop", {"stops_when_asked": False}),
        ("too_often", {"preemptions": 6, "for_s": HOUR_S}),
        ("due", {"due": True, "for_s": HOUR_S - 1}),
        ("goes_before", {"priority": 1}),
    ],
)
def test_a_run_is_left_alone(why: str, run: dict[str, float]) -> None:
    """Each stands in the reckoning of a choice that was made among others."""
    left_alone = runner("alone", gpus(1), "a", **({"left_s": 10 * HOUR_S} | run))
    other = runner("other", gpus(1), "b", left_s=10 * HOUR_S)
    waiting = [waiter("short", gpus(1), left_s=600.0)]
    assert stops(decide(a_scene({"a": 1}, waiting=waiting, running=[left_alone]), RULES)) == []
    made = decide(a_scene({"a": 1, "b": 1}, waiting=waiting, running=[left_alone, other]), RULES)
    assert stops(made) == ["other"]
    assert dict(made.stops[JobId("other")].excluded)[JobId("alone")] == why


@pytest.mark.parametrize(
    ("preempt", "stopped"), [("never", []), ("class", ["low"]), ("share", ["low"]), ("all", ["long", "low"])]
)
def test_for_whom_runs_are_preempted_is_a_setting(preempt: str, stopped: list[str]) -> None:
    running = [
        runner("low", gpus(1), "a", left_s=10 * HOUR_S, priority=-1),
        runner("long", gpus(1), "b", left_s=10 * HOUR_S),
    ]
    waiting = [waiter("x", gpus(1), left_s=600.0), waiter("y", gpus(1), left_s=700.0)]
    made = decide(a_scene({"a": 1, "b": 1}, waiting=waiting, running=running), Rules(preempt=preempt))  # type: ignore[arg-type]
    assert stops(made) == stopped


def test_the_brake_is_told() -> None:
    spent = Ledger(losses=(Loss(at_s=NOW_S - 60, job_id=JobId("x"), price=8 * 3600 * 0.02),))
    scene = a_scene(
        {"a": 8},
        waiting=[waiter("short", gpus(8), left_s=600.0)],
        running=[runner("long", gpus(8), "a", left_s=10 * HOUR_S)],
        ledger=spent,
    )
    made = decide(scene, RULES)
    assert (stops(made), code(made, "short")) == ([], "brake")
    later = replace(scene, now_s=NOW_S + HOUR_S)
    assert stops(decide(later, RULES)) == ["long"]


# -- due


def test_who_waited_a_day_goes_next_whatever_is_shorter() -> None:
    running = [runner("run", gpus(1), "a", left_s=HOUR_S)]
    waiting = [
        waiter("late", gpus(1), left_s=30 * DAY_S, waited_s=DAY_S),
        waiter("short", gpus(1), left_s=60.0),
    ]
    made = decide(a_scene({"a": 1}, waiting=waiting, running=running), RULES)
    assert made.starts[JobId("late")].after == ("run",)
    assert made.starts[JobId("late")].due
    assert made.stops[JobId("run")].claim == "due"


def test_the_budget_for_due_jobs_is_a_quarter_of_a_day() -> None:
    granted = Ledger(grants=(Grant(at_s=NOW_S - 60, gpu_s=DAY_S / 4 - 1),))
    waiting = [
        waiter("late", gpus(1), left_s=30 * DAY_S, waited_s=DAY_S),
        waiter("short", gpus(1), left_s=60.0),
    ]
    assert starts(decide(a_scene({"a": 1}, waiting=waiting, ledger=granted), RULES)) == ["short"]


def wanted(name: str, in_s: float, **fields: Any) -> Contender:
    """A job with half an hour to go, that is wanted *in_s* seconds from now."""
    return waiter(name, gpus(1), left_s=HOUR_S / 2, deadline_s=NOW_S + in_s, **fields)


def test_a_job_goes_next_once_there_is_only_just_time_enough_until_its_deadline() -> None:
    """S4: it needs 30 min, its start, and a quarter of that to spare; an hour before, length alone counts."""
    short = waiter("short", gpus(1), left_s=60.0)
    for in_s, first in ((2 * HOUR_S, "short"), (38 * 60.0, "soon"), (-60.0, "soon")):
        scene = a_scene({"a": 1}, waiting=[wanted("soon", in_s), short])
        assert starts(decide(scene, RULES)) == [first]


def test_of_two_with_a_deadline_the_nearer_one_goes_first() -> None:
    waiting = [wanted("later", 35 * 60.0), wanted("sooner", 20 * 60.0)]
    assert starts(decide(a_scene({"a": 1}, waiting=waiting), RULES)) == ["sooner"]


def test_a_deadline_counts_within_the_share_of_its_project() -> None:
    """Nobody takes from others by naming one: what it gets, a run of its own project gives."""
    waiting = [
        wanted("hasty", 60.0, project="vision"),
        waiter("owed", gpus(1), left_s=30 * HOUR_S, project="speech"),
    ]
    running = [runner(f"v{n}", gpus(1), "a", left_s=HOUR_S, project="vision") for n in range(4)]
    made = decide(a_scene({"a": 5}, waiting=waiting, running=running), Rules(lost_share=1.0))
    assert starts(made) == ["hasty", "owed"]
    assert len(made.stops) == 1


def test_a_run_is_left_alone_while_its_deadline_is_near() -> None:
    """As long as the hour that it was given for being due would have been over."""
    short = waiter("short", gpus(1), left_s=60.0)
    for in_s, stopped in ((11 * HOUR_S, []), (30 * HOUR_S, ["run"])):
        run = runner("run", gpus(1), "a", left_s=10 * HOUR_S, for_s=3 * HOUR_S, deadline_s=NOW_S + in_s)
        assert stops(decide(a_scene({"a": 1}, waiting=[short], running=[run]), RULES)) == stopped


def test_why_a_job_with_a_deadline_is_due_is_told() -> None:
    running = [runner("run", gpus(1), "a", left_s=HOUR_S, for_s=1.0)]
    for in_s, words in (
        (1200.0, "has to be done in 20 min, which is only just time enough, and goes next"),
        (-1200.0, "is late, 20 min after its deadline, and goes next"),
    ):
        made = decide(a_scene({"a": 1}, waiting=[wanted("soon", in_s)], running=running), RULES)
        assert code(made, "soon") == "due"
        assert says(made, "soon").startswith(words)


def test_a_due_job_that_cannot_start_has_a_place_that_only_a_short_loan_may_use() -> None:
    """It is not overtaken by whoever needs only a part of its nodes; who is gone by then may."""
    running = [runner("new", gpus(7), "a", left_s=10 * HOUR_S, for_s=1.0, preemptions=10)]
    waiting = [
        waiter("late", gpus(8), waited_s=DAY_S, attained=HOUR_S),
        waiter("ends before", gpus(1), left_s=600.0),
        waiter("ends after", gpus(1), left_s=2 * HOUR_S),
        waiter("unknown", gpus(1)),
    ]
    made = decide(a_scene({"a": 8}, waiting=waiting, running=running), RULES)
    assert starts(made) == ["ends before"]
    assert made.starts[JobId("ends before")].loan_of == "late"
    assert says(made, "late") == (
        "has waited 24.0 h and goes next; a place is kept for it, free in 30 min at the latest"
    )


def test_a_loan_is_given_back_at_once() -> None:
    lent = Tenure(allocation=on("a", 1), since_s=NOW_S - 1, loan_of=JobId("late"))
    running = [runner("lent", gpus(1), "a", left_s=600.0, tenure=lent)]
    late = waiter("late", gpus(8), waited_s=DAY_S, attained=HOUR_S)
    made = decide(a_scene({"a": 8}, waiting=[late], running=running), RULES)
    assert made.starts[JobId("late")].after == ("lent",)


# -- shares


def vision_and_speech(held_by_vision: int = 16, **speech: object) -> list:
    return [
        runner(f"v{n}", gpus(1), "a" if n < 8 else "b", left_s=HOUR_S, project="vision")
        for n in range(held_by_vision)
    ]


def test_a_project_gets_its_share_back_from_who_borrowed_it() -> None:
    """Length does not count between projects: the owner's jobs may be the longer ones."""
    waiting = [waiter(f"s{n}", gpus(1), left_s=30 * HOUR_S, project="speech") for n in range(12)]
    made = decide(
        a_scene({"a": 8, "b": 8}, waiting=waiting, running=vision_and_speech()), Rules(lost_share=1.0)
    )
    assert len(made.stops) == len(made.starts) == 8
    assert {reckoning.claim for reckoning in made.stops.values()} == {"share"}
    left_over = [name for name in made.reasons if name not in made.starts]
    assert {made.reasons[name].code for name in left_over} == {"over_share"}
    assert made.reasons[left_over[0]].message.startswith("speech holds 0 of its 8 GPUs")


def test_what_is_lent_and_not_given_back_yet_is_told() -> None:
    running = [replace(run, tenure=replace(run.tenure, since_s=NOW_S - 1)) for run in vision_and_speech()]
    made = decide(
        a_scene({"a": 8, "b": 8}, waiting=[waiter("s", gpus(1), project="speech")], running=running), RULES
    )
    assert (stops(made), code(made, "s")) == ([], "on_loan")


def test_a_limit_is_never_exceeded() -> None:
    shares = {"vision": Share(limit=2.0)}
    waiting = [waiter(f"v{n}", gpus(1), project="vision") for n in range(3)]
    made = decide(a_scene({"a": 8}, waiting=waiting, shares=shares), RULES)
    assert len(made.starts) == 2
    assert [reason.code for reason in made.reasons.values()] == ["quota"]


def test_a_job_that_must_not_be_preempted_needs_quota() -> None:
    waiting = [waiter(f"v{n}", gpus(1), project="vision", preemptible=False) for n in range(3)]
    assert not decide(a_scene({"a": 8}, waiting=waiting), RULES).starts
    made = decide(a_scene({"a": 8}, waiting=waiting, shares={"vision": Share(quota=2.0)}), RULES)
    assert len(made.starts) == 2
    assert [reason.code for reason in made.reasons.values()] == ["quota"]


def test_users_of_a_project_share_its_part() -> None:
    """Who submits a hundred jobs does not push out a colleague who submits one."""
    many = [waiter(f"ann{n}", gpus(1), left_s=60.0, project="p", user="ann") for n in range(20)]
    one = waiter("bob", gpus(1), left_s=HOUR_S, project="p", user="bob")
    assert "bob" in decide(a_scene({"a": 8}, waiting=[*many, one]), RULES).starts


def half_and_half(vision_left_s: float) -> list:
    """Each holds its half; `vision` with one long run."""
    speech = [runner(f"s{n}", gpus(1), "b", left_s=HOUR_S, project="speech") for n in range(8)]
    return [runner("long", gpus(8), "a", left_s=vision_left_s, project="vision"), *speech]


def test_the_short_jobs_of_a_project_do_not_make_a_borrower_of_its_long_run() -> None:
    """They would fill the share before it; but nobody has more than its share, so nothing was lent."""
    ours = [waiter(f"v{n}", gpus(1), left_s=60.0, project="vision", priority=0) for n in range(4)]
    theirs = [waiter(f"t{n}", gpus(8), left_s=HOUR_S, project="speech") for n in range(2)]
    scene = a_scene({"a": 8, "b": 8}, waiting=[*ours, *theirs], running=half_and_half(1.5 * HOUR_S))
    made = decide(scene, Rules(lost_share=1.0, worth=200.0))
    assert (starts(made), stops(made)) == ([], [])


def test_a_short_job_may_take_from_the_long_run_of_its_own_project() -> None:
    """Within the share least left goes first, whoever else has room to spare or none."""
    ours = [waiter("short", gpus(1), left_s=60.0, project="vision")]
    theirs = [waiter("t", gpus(8), left_s=HOUR_S, project="speech")]
    scene = a_scene({"a": 8, "b": 8}, waiting=[*ours, *theirs], running=half_and_half(30 * HOUR_S))
    made = decide(scene, Rules(lost_share=1.0))
    assert (starts(made), stops(made)) == (["short"], ["long"])
    assert made.stops[JobId("long")].claim == "length"


def test_who_has_more_than_its_user_may_takes_nothing_from_a_colleague() -> None:
    """However short; a third one, who has nothing yet, may."""
    ann = [runner(f"a{n}", gpus(1), "a", left_s=HOUR_S, project="p", user="ann") for n in range(4)]
    bob = [runner(f"b{n}", gpus(1), "a", left_s=90 * HOUR_S, project="p", user="bob") for n in range(4)]
    more = waiter("more", gpus(1), left_s=60.0, project="p", user="ann")
    rules = Rules(lost_share=1.0)
    assert stops(decide(a_scene({"a": 8}, waiting=[more], running=[*ann, *bob]), rules)) == []
    carl = replace(more, id=JobId("carl"), user="carl")
    assert len(stops(decide(a_scene({"a": 8}, waiting=[carl], running=[*ann, *bob]), rules))) == 1
    longer = replace(carl, seq=carl.seq + 1, told=Told(left_s=120.0, at_s=NOW_S))
    made = decide(a_scene({"a": 8}, waiting=[more, longer], running=[*ann, *bob]), rules)
    assert starts(made) == ["carl"], "that she was refused says nothing of him"


# -- what users of other schedulers complained of


def test_nobody_is_preempted_a_hundred_times() -> None:
    """At most 4 times, and twice for each hour that it ran."""
    for preemptions, hours, free_game in (
        (3, 0.5, True),
        (5, 0.5, False),
        (100, 40.0, False),
        (80, 40.0, True),
    ):
        run = runner("r", gpus(1), "a", left_s=99 * HOUR_S, for_s=1800.0, preemptions=preemptions)
        run = replace(run, ran_s=(hours - 0.5) * HOUR_S)
        made = decide(a_scene({"a": 1}, waiting=[waiter("w", gpus(1), left_s=60.0)], running=[run]), RULES)
        assert bool(made.stops) is free_game, (preemptions, hours)


def test_the_victim_does_not_get_the_room_of_the_preemptor() -> None:
    """The nodes are kept until it starts, though its victim waits again and would fit."""
    newcomer = waiter("new", gpus(8), left_s=600.0, kept=on("a", 8))
    victim = waiter("victim", gpus(8), left_s=1.0, preemptions=1)
    made = decide(a_scene({"a": 8}, waiting=[newcomer, victim]), RULES)
    assert starts(made) == ["new"]


def test_room_that_comes_free_in_parts_is_not_stolen() -> None:
    """One of two victims is gone: its half waits for the other half."""
    newcomer = waiter("new", gpus(8), left_s=600.0, kept=on("a", 8))
    still = runner("still", gpus(4), "a", tenure=Tenure(allocation=on("a", 4), since_s=0.0, stopping=True))
    thief = waiter("thief", gpus(4), left_s=1.0)
    made = decide(a_scene({"a": 8}, waiting=[newcomer, thief], running=[still]), RULES)
    assert starts(made) == []
    assert says(made, "new") == "starts when the runs that are preempted for it have saved and stopped"


def test_nobody_is_stopped_for_a_gang_that_then_fits_on_no_node() -> None:
    """Eight GPUs could be freed, four here and four there."""
    running = [
        runner(f"{node}{n}", gpus(1), node, left_s=99 * HOUR_S, preemptible=n < 4)
        for node in "ab"
        for n in range(8)
    ]
    made = decide(
        a_scene({"a": 8, "b": 8}, waiting=[waiter("w", gpus(8), left_s=60.0)], running=running), RULES
    )
    assert stops(made) == []


def test_two_small_jobs_cost_two_small_runs() -> None:
    running = [runner(f"r{n}", gpus(1), "ab"[n // 8], left_s=99 * HOUR_S) for n in range(11)]
    running += [runner("big", gpus(5), "b", left_s=120 * HOUR_S)]
    waiting = [waiter("x", gpus(1), left_s=60.0), waiter("y", gpus(1), left_s=60.0)]
    made = decide(a_scene({"a": 8, "b": 8}, waiting=waiting, running=running), RULES)
    assert len(made.stops) == 2
    assert "big" not in made.stops


def test_no_more_is_freed_than_was_asked_for() -> None:
    nodes = {f"n{n:02}": 8 for n in range(47)}
    running = [runner(f"r{name}{n}", gpus(4), name, left_s=99 * HOUR_S) for name in nodes for n in range(2)]
    made = decide(
        a_scene(nodes, waiting=[waiter("w", gpus(48), left_s=60.0)], running=running), Rules(lost_share=1.0)
    )
    assert len(made.stops) == 48 / 4
    assert ranks_of(made.starts[JobId("w")]) == 48


def test_reclaiming_goes_beyond_the_quota_up_to_the_share() -> None:
    waiting = [waiter(f"s{n}", gpus(1), left_s=HOUR_S, project="speech") for n in range(12)]
    shares = {"speech": Share(quota=4.0)}
    scene = a_scene({"a": 8, "b": 8}, waiting=waiting, running=vision_and_speech(), shares=shares)
    assert len(decide(scene, Rules(lost_share=1.0)).starts) == 10  # 4, and half of the other 12


def test_a_queue_for_one_kind_of_gpu_does_not_block_another() -> None:
    first = waiter("first", gpus(8), left_s=60.0, only=frozenset({NodeId("h100")}))
    second = waiter("second", gpus(8), left_s=DAY_S, only=frozenset({NodeId("a100")}))
    busy = runner("busy", gpus(8), "h100", for_s=1.0)
    made = decide(a_scene({"h100": 8, "a100": 8}, waiting=[first, second], running=[busy]), RULES)
    assert starts(made) == ["second"]


def test_the_newest_is_not_preempted_when_it_costs_more() -> None:
    """Its checkpoint is an hour old; the other loop saves when asked."""
    dear = runner("new", gpus(1), "a", left_s=10 * HOUR_S, for_s=HOUR_S, saves_when_asked=False)
    cheap = runner("old", gpus(1), "b", left_s=10 * HOUR_S, for_s=9 * HOUR_S)
    waiting = [waiter("w", gpus(1), left_s=60.0)]
    assert stops(decide(a_scene({"a": 1, "b": 1}, waiting=waiting, running=[dear, cheap]), RULES)) == ["old"]
    made = decide(a_scene({"a": 1}, waiting=waiting, running=[dear]), RULES)
    assert made.stops[JobId("new")].price == pytest.approx(HOUR_S - 50 + 60)


def test_a_share_is_not_claimed_where_its_job_cannot_run() -> None:
    """The owner's job fits into one rack only, which is full of runs that stay; nobody elsewhere is stopped."""
    rack = runner("stays", gpus(8), "rack", project="vision", preemptible=False)
    borrower = runner("borrower", gpus(8), "other", left_s=HOUR_S, project="vision")
    owner = waiter("owner", gpus(8), project="speech", only=frozenset({NodeId("rack")}))
    shares = {"vision": Share(quota=8.0)}
    scene = a_scene({"rack": 8, "other": 8}, waiting=[owner], running=[rack, borrower], shares=shares)
    assert stops(decide(scene, RULES)) == []


# -- the rest


def test_a_drained_node_gets_nothing() -> None:
    nodes = [Node(id=NodeId("a"), cpus=64, gpus=8, draining=True)]
    made = decide(a_scene(nodes, waiting=[waiter("w", gpus(1))]), RULES)
    assert starts(made) == []
    assert code(made, "w") == "does_not_fit_here"


def test_a_cluster_without_gpus_is_shared_by_cpus() -> None:
    gang = replace(gpus(2), gpus_per_rank=0.0)
    nodes = [Node(id=NodeId("a"), cpus=4)]
    waiting = [waiter(f"w{n}", gang, project=f"p{n % 2}") for n in range(4)]
    made = decide(a_scene(nodes, waiting=waiting), RULES)
    assert len(made.starts) == 2
    assert len({name[1] for name in made.starts}) == 2


def test_what_was_decided_stays_decided() -> None:
    """Carried out, and asked again at the same instant, it preempts nobody else."""
    waiting = [waiter(f"w{n}", gpus(2), left_s=600.0 * (1 + n)) for n in range(6)]
    running = [runner(f"r{n}", gpus(4), "ab"[n // 2], left_s=(5 + n) * HOUR_S) for n in range(4)]
    scene = a_scene({"a": 8, "b": 8}, waiting=waiting, running=running)
    first = decide(scene, Rules(lost_share=1.0))
    assert first.stops
    assert not decide(carried_out(scene, first), Rules(lost_share=1.0)).stops


def test_fifo_is_ordering_and_placement_to_the_letter() -> None:
    jobs = [a_job(spec=a_spec(ranks=ranks, gpus=1.0)) for ranks in (1, 4, 1, 9)]
    jobs[2] = replace(jobs[2], retry_at=NOON + timedelta(hours=1))
    queue, snapshot = order(jobs, now=NOON), Snapshot(nodes=(a_node("a", cpus=8, gpus=4),))
    made, today = fifo(queue, snapshot), plan(queue.ready, snapshot)
    assert {job_id: start.allocation for job_id, start in made.starts.items()} == today.start
    assert made.reasons == {**queue.paused, **today.blocked}
    assert not made.stops


def test_who_rests_is_the_same_as_in_the_order_of_today() -> None:
    pausing = a_job(retry_at=NOON + timedelta(minutes=1), queued_at=NOON)
    reason = rests(pausing, now=NOON)
    assert reason and reason.code == "retry_pause"
    assert rests(a_job(), now=NOON) is None


def test_allocations_name_each_node_once() -> None:
    made = decide(a_scene({"a": 8, "b": 8, "c": 4}, waiting=[waiter("w", gpus(18))]), RULES)
    assert made.starts[JobId("w")].allocation == Allocation(
        ranks=((NodeId("a"), 8), (NodeId("b"), 8), (NodeId("c"), 2))
    )
