"""What the service needs from the world.  Small protocols; `actor.py` alone knows which adapters exist."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from scheduler.core.lifecycle import StartRun, StopRun
from scheduler.core.model import Fence, Job, JobEvent, JobId, Json, Node, Outcome, Phase, Status

Run = tuple[JobId, Fence]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A job as it is to be, and the event that made it so.  `before` is the version it replaces; 0 creates."""

    job: Job
    event: JobEvent
    before: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxRow:
    """A change that the mirror has not taken yet."""

    seq: int
    job: Job
    event: JobEvent


@dataclass(frozen=True, slots=True, kw_only=True)
class JobQuery:
    """A page of jobs, newest first: by `created_at`, then by id, both descending."""

    statuses: frozenset[Status] = frozenset()
    user: str | None = None
    project: str | None = None
    after: tuple[datetime, JobId] | None = None
    """Only jobs older than this one: the last job of the page before."""
    limit: int = 50


class Journal(Protocol):
    """The durable truth.  A commit that returned survives a crash; one that raised left nothing behind."""

    incarnation: int
    """Which life of the scheduler has this journal open; one more than the life before."""

    async def commit(self, changes: Sequence[Change]) -> None:
        """Write jobs, their events and their outbox rows, all or none.

        Raises VersionConflict when a job's stored version is not `before` (creating: when the id exists),
        Superseded when a newer incarnation has opened the journal, JournalUnwritable when the disk refuses.
        Calls that arrive together share one fsync.
        """
        ...

    async def active(self) -> list[Job]:
        """Every job that is not terminal, in the order of `created_at`."""
        ...

    async def get(self, job_id: JobId) -> Job | None: ...

    async def find_by_key(self, user: str, idempotency_key: str) -> Job | None: ...

    async def page(self, query: JobQuery) -> list[Job]: ...

    async def counts(self) -> dict[Status, int]:
        """How many jobs stand in each status; statuses without jobs may be left out."""
        ...

    async def events(self, job_id: JobId) -> list[JobEvent]:
        """A job's history, oldest first; empty when there is no such job."""
        ...

    async def outbox(self, limit: int) -> list[OutboxRow]:
        """The oldest changes that were not yet forgotten, in commit order."""
        ...

    async def outbox_size(self) -> int: ...

    async def forget(self, seqs: Sequence[int]) -> None:
        """Drop outbox rows that the mirror has confirmed.  Unknown numbers are fine."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RankProcess:
    """One process of a gang, named so that it can be told from a later one with the same pid."""

    rank: int
    node_id: str
    pid: int
    created_at_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What a live run says of itself: the proof behind `running`."""

    phase: Phase
    phases: dict[str, float] = field(default_factory=dict[str, float])
    """Seconds since the epoch at which each phase began."""
    progress: Json | None = None
    ranks: tuple[RankProcess, ...] = ()


@dataclass(frozen=True, slots=True)
class LogPart:
    """Bytes `offset` to `next_offset` of a log, as text."""

    text: str
    offset: int
    next_offset: int
    is_end: bool
    """Nothing came after it when it was read."""


class Runner(Protocol):
    """Starts, stops and watches runs.  `start` and `stop` are safe to repeat for the same (job, fence)."""

    async def start(self, action: StartRun) -> None:
        """Bring the run up, or find it up already.  Raises when it could not even be asked for."""
        ...

    async def stop(self, action: StopRun) -> None:
        """Ask the run to end, and make it when its time is up.  An unknown run is fine."""
        ...

    async def wait(self, run: Run) -> Outcome:
        """Return when every process of the run is gone, with how it ended.  Never invents an ending."""
        ...

    async def observe(self, run: Run) -> Observation:
        """Raises RunUnreachable when the run does not answer in time: that is unknown, not dead."""
        ...

    async def live(self) -> frozenset[Run]:
        """Runs that exist now, wanted or not."""
        ...

    async def read_log(self, run: Run, rank: int, offset: int, limit: int) -> LogPart:
        """Part of a log of a run, live or long gone; a log that is not there yet is empty."""
        ...

    async def nodes(self) -> tuple[Node, ...]:
        """The nodes that are alive now."""
        ...


class Clock(Protocol):
    def now(self) -> datetime:
        """Aware, UTC."""
        ...
