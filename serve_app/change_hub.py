"""What changes, told to everybody who looks: one question to the registry, whatever the number of listeners."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncGenerator, Callable, Hashable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from scheduler.api.jobs import Changes, JobDocument
from scheduler.api.scheduler_api import SchedulerApi
from scheduler.core.model import Status
from scheduler.errors import SchedulerError
from serve_app.problems import invalid, shown

log = logging.getLogger(__name__)

T = TypeVar("T")

MOST_JOBS = 500
"""Whoever is further behind is told to load everything anew."""


class Shared:
    """One object for all listeners: what is made of it once serves them all."""

    __slots__ = ("_made",)
    _made: dict[Hashable, Any]

    def __init__(self) -> None:
        object.__setattr__(self, "_made", {})  # what inherits it is frozen

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """What *make* returns, made by the first listener that asks under this *key*: a rendered row, say."""
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]


@dataclass(frozen=True, eq=False)
class ChangedJob(Shared):
    """One changed job, as the registry had it.  A listener that lags gets the same objects, in other news."""

    document: JobDocument
    seq: int

    def __post_init__(self) -> None:
        Shared.__init__(self)


@dataclass(frozen=True, eq=False)
class ChangeBatch(Shared):
    """What changed at once.  A listener that keeps up gets the same object as all others."""

    life: int
    seq: int
    jobs: tuple[ChangedJob, ...]
    """Each job once, as it is now."""
    counts: Mapping[Status, int]
    """Jobs in each status, of everybody."""
    missed: bool
    """More has changed than is remembered: load everything anew.  Then `jobs` is empty."""

    def __post_init__(self) -> None:
        Shared.__init__(self)

    @property
    def position(self) -> ChangePosition:
        return ChangePosition(self.life, self.seq)

    @classmethod
    def of(cls, changes: Changes) -> ChangeBatch:
        jobs = tuple(ChangedJob(document, changes.seq) for document in changes.jobs)
        return cls(changes.life, changes.seq, jobs, changes.counts, changes.missed)

    def then(self, later: ChangeBatch) -> ChangeBatch:
        """Both as one, for whoever has not heard the first yet."""
        known = {changed.document.job_id: changed for changed in (*self.jobs, *later.jobs)}
        missed = self.missed or later.missed or len(known) > MOST_JOBS
        return replace(later, jobs=() if missed else tuple(known.values()), missed=missed)

    def after(self, position: ChangePosition) -> ChangeBatch | None:
        """What of it is newer than *position*; None when nothing is."""
        if (self.life, self.seq) <= (position.life, position.seq):
            return None
        if self.life > position.life:
            return self
        jobs = tuple(changed for changed in self.jobs if changed.seq > position.seq)
        return self if len(jobs) == len(self.jobs) else replace(self, jobs=jobs)


@dataclass(frozen=True, slots=True)
class Doubt:
    """The registry does not answer, and why; `message` is None when it does again."""

    message: str | None


@dataclass(frozen=True, slots=True)
class ChangePosition:
    """A place in the changes: what came before it was heard.  As text, the id of an event: `<life>.<seq>`."""

    life: int = 0
    seq: int = 0

    def __str__(self) -> str:
        return f"{self.life}.{self.seq}"

    @classmethod
    def of(cls, text: str) -> ChangePosition:
        """Raises InvalidRequest."""
        if not re.fullmatch(r"[0-9]{1,15}\.[0-9]{1,15}", text):
            raise invalid("from", f"is {shown(text)}; send the id of an event of this stream, as it was")
        life, _, seq = text.partition(".")
        return cls(int(life), int(seq))


@dataclass(frozen=True, slots=True, kw_only=True)
class HubTiming:
    wait_s: float = 5.0
    """So long the registry may keep a question until something changes."""
    heartbeat_s: float = 4.0
    """A listener without news is called at least so often: pages that hear nothing for 10 s say so."""
    rest_per_listener_s: float = 0.001
    """After news for many there is a rest, so that telling them leaves time for requests; what changes meanwhile is
    told at once then.  It is never longer than `longest_rest_s`."""
    longest_rest_s: float = 0.4
    shortest_s: float = 0.2
    """Until the registry is asked again after it did not answer; then longer, up to `longest_s`."""
    longest_s: float = 2.0


@dataclass(slots=True, eq=False)
class _Listener:
    """Holds one piece of news at most, so that it never grows: what comes later is merged into it."""

    _pending: ChangeBatch | None = None
    _woken: asyncio.Event = field(default_factory=asyncio.Event)

    def tell(self, news: ChangeBatch) -> None:
        self._pending = self._pending.then(news) if self._pending else news
        self.wake()

    def wake(self) -> None:
        self._woken.set()

    def take(self, after: ChangePosition) -> ChangeBatch | None:
        news, self._pending = self._pending, None
        return news and news.after(after)

    async def is_woken(self, within_s: float) -> bool:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._woken.wait(), within_s)
        was_woken = self._woken.is_set()
        self._woken.clear()
        return was_woken


class Hub:
    """One for each replica.  Asks the registry while somebody listens, and not at all otherwise.

    `listen` is all that pages need:

        position = await hub.position()             # before the page is read: nothing is lost in between
        ...
        async with aclosing(hub.listen(position)) as listening:
            async for heard in listening:
                match heard:
                    case ChangeBatch():                    # for changed in heard.jobs: changed.once("row", draw)
                    case Doubt(message=why):        # None: the registry answers again
                    case None:                      # nothing for `heartbeat_s`: send a comment
    """

    def __init__(self, registry: SchedulerApi, pace: HubTiming | None = None) -> None:
        self._registry, self._pace = registry, pace or HubTiming()
        self._listeners: set[_Listener] = set()
        self._polling: asyncio.Task[None] | None = None
        self._newest: ChangeBatch | None = None
        self._doubt: str | None = None

    async def position(self) -> ChangePosition:
        """Where a listener may begin who reads everything after this call.  Raises RegistryUnavailable."""
        newest = self._newest or ChangeBatch.of(await self._registry.changes(0, 0, 0.0))
        return newest.position

    async def listen(
        self, position: ChangePosition | None = None
    ) -> AsyncGenerator[ChangeBatch | Doubt | None]:
        """What changes after *position*, or from now on; first of all how far that is, with the counts.

        Never ends by itself: close it, or cancel whoever iterates.
        """
        listener = self._join()
        heard: ChangePosition | None = None
        reported: str | None = None
        try:
            while True:
                news = await self._first(position) if heard is None else listener.take(heard)
                if self._doubt != reported:
                    reported = self._doubt
                    yield Doubt(reported)
                if news is not None:
                    heard = news.position
                    yield news
                elif not await listener.is_woken(self._pace.heartbeat_s):
                    yield None
        finally:
            self._leave(listener)

    async def _first(self, position: ChangePosition | None) -> ChangeBatch | None:
        """Where a listener begins, and what came between; None until the registry has answered."""
        if self._newest is None:
            return None
        if position is None:
            return replace(self._newest, jobs=(), missed=False)
        try:
            return ChangeBatch.of(await self._registry.changes(position.seq, position.life, 0.0))
        except SchedulerError as error:
            self._say(error.message)
            return None

    def _join(self) -> _Listener:
        listener = _Listener()
        self._listeners.add(listener)
        if self._polling is None:
            self._polling = asyncio.create_task(self._poll_forever(), name="live")
        return listener

    def _leave(self, listener: _Listener) -> None:
        self._listeners.discard(listener)
        if self._polling is not None and not self._listeners:
            self._polling.cancel()
            self._polling = self._newest = self._doubt = None

    async def _poll_forever(self) -> None:
        pause_s = self._pace.shortest_s
        while True:
            try:
                at = self._newest.position if self._newest else ChangePosition()
                # In doubt there is no waiting for a change: that it answers is news.
                wait_s = 0.0 if self._doubt else self._pace.wait_s
                changes = await self._registry.changes(at.seq, at.life, wait_s)
            except SchedulerError as error:
                self._say(error.message)
            except Exception as error:
                log.exception("the registry could not be asked for changes")
                self._say(f"the registry could not be asked: {type(error).__name__}; see the server's log")
            else:
                self._hear(ChangeBatch.of(changes))
                pause_s = self._pace.shortest_s
                await asyncio.sleep(self._rest_s())
                continue
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, self._pace.longest_s)

    def _rest_s(self) -> float:
        return min(len(self._listeners) * self._pace.rest_per_listener_s, self._pace.longest_rest_s)

    def _hear(self, news: ChangeBatch) -> None:
        self._say(None)
        before, self._newest = self._newest, news
        if before is None:
            for listener in self._listeners:
                listener.wake()
        elif news.position != before.position:
            for listener in self._listeners:
                listener.tell(news)

    def _say(self, doubt: str | None) -> None:
        if doubt != self._doubt:
            self._doubt = doubt
            for listener in self._listeners:
                listener.wake()
