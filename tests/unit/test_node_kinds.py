"""Jobs that ask for a kind of node get one, wait for no other, and stand in nobody's way elsewhere."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.cli.policy import outline, read_trace
from scheduler.client.spec_file import load_spec
from scheduler.core.contender import Rules
from scheduler.core.model import SPEC, Gang, JobId, JobSpec, Node, NodeId, Snapshot
from scheduler.core.node_labels import ACCELERATOR_TYPE, matches
from scheduler.core.outlook import play
from scheduler.core.placement import feasible, fit, plan
from scheduler.core.policy import decide
from scheduler.core.replay import Replay
from scheduler.core.what_if import preempting, what_if
from scheduler.engine.spec_validation import SpecValidator
from scheduler.errors import InvalidSpec
from scheduler.server.actor import node_types
from scheduler.settings import NodeType, Settings
from scheduler.testing.builders import a_job, a_node, a_spec
from scheduler.testing.contenders import a_scene, gpus, on, runner, waiter
from tests.unit.test_service import World, a_loop

HOUR_S = 3600.0
RULES = Rules()


def of_kind(name: str, kind: str, *, gpus: float = 8.0, **fields: Any) -> Node:
    return a_node(name, cpus=64, gpus=gpus, labels={ACCELERATOR_TYPE: kind}, **fields)


H100, A100, OTHER_A100 = of_kind("h", "H100"), of_kind("a", "A100"), of_kind("b", "A100")


def wants(kind: str | list[str], ranks: int = 8) -> Gang:
    return replace(gpus(ranks), on={"gpu": kind})


# -- what may be written


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({"gpu": "H100"}, {"gpu": "H100"}),
        ({"gpu": ["H100"]}, {"gpu": "H100"}),
        ({"gpu": ["H100", "A100", "H100"]}, {"gpu": ["A100", "H100"]}),
        ({}, {}),
    ],
)
def test_equal_wishes_are_equal_however_they_were_written(given: Any, kept: Any) -> None:
    """Else the same shape would be decided twice, and a forecast would know no run like it."""
    gang = SPEC.validate_python({"loop": "sft", "resources": {"on": given}}).resources
    assert gang.on == kept
    assert (gang, hash(gang)) == (Gang(on=kept), hash(Gang(on=kept)))


def test_on_is_a_word_in_yaml_too(tmp_path: Path) -> None:
    """YAML 1.1 takes a plain `on` for true."""
    path = tmp_path / "job.yaml"
    path.write_text("loop: sft\nresources:\n  on: {gpu: H100}\n")
    assert load_spec(path).resources == Gang(on={"gpu": "H100"})


def test_a_spec_that_asks_for_no_label_says_nothing_of_them() -> None:
    """A server or a run of an earlier release does not know the field."""
    assert "on" not in SPEC.dump_python(JobSpec(loop="sft"), mode="json")["resources"]
    before = pickle.loads(pickle.dumps(Gang(num_ranks=3)))
    before.__setstate__([3, None, None, 1.0, 0.0])
    assert before == Gang(num_ranks=3)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"gpu": 3}, "gpu: 3 is no value of a label"),
        ({"gpu": []}, "gpu: the list is empty"),
        ({"gpu": ["H100", None]}, "gpu: None is no value of a label"),
        ({"gpu": "x" * 64}, "text of 1 to 63 characters"),
        ({"gpu": ""}, "text of 1 to 63 characters"),
        ("H100", "names no labels; write them as {gpu: H100}"),
    ],
)
def test_what_is_no_label_is_refused_in_words(given: Any, says: str) -> None:
    with pytest.raises(ValueError, match=r"resources\.on") as refused:
        SPEC.validate_python({"loop": "sft", "resources": {"on": given}})
    assert says in str(refused.value)


# -- where it may be


def test_a_job_that_could_never_run_is_told_what_there_is() -> None:
    reason = feasible(wants("H100"), [A100, OTHER_A100])
    assert reason is not None
    assert (reason.code, reason.message) == (
        "does_not_fit_here",
        "needs 8 ranks at once with 1 CPU and 1 GPU each on gpu=H100; no node has gpu=H100; there are 2 with gpu=A100",
    )
    assert feasible(wants(["H100", "A100"]), [A100]) is None
    assert "only 8 of them fit on the nodes with gpu=H100" in str(feasible(wants("H100", 9), [H100, A100]))
    assert "without gpu" in str(feasible(wants("H100"), [a_node("plain", gpus=8)]))


def test_a_label_of_any_name_is_matched_as_it_is() -> None:
    nodes = (a_node("x", labels={"zone": "x"}), a_node("y", labels={"zone": "y", "disk": "fast"}))
    assert fit(Gang(on={"zone": "y"}), Snapshot(nodes=nodes)) == on("y", 1)
    assert fit(Gang(on={"zone": ["x", "y"], "disk": "fast"}), Snapshot(nodes=nodes)) == on("y", 1)
    assert fit(Gang(on={"zone": "x", "disk": "fast"}), Snapshot(nodes=nodes)) is None


# -- under `fifo`


def test_under_fifo_the_first_of_one_kind_keeps_no_place_on_another() -> None:
    queue = [
        a_job(id=name, spec=a_spec(name=name, resources=gang))
        for name, gang in {
            "runs": wants("H100"),
            "waits": wants("H100"),
            "other": wants("A100"),
            "last": wants(["H100", "A100"]),
        }.items()
    ]
    made = plan(queue, Snapshot(nodes=(H100, A100)))
    assert made.start == {JobId("runs"): on("h", 8), JobId("other"): on("a", 8)}
    assert "0 of 8 GPUs free" in made.blocked[JobId("waits")].message
    assert "0 of 16 GPUs free" in made.blocked[JobId("last")].message


def test_under_fifo_a_place_is_kept_on_nodes_of_the_right_kind() -> None:
    """Else a big job of one kind would be starved by small ones that go anywhere."""
    half = replace(gpus(4), on={})
    held = Snapshot(nodes=(H100, A100), running=((half, on("h", 4)),))
    queue = [
        a_job(id="big", spec=a_spec(resources=wants("H100"))),
        a_job(id="small", spec=a_spec(resources=wants("H100", 1))),
    ]
    made = plan(queue, held)
    assert not made.start
    assert made.blocked[JobId("small")].code == "behind"


# -- under `fair`


def test_under_fair_each_starts_on_its_kind_alone() -> None:
    waiting = [
        waiter("h1", wants("H100"), left_s=60.0),
        waiter("h2", wants("H100"), left_s=90.0),
        waiter("a1", wants("A100"), left_s=HOUR_S),
    ]
    made = decide(a_scene([H100, A100], waiting=waiting), RULES)
    assert {job_id: start.allocation for job_id, start in made.starts.items()} == {
        "h1": on("h", 8),
        "a1": on("a", 8),
    }


def test_under_fair_a_run_of_another_kind_is_never_preempted() -> None:
    running = [
        runner("on-a", gpus(8), "a", left_s=100 * HOUR_S),
        runner("on-h", gpus(8), "h", left_s=10 * HOUR_S),
    ]
    made = decide(
        a_scene([H100, A100], waiting=[waiter("w", wants("H100"), left_s=60.0)], running=running), RULES
    )
    assert list(made.stops) == ["on-h"]
    alone = decide(
        a_scene(
            [H100, A100],
            waiting=[waiter("w", wants("H100"), left_s=60.0)],
            running=[running[0], runner("stays", gpus(8), "h", preemptible=False)],
        ),
        RULES,
    )
    assert not alone.stops


def test_several_nodes_of_a_kind_are_cleared_although_there_are_larger_ones_of_another() -> None:
    """The largest node of all says nothing of how many ranks go on a node of this kind."""
    large = of_kind("large", "H100", gpus=16)
    running = [runner(name, gpus(8), name, left_s=10 * HOUR_S) for name in "ab"]
    scene = a_scene(
        [large, A100, OTHER_A100], waiting=[waiter("w", wants("A100", 16), left_s=60.0)], running=running
    )
    assert sorted(decide(scene, RULES).stops) == ["a", "b"]
    due = a_scene(
        [large, A100, OTHER_A100],
        waiting=[waiter("w", wants("A100", 16), waited_s=30 * HOUR_S)],
        running=[replace(run, preemptible=False) for run in running],
    )
    assert "a place is kept for it" in decide(due, RULES).reasons[JobId("w")].message


def test_a_due_job_keeps_no_place_on_another_kind() -> None:
    busy = runner("busy", gpus(8), "h", left_s=HOUR_S, preemptible=False)
    waiting = [waiter("due", wants("H100"), waited_s=30 * HOUR_S), waiter("new", gpus(8))]
    made = decide(a_scene([H100, A100], waiting=waiting, running=[busy]), RULES)
    assert {name: start.allocation for name, start in made.starts.items()} == {"new": on("a", 8)}
    assert made.reasons[JobId("due")].code == "due"


def test_who_waits_for_another_kind_is_not_ahead() -> None:
    busy = [runner(name, gpus(8), name, for_s=1.0) for name in "ha"]
    waiting = [
        waiter("h1", wants("H100"), left_s=60.0),
        waiter("h2", wants("H100"), left_s=90.0),
        waiter("a1", wants("A100"), left_s=HOUR_S),
    ]
    made = decide(a_scene([H100, A100], waiting=waiting, running=busy), RULES)
    assert made.reasons[JobId("h2")].message.startswith("behind 1 job")
    assert made.reasons[JobId("a1")].code == "waiting_for_resources"
    assert "0 of 8 GPUs are free" in made.reasons[JobId("a1")].message


def test_a_kind_that_there_is_not_is_said_so_and_holds_nobody_up() -> None:
    waiting = [
        waiter("none", wants("B200"), left_s=60.0),
        waiter("some", gpus(16), left_s=HOUR_S),
        waiter("next", gpus(16), left_s=HOUR_S),
    ]
    made = decide(a_scene([H100, A100], waiting=waiting), RULES)
    assert list(made.starts) == ["some"]
    assert "no node has gpu=B200; there are 1 with gpu=" in made.reasons[JobId("none")].message.replace(
        "is 1", "are 1"
    )
    assert made.reasons[JobId("next")].code == "waiting_for_resources"


def test_an_outlook_waits_for_the_right_kind() -> None:
    running = [
        runner("on-h", gpus(8), "h", left_s=HOUR_S, preemptible=False),
        runner("on-a", gpus(8), "a", left_s=600.0, preemptible=False),
    ]
    scene = a_scene([H100, A100], waiting=[waiter("w", wants("H100"), left_s=600.0)], running=running)
    after_s = play(scene, RULES, lambda _: None).starts[JobId("w")].after_s
    assert after_s is not None
    assert after_s >= HOUR_S


def test_a_what_if_preempts_on_the_right_kind() -> None:
    running = [runner("on-h", gpus(8), "h", left_s=60.0), runner("on-a", gpus(8), "a", left_s=60.0)]
    scene = a_scene([H100, A100], waiting=[waiter("w", wants("A100"), left_s=HOUR_S)], running=running)
    found = what_if(scene, preempting(scene, JobId("w")), RULES, lambda _: None, job_id=JobId("w"))
    assert [run.job_id for run in found.preempted] == ["on-a"]


# -- whatever the cluster is

KINDS: list[dict[str, Any]] = [
    {},
    {"gpu": "H100"},
    {"gpu": ["A100", "H100"]},
    {"zone": "x"},
    {"zone": "y", "gpu": "A100"},
]
NODES = st.lists(
    st.builds(
        lambda gpus, draining, kind, zone: (gpus, draining, {ACCELERATOR_TYPE: kind, "zone": zone}),
        st.sampled_from([1, 2, 4]),
        st.sampled_from([False, False, True]),
        st.sampled_from(["H100", "A100"]),
        st.sampled_from(["x", "y"]),
    ),
    min_size=1,
    max_size=5,
)
GANGS = st.lists(
    st.builds(lambda ranks, kind: replace(gpus(ranks), on=kind), st.integers(1, 6), st.sampled_from(KINDS)),
    max_size=8,
)


@given(NODES, GANGS)
def test_nobody_starts_under_fifo_on_a_node_of_another_kind_or_one_that_is_drained(
    drawn: Any, gangs: list[Gang]
) -> None:
    nodes = {
        NodeId(f"n{number}"): a_node(f"n{number}", cpus=64, gpus=count, draining=draining, labels=labels)
        for number, (count, draining, labels) in enumerate(drawn)
    }
    queue = [a_job(id=f"job-{number}", spec=a_spec(resources=gang)) for number, gang in enumerate(gangs)]
    made = plan(queue, Snapshot(nodes=tuple(nodes.values())))
    wanted = {job.id: job.spec.resources for job in queue}
    for job_id, allocation in made.start.items():
        there = [nodes[node] for node in allocation.node_of_each_rank]
        assert all(matches(wanted[job_id], node) and not node.draining for node in there)
    for node in nodes.values():
        assert (
            sum(where == node.id for one in made.start.values() for where in one.node_of_each_rank)
            <= node.gpus
        )
    assert {*made.start, *made.blocked} == wanted.keys()


# -- from a submit to the nodes of the run


@pytest.mark.parametrize("policy", ["fair", "fifo"])
async def test_a_job_runs_on_the_kind_that_it_asks_for(policy: str) -> None:
    """S6: whichever of the policies is in charge, and beside a queue for another kind."""
    world = World(policy=policy)
    small = [replace(node, cpus=1.0) for node in (A100, H100)]
    world.runner.nodes_now = tuple(small)
    await world.life()
    first, second = [await world.submit(a_loop(resources=Gang(on={"gpu": "H100"}))) for _ in range(2)]
    other = await world.submit(a_loop(resources=Gang(on={"gpu": ["A100", "B200"]})))
    await world.settle()
    jobs = {one: world.service.registry.get(JobId(one)) for one in (first, second, other)}
    assert {one: job.allocation for one, job in jobs.items() if job} == {
        first: on("h", 1),
        second: None,
        other: on("a", 1),
    }
    reason = world.service.views.waits(JobId(second))
    assert reason is not None
    assert (reason.code, "on gpu=H100" in reason.message) == ("waiting_for_resources", True)


async def test_a_kind_that_the_cluster_has_not_is_refused_at_the_door() -> None:
    world = World()
    world.runner.nodes_now = (A100,)
    await world.life()
    with pytest.raises(InvalidSpec, match="no node has gpu=H100; there is 1 with gpu=A100"):
        await world.submit(a_loop(resources=Gang(on={"gpu": "H100"})))


def test_a_kind_that_an_autoscaler_may_add_is_waited_for() -> None:
    kinds = {"big": NodeType(cpus=8, gpus=8, labels={ACCELERATOR_TYPE: "H100"})}
    door = SpecValidator(["tests.loops:*"], [], node_types(Settings(node_types=kinds)))
    assert door.check(a_loop(resources=wants("H100")), [A100]).spec.resources == wants("H100")


def test_a_trace_may_name_kinds(tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text("submit_s,duration_s,num_gpus,project,gpu\n0,60,8,,H100\n0,60,8,,H100\n0,60,8,,A100\n")
    entries, cluster = list(read_trace(str(trace))), outline("1x8:H100,1x8:A100")
    for rules in (Rules(), None):
        log = Replay(entries, cluster, rules).play().log
        starts = [
            (line.at_s, line.number, line.allocation.ranks[0][0]) for line in log if line.what == "start"
        ]
        assert starts == [(0.0, 0, "node-0000"), (0.0, 2, "node-0001"), (60.0, 1, "node-0000")]
