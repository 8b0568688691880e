"""Nodes that lose runs are set aside, and a job keeps off the node on which it was lost (S6)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.core.bad_nodes import BY_ITSELF, NodeLoss, SetAside, blamed, to_set_aside
from scheduler.core.contender import Rules
from scheduler.core.events import RunEnded
from scheduler.core.model import (
    Allocation,
    Cause,
    Ending,
    Fence,
    Gang,
    JobId,
    Node,
    NodeId,
    Outcome,
    Reason,
    Snapshot,
    Stop,
    StopKind,
)
from scheduler.core.placement import plan
from scheduler.core.policy import decide
from scheduler.errors import JournalUnwritable, NodeNotFound
from scheduler.server.dispatch import method_of
from scheduler.testing.builders import a_job, a_node, a_spec
from scheduler.testing.clock import NOON
from scheduler.testing.contenders import a_scene, gpus, runner, waiter
from tests.unit.edge import SUBMIT, client_of, problem_of
from tests.unit.recording_registry import RecordingRegistry
from tests.unit.test_service import World, a_loop

LOST = Outcome(
    ending=Ending.LOST,
    cause=Cause.INFRASTRUCTURE,
    reason=Reason(code="killed", message="rank 0 was killed by signal 9"),
)
THREE = tuple(Node(id=NodeId(f"id-{name}"), name=name, cpus=1.0) for name in "abc")
NOW_S = 1_000_000.0


def a_loss(node: str, job: str, *, ago_s: float = 10.0) -> NodeLoss:
    return NodeLoss(node=node, job_id=JobId(job), job=job, at_s=NOW_S - ago_s, why="rank 0 was killed")


def set_aside(
    losses: list[NodeLoss], aside: dict[str, SetAside], num_nodes: int, share: float = 0.1
) -> list[str]:
    nodes = [a_node(f"n{number}") for number in range(num_nodes)]
    return [one.node for one in to_set_aside(losses, aside, nodes, share, NOW_S)]


# -- what speaks against a node


def test_two_different_jobs_within_an_hour_set_a_node_aside() -> None:
    """One job that is lost twice may be to blame itself; what was lost yesterday says nothing."""
    assert set_aside([a_loss("n0", "x"), a_loss("n0", "y")], {}, 2) == ["n0"]
    assert set_aside([a_loss("n0", "x"), a_loss("n0", "x")], {}, 2) == []
    assert set_aside([a_loss("n0", "x"), a_loss("n1", "y")], {}, 2) == []
    assert set_aside([a_loss("n0", "x", ago_s=3601.0), a_loss("n0", "y")], {}, 2) == []


def test_a_tenth_of_the_nodes_at_the_most_and_never_the_last() -> None:
    """Else one bug that ends all runs would take the whole cluster away."""
    losses = [a_loss(f"n{number}", job) for number in range(25) for job in "xy"]
    assert set_aside(losses, {}, 1) == []
    assert len(set_aside(losses, {}, 2)) == 1
    assert len(set_aside(losses, {}, 25)) == 2
    one = SetAside(node="n0", at_s=NOW_S, by=BY_ITSELF, why="")
    assert set_aside(losses, {"n0": one}, 10) == []
    assert len(set_aside(losses, {"n0": replace(one, by="ann")}, 10)) == 1, "what people do counts apart"
    assert set_aside(losses, {"n0": replace(one, by="ann")}, 2) == []
    assert set_aside(losses, {}, 25, share=0.0) == []


@given(
    st.integers(1, 30),
    st.lists(st.tuples(st.integers(0, 29), st.sampled_from("xyz"))),
    st.sampled_from([0.0, 0.1, 0.5, 1.0]),
)
def test_however_much_is_lost_one_node_is_left(
    num_nodes: int, lost: list[tuple[int, str]], share: float
) -> None:
    found = set_aside([a_loss(f"n{number}", job) for number, job in lost], {}, num_nodes, share)
    assert len(found) <= max(num_nodes * share, min(1, num_nodes - 1) if share else 0)
    assert len(found) < num_nodes
    assert all(len({job for number, job in lost if f"n{number}" == name}) >= 2 for name in found)


def test_a_loss_is_laid_to_a_node_only_where_that_is_known() -> None:
    job = a_job("running", allocation=Allocation(ranks=((NodeId("a"), 1), (NodeId("b"), 1))))
    alone = replace(job, allocation=Allocation(ranks=((NodeId("a"), 2),)))
    stop = Stop(kind=StopKind.PAUSE, by="ann", at=NOON)
    assert blamed(alone, LOST) == ("a",)
    assert blamed(job, LOST) == ()
    assert blamed(job, replace(LOST, failed_on=(NodeId("b"), NodeId("gone")))) == ("b",)
    assert blamed(replace(alone, stop=stop), LOST) == ()
    assert blamed(alone, replace(LOST, cause=Cause.PREEMPTION)) == ()
    assert blamed(alone, replace(LOST, ending=Ending.FAILED, cause=Cause.USER)) == ()


# -- what the policies make of it


def test_nothing_starts_on_a_node_that_is_set_aside_and_the_reason_says_so() -> None:
    bad = a_node("bad", cpus=64, gpus=8, set_aside=True)
    waiting = [waiter("big", gpus(8)), waiter("small", gpus(1))]
    made = decide(a_scene([bad, a_node("good", cpus=64, gpus=4)], waiting=waiting), Rules())
    assert list(made.starts) == ["small"]
    assert made.reasons[JobId("big")].code == "set_aside"
    assert "if node bad were not set aside; `scheduler nodes` says why" in made.reasons[JobId("big")].message


def test_who_only_waits_for_a_free_node_that_is_set_aside_is_told_so() -> None:
    nodes = [a_node("bad", cpus=64, gpus=8, set_aside=True), a_node("good", cpus=64, gpus=8)]
    busy = runner("busy", gpus(8), "good", left_s=10.0)
    waiting = [waiter("waits", gpus(4), left_s=3600.0)]
    assert (
        decide(a_scene(nodes, waiting=waiting, running=[busy]), Rules()).reasons[JobId("waits")].code
        == "set_aside"
    )
    also = runner("also", gpus(8), "bad", left_s=10.0)
    made = decide(a_scene(nodes, waiting=waiting, running=[busy, also]), Rules())
    assert made.reasons[JobId("waits")].code == "waiting_for_resources"
    assert not made.stops, "what runs on a node that is set aside goes on"


def test_under_fifo_as_well() -> None:
    nodes = (a_node("bad", cpus=4, set_aside=True), a_node("good", cpus=2))
    gangs = {"big": Gang(num_ranks=3), "first": Gang(num_ranks=2), "next": Gang()}
    queue = [a_job(id=name, spec=a_spec(name=name, resources=gang)) for name, gang in gangs.items()]
    made = plan(queue, Snapshot(nodes=nodes))
    assert set(made.start) == {"first"}
    assert {name: reason.code for name, reason in made.blocked.items()} == {
        "big": "set_aside",
        "next": "set_aside",
    }
    full = Snapshot(nodes=nodes, running=((Gang(num_ranks=4), Allocation(ranks=((NodeId("bad"), 4),))),))
    assert plan(queue, full).blocked[JobId("next")].code == "waiting_for_resources"


def test_runs_of_a_node_that_is_set_aside_are_not_preempted_for_who_cannot_have_it() -> None:
    nodes = [a_node("bad", cpus=64, gpus=8, set_aside=True)]
    running = [runner("long", gpus(8), "bad", left_s=100 * 3600.0)]
    assert not decide(
        a_scene(nodes, waiting=[waiter("w", gpus(8), left_s=60.0)], running=running), Rules()
    ).stops


# -- in the engine


async def a_world(**settings: Any) -> World:
    world = World(**{"max_losses": 9, "retry_backoff_s": 0.0} | settings)
    world.runner.nodes_now = THREE
    await world.life()
    return world


async def lose(world: World, job_id: str) -> str:
    """Its run is lost; on which node it was."""
    job = world.service.registry.get(JobId(job_id))
    assert job and job.allocation
    world.runner.end((job.id, Fence(job.attempt)), LOST)
    await world.settle()
    return job.allocation.ranks[0][0]


def where(world: World, job_id: str) -> str | None:
    job = world.service.registry.get(JobId(job_id))
    return job.allocation.ranks[0][0] if job and job.allocation else None


@pytest.mark.parametrize("policy", ["fair", "fifo"])
async def test_a_job_starts_elsewhere_than_where_it_was_lost(policy: str) -> None:
    """S6: else it goes back to the broken GPU until its budget is used up."""
    world = await a_world(policy=policy)
    job_id = await world.submit()
    await world.settle()
    first = await lose(world, job_id)
    second = where(world, job_id)
    assert second not in (None, first)
    third = await lose(world, job_id)
    assert third == second
    assert where(world, job_id) not in (None, third), "only where the newest run was lost counts"


@pytest.mark.parametrize("policy", ["fair", "fifo"])
async def test_it_returns_where_no_other_node_can_hold_it(policy: str) -> None:
    world = await a_world(policy=policy)
    world.runner.nodes_now = (replace(THREE[0], cpus=4.0), *THREE[1:])
    await world.settle()
    job_id = await world.submit(a_loop(resources=Gang(cpus_per_rank=4.0)))
    await world.settle()
    assert await lose(world, job_id) == "id-a"
    assert where(world, job_id) == "id-a"


@pytest.mark.parametrize("policy", ["fair", "fifo"])
async def test_it_waits_for_another_node_that_could_hold_it_and_says_so(policy: str) -> None:
    world = await a_world(policy=policy)
    jobs = [await world.submit() for _ in THREE]
    await world.settle()
    await lose(world, jobs[0])
    reason = world.service.views.waits(JobId(jobs[0]))
    assert reason is not None
    assert "not where it was lost" in reason.message
    other = world.service.registry.get(JobId(jobs[1]))
    assert other
    world.runner.end((other.id, Fence(1)), replace(LOST, ending=Ending.COMPLETED, cause=None))
    await world.settle()
    assert where(world, jobs[0]) is not None


async def test_after_an_outage_of_all_nodes_everybody_may_return() -> None:
    """Otherwise nobody could start where each job keeps off another node, and each pass would look at all of them."""
    world = World(max_losses=9, retry_backoff_s=0.0)
    world.runner.nodes_now = tuple(Node(id=NodeId(f"id-{n}"), name=f"n{n}", cpus=1.0) for n in range(20))
    await world.life()
    jobs = [await world.submit() for _ in range(20)]
    await world.settle()
    for job_id in jobs:
        world.runner.end((JobId(job_id), Fence(1)), LOST)
    await world.settle()
    assert all(where(world, job_id) for job_id in jobs)


async def lost_twice(world: World, num_nodes: int = 3) -> str:
    """Runs of two jobs are lost on one node; its name."""
    world.runner.nodes_now = tuple(replace(node, cpus=4.0) for node in THREE[:num_nodes])
    await world.settle()
    jobs = [await world.submit(a_loop(resources=Gang(cpus_per_rank=2.0))) for _ in range(2)]
    await world.settle()
    nodes = {await lose(world, job_id) for job_id in jobs}
    assert len(nodes) == 1
    return nodes.pop().removeprefix("id-")


async def test_of_an_only_node_nothing_is_said() -> None:
    """There is no choice to make: a laptop whose runs were killed twice is well."""
    world = await a_world()
    await lost_twice(world, num_nodes=1)
    assert world.service.problems() == []


async def test_a_node_that_lost_two_jobs_is_set_aside_across_restarts_until_a_person_lets_it_back() -> None:
    """S6: with the evidence, as long as it takes."""
    world = await a_world()
    bad = await lost_twice(world)
    for _ in range(2):
        found = {node.name: node for node in (await world.service.bad_nodes.nodes()).nodes}
        assert [name for name, node in found.items() if node.set_aside] == [bad]
        aside = found[bad].set_aside
        assert aside
        assert (aside.by, aside.why) == (
            "scheduler",
            "runs of 2 different jobs were lost on it within an hour",
        )
        assert [loss.why for loss in aside.losses] == ["rank 0 was killed by signal 9"] * 2
        assert [words for words in world.service.problems() if f"node {bad} is set aside" in words]
        jobs = [await world.submit() for _ in range(9)]
        await world.settle()
        assert f"id-{bad}" not in {where(world, job_id) for job_id in jobs}
        world.clock.advance(7200.0)
        await world.life()
        await world.settle()
    back = await world.service.bad_nodes.allow_node(f"id-{bad}", "ann")
    assert (back.name, back.set_aside, back.lost) == (bad, None, [])
    await world.settle()
    held = {
        node for job in world.service.registry.running() if job.allocation for node, _ in job.allocation.ranks
    }
    assert f"id-{bad}" in held
    await world.life()
    assert not world.service.bad_nodes.aside


async def test_what_runs_on_a_node_that_is_set_aside_goes_on() -> None:
    world = await a_world()
    job_id = await world.submit()
    await world.settle()
    there = where(world, job_id)
    assert there
    document = await world.service.bad_nodes.set_node_aside(there, "fan is loud", "ann")
    await world.settle()
    assert (where(world, job_id), await world.status(job_id)) == (there, "running")
    assert document.set_aside
    assert (document.set_aside.by, document.set_aside.why) == ("ann", "fan is loud")
    again = await world.service.bad_nodes.set_node_aside(there, "other", "bob")
    assert again.set_aside == document.set_aside
    assert not world.service.problems(), "what a person did needs no person's eye"


async def test_a_node_that_comes_back_by_its_name_is_still_set_aside() -> None:
    """Another Ray on the same machine has another id, and the same broken GPU."""
    world = await a_world()
    await world.service.bad_nodes.set_node_aside("a", "", "ann")
    world.runner.nodes_now = THREE[1:]
    await world.settle()
    away = {node.name: node for node in (await world.service.bad_nodes.nodes()).nodes}["a"]
    assert (away.node_id, away.set_aside is not None) == ("", True)
    world.runner.nodes_now = (replace(THREE[0], id=NodeId("new")), *THREE[1:])
    await world.settle()
    assert [node.id for node in world.service.cluster.nodes if node.set_aside] == ["new"]


async def test_a_node_that_nobody_knows_is_no_node() -> None:
    world = await a_world()
    for ask in (
        world.service.bad_nodes.allow_node("x", "ann"),
        world.service.bad_nodes.set_node_aside("x", "", "ann"),
    ):
        with pytest.raises(NodeNotFound, match="no node 'x' is known here"):
            await ask


async def test_nothing_is_set_aside_before_that_is_on_disk_and_it_is_tried_again() -> None:
    world = await a_world()
    held = Allocation(ranks=((NodeId("id-a"), 1),))
    bad_nodes = world.service.bad_nodes
    for _ in range(2):
        job = a_job("running", allocation=held)
        event = RunEnded(at=world.clock.now(), by="scheduler", fence=job.fence, outcome=LOST)
        bad_nodes.committed(job, replace(job, allocation=None), event)
    world.disk.fail_next = JournalUnwritable("the disk is full")
    await bad_nodes.once()
    assert (bad_nodes.aside, [node for node in world.service.cluster.nodes if node.set_aside]) == ({}, [])
    await bad_nodes.once()
    assert list(bad_nodes.aside) == ["a"]
    world.disk.fail_next = JournalUnwritable("the disk is full")
    with pytest.raises(JournalUnwritable):
        await bad_nodes.allow_node("a", "ann")
    assert list(bad_nodes.aside) == ["a"]


# -- as people ask


async def test_over_http() -> None:
    registry = RecordingRegistry()
    async with client_of(registry) as client:
        assert (await client.get(f"{SUBMIT}/nodes")).json() == {"nodes": []}
        aside = (await client.post(f"{SUBMIT}/nodes/10.0.0.7/set-aside", params={"why": "hot"})).json()
        assert (aside["name"], aside["set_aside"]["why"], aside["set_aside"]["by"]) == (
            "10.0.0.7",
            "hot",
            "api",
        )
        assert (await client.post(f"{SUBMIT}/nodes/10.0.0.7/allow")).json()["set_aside"] is None
        assert (
            problem_of(await client.post(f"{SUBMIT}/nodes/a/set-aside", params={"why": "x" * 501})).status
            == 422
        )


async def test_the_actor_finds_the_part_that_answers() -> None:
    world = await a_world()
    for name in ("nodes", "set_node_aside", "allow_node"):
        assert method_of(world.service, name) == getattr(world.service.bad_nodes, name)
