"""The scheduler as a process: it starts, serves, and ends by crash, by error, or because a newer one took over."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Any

from scheduler.core.model import Job
from scheduler.engine.service import Engine
from scheduler.engine.spec_validation import SpecValidator
from scheduler.errors import RegistryUnavailable, SchedulerError, Superseded
from scheduler.testing.memory import MemoryJournal
from tests.sim.faults import Bomb
from tests.sim.loop import LoopClock, Process
from tests.sim.scenario import LOOP
from tests.sim.wires import Fuse, Local, Remote, RemoteMirror, RemoteRunner

if TYPE_CHECKING:
    from tests.sim.world import World

WEBHOOK_TIMEOUT_S = 5.0
PATIENCE_S = 20.0
"""How long a person waits for an answer."""

Call = Callable[[Engine], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a person knows after asking.  Without value and without error they know nothing: it may be done."""

    value: Any = None
    error: SchedulerError | None = None
    life: Life | None = None
    """Who answered."""

    @property
    def is_known(self) -> bool:
        return self.value is not None or self.error is not None


class Life:
    """One incarnation.  `service` is there once it serves."""

    def __init__(self, world: World, number: int, bomb: Bomb | None, clock: LoopClock) -> None:
        self._world, self.clock = world, clock
        self.number, self.disk = number, world.disk
        self.began_s = world.loop.time()
        self.service: Engine | None = None
        self.serves_since_s = inf
        self.over = asyncio.Event()
        """Dead, or given up by whoever watches over it."""
        self.process = Process(world.loop, f"life {number}")
        self.fuse = Fuse(self.process, bomb)
        self.process.on_death = self._died

    def begin(self) -> None:
        self.process.start(self._live())

    @property
    def serves(self) -> bool:
        return self.service is not None and not self.process.is_dead

    async def ask(self, call: Call, patience_s: float = PATIENCE_S) -> Answer:
        """Refused at once when nobody serves; no answer when the life ends, or freezes, before it is given.

        Who runs out of patience hangs up, and with that the call is cancelled, wherever it is.
        """
        if self.service is None or self.process.is_dead:
            return Answer(error=RegistryUnavailable("nobody serves"))
        reply: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        task = self.process.start(self._answer(self.service, call, reply))
        try:
            return await asyncio.wait_for(reply, patience_s)
        except TimeoutError:
            task.cancel()
            return Answer()

    async def follow(self, job: Job) -> None:
        if self.service:
            self.service.supervisor.follow(job, is_up=True)

    async def _live(self) -> None:
        try:
            service = self._build()
            await service.recover()
            self.service, self.serves_since_s = service, self._world.loop.time()
            self._world.note(self.process.name, "serves")
            await _serve(service)
        except Exception as error:  # noqa: BLE001  the process ends with it, whatever it is
            self._world.note(self.process.name, "ends", repr(error))
            self._world.checks.life_ended(error)
        self.process.kill()

    async def _answer(self, service: Engine, call: Call, reply: asyncio.Future[Answer]) -> None:
        try:
            answer = Answer(value=await call(service), life=self)
        except SchedulerError as error:
            answer = Answer(error=error, life=self)
        except Exception as error:  # noqa: BLE001  whatever is asked, the answer is a document or an error of ours
            self._world.broken(f"somebody asked, and got {error!r}")
            return
        if not reply.done():
            reply.set_result(answer)

    def _build(self) -> Engine:
        world, fuse = self._world, self.fuse
        return Engine(
            journal=Local(world, MemoryJournal(world.disk), fuse),
            runner=RemoteRunner(world, fuse, self),
            mirror=RemoteMirror(world, fuse) if world.scenario.has_database else None,
            webhook=Remote(world, "webhook", world.listener, fuse, WEBHOOK_TIMEOUT_S),
            clock=self.clock,
            settings=world.settings,
            validator=SpecValidator([LOOP], []),
        )

    def _died(self) -> None:
        self._world.note(self.process.name, "is dead")
        self.over.set()


async def _serve(service: Engine) -> None:
    """As the actor does: until a loop, or a task in the background, learns that a newer life has taken over."""
    forever = asyncio.create_task(service.run_forever())
    superseded = asyncio.create_task(service.background.superseded.wait())
    await asyncio.wait([forever, superseded], return_when=asyncio.FIRST_COMPLETED)
    raise Superseded("a newer life has taken over")
