"""What holds for every decision, over scenes made up by Hypothesis."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.core.bin_packing import FreeSpace, Need, total
from scheduler.core.contender import HOUR_S, Contender, Rules, Scene, Share, Told
from scheduler.core.entitlements import Claim, by_usage, decayed, entitle
from scheduler.core.model import Gang, NodeId
from scheduler.core.node_labels import ACCELERATOR_TYPE
from scheduler.core.policy import decide
from scheduler.core.remaining import LEVELS, left
from scheduler.core.turns import AT_ONCE, OVER, order
from scheduler.testing.builders import a_node
from scheduler.testing.contenders import NOW_S, a_scene, carried_out, gpus, runner, waiter

RULES = [
    Rules(),
    Rules(lost_share=1.0),
    Rules(preempt="share"),
    Rules(preempt="class"),
    Rules(preempt="never"),
]
LEFT_S = st.none() | st.sampled_from([30.0, 600.0, 1000.0, 3600.0, 9000.0, 90_000.0])
GANGS = st.builds(
    lambda ranks, per_rank: Gang(num_ranks=ranks, gpus_per_rank=per_rank),
    st.sampled_from([1, 1, 2, 3, 4, 8, 12]),
    st.sampled_from([1.0, 1.0, 1.0, 2.0, 0.5]),
)


RARELY = st.sampled_from([True, False, False, False])
LABELS = st.sampled_from([{ACCELERATOR_TYPE: "H100", "zone": "a"}, {ACCELERATOR_TYPE: "A100"}, {}])
KINDS: list[dict[str, Any]] = [
    {},
    {},
    {},
    {"gpu": "H100"},
    {"gpu": ["A100", "H100"]},
    {"zone": "a", "gpu": "H100"},
]


@st.composite
def fields(draw: st.DrawFn) -> dict[str, Any]:
    return {
        "left_s": draw(LEFT_S),
        "attained": draw(st.sampled_from([0.0, 100.0, 5000.0])),
        "priority": draw(st.sampled_from([0, 0, 0, 1])),
        "project": draw(st.sampled_from(["", "", "vision", "speech"])),
        "user": draw(st.sampled_from(["ann", "ann", "bob"])),
        "preemptions": draw(st.sampled_from([0, 0, 1, 5])),
        "deadline_s": draw(st.sampled_from([None, None, None, NOW_S - 60, NOW_S + 600, NOW_S + 90_000])),
        "preemptible": draw(st.sampled_from([True, True, True, False])),
        "saves_when_asked": draw(st.booleans()),
    }


@st.composite
def scenes(draw: st.DrawFn) -> Scene:
    sizes = draw(st.lists(st.sampled_from([2, 4, 8]), min_size=1, max_size=4))
    nodes = [
        a_node(f"n{i}", cpus=64, gpus=size, draining=i > 0 and draw(RARELY), labels=draw(LABELS))
        for i, size in enumerate(sizes)
    ]
    space = FreeSpace({node.id: total(node) for node in nodes})
    running: list[Contender] = []
    for number, gang in enumerate(draw(st.lists(GANGS, max_size=8))):
        if placed := space.place(Need(gang)):
            for_s = draw(st.sampled_from([1.0, 200.0, 4000.0]))
            due = draw(st.sampled_from([False, False, True]))
            running.append(runner(f"r{number}", gang, placed, for_s=for_s, due=due, **draw(fields())))
    waiting: list[Contender] = []
    for number, gang in enumerate(draw(st.lists(GANGS, max_size=8))):
        only = draw(st.sampled_from([None, None, None, frozenset({nodes[0].id})]))
        gang = replace(gang, on=draw(st.sampled_from(KINDS)))
        waited_s = draw(st.sampled_from([10.0, 10.0, 90_000.0]))
        waiting.append(waiter(f"w{number}", gang, waited_s=waited_s, only=only, **draw(fields())))
    shares = {"vision": Share(weight=2.0, quota=3.0), "speech": Share(limit=4.0)}
    return a_scene(nodes, waiting=waiting, running=running, shares=draw(st.sampled_from([{}, shares])))


def anything(test: Any) -> Any:
    return settings(max_examples=60, deadline=None)(given(scenes(), st.sampled_from(RULES))(test))


@anything
def test_all_that_wait_start_or_have_a_reason_and_nobody_twice(scene: Scene, rules: Rules) -> None:
    made = decide(scene, rules)
    assert {*made.starts, *made.reasons} == {job.id for job in scene.waiting}
    assert len(made.starts) + len(made.reasons) == len(scene.waiting)
    for reason in made.reasons.values():
        assert reason.code
        assert reason.message
    assert set(made.stops) <= {job.id for job in scene.running}


@anything
def test_every_stop_names_a_start_on_the_nodes_it_frees(scene: Scene, rules: Rules) -> None:
    made = decide(scene, rules)
    held = {job.id: job.tenure.allocation for job in scene.running if job.tenure}
    for victim, reckoning in made.stops.items():
        start = made.starts[reckoning.newcomer]
        assert victim in start.after
        assert {node for node, _ in held[victim].ranks} & {node for node, _ in start.allocation.ranks}
    assert set(made.stops) == {victim for start in made.starts.values() for victim in start.after}


@anything
def test_who_starts_at_once_starts_on_what_is_free_already(scene: Scene, rules: Rules) -> None:
    """Whoever gets what a stop leaves over waits for the end of that run, like the one for whom it is stopped."""
    jobs = {job.id: job for job in scene.waiting}
    free = dict(scene.free)
    for job_id, start in decide(scene, rules).starts.items():
        for node, ranks in start.allocation.ranks if not start.after else ():
            need = jobs[job_id].need
            assert need.on(free[node]) >= ranks
            free[node] = need.off(free[node], ranks)


@anything
def test_no_node_holds_more_than_it_has(scene: Scene, rules: Rules) -> None:
    done = carried_out(scene, decide(scene, rules), rules)
    used: defaultdict[NodeId, float] = defaultdict(float)
    for job in done.running:
        for node, ranks in job.tenure.allocation.ranks if job.tenure else ():
            used[node] += ranks * job.need.gang.gpus_per_rank
    assert all(
        gpus_used <= next(n.gpus for n in scene.cluster.nodes if n.id == node)
        for node, gpus_used in used.items()
    )


@anything
def test_a_job_starts_whole_and_only_where_it_may(scene: Scene, rules: Rules) -> None:
    jobs = {job.id: job for job in scene.waiting}
    for job_id, start in decide(scene, rules).starts.items():
        job = jobs[job_id]
        assert sum(ranks for _, ranks in start.allocation.ranks) == job.need.fewest
        assert all(job.need.may_be_on(node) for node, _ in start.allocation.ranks)
        if scene.cluster.on_one(job.need) >= job.need.fewest:
            assert len(start.allocation.ranks) == 1


@anything
def test_a_victim_never_stands_before_the_winner(scene: Scene, rules: Rules) -> None:
    """By class, due, share and length; and among equals it has much more left."""
    made = decide(scene, rules)
    line = order(scene.waiting, scene, rules)
    turns = {turn.job.id: turn for turn in line.waiting}
    for job in scene.running:
        if job.id not in made.stops:
            continue
        winner = turns[made.stops[job.id].newcomer]
        assert winner.rank <= -job.priority
        assert rules.preempt != "never"
        assert rules.preempt != "class" or winner.rank < -job.priority
        own = winner.job.project == job.project
        if winner.due and (winner.user_over if own else winner.over) == OVER:
            borrowers = line.user_over if own else line.over
            assert job.id in borrowers, "a borrower took from one within its share"
        if own and winner.due and winner.rank == -job.priority:
            assert left(job, scene.now_s) >= rules.worth * winner.left


@anything
def test_only_who_holds_more_than_its_share_gives_some_back(scene: Scene, rules: Rules) -> None:
    """However many short jobs its project has, a run is no borrower while all runs of the project are within."""
    made = decide(scene, rules)
    line = order(scene.waiting, scene, rules)
    due = {turn.job.project for turn in line.waiting if turn.due == AT_ONCE}
    for job in scene.running:
        if job.id in made.stops and made.stops[job.id].claim == "share" and job.project not in due:
            part = line.parts[job.project]
            assert part.held > part.entitled + job.size / 2


@anything
def test_the_hour_never_costs_more_than_its_budget_and_one_gang(scene: Scene, rules: Rules) -> None:
    made = decide(scene, rules)
    by_newcomer: defaultdict[str, float] = defaultdict(float)
    for victim, reckoning in made.stops.items():
        by_newcomer[reckoning.newcomer] += reckoning.price_of(victim)
    if by_newcomer:
        budget = rules.lost_share * scene.cluster.size * HOUR_S
        assert sum(by_newcomer.values()) <= budget + max(by_newcomer.values())


@anything
def test_a_decision_settles(scene: Scene, rules: Rules) -> None:
    """Carried out and asked again at the same instant it soon preempts nobody more."""
    made = decide(scene, rules)
    for _ in range(3):
        if made.stops:
            scene = carried_out(scene, made, rules)
            made = decide(scene, rules)
    assert not made.stops, "it goes on and on"


@anything
def test_names_of_projects_do_not_matter(scene: Scene, rules: Rules) -> None:
    names = {"": "x", "vision": "a", "speech": "zz"}

    def renamed(job: Contender) -> Contender:
        return replace(job, project=names[job.project])

    other = replace(
        scene,
        waiting=tuple(map(renamed, scene.waiting)),
        running=tuple(map(renamed, scene.running)),
        shares={names[name]: share for name, share in scene.shares.items()},
    )
    one, two = decide(scene, rules), decide(other, rules)
    assert one.starts == two.starts
    assert set(one.stops) == set(two.stops)


@anything
def test_the_same_scene_gives_the_same_decision_in_whatever_order_it_is_told(
    scene: Scene, rules: Rules
) -> None:
    turned = replace(scene, waiting=scene.waiting[::-1], running=scene.running[::-1])
    one, two = decide(scene, rules), decide(turned, rules)
    assert one.starts == two.starts
    assert dict(one.reasons) == dict(two.reasons)


CLAIMS = st.dictionaries(
    st.sampled_from("abcdef"),
    st.builds(
        Claim,
        st.integers(0, 50),
        st.sampled_from([0.5, 1.0, 2.0, 4.0]),
        st.sampled_from([0.0, 0.0, 5.0, 20.0]),
    ),
    max_size=6,
)


@given(CLAIMS, st.sampled_from([0.0, 1.0, 16.0, 100.0]))
def test_entitlements_use_all_there_is_and_nobody_gets_more_than_it_asked(
    claims: dict[str, Claim], whole: float
) -> None:
    parts = entitle(claims, whole)
    asked = sum(claim.demand for claim in claims.values())
    assert sum(parts.values()) == pytest.approx(min(whole, asked))
    assert all(-1e-9 <= parts[name] <= claims[name].demand + 1e-9 for name in claims)


@given(CLAIMS, st.sampled_from([1.0, 16.0, 100.0]))
def test_more_weight_never_gives_less(claims: dict[str, Claim], whole: float) -> None:
    parts = entitle(claims, whole)
    for name, claim in claims.items():
        more = entitle({**claims, name: replace(claim, weight=claim.weight * 2)}, whole)
        assert more[name] >= parts[name] - 1e-9


@given(CLAIMS, st.sampled_from([16.0, 100.0]))
def test_a_quota_is_guaranteed_while_quotas_fit(claims: dict[str, Claim], whole: float) -> None:
    if sum(min(claim.quota, claim.demand) for claim in claims.values()) <= whole:
        parts = entitle(claims, whole)
        assert all(parts[name] >= min(claim.quota, claim.demand) - 1e-9 for name, claim in claims.items())


@given(st.dictionaries(st.sampled_from("abc"), st.floats(0, 1e9), min_size=1))
def test_usage_moves_a_weight_at_most_fourfold(usage: dict[str, float]) -> None:
    moved = by_usage(dict.fromkeys("abc", 2.0), usage)
    assert all(0.5 <= weight <= 8.0 for weight in moved.values())
    if usage.get("a", 0.0) < usage.get("b", 0.0):
        assert moved["a"] >= moved["b"]


def test_usage_decays_by_half_in_a_day_and_settles_where_use_is_steady() -> None:
    assert decayed(100.0, 0.0, 86_400.0, 86_400.0) == pytest.approx(50.0)
    once = decayed(0.0, 8.0, 86_400.0, 86_400.0)
    halves = decayed(decayed(0.0, 8.0, 43_200.0, 86_400.0), 8.0, 43_200.0, 86_400.0)
    assert once == pytest.approx(halves)


@given(st.floats(0, 1e7), st.floats(0, 1e7), st.floats(0, 1e6))
def test_progress_never_makes_the_place_of_a_job_that_tells_worse(
    left_s: float, later_s: float, more_s: float
) -> None:
    run = replace(runner("r", gpus(4), "a"), told=Told(left_s=left_s, at_s=NOW_S))
    assert left(run, NOW_S + later_s + more_s) <= left(run, NOW_S + later_s)


@given(st.floats(0, 1e6))
def test_an_unknown_job_has_about_as_much_left_as_it_has_had(attained: float) -> None:
    """And within a level its place stays, however it gets on."""
    has = left(waiter("w", gpus(1), attained=attained), NOW_S)
    assert has in LEVELS
    assert max(60.0, attained) <= has <= max(60.0, 4 * attained)
