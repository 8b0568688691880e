"""The ports as one life of the scheduler has them: over a network, on a disk, and with a bomb under it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from typing import TYPE_CHECKING, Any

from scheduler.core.lifecycle import StartRun, StopRun
from scheduler.core.model import Fence, Job, JobId
from scheduler.errors import (
    JournalUnwritable,
    MirrorRefused,
    MirrorUnavailable,
    NotDelivered,
    RunUnreachable,
    SchedulerError,
)
from scheduler.ports import MirrorChange, Observation, ProgressUpdate, Run
from scheduler.testing.memory import MemoryJournal
from scheduler.testing.memory_mirror import MemoryMirror
from tests.sim.faults import ANSWERED, BEFORE, DONE, SMOOTH, Bomb, Fate, Trip
from tests.sim.loop import Process

if TYPE_CHECKING:
    from tests.sim.lives import Life
    from tests.sim.world import World

Work = Callable[[], Awaitable[Any]]
RUNNER_TIMEOUT_S = 20.0
SEEKS_S = (0.0, 0.0, 0.001, 0.02)
"""What one call to the disk takes."""
WRITES = frozenset({"commit", "forget", "forget_notices", "vouch", "raise_incarnation", "prune"})
UNSURE: dict[str, type[SchedulerError]] = {
    "mirror": MirrorUnavailable,
    "runner": RunUnreachable,
    "webhook": NotDelivered,
}
DENIED: dict[str, type[SchedulerError]] = UNSURE | {"mirror": MirrorRefused}


class Fuse:
    """Counts the calls of a life, and kills it at the one that was drawn."""

    def __init__(self, process: Process, bomb: Bomb | None) -> None:
        self._process, self.bomb = process, bomb
        self._calls = 0

    def burn(self, method: str, moment: str) -> None:
        bomb = self.bomb
        if bomb and (bomb.method, bomb.moment) == (method, moment):
            self._calls += 1
            if self._calls == bomb.count:
                self._process.kill()


class Remote:
    """Another machine.  What was sent arrives even when the sender is dead by then."""

    def __init__(self, world: World, port: str, target: Any, fuse: Fuse, timeout_s: float | None) -> None:
        self._world, self._port, self._target, self._fuse = world, port, target, fuse
        self._timeout_s = timeout_s

    def __getattr__(self, method: str) -> Callable[..., Awaitable[Any]]:
        async def call(*args: Any, **kwargs: Any) -> Any:
            return await self._call(method, lambda: getattr(self._target, method)(*args, **kwargs))

        return call

    async def _call(self, method: str, work: Work) -> Any:
        if self._world.weather.is_calm:
            return await work()
        name = f"{self._port}.{method}"
        self._fuse.burn(name, BEFORE)
        await asyncio.sleep(0)
        trip = self._world.weather.trip(self._port, self._world.loop.time()) if method != "wait" else SMOOTH
        answer: asyncio.Future[Any] = self._world.loop.create_future()
        self._world.process.start(self._carry(name, trip, work, answer))
        value = await self._wait_for(answer, method)
        self._fuse.burn(name, ANSWERED)
        await asyncio.sleep(0)
        return value

    async def _wait_for(self, answer: asyncio.Future[Any], method: str) -> Any:
        patience_s = None if method == "wait" else self._timeout_s
        try:
            async with asyncio.timeout(patience_s):
                return await answer
        except TimeoutError:
            raise UNSURE[self._port](f"no answer to {method} within {patience_s} s") from None

    async def _carry(self, name: str, trip: Trip, work: Work, answer: asyncio.Future[Any]) -> None:
        if trip.fate is not Fate.ARRIVES:
            self._world.note("network", name, trip.fate)
        await asyncio.sleep(trip.there_s)
        if trip.fate in (Fate.UNREACHED, Fate.REJECTED):
            errors = UNSURE if trip.fate is Fate.UNREACHED else DENIED
            return _fail(answer, errors[self._port](f"{name} was {trip.fate} (simulated)"))
        value, error = await _outcome(work)
        self._fuse.burn(name, DONE)
        if trip.fate is Fate.REPEATED:
            self._world.process.start(_again(trip.back_s, work))
        if trip.fate is Fate.UNANSWERED:
            return None
        await asyncio.sleep(trip.back_s)
        return _fail(answer, error) if error else _succeed(answer, value)


class RemoteMirror(Remote):
    """What the claim gave is known to the life once the answer is there, and goes with every write."""

    def __init__(self, world: World, fuse: Fuse) -> None:
        super().__init__(world, "mirror", Supabase(world), fuse, world.settings.supabase_timeout_s)

    async def claim(self, at_least: int) -> int:
        incarnation = await self._call("claim", lambda: Supabase(self._world).claim(at_least))
        self._target._incarnation = incarnation
        return incarnation


class RemoteRunner(Remote):
    """What a life asks of its runs, and when it last heard of them, is looked at."""

    def __init__(self, world: World, fuse: Fuse, life: Life) -> None:
        super().__init__(world, "runner", world.cluster, fuse, RUNNER_TIMEOUT_S)
        self._life = life
        self.unsure: set[Run] = set()

    async def start(self, action: StartRun) -> None:
        """One that raised may be undone, whether or not it was done."""
        self._world.checks.start_asked(action)
        self.unsure.add((action.job_id, action.fence))
        await self._call("start", lambda: self._target.start(action))
        self.unsure.discard((action.job_id, action.fence))

    async def recall(self, run: Run) -> Job | None:
        """The storage answers, whatever Ray does."""
        return await self._target.recall(run)

    async def newest(self, job_id: JobId) -> Fence:
        return await self._target.newest(job_id)

    async def observe(self, run: Run) -> Observation:
        observation = await self._call("observe", lambda: self._target.observe(run))
        self._world.cluster.seen_at_s[run] = self._world.loop.time()
        return observation

    async def stop(self, action: StopRun) -> None:
        if (action.job_id, action.fence) not in self.unsure:
            self._world.checks.stop_asked(self._life, action)
        await self._call("stop", lambda: self._target.stop(action))


class Supabase(MemoryMirror):
    """The database refuses a job that it cannot hold, and each write is looked at."""

    def __init__(self, world: World) -> None:
        super().__init__(world.database)
        self._world = world

    async def apply(self, changes: Collection[MirrorChange], *, forced: bool = False) -> None:
        if poisoned := sorted(change.job.id for change in changes if change.job.id in self._world.poisoned):
            raise MirrorRefused(f"job {poisoned[0]} cannot be held (simulated)")
        await super().apply(changes, forced=forced)
        self._world.note(
            "database", *(f"{c.job.id} {c.job.status} v{c.job.version}" for c in changes), forced
        )
        self._world.checks.database_changed("apply")

    async def vouch(self, signs: Collection[ProgressUpdate]) -> None:
        await super().vouch(signs)
        self._world.checks.vouched(self._incarnation)

    async def answer(self, job_id: JobId, action: str, refusal: str | None) -> None:
        was = self._world.database.rows.get(job_id, {}).get("requested_action")
        await super().answer(job_id, action, refusal)
        if was == action and refusal is None:
            self._world.checks.request_answered(job_id, action)


class Local:
    """The journal: on the scheduler's own disk, so that what it does and whether it lives go together."""

    def __init__(self, world: World, journal: MemoryJournal, fuse: Fuse) -> None:
        self._world, self._journal, self._fuse = world, journal, fuse

    @property
    def incarnation(self) -> int:
        return self._journal.incarnation

    @property
    def last_vouched_at(self) -> Any:
        return self._journal.last_vouched_at

    @property
    def unreadable(self) -> Any:
        return self._journal.unreadable

    def problem(self) -> str | None:
        return self._journal.problem()

    def __getattr__(self, method: str) -> Callable[..., Awaitable[Any]]:
        async def call(*args: Any, **kwargs: Any) -> Any:
            if self._world.weather.is_calm:
                return await self._world.checks.journal_call(self._journal, method, args, kwargs)
            name = f"journal.{method}"
            self._fuse.burn(name, BEFORE)
            await asyncio.sleep(self._world.rng.choice(SEEKS_S))
            if method in WRITES and self._world.weather.disk_is_broken(self._world.loop.time()):
                raise JournalUnwritable("the disk is full (simulated)")
            value = await self._world.checks.journal_call(self._journal, method, args, kwargs)
            self._fuse.burn(name, DONE)
            await asyncio.sleep(0)
            return value

        return call


async def _outcome(work: Work) -> tuple[Any, Exception | None]:
    try:
        return await work(), None
    except Exception as error:  # noqa: BLE001  carried to whoever asked
        return None, error


async def _again(after_s: float, work: Work) -> None:
    await asyncio.sleep(after_s)
    await _outcome(work)


def _succeed(answer: asyncio.Future[Any], value: Any) -> None:
    if not answer.done():
        answer.set_result(value)


def _fail(answer: asyncio.Future[Any], error: Exception) -> None:
    if not answer.done():
        answer.set_exception(error)
