"""What would happen, told before it happens: it must be what then happens, and looking must change nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from test_service import World, a_loop

from scheduler.api.forecasts import EffectDocument, Forecast
from scheduler.api.problems import not_valid
from scheduler.core.commands import JobAction
from scheduler.core.hangs import Pace
from scheduler.core.lifecycle import StopRun
from scheduler.core.model import JOB, Fence, Gang, JobId, JobSpec, Node, NodeId, Status, Stop, StopKind
from scheduler.errors import InvalidRequest, JobNotFound, SchedulerError, StorageUnavailable
from scheduler.testing.builders import a_job, a_spec
from scheduler.testing.clock import NOON
from scheduler.testing.fake_runner import COMPLETED, failed
from tests.tiny_model import make_tiny_model, numbered_pairs, write_conversations

WHOLE = Gang(num_ranks=4)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    await world.life()
    yield world


async def submit(world: World, name: str, **fields: Any) -> str:
    job_id = await world.submit(a_loop(name=name, **{"resources": WHOLE, **fields}))
    await world.settle()
    return job_id


async def tell(world: World, job_id: str, step: int, of: int, every_s: float = 6.0) -> None:
    """Its run says how far it is."""
    pace = Pace(steps=9, typical_s=every_s, longest_s=every_s)
    said = {"progress": {"step": step, "total_steps": of}, "pace": pace, "stepped_at": world.clock.now()}
    world.runner.tells[run_of(world, job_id)] = said
    await world.service.monitor.once()


def run_of(world: World, job_id: str) -> tuple[JobId, Fence]:
    job = world.service.registry.get(JobId(job_id))
    assert job is not None
    return job.id, job.fence


async def forecast(world: World, job_id: str) -> Forecast:
    found = (await world.service.queries.explain(job_id)).forecast
    assert found is not None
    return found


async def effect(world: World, job_id: str, action: str, checkpoint: str | None = None) -> EffectDocument:
    return await world.service.queries.effect(job_id, action, checkpoint)


class TestForecast:
    async def test_it_names_who_is_ahead_and_when_it_starts(self, world: World) -> None:
        """U3: a person who waits wants to know for whom, and how long."""
        first = await submit(world, "first")
        await tell(world, first, 40, of=100)
        ids = [await submit(world, name, max_runtime_s=600) for name in "ABC"]
        told = await forecast(world, ids[2])
        assert told.message == "position 3, behind A and B; starts in about 26 min"
        assert [ref.name for ref in told.ahead] == ["A", "B"]
        assert (told.position, told.num_ahead, told.starts_in_s) == (3, 2, 360 + 2 * 600)

    async def test_the_next_one_waits_as_long_as_the_run_before_it_says(self, world: World) -> None:
        first = await submit(world, "first")
        second = await submit(world, "second")
        untold = await forecast(world, second)
        assert untold.message == "next; it is not known when: first has not reported its steps"
        await tell(world, first, 40, of=100)
        assert (await forecast(world, second)).message == "next; starts in about 6 min"

    async def test_how_long_such_jobs_took_is_remembered_over_a_restart(self, world: World) -> None:
        done = await submit(world, "done")
        world.clock.advance(120)
        world.runner.end(run_of(world, done), COMPLETED)
        await world.settle()
        await world.life()
        running, first, second = [await submit(world, name) for name in "RAB"]
        await tell(world, running, 9, of=10)
        assert (await forecast(world, first)).starts_in_s == 6
        assert (await forecast(world, second)).starts_in_s == 126

    async def test_a_run_that_is_being_stopped_is_waited_for_no_longer_than_it_may_take(
        self, world: World
    ) -> None:
        first = await submit(world, "first")
        second = await submit(world, "second")
        job = world.service.registry.get(JobId(first))
        assert job is not None
        stop = Stop(kind=StopKind.PAUSE, by="ann", at=world.clock.now())
        world.service.registry.put(replace(job, stop=stop))
        assert (await forecast(world, second)).starts_in_s == world.settings.stop_grace_s

    async def test_a_run_that_is_being_cancelled_saves_nothing_and_is_gone_at_once(
        self, world: World
    ) -> None:
        first = await submit(world, "first")
        second = await submit(world, "second")
        job = world.service.registry.get(JobId(first))
        assert job is not None
        stop = Stop(kind=StopKind.CANCEL, by="ann", at=world.clock.now())
        world.service.registry.put(replace(job, stop=stop))
        assert (await forecast(world, second)).starts_in_s == 1

    async def test_what_has_completed_meanwhile_counts_soon(self, world: World) -> None:
        """A median of yesterday would be told all day."""
        first, second, third = [await submit(world, name) for name in "abc"]
        assert (await forecast(world, third)).starts_in_s is None
        world.clock.advance(120)
        world.runner.end(run_of(world, first), COMPLETED)
        await world.settle()
        await tell(world, second, 9, of=10)
        fourth = await submit(world, "d")
        assert (await forecast(world, fourth)).starts_in_s == 126

    async def test_what_is_told_comes_true(self, world: World) -> None:
        """The jobs run as long as they say, the clock is moved to the told moment, and the tick starts them."""
        ids = [await submit(world, name, resources=Gang(num_ranks=ranks), max_runtime_s=60 * ranks)
               for name, ranks in (("a", 2), ("b", 2), ("c", 3), ("d", 1), ("e", 4))]  # fmt: skip
        began = world.clock.now()
        told = {job_id: (await forecast(world, job_id)).starts_in_s for job_id in ids[2:]}
        seen: dict[str, float] = {}
        for second in range(0, 1000, 30):
            world.clock.advance((began + timedelta(seconds=second) - world.clock.now()).total_seconds())
            await _end_those_whose_time_is_up(world)
            await world.settle()
            for job_id in ids[2:]:
                if await world.status(job_id) == Status.RUNNING:
                    seen.setdefault(job_id, float(second))
        assert seen == told

    async def test_far_back_in_the_line_nothing_is_promised(self, world: World) -> None:
        await submit(world, "first")
        jobs = [(f"00000000-0000-0000-0000-{number:012}", a_loop(resources=WHOLE)) for number in range(1002)]
        await world.service.commands.submit_batch(jobs)
        told = await forecast(world, jobs[-1][0])
        assert told.starts_in_s is None
        assert told.message.endswith("it is not known when, with more than 1,000 jobs before it")
        assert (told.num_ahead, len(told.ahead)) == (1001, 10)


async def _end_those_whose_time_is_up(world: World) -> None:
    for job in world.service.registry.running():
        ran_s = (world.clock.now() - job.admitted_at).total_seconds() if job.admitted_at else 0.0
        if ran_s >= (job.spec.max_runtime_s or 0.0):
            world.runner.end((job.id, job.fence), COMPLETED)


class TestExplain:
    async def test_a_failed_job_is_explained_by_its_diagnosis_and_may_go_on(self, world: World) -> None:
        """P7: what to do next, with the command."""
        job_id = await submit(world, "it")
        world.runner.save(run_of(world, job_id), step=40)
        await world.service.monitor.once()
        world.runner.end(
            run_of(world, job_id), failed("rank 0 ran out of GPU memory; use a smaller batch_size")
        )
        await world.settle()
        told = await world.service.queries.explain(job_id)
        assert "use a smaller batch_size" in told.message
        assert "checkpoint 1.1 (step 40) is there to go on from" in told.message
        assert [step.command for step in told.next_steps] == [
            f"scheduler resume {job_id} --checkpoint 1.1",
            f"scheduler restart {job_id}",
            f"scheduler logs {job_id}",
        ]

    async def test_a_running_job_says_how_far_it_is_and_how_long_it_will_take(self, world: World) -> None:
        job_id = await submit(world, "it")
        await tell(world, job_id, 40, of=100)
        told = await world.service.queries.explain(job_id)
        assert told.message == "attempt 1 is training, step 40 of 100; about 6 min to go"
        assert told.forecast is None

    async def test_a_run_that_does_not_answer_is_only_believed_to_run(self, world: World) -> None:
        """Nothing is said that is not backed."""
        job_id = await submit(world, "it")
        world.clock.advance(60)
        told = await world.service.queries.explain(job_id)
        assert told.message.startswith("believed to run: not verified yet")

    async def test_a_run_that_was_just_started_is_not_doubted_for_its_silence(self, world: World) -> None:
        job_id = await submit(world, "it")
        told = await world.service.queries.explain(job_id)
        assert told.message.startswith("attempt 1 is starting on 1 node; not verified yet")

    async def test_a_pass_of_placement_before_a_job_came_is_no_proof_of_its_place(self, world: World) -> None:
        await submit(world, "first")
        world.clock.advance(5)
        job_id = await world.submit(a_loop(name="next", resources=WHOLE))
        assert (await world.service.queries.status(job_id)).evidence == (
            "in the queue, on disk; placement has not looked since it came"
        )
        await world.settle()
        assert (
            await world.service.queries.status(job_id)
        ).evidence == "in the queue; placement looked 0 s ago"

    async def test_where_nothing_was_saved_nothing_is_said_to_stay(self, world: World) -> None:
        job_id = await submit(world, "it")
        world.runner.end(run_of(world, job_id), failed("a bad batch"))
        await world.settle()
        told = await world.service.queries.explain(job_id)
        assert [step.why for step in told.next_steps if step.action == "restart"] == [
            "begin again at the beginning"
        ]

    async def test_a_job_that_is_too_large_for_what_is_left_is_told_to_be_withdrawn(
        self, world: World
    ) -> None:
        job_id = await submit(world, "it")
        world.runner.end(run_of(world, job_id), COMPLETED)
        world.runner.nodes_now = (Node(id=NodeId("small"), name="small", cpus=1.0),)
        await world.settle()
        waits = await submit(world, "next")
        told = await world.service.queries.explain(waits)
        assert "does not fit on this cluster: needs 4 ranks at once" in told.message
        assert told.message.count("needs 4 ranks") == 1, "the reason is said once"
        assert told.next_steps[0].action == "cancel"

    async def test_a_held_job_is_let_go_by_a_person(self, world: World) -> None:
        await submit(world, "first")
        job_id = await submit(world, "it")
        await world.service.commands.act(job_id, JobAction.PAUSE, "ann")
        told = await world.service.queries.explain(job_id)
        assert told.message.startswith("next; held for a person (held in the queue by ann")
        assert told.next_steps[0].command == f"scheduler resume {job_id}"

    async def test_a_completed_job_says_where_its_output_is(self, world: World) -> None:
        job_id = await submit(world, "it")
        world.clock.advance(200)
        world.runner.end(run_of(world, job_id), replace(COMPLETED, result={"output_dir": "/out/it"}))
        await world.settle()
        told = await world.service.queries.explain(job_id)
        assert told.message == "completed in 3 min: every rank returned; its output is in /out/it"

    async def test_a_job_that_nobody_knows_is_not_found(self, world: World) -> None:
        for ask in (world.service.queries.explain, lambda job_id: effect(world, job_id, "cancel")):
            with pytest.raises(JobNotFound):
                await ask("00000000-0000-0000-0000-000000000000")


HELD = {"held": True}
SITUATIONS: dict[str, tuple[Status, dict[str, Any]]] = {
    **{status.value: (status, {}) for status in Status},
    "held": (Status.QUEUED, HELD),
    "resting": (Status.QUEUED, {"retry_at": NOON + timedelta(days=1)}),
    "never placed": (Status.QUEUED, {"queue_seq": None}),
    "stopping": (Status.RUNNING, {"stop": Stop(kind=StopKind.PREEMPT, by="ann", at=NOON)}),
    "spec no longer valid": (Status.FAILED, {"spec": a_spec(loop="nobody:knows")}),
}


async def placed(situation: str) -> tuple[World, str]:
    """A scheduler that finds one job in *situation* in its journal."""
    status, fields = SITUATIONS[situation]
    world = World()
    job = a_job(status, **{"spec": a_spec(loop="tests.loops:quick"), **fields})
    world.disk.jobs[job.id] = JOB.dump_json(job)
    if job.allocation:
        world.runner.adopt((job.id, job.fence))
        world.runner.stop = _slowly  # type: ignore[method-assign]
    await world.life()
    return world, job.id


async def _slowly(action: StopRun) -> None:
    """A run that was told to stop is still there when the test looks."""


class TestEffect:
    @pytest.mark.parametrize("action", JobAction)
    @pytest.mark.parametrize("situation", SITUATIONS)
    async def test_it_says_what_the_command_then_says(self, situation: str, action: JobAction) -> None:
        """U5: allowed and refused, where it leads, and the words of the refusal."""
        world, job_id = await placed(situation)
        before = await world.service.queries.status(job_id)
        told = await effect(world, job_id, action)
        assert await world.service.queries.status(job_id) == before, "looking changes nothing"
        try:
            await world.service.commands.act(job_id, action, "ann")
        except SchedulerError as error:
            assert (told.allowed, told.message) == (False, error.message)
            return
        after = await world.service.queries.status(job_id)
        assert told.allowed
        assert told.message.startswith("nothing changes") == (after.version == before.version)
        waits = after.status is Status.QUEUED and after.reason.code != "held" and situation != "held"
        if waits:
            assert told.forecast is not None
            assert told.forecast.position == after.queue_position

    @pytest.mark.parametrize("situation", SITUATIONS)
    async def test_every_next_step_that_is_offered_is_allowed(self, situation: str) -> None:
        """Advice that is refused is worse than none."""
        if situation == "spec no longer valid":
            return
        world, job_id = await placed(situation)
        told = await world.service.queries.explain(job_id)
        assert told.next_steps
        for step in told.next_steps:
            if step.action in set(JobAction):
                assert (await effect(world, job_id, step.action)).allowed, step

    @pytest.mark.parametrize("action", ["resume", "restart", "force-start"])
    async def test_a_spec_that_is_no_longer_valid_is_not_let_in(self, action: str) -> None:
        world, job_id = await placed("spec no longer valid")
        told = await effect(world, job_id, action)
        assert not told.allowed
        assert "its stored spec is not valid now: loop:" in told.message

    async def test_a_cancel_tells_what_is_lost(self, world: World) -> None:
        job_id = await submit(world, "it")
        await tell(world, job_id, 42, of=100)
        assert "nothing was saved, so all of it is lost" in (await effect(world, job_id, "cancel")).message
        world.runner.save(run_of(world, job_id), step=30)
        await world.service.monitor.once()
        told = await effect(world, job_id, "cancel")
        assert told.message.endswith("without saving; 12 steps are lost, since checkpoint 1.1 (step 30)")

    async def test_a_pause_tells_how_long_it_takes(self, world: World) -> None:
        job_id = await submit(world, "it")
        await tell(world, job_id, 42, of=100, every_s=12)
        told = await effect(world, job_id, "pause")
        assert told.message.startswith(
            "it stops at its next step and saves; about 12 s and the time to save, after 60 s it is ended"
        )
        assert told.forecast is None
        world.runner.save(run_of(world, job_id), step=42)
        assert "about 13 s" in (await effect(world, job_id, "pause")).message, "saving takes its time, too"

    async def test_whoever_is_to_be_held_is_promised_no_start(self, world: World) -> None:
        await submit(world, "first")
        job_id = await submit(world, "it")
        told = await effect(world, job_id, "pause")
        assert told.message == "it keeps its place in the queue, and does not start until it is resumed"
        assert told.forecast is None

    async def test_a_pause_is_told_also_when_the_storage_does_not_answer(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        job_id = await submit(world, "it")
        await tell(world, job_id, 42, of=100, every_s=12)

        async def away(job_id: JobId) -> list[Any]:
            raise StorageUnavailable("the bucket does not answer")

        monkeypatch.setattr(world.runner, "checkpoints", away)
        assert "about 12 s" in (await effect(world, job_id, "pause")).message

    async def test_whoever_gives_way_is_told_when_it_would_be_its_turn_again(self) -> None:
        """It keeps its place: with nobody before it, it starts again at once, and the person should know."""
        world = World(policy="fifo")
        await world.life()
        job_id = await submit(world, "it")
        await tell(world, job_id, 42, of=100, every_s=3)
        await submit(world, "other")
        told = await effect(world, job_id, "preempt")
        assert told.forecast is not None
        assert told.forecast.message == "next; starts in about 3 s"

    async def test_without_its_old_place_it_waits_behind_the_others(self) -> None:
        world = World(preempted_keep_place=False)
        await world.life()
        job_id = await submit(world, "it")
        await tell(world, job_id, 42, of=100, every_s=3)
        await submit(world, "other", max_runtime_s=60)
        told = await effect(world, job_id, "preempt")
        assert told.forecast is not None
        assert told.forecast.message == "position 2, behind other; starts in about 63 s"

    async def test_a_chosen_checkpoint_is_where_it_goes_on(self, world: World) -> None:
        job_id = await submit(world, "it")
        for step in (20, 40):
            world.runner.save(run_of(world, job_id), step=step)
        await world.service.commands.act(job_id, JobAction.CANCEL, "ann")
        await world.settle()
        assert "from checkpoint 1.2 (step 40)" in (await effect(world, job_id, "resume")).message
        chosen = await effect(world, job_id, "resume", "1.1")
        assert chosen.message == "it goes on from checkpoint 1.1 (step 20); it joins the end of the queue"
        gone = await effect(world, job_id, "resume", "7.7")
        assert (gone.allowed, gone.remedy) == (False, "choose one that is there, or leave it out")
        assert "there is: 1.1, 1.2" in gone.message

    async def test_an_action_that_there_is_not_is_refused(self, world: World) -> None:
        job_id = await submit(world, "it")
        with pytest.raises(InvalidRequest, match="known are: cancel, pause"):
            await effect(world, job_id, "explode")


class TestPlan:
    async def test_nothing_is_queued(self, world: World) -> None:
        told = await world.service.queries.plan(a_loop())
        assert told.valid
        assert world.service.registry.active() == []
        assert world.disk.jobs == {}

    async def test_a_plan_tells_what_the_submit_then_finds(self, world: World) -> None:
        first = await submit(world, "first")
        await tell(world, first, 40, of=100)
        await submit(world, "A", max_runtime_s=60)
        spec = a_loop(name="mine", resources=WHOLE)
        told = await world.service.queries.plan(spec)
        job_id = await submit(world, "mine", **{"resources": spec.resources})
        assert told.forecast == await forecast(world, job_id)
        assert told.message == f"it would be accepted: {told.forecast.message}" if told.forecast else ""
        assert told.fits is False

    async def test_every_field_that_is_wrong_is_named(self, world: World) -> None:
        told = await world.service.queries.plan(
            JobSpec(loop="torch_ddp", config={"steps": 0, "learning_rat": 1}, resources=Gang(num_ranks=400))
        )
        assert not told.valid
        assert [error.field for error in told.errors] == ["config.steps", "config.learning_rat", "resources"]
        assert told.message.startswith("it would not be accepted: 3 things are wrong; config.steps:")

    async def test_the_spec_is_shown_as_it_would_run(self, world: World) -> None:
        """A default that nobody sees is a surprise later."""
        told = await world.service.queries.plan(JobSpec(loop="torch_ddp", config={"steps": 5}))
        assert told.spec is not None
        assert told.spec["config"] | {"steps": 5, "batch_size": 32} == told.spec["config"]
        assert told.spec["resources"]["cpus_per_rank"] == 1.0

    async def test_a_spec_that_is_none_at_all_is_about_the_body(self) -> None:
        told = not_valid(InvalidRequest("it is empty"))
        assert [(error.field, error.message) for error in told.errors] == [("body", "it is empty")]


@pytest.fixture
def an_sft_spec(tmp_path: Path) -> JobSpec:
    model = make_tiny_model(tmp_path / "model")
    data = write_conversations(tmp_path / "data.jsonl", numbered_pairs(3))
    return JobSpec(loop="sft", config={"model": str(model), "dataset": str(data)})


class TestMemory:
    async def node(self, world: World, memory_bytes: int | None) -> None:
        world.runner.nodes_now = (
            Node(id=NodeId("node-1"), name="node-1", cpus=4.0, memory_bytes=memory_bytes),
        )
        await world.settle()

    async def test_the_parts_add_up_and_are_compared_with_the_smallest_node(
        self, world: World, an_sft_spec: JobSpec
    ) -> None:
        await self.node(world, 8_000_000_000)
        told = (await world.service.queries.plan(an_sft_spec)).memory
        assert told is not None
        assert told.total_bytes == sum(told.parts.values())
        assert set(told.parts) == {"weights", "gradients", "optimizer", "activations"}
        assert told.available_bytes == 8_000_000_000
        assert "the smallest node has 8.0 GB for all of its ranks" in told.message

    async def test_twice_the_conversations_at_once_need_twice_the_activations(
        self, world: World, an_sft_spec: JobSpec
    ) -> None:
        async def activations(**config: int) -> int:
            spec = replace(an_sft_spec, config={**an_sft_spec.config, "max_length": 64, **config})
            told = (await world.service.queries.plan(spec)).memory
            return told.parts["activations"] if told else 0

        assert await activations(batch_size=2) == 2 * await activations(batch_size=1) > 0
        assert await activations(max_length=128) == 2 * await activations()

    async def test_too_little_is_said_in_the_answer_with_a_remedy(
        self, world: World, an_sft_spec: JobSpec
    ) -> None:
        await self.node(world, 1_000_000)
        told = await world.service.queries.plan(an_sft_spec)
        assert told.valid, "an estimate refuses nothing"
        assert "the smallest node has 1.0 MB for all of its ranks: use a smaller batch_size" in told.message

    async def test_what_is_not_known_is_not_compared(self, world: World, an_sft_spec: JobSpec) -> None:
        await self.node(world, None)
        told = (await world.service.queries.plan(an_sft_spec)).memory
        assert told is not None
        assert told.available_bytes is None
        assert "how much memory a node has is not known here" in told.message

    async def test_on_a_gpu_it_computes_in_half_precision_and_a_node_is_no_measure(
        self, world: World, an_sft_spec: JobSpec
    ) -> None:
        world.runner.nodes_now = (
            Node(id=NodeId("node-1"), name="node-1", cpus=4.0, gpus=1.0, memory_bytes=1000),
        )
        await world.settle()
        told = (
            await world.service.queries.plan(replace(an_sft_spec, resources=Gang(gpus_per_rank=1)))
        ).memory
        assert told is not None
        assert told.available_bytes is None
        assert "in bfloat16" in told.message
        assert "how much memory a GPU has is not known here" in told.message

    async def test_a_model_that_cannot_be_read_is_said(self, world: World, an_sft_spec: JobSpec) -> None:
        await self.node(world, None)
        Path(an_sft_spec.config["model"], "model.safetensors").unlink()
        told = await world.service.queries.plan(an_sft_spec)
        assert (told.valid, told.memory) == (True, None)
        assert "how much memory it needs is not known" in told.message
        assert "has no .safetensors file" in told.message

    async def test_nothing_is_downloaded_to_answer(self, world: World, an_sft_spec: JobSpec) -> None:
        config = an_sft_spec.config | {"model": "org/name"}
        told = await world.service.queries.plan(replace(an_sft_spec, config=config))
        assert (told.valid, told.memory) == (True, None)


class TestOverdue:
    async def test_a_job_that_waits_too_long_is_overdue_and_one_that_a_person_holds_is_not(self) -> None:
        """U3: the card of a stuck job appears by this."""
        world = World(overdue_after_s=60)
        await world.life()
        running, waits, held = [await submit(world, name) for name in ("r", "w", "h")]
        await world.service.commands.act(held, JobAction.PAUSE, "ann")
        world.clock.advance(60)
        assert not (await world.service.queries.status(waits)).overdue
        world.clock.advance(1)
        documents = await world.service.queries.documents([running, waits, held])
        assert [documents[job_id].overdue for job_id in (running, waits, held)] == [False, True, False]

    async def test_a_pause_between_two_tries_is_no_waiting(self) -> None:
        world = World(overdue_after_s=60)
        later = NOON + timedelta(seconds=100)
        job = a_job(created_at=NOON, retry_at=later, spec=a_spec(loop="tests.loops:quick"))
        world.disk.jobs[job.id] = JOB.dump_json(job)
        service = await world.life()
        for seconds, overdue in ((99, False), (60, False), (2, True)):
            world.clock.advance(seconds)
            assert (await service.queries.status(job.id)).overdue == overdue

    async def test_a_job_that_was_queued_again_waits_from_then_on(self) -> None:
        """One that was resumed after a week is not late at once."""
        world = World(overdue_after_s=60)
        job = a_job(
            created_at=NOON - timedelta(days=7), queued_at=NOON, spec=a_spec(loop="tests.loops:quick")
        )
        world.disk.jobs[job.id] = JOB.dump_json(job)
        service = await world.life()
        assert not (await service.queries.status(job.id)).overdue

    async def test_a_pending_row_counts_from_its_creation(self) -> None:
        world = World(overdue_after_s=60)
        job = a_job("pending", created_at=NOON)
        world.disk.jobs[job.id] = JOB.dump_json(job)
        service = await world.life()
        world.clock.advance(61)
        assert (await service.queries.status(job.id)).overdue
