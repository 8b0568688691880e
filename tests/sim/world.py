"""A cluster, a disk, a database and people under one seed; and the lives of the scheduler among them."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Coroutine
from contextlib import suppress
from random import Random
from typing import Any
from uuid import UUID

from scheduler.core.model import JobId
from scheduler.engine.policies import NOTE
from scheduler.testing.clock import NOON
from scheduler.testing.memory import Disk
from scheduler.testing.memory_mirror import Database
from tests.sim import disasters, people, settling
from tests.sim.checks import Broken, Checks
from tests.sim.faults import Trouble, Weather, draw_bomb
from tests.sim.listener import Listener
from tests.sim.lives import PATIENCE_S, Answer, Call, Life
from tests.sim.loop import LoopClock, Process, VirtualLoop
from tests.sim.runs import Cluster
from tests.sim.scenario import LOOP, Scenario


def _known_to_stop() -> bytes:
    """What an earlier life saw of the loop: without, nobody would ever be preempted for another job."""
    habit = {"start_s": 5.0, "save_s": 2.0, "stops": True, "saves": True}
    return json.dumps({"at_s": NOON.timestamp(), "ledger": {}, "usage": [], "habits": {LOOP: habit}}).encode()


class World:
    """Everything that outlives the scheduler.  `run` plays the seed, and raises Broken when a promise was."""

    def __init__(self, seed: int, troubles: frozenset[Trouble] | None = None) -> None:
        self.seed, self.rng = seed, Random(seed)
        self.scenario = Scenario.drawn(self.rng, troubles)
        self.settings = self.scenario.settings
        self.loop = VirtualLoop()
        self.process = Process(self.loop, "world")
        self.weather = Weather(self.rng, self.scenario.troubles, self.scenario.outages, self.scenario.hiccups)
        self.history: list[tuple[Any, ...]] = []
        self.disk = Disk()
        self.disk.notes[NOTE] = _known_to_stop()
        self.backup: Disk | None = None
        self.cluster = Cluster(nodes_now=self.scenario.nodes, world=self)
        self.database = Database(LoopClock(self.loop))
        self.listener = Listener()
        self.checks = Checks(self)
        self.lives: list[Life] = []
        self.job_ids: list[JobId] = []
        self.poisoned: set[JobId] = set()
        self._calm = asyncio.Event()
        self._broken: asyncio.Future[None] = self.loop.create_future()

    def run(self) -> None:
        random.seed(self.seed)  # the jitter of the backoff
        self.loop.set_exception_handler(lambda _loop, _context: None)
        try:
            self.loop.run_until_complete(self.process.start(self._until_broken()))
        finally:
            self.loop.finish([self.process, *(life.process for life in self.lives)])

    @property
    def life(self) -> Life | None:
        return self.lives[-1] if self.lives else None

    async def ask(self, what: str, call: Call) -> Answer:
        """What a person asks of the scheduler that is the newest at this moment."""
        hurry = not self.weather.is_calm and self.rng.random() < 0.1
        patience_s = self.rng.random() / 5 if hurry else PATIENCE_S
        answer = await self.life.ask(call, patience_s) if self.life else Answer()
        self.note(what, answer.error or ("ok" if answer.is_known else "no answer"))
        return answer

    def note(self, *words: Any) -> None:
        self.history.append((round(self.loop.time(), 3), *words))

    def act(self, work: Coroutine[Any, Any, Any]) -> None:
        """Somebody does something; a mistake of theirs ends the world."""
        self.process.start(work).add_done_callback(self._acted)

    def broken(self, words: str) -> None:
        self.note("BROKEN", words)
        if not self._broken.done():
            self._broken.set_exception(Broken(words))

    def new_job_id(self) -> JobId:
        self.job_ids.append(JobId(str(UUID(int=self.rng.getrandbits(128), version=4))))
        return self.job_ids[-1]

    async def calm_or_after(self, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._calm.wait(), seconds)
        if self.weather.is_calm:
            await asyncio.sleep(1.0)

    async def _until_broken(self) -> None:
        story = self.process.start(self._story())
        await asyncio.wait([story, self._broken], return_when=asyncio.FIRST_COMPLETED)
        await (self._broken if self._broken.done() else story)

    async def _story(self) -> None:
        undisturbed = not self.scenario.troubles & {Trouble.CLUSTER, Trouble.DISK}
        watch = [settling.watch_the_line(self)] if undisturbed else []
        for work in (self._keep_alive(), *watch, *people.everybody(self), *disasters.all_of(self)):
            self.act(work)
        await asyncio.sleep(self.scenario.length_s)
        self._be_calm()
        await asyncio.sleep(30.0)
        if self.poisoned:
            await settling.refused_jobs_hold_up_nobody(self)
        self.poisoned.clear()
        await settling.come_to_rest(self)

    async def _keep_alive(self) -> None:
        """What Ray does for an actor: when it is gone, or seems to be, there is a new one."""
        while True:
            self.lives.append(self._new_life())
            self.lives[-1].begin()
            await self.lives[-1].over.wait()
            await self.calm_or_after(disasters.time_to_restart_s(self))
            if not self.weather.is_calm:
                disasters.perhaps_lose_journal(self)

    def _new_life(self) -> Life:
        troubled = not self.weather.is_calm and Trouble.CRASH in self.scenario.troubles
        bomb = draw_bomb(self.rng) if troubled else None
        skew = self.rng.uniform(-20, 20) if Trouble.SKEW in self.scenario.troubles else 0.0
        return Life(self, len(self.lives) + 1, bomb, LoopClock(self.loop, skew))

    def _be_calm(self) -> None:
        self.note("all is calm")
        self.weather.is_calm = True
        self._calm.set()
        self.cluster.nodes_now = self.scenario.nodes
        for life in self.lives:
            life.process.steps_left = None
            life.fuse.bomb = None
            life.process.thaw()

    def _acted(self, task: asyncio.Task[Any]) -> None:
        if not task.cancelled() and (error := task.exception()) and not self._broken.done():
            self._broken.set_exception(error)
