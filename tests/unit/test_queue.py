"""The queue for people: shares, turns, reasons, expected starts, and who holds nodes (S1, S10)."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import httpx
import pytest

from scheduler.api.queue import QueueDocument
from scheduler.core.forecast import Start
from scheduler.core.model import Fence, Gang, JobId, Node, NodeId, Stop, StopKind
from scheduler.engine.queries.expected_starts import _later  # pyright: ignore[reportPrivateUsage]
from scheduler.engine.queries.queue_view import SHOWN
from scheduler.errors import RegistryUnavailable
from scheduler.testing.fake_runner import COMPLETED
from tests.unit.edge import SUBMIT, client_of, problem_of
from tests.unit.recording_registry import RecordingRegistry, a_holding_job, a_queue, a_share, a_waiting_job
from tests.unit.test_service import World, a_loop

FOUR = (Node(id=NodeId("node-1"), name="node-1", cpus=8.0, gpus=4.0),)


async def a_world(**settings: object) -> World:
    """Four GPUs."""
    world = World(**settings)
    world.runner.nodes_now = FOUR
    await world.life()
    return world


async def submit(world: World, project: str, gpus: int = 1, **fields: object) -> str:
    gang = Gang(num_ranks=gpus, cpus_per_rank=1, gpus_per_rank=1)
    return await world.submit(a_loop(project=project, name=f"{project}-{gpus}", resources=gang, **fields))


async def queue_of(world: World) -> QueueDocument:
    return await world.service.queue.queue()


class TestUnderFair:
    async def filled(self) -> World:
        """`speech` came first and took everything; `vision`, of the same weight, waits."""
        world = await a_world()
        await world.service.projects.set("vision", {"quota": 1, "limit": 3})
        for _ in range(4):
            await submit(world, "speech", max_runtime_s=600)
        await world.settle()
        for _ in range(2):
            await submit(world, "vision")
        await world.settle()
        return world

    async def test_each_project_is_shown_with_its_part_and_what_it_holds_beyond_it(self) -> None:
        """S1: `why does mine not start?` is answered by who has more than its part."""
        seen = await queue_of(await self.filled())
        assert (seen.policy, seen.unit, seen.size) == ("fair", "GPU", 4)
        speech, vision = seen.projects
        assert (speech.name, speech.held, speech.entitled, speech.lent) == ("speech", 4, 2, 2)
        assert (vision.name, vision.held, vision.entitled, vision.lent) == ("vision", 0, 2, 0)
        assert (vision.quota, vision.limit, vision.queued, speech.running) == (1, 3, 2, 4)

    async def test_the_rules_are_named_by_their_fingerprint(self) -> None:
        plain, other = await a_world(), await a_world(policy_rules="worth=3")
        names = [(await queue_of(world)).rules for world in (plain, other)]
        assert names == [world.service.settings.policy_rules.fingerprint for world in (plain, other)]
        assert names[0] != names[1]

    async def test_the_queue_is_in_the_order_of_the_turns_each_with_its_reason(self) -> None:
        """S10: of the very pass that decided, not of the order in which they came."""
        world = await self.filled()
        late = await submit(world, "speech")
        first = await submit(world, "vision", priority=5)
        await world.settle()
        seen = await queue_of(world)
        assert [one.position for one in seen.waiting] == [1, 2, 3, 4]
        assert (seen.waiting[0].job_id, seen.waiting[-1].job_id) == (first, late)
        assert seen.waiting[-1].reason.code == "over_share"
        assert seen.num_waiting == 4
        assert {one.size for one in seen.waiting} == {1}

    async def test_who_waits_is_shown_when_it_may_start_and_who_runs_for_how_long(self) -> None:
        world = await self.filled()
        seen = await queue_of(world)
        assert [round(one.left_s or 0, -1) for one in seen.holding] == [600] * 4
        assert sum(one.on_loan for one in seen.holding) == 2
        told = [one.starts_in_s for one in seen.waiting]
        assert all(starts_in_s is not None and 0 <= starts_in_s <= 601 for starts_in_s in told)

    async def test_nobody_guesses_how_long_a_silent_run_goes_on(self) -> None:
        world = await a_world(policy_rules="preempt=never")
        await submit(world, "", 4)
        await world.settle()
        await submit(world, "")
        await world.settle()
        seen = await queue_of(world)
        assert [one.left_s for one in seen.holding] == [None]
        assert [(one.starts_in_s, one.starts_after_s) for one in seen.waiting] == [(None, None)]

    async def test_a_job_for_which_nodes_are_kept_is_said_to_have_them_and_who_stops_to_stop(self) -> None:
        world = await a_world()
        runs = await submit(world, "", 4)
        await world.settle()
        waits = await submit(world, "", 4)
        registry = world.service.registry
        holder, waiting = registry.get(JobId(runs)), registry.get(JobId(waits))
        assert holder and waiting
        stop = Stop(kind=StopKind.PREEMPT, at=world.clock.now(), by="scheduler")
        registry.put(replace(holder, stop=stop))
        registry.put(replace(waiting, kept=holder.allocation))
        seen = await queue_of(world)
        assert [(one.job_id, one.kept) for one in seen.waiting] == [(waits, True)]
        assert [(one.job_id, one.stopping) for one in seen.holding] == [(runs, True)]

    async def test_usage_is_told_in_hours_and_fades(self) -> None:
        world = await a_world()
        run = (JobId(await submit(world, "vision", 4)), Fence(1))
        await world.settle()
        world.clock.advance(3600)
        world.runner.end(run, COMPLETED)
        await world.settle()
        await world.service.projects.set("vision", {})
        used = (await queue_of(world)).projects[0].usage_h
        assert used is not None and 3.8 < used < 4
        world.clock.advance(86_400)
        assert (await queue_of(world)).projects[0].usage_h == pytest.approx(used / 2, rel=0.01)

    async def test_only_the_first_hundred_are_listed_and_all_are_counted(self) -> None:
        world = await a_world()
        for _ in range(SHOWN + 10):
            await submit(world, "", 4)
        await world.settle()
        seen = await queue_of(world)
        assert (seen.num_waiting, len(seen.waiting), seen.num_holding) == (SHOWN + 9, SHOWN, 1)

    async def test_an_empty_queue_has_no_lines(self) -> None:
        seen = await queue_of(await a_world())
        assert (seen.projects, seen.waiting, seen.holding, seen.size) == ([], [], [], 4)


class TestUnderFifo:
    async def test_there_are_no_shares_and_no_outlook_and_the_order_is_that_of_the_queue(self) -> None:
        world = await a_world(policy="fifo")
        await submit(world, "vision", 4)
        await world.settle()
        ids = [
            await submit(world, "speech"),
            await submit(world, "vision"),
            await submit(world, "", priority=1),
        ]
        await world.settle()
        seen = await queue_of(world)
        assert (seen.policy, seen.rules) == ("fifo", None)
        assert {(one.entitled, one.lent, one.usage_h) for one in seen.projects} == {(None, None, None)}
        assert [one.job_id for one in seen.waiting] == [ids[2], ids[0], ids[1]]
        assert [one.position for one in seen.waiting] == [1, 2, 3]
        assert {one.starts_in_s for one in seen.waiting} == {None}
        assert [(one.size, one.on_loan) for one in seen.holding] == [(4, False)]


class TestExpectedStarts:
    async def test_many_who_look_at_once_cost_one_outlook(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A hundred open pages must not take the processor of the scheduler."""
        world = await a_world()
        await submit(world, "")
        view, played = world.service.queue, 0
        outlooks = world.service.queries.outlooks
        assert outlooks is not None
        whole = outlooks.whole

        async def counted(*_: object) -> object:
            nonlocal played
            played += 1
            world.clock.advance(2)  # so long it takes
            return await whole()

        monkeypatch.setattr(outlooks, "whole", counted)
        await asyncio.gather(*(view.queue() for _ in range(20)))
        world.clock.advance(19)
        await view.queue()
        assert played == 1
        world.clock.advance(2)
        await view.queue()
        assert played == 2

    async def test_one_that_fails_leaves_the_queue(self, monkeypatch: pytest.MonkeyPatch) -> None:
        world = await a_world()
        await submit(world, "")

        async def broken(*_: object) -> object:
            raise ValueError("no")

        monkeypatch.setattr(world.service.queries.outlooks, "whole", broken)
        assert (await queue_of(world)).num_waiting == 1

    def test_an_outlook_that_is_a_while_old_is_counted_down(self) -> None:
        assert _later(Start(after_s=10), 4) == Start(after_s=6)
        assert _later(Start(after_s=3), 4) == Start(after_s=0)
        assert _later(Start(more_than_s=10), 4) == Start(more_than_s=6)
        assert _later(Start(why="held"), 4) == Start(why="held")


class TestOverHttp:
    async def test_the_document_is_that_of_the_scheduler(self) -> None:
        registry = RecordingRegistry()
        registry.known_queue = a_queue(
            projects=[a_share(), a_share("", entitled=None, lent=None, usage_h=None)],
            waiting=[a_waiting_job(starts_in_s=None)],
            holding=[a_holding_job(left_s=None)],
        )
        answer = await client_of(registry).get(f"{SUBMIT}/queue")
        assert QueueDocument.model_validate_json(answer.content) == registry.known_queue
        assert answer.json()["waiting"][0]["starts_in_s"] is None

    async def test_a_scheduler_that_is_away_is_a_problem(self) -> None:
        registry = RecordingRegistry()
        registry.refuses = RegistryUnavailable("the actor is away")
        client: httpx.AsyncClient = client_of(registry)
        assert problem_of(await client.get(f"{SUBMIT}/queue")).status == 503
