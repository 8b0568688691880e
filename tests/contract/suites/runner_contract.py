"""What every runner promises.  Subclass it and give a `runner`, a `node`, and a way to let a run end."""

from __future__ import annotations

import uuid
from dataclasses import replace

import pytest

from scheduler.core.lifecycle import StartRun, StopRun, start_of
from scheduler.core.model import Allocation, Ending, Fence, JobId, JobSpec, Json, NodeId, Origin, StopKind
from scheduler.errors import RunUnreachable
from scheduler.ports import Run, Runner
from scheduler.testing.builders import a_job


def a_start(node: NodeId, loop: str, **config: object) -> StartRun:
    return StartRun(
        job_id=JobId(str(uuid.uuid4())),
        fence=Fence(1),
        spec=JobSpec(loop=loop, config=config),
        allocation=Allocation(ranks=((node, 1),)),
        origin=Origin(),
    )


def run_of(start: StartRun) -> Run:
    return start.job_id, start.fence


class RunnerContract:
    """`tests.loops:quick` ends by itself on a real runner; `let_end` does it for one that only pretends."""

    def let_end(self, runner: Runner, run: Run) -> None:
        return None

    def let_say(self, runner: Runner, run: Run, *lines: Json) -> None:
        """The progress lines that the loop of a real run writes by itself."""

    async def test_started_twice_it_is_one_run_with_one_ending(self, runner: Runner, node: NodeId) -> None:
        """A crash between commit and start makes the scheduler ask again."""
        start = a_start(node, "tests.loops:quick", steps=2)
        await runner.start(start)
        await runner.start(start)
        assert await runner.live() == {run_of(start)}
        self.let_end(runner, run_of(start))
        assert (await runner.wait(run_of(start))).ending is Ending.COMPLETED
        assert await runner.live() == frozenset()
        await runner.start(start)
        assert await runner.live() == frozenset(), "what has ended is not started again"
        assert (await runner.wait(run_of(start))).ending is Ending.COMPLETED

    async def test_a_stopped_run_is_gone(self, runner: Runner, node: NodeId) -> None:
        start = a_start(node, "tests.loops:ignores_stop")
        await runner.start(start)
        await runner.stop(StopRun(job_id=start.job_id, fence=start.fence, kind=StopKind.CANCEL))
        assert (await runner.wait(run_of(start))).ending is Ending.LOST
        assert await runner.live() == frozenset()
        with pytest.raises(RunUnreachable):
            await runner.observe(run_of(start))

    async def test_a_run_that_never_was_is_no_surprise(self, runner: Runner, node: NodeId) -> None:
        run = (JobId(str(uuid.uuid4())), Fence(7))
        await runner.stop(StopRun(job_id=run[0], fence=run[1], kind=StopKind.CANCEL))
        assert (await runner.wait(run)).ending is Ending.LOST
        with pytest.raises(RunUnreachable):
            await runner.observe(run)
        assert (await runner.read_log(run, 0, 0, 100)).text == ""
        said = await runner.metrics(run[0], 100)
        assert (said.job_id, said.step, said.series, said.total_points) == (run[0], [], {}, 0)
        assert await runner.trends([run[0]], 32) == {}

    async def test_what_a_run_measured_is_there_when_the_run_is_gone(
        self, runner: Runner, node: NodeId
    ) -> None:
        """A curve is looked at most when its job has ended."""
        start = a_start(node, "tests.loops:quick", steps=2)
        await runner.start(start)
        self.let_say(runner, run_of(start), {"step": 1, "loss": 1.0}, {"step": 2, "loss": 0.5})
        self.let_end(runner, run_of(start))
        await runner.wait(run_of(start))
        said = await runner.metrics(start.job_id, 100)
        assert (said.attempt, said.step, said.series) == ([1, 1], [1, 2], {"loss": [1.0, 0.5]})
        assert await runner.trends([start.job_id, JobId("unknown")], 32) == {start.job_id: [1.0, 0.5]}

    async def test_a_run_keeps_the_whole_of_its_job(self, runner: Runner, node: NodeId) -> None:
        """R1: a scheduler that lost its journal knows what it is, while it lives and after."""
        spec = JobSpec(loop="tests.loops:quick", config={"steps": 2}, max_failures=3, labels={"a": "é"})
        job = a_job("running", spec=spec, id=JobId(str(uuid.uuid4())), fence=Fence(7), version=12)
        job = replace(job, allocation=Allocation(ranks=((node, 1),)), idempotency_key="nightly")
        run = (job.id, job.fence)
        assert (await runner.recall(run), await runner.newest(job.id)) == (None, 0)
        await runner.start(start_of(job))
        self.let_end(runner, run)
        await runner.wait(run)
        assert await runner.recall(run) == job
        assert await runner.newest(job.id) == 7
        assert await runner.recall((job.id, Fence(8))) is None

    async def test_nodes_are_those_of_the_cluster(self, runner: Runner, node: NodeId) -> None:
        assert node in {known.id for known in await runner.nodes()}
