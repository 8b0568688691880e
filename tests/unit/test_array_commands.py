"""Job arrays in the engine: submitted all at once, at most so many at once, seen and cancelled as a group (S8)."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from scheduler.api.arrays import ArrayDocument, SubmitArray
from scheduler.core.commands import JobAction
from scheduler.core.model import Fence, JobId, Node, NodeId, Status
from scheduler.errors import ArrayNotFound, InvalidSpec, JournalUnwritable, NotAllowed
from scheduler.ports import JobQuery
from scheduler.testing.fake_runner import COMPLETED, failed
from tests.unit.test_service import World, a_loop

SEEDS = {"seed": [1, 2, 3, 4, 5]}


@pytest.fixture(params=["fair", "fifo"])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    world = World(policy=request.param)
    world.runner.nodes_now = (Node(id=NodeId("node-1"), name="node-1", cpus=16.0),)
    await world.life()
    yield world


def wanted(parameters: dict[str, list[Any]] = SEEDS, **fields: Any) -> SubmitArray:
    spec = fields.pop("spec", a_loop(name="sweep", config={"steps": 5}, user="ann"))
    return SubmitArray(**{"spec": spec, "parameters": parameters, "at_most": 2, **fields})


async def submit(world: World, asked: SubmitArray | None = None, key: str | None = None) -> ArrayDocument:
    array, _ = await world.service.arrays.submit_array(str(uuid.uuid4()), asked or wanted(), key)
    return array


def statuses(array: ArrayDocument) -> list[str]:
    return [str(job.status) for job in array.jobs]


async def end(world: World, job_id: str, **result: Any) -> None:
    world.runner.end((JobId(job_id), Fence(1)), replace(COMPLETED, **result))
    await world.settle()


async def test_at_most_so_many_run_until_all_are_completed(world: World) -> None:
    """S8, under both policies: there is room for sixteen."""
    array = await submit(world)
    while not array.has_ended:
        await world.settle()
        array = await world.service.arrays.array(array.array_id)
        running = [job for job in array.jobs if job.status is Status.RUNNING]
        assert len(running) == min(2, 5 - array.counts.get(Status.COMPLETED, 0))
        waiting = [job for job in array.jobs if job.status is Status.QUEUED]
        assert {job.reason for job in waiting} <= {
            "2 of 2 jobs of this array run; it may start when one of them ends"
        }
        if running:
            await end(world, running[0].job_id)
        array = await world.service.arrays.array(array.array_id)
    assert array.counts == {Status.COMPLETED: 5}
    assert [job.values for job in array.jobs] == [{"seed": seed} for seed in range(1, 6)]
    assert array.message == "5 jobs, 2 at once at most: 5 completed"


async def test_a_restart_knows_the_array_and_its_limit(world: World) -> None:
    """All that is kept of it is its jobs, so nothing else can be lost."""
    array = await submit(world)
    await world.settle()
    before = await world.service.arrays.array(array.array_id)
    await world.life()
    await world.settle()
    after = await world.service.arrays.array(array.array_id)
    assert statuses(after) == statuses(before) == ["running"] * 2 + ["queued"] * 3
    assert (after.name, after.user, after.created_at) == ("sweep", "ann", before.created_at)


async def test_jobs_that_memory_has_forgotten_are_still_there(world: World) -> None:
    world.settings = world.settings.model_copy(update={"finished_in_memory": 0})
    await world.life()
    array = await submit(world, wanted({"seed": [1, 2]}))
    await world.settle()
    for job in array.jobs:
        await end(world, job.job_id)
    assert statuses(await world.service.arrays.array(array.array_id)) == ["completed"] * 2


async def test_all_are_accepted_in_one_commit_or_none(world: World) -> None:
    writes = world.disk.num_writes
    await submit(world)
    assert world.disk.num_writes == writes + 1
    world.disk.fail_next = JournalUnwritable("the disk is full")
    with pytest.raises(JournalUnwritable):
        await submit(world)
    assert len(world.service.registry.active()) == 5


async def test_one_that_cannot_run_refuses_all_and_is_named_once(world: World) -> None:
    """A thousand jobs with one mistake are one problem."""
    asked = wanted(spec=a_loop(resources={"cpus_per_rank": 100}))
    with pytest.raises(InvalidSpec) as refused:
        await submit(world, asked)
    assert [one.field for one in refused.value.problems] == ["spec.resources"]
    some = wanted({"x": [1.0, float("inf"), 2.0, float("nan")]}, spec=a_loop()).model_copy()
    with pytest.raises(InvalidSpec) as refused:
        await submit(world, some)
    assert [one.field for one in refused.value.problems] == ["spec.config.x", "spec.config.x"]
    assert refused.value.problems[0].message.endswith("(job 2 of 4)")
    assert world.service.registry.active() == []


async def test_a_key_makes_one_array_also_after_a_restart_and_at_once(world: World) -> None:
    """L1: whoever got no answer asks again."""
    ids = [str(uuid.uuid4()) for _ in range(4)]
    made = await asyncio.gather(*(world.service.arrays.submit_array(one, wanted(), "key") for one in ids))
    assert len({array.array_id for array, _ in made}) == 1
    assert sorted(is_new for _, is_new in made) == [False] * 3 + [True]
    await world.life()
    assert (await submit(world, key="key")).array_id == made[0][0].array_id
    again, is_new = await world.service.arrays.submit_array(made[0][0].array_id, wanted(), None)
    assert (again.array_id, is_new) == (made[0][0].array_id, False)
    assert len(world.service.registry.active()) == 5


async def test_a_key_of_a_job_makes_no_array(world: World) -> None:
    await world.submit(a_loop(user="ann"), "key")
    with pytest.raises(NotAllowed, match="of no array; give another key"):
        await submit(world, key="key")


async def test_a_cancel_ends_what_has_not_ended_and_nothing_starts_instead(world: World) -> None:
    array = await submit(world)
    await world.settle()
    await end(world, array.jobs[0].job_id)
    cancelled = await world.service.arrays.cancel_array(array.array_id, "ann")
    assert statuses(cancelled)[0] == "completed"
    await world.settle()
    assert statuses(await world.service.arrays.array(array.array_id)) == ["completed"] + ["cancelled"] * 4
    again = await world.service.arrays.cancel_array(array.array_id, "ann")
    assert (again.has_ended, again.counts) == (True, {Status.COMPLETED: 1, Status.CANCELLED: 4})


async def test_the_best_job_is_that_with_the_best_newest_metric(world: World) -> None:
    """Of what runs, what it says now; of what completed, its result; what failed is no candidate."""
    array = await submit(world, wanted(at_most=None, metric="score", metric_is="max"))
    await world.settle()
    ids = [job.job_id for job in array.jobs]
    await end(world, ids[0], result={"metrics": {"score": 5}}, progress={"score": 99})
    await end(world, ids[1], progress={"score": 7.5})
    world.runner.end((JobId(ids[2]), Fence(1)), replace(failed("boom"), progress={"score": 50}))
    await world.settle()
    world.runner.tells[JobId(ids[3]), Fence(1)] = {"progress": {"score": float("nan")}}
    world.runner.tells[JobId(ids[4]), Fence(1)] = {"progress": {"score": 7.0}}
    await world.service.monitor.once()
    found = await world.service.arrays.array(array.array_id)
    assert [job.metric for job in found.jobs] == [5.0, 7.5, 50.0, None, 7.0]
    assert found.best == 2
    assert found.message.endswith("; best score so far: 7.5, of job 2")
    world.runner.tells[JobId(ids[4]), Fence(1)] = {"progress": {"score": 8.0}}
    await world.service.monitor.once()
    assert (await world.service.arrays.array(array.array_id)).best == 5


async def test_a_child_is_an_ordinary_job(world: World) -> None:
    """Held, resumed and restarted by itself; a held one leaves its turn to the next."""
    array = await submit(world)
    ids = [job.job_id for job in array.jobs]
    await world.service.commands.act(ids[0], JobAction.PAUSE, "ann")
    await world.settle()
    assert statuses(await world.service.arrays.array(array.array_id)) == [
        *("queued", "running", "running"),
        *("queued", "queued"),
    ]
    await world.service.commands.act(ids[1], JobAction.CANCEL, "ann")
    await world.settle()
    assert (await world.status(ids[1]), await world.status(ids[3])) == ("cancelled", "running")
    await world.service.commands.act(ids[1], JobAction.FORCE_START, "ann")
    await world.settle()
    counts = (await world.service.arrays.array(array.array_id)).counts
    assert counts == {Status.RUNNING: 2, Status.QUEUED: 3}


async def test_its_jobs_are_found_by_its_id(world: World) -> None:
    array = await submit(world)
    await world.submit()
    page = await world.service.queries.jobs(JobQuery(search=f"array={array.array_id}"))
    assert {job.job_id for job in page.jobs} == {job.job_id for job in array.jobs}


async def test_the_forecast_of_a_child_follows_the_limit(world: World) -> None:
    """S10: it does not start now, though there is room."""
    array = await submit(world, wanted(at_most=1, spec=a_loop(max_runtime_s=60.0)))
    await world.settle()
    forecast = (await world.service.queries.explain(array.jobs[2].job_id)).forecast
    assert forecast and forecast.starts_in_s == pytest.approx(120, abs=10)


async def test_nobody_puts_a_job_into_an_array_by_hand(world: World) -> None:
    """As when the spec of a child is submitted again: the array would have one job too many."""
    array = await submit(world)
    spec = (await world.service.queries.status(array.jobs[0].job_id)).spec
    with pytest.raises(InvalidSpec, match="array: is made by the scheduler"):
        await world.submit(spec)
    with pytest.raises(InvalidSpec, match="array: is made by the scheduler"):
        await submit(world, wanted(spec=spec))


async def test_an_array_of_a_thousand_is_answered_whole(world: World) -> None:
    asked = wanted({"a": list(range(40)), "b": list(range(25))}, at_most=None)
    array = await submit(world, asked)
    assert (array.size, len(array.jobs), array.jobs[-1].values) == (1000, 1000, {"a": 39, "b": 24})
    cancelled = await world.service.arrays.cancel_array(array.array_id, "ann")
    assert cancelled.counts == {Status.CANCELLED: 1000}


async def test_an_array_that_is_not_there_is_said_to_be_none(world: World) -> None:
    job_id = await world.submit()
    for unknown in (str(uuid.uuid4()), job_id):
        with pytest.raises(ArrayNotFound):
            await world.service.arrays.array(unknown)
        with pytest.raises(ArrayNotFound):
            await world.service.arrays.cancel_array(unknown, "ann")
