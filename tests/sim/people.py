"""Who uses the scheduler: people with a client, and front ends that only know the database."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from random import Random
from typing import TYPE_CHECKING, Any

from scheduler.api.arrays import SubmitArray
from scheduler.core.commands import JobAction
from scheduler.core.model import SPEC, JobId, JobSpec
from scheduler.engine.arrays import child_id
from scheduler.ports import JobQuery
from scheduler.server.health import health
from scheduler.testing.clock import NOON
from tests.sim.lives import Answer
from tests.sim.scenario import LOOP, draw_spec, draw_waits

if TYPE_CHECKING:
    from tests.sim.world import World

MAX_JOBS = 15


def everybody(world: World) -> Iterator[Coroutine[Any, Any, None]]:
    for i in range(world.scenario.num_people):
        yield Person(world, f"user-{i}").live()
    for _ in range(world.scenario.num_front_ends):
        yield FrontEnd(world).live()
    if Random(f"{world.seed} recurring").random() < 0.3:
        yield Recurrer(world).live()


class Person:
    """Submits, meddles and looks; tries again when there was no answer."""

    def __init__(self, world: World, name: str) -> None:
        self._world, self._name, self._rng = world, name, world.rng
        self._num_keys = 0
        self._waits = Random(f"{world.seed} {name}")
        self._arrays = Random(f"{world.seed} {name} arrays")

    async def live(self) -> None:
        deeds: dict[Callable[[], Awaitable[None]], int] = {
            self.submit: 30,
            self.submit_batch: 5,
            self.cancel: 10,
            self.force_start: 8,
            self.mark_failed: 4,
            self.pause: 6,
            self.resume: 8,
            self.resume_from: 6,
            self.restart: 4,
            self.preempt: 5,
            self.look: 10,
            self.list_jobs: 4,
            self.ask_for_health: 2,
            self.reconcile: 3,
        }
        while True:
            await asyncio.sleep(self._rng.expovariate(1 / self._world.scenario.pause_s))
            if self._world.weather.is_calm:
                return
            await self._rng.choices(list(deeds), list(deeds.values()))[0]()

    async def submit(self) -> None:
        """With a key or with the same id again: however often it takes, it is one job."""
        if len(self._world.job_ids) >= MAX_JOBS:
            return
        spec, key = draw_spec(self._rng, self._name), self._draw_key()
        spec = draw_waits(self._waits, spec, self._world.job_ids, self._world.database.clock.now())
        job_id = self._world.new_job_id()
        for _ in range(self._rng.randint(1, 4)):
            answer = await self._world.ask(
                f"submit {job_id}", lambda it: it.commands.submit(job_id, spec, key)
            )
            if answer.value is not None:
                self._world.checks.promises.accepted(JobId(answer.value[0].job_id), self._name, key, answer)
            if answer.is_known:
                return
            await asyncio.sleep(self._rng.random() * 20)

    async def submit_batch(self) -> None:
        if len(self._world.job_ids) >= MAX_JOBS:
            return
        jobs = [(self._world.new_job_id(), draw_spec(self._rng, self._name)) for _ in range(3)]
        if self._arrays.random() < 0.6:
            await self._submit_array(*jobs[0])
            return
        answer = await self._world.ask("submit a batch", lambda it: it.commands.submit_batch(list(jobs)))
        for one in answer.value or ():
            self._world.checks.promises.accepted(JobId(one.job_id), self._name, None, answer)

    async def _submit_array(self, array_id: JobId, spec: JobSpec) -> None:
        """Instead of three jobs, three of one array; asked for twice, it is one array."""
        wanted = SubmitArray(
            spec=spec, parameters={"seed": [1, 2, 3]}, at_most=self._arrays.choice((1, 1, 2))
        )
        children = [child_id(array_id, index) for index in (1, 2, 3)]
        self._world.job_ids[-3:] = children
        for _ in range(self._arrays.choice((1, 2))):
            answer = await self._world.ask(
                f"submit array {array_id}", lambda it: it.arrays.submit_array(array_id, wanted, None)
            )
            for one in children if answer.value is not None else ():
                self._world.checks.promises.accepted(one, self._name, None, answer)
        if self._arrays.random() < 0.2:
            for one in children:
                self._world.checks.promises.meddled(one)
            await self._world.ask(
                f"cancel array {array_id}", lambda it: it.arrays.cancel_array(array_id, self._name)
            )

    async def cancel(self) -> None:
        if job_id := self._any():
            answer = await self._world.ask(
                f"cancel {job_id}", lambda it: it.commands.act(job_id, JobAction.CANCEL, self._name)
            )
            self._world.checks.promises.cancelled(job_id, answer)

    async def force_start(self) -> None:
        await self._meddle(
            "force start", lambda it, job_id: it.commands.act(job_id, JobAction.FORCE_START, self._name)
        )

    async def mark_failed(self) -> None:
        await self._meddle(
            "mark failed", lambda it, job_id: it.commands.act(job_id, JobAction.FAIL, self._name)
        )

    async def pause(self) -> None:
        await self._meddle("pause", lambda it, job_id: it.commands.act(job_id, JobAction.PAUSE, self._name))

    async def resume(self) -> None:
        await self._meddle("resume", lambda it, job_id: it.commands.act(job_id, JobAction.RESUME, self._name))

    async def resume_from(self) -> None:
        """From any checkpoint that the job has, or from one that it has not."""
        rng, cluster = self._world.rng, self._world.cluster

        async def ask(it: Any, job_id: JobId) -> Any:
            there = [one.id for one in await cluster.checkpoints(job_id)]
            return await it.commands.act(job_id, JobAction.RESUME, self._name, rng.choice([*there, "99.1"]))

        await self._meddle("resume from a choice", ask)

    async def restart(self) -> None:
        await self._meddle(
            "restart", lambda it, job_id: it.commands.act(job_id, JobAction.RESTART, self._name)
        )

    async def preempt(self) -> None:
        await self._meddle(
            "preempt", lambda it, job_id: it.commands.act(job_id, JobAction.PREEMPT, self._name)
        )

    async def look(self) -> None:
        """What was accepted is there, and nobody sees it go back."""
        if job_id := self._any():
            seen = self._world.checks.promises.newest_seen(job_id)
            answer = await self._world.ask(f"look at {job_id}", lambda it: it.queries.status(job_id))
            self._world.checks.promises.saw(job_id, seen, answer)

    async def list_jobs(self) -> None:
        await self._world.ask("list", lambda it: it.queries.jobs(JobQuery()))

    async def ask_for_health(self) -> None:
        async def ask(it: Any) -> Any:
            return health(await it.state(), started_at=NOON, pool=None)

        await self._world.ask("health", ask)

    async def reconcile(self) -> None:
        dry_run = self._rng.random() < 0.5
        await self._world.ask(f"reconcile {dry_run=}", lambda it: it.sync.reconcile(dry_run))

    async def _meddle(self, what: str, call: Callable[[Any, JobId], Awaitable[Any]]) -> Answer | None:
        if job_id := self._any():
            self._world.checks.promises.meddled(job_id)
            return await self._world.ask(f"{what} {job_id}", lambda it: call(it, job_id))
        return None

    def _any(self) -> JobId | None:
        return self._rng.choice(self._world.job_ids) if self._world.job_ids else None

    def _draw_key(self) -> str | None:
        """Sometimes the key of an earlier submit: then it is that job."""
        if self._rng.random() < 0.4:
            return None
        if self._num_keys == 0 or self._rng.random() < 0.8:
            self._num_keys += 1
        return f"key-{self._num_keys}"


class Recurrer:
    """Has a job submitted again and again, and forgets it when all is calm."""

    def __init__(self, world: World) -> None:
        self._world, self._chance = world, Random(f"{world.seed} what recurs")

    async def live(self) -> None:
        """Asked for in the end as in the beginning: else it would come for ever."""
        spec = draw_spec(self._chance, "recurrer")
        cron = self._chance.choice(("* * * * *", "*/2 * * * *", "*/20 * * * * *"))
        await self._insist(
            "recurs",
            lambda it: it.recurring.set_recurring_job("again", {"cron": cron, "spec": spec}, "recurrer"),
        )
        while not self._world.weather.is_calm:
            await asyncio.sleep(10.0)
        await self._insist(
            "recurs no more", lambda it: it.recurring.forget_recurring_job("again", "recurrer")
        )

    async def _insist(self, what: str, call: Callable[[Any], Awaitable[Any]]) -> None:
        while True:
            answer = await self._world.life.ask(call) if self._world.life else Answer()
            self._world.note(what, answer.error or ("ok" if answer.is_known else "no answer"))
            if answer.value is not None:
                return
            await asyncio.sleep(5.0)


class FrontEnd:
    """Writes into the database what a front end may write there: new jobs, and requests."""

    def __init__(self, world: World) -> None:
        self._world, self._rng = world, world.rng

    async def live(self) -> None:
        while True:
            await asyncio.sleep(self._rng.expovariate(1 / self._world.scenario.pause_s))
            if self._world.weather.is_calm:
                return
            self._rng.choices([self.insert, self.request, self.insert_as_earlier_systems_did], [5, 6, 1])[0]()

    def insert(self) -> None:
        if len(self._world.job_ids) < MAX_JOBS:
            job_id = self._world.new_job_id()
            spec = self._rng.choice([_written(draw_spec(self._rng, "")), *BAD_SPECS])
            self._world.database.insert_pending(
                spec, job_id=job_id, user_id=self._rng.choice([None, USER_ID])
            )
            self._world.note("front end inserts", job_id, spec)

    def insert_as_earlier_systems_did(self) -> None:
        """A row that claims to wait or to run, of which no scheduler knows."""
        if len(self._world.job_ids) < MAX_JOBS:
            job_id, status = self._world.new_job_id(), self._rng.choice(["queued", "running"])
            spec = _written(draw_spec(self._rng, ""))
            self._world.database.insert(job_id, spec=spec, status=status)
            self._world.note("an earlier system inserts", job_id, status)

    def request(self) -> None:
        if self._world.database.rows:
            job_id = self._rng.choice(sorted(self._world.database.rows))
            action = self._rng.choice(["cancel", "pause", "resume", "force_start"])
            self._world.note("front end asks", job_id, action)
            self._world.checks.promises.meddled(job_id)
            self._world.database.request(job_id, action)


USER_ID = "5f0c6a51-3a5e-4a8e-9d9b-0d5c1f8d7b11"
BAD_SPECS: list[Any] = [
    None,
    {},
    {"loop": "nobody:knows"},
    {"loop": LOOP, "resources": {"num_ranks": "many"}},
]


def _written(spec: JobSpec) -> Any:
    return SPEC.dump_python(spec, mode="json", exclude={"user"})
