"""What the service needs from the world.  Small protocols; `actor.py` alone knows which adapters exist."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, Protocol

from scheduler.api.job_query import JobQuery as JobQuery
from scheduler.api.job_query import Place as Place
from scheduler.api.job_query import Sort as Sort
from scheduler.api.metrics import MetricsDocument
from scheduler.core.checkpoints import Checkpoint
from scheduler.core.contender import Share
from scheduler.core.lifecycle import StartRun, StopRun
from scheduler.core.model import (
    Attempt,
    Fence,
    Job,
    JobEvent,
    JobId,
    Json,
    Node,
    Outcome,
    Reason,
    Status,
)
from scheduler.core.observation import Observation as Observation
from scheduler.core.observation import RankProcess as RankProcess
from scheduler.core.reconcile import Repair, Row, Stub
from scheduler.core.usage import HeldRun

Run = tuple[JobId, Fence]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A job as it is to be, and the event that made it so.  `before` is the version it replaces; 0 creates."""

    job: Job
    event: JobEvent
    before: int
    attempts: tuple[Attempt, ...] = ()
    """Earlier ones, of a job that is taken in; `event` may tell of a newer state of the last."""
    is_news: bool = False
    """Whoever runs the cluster is told of it: a notice is kept until the webhook has taken it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxRow:
    """A change that the mirror, or the webhook, has not taken yet.  `job` is as it was at that version."""

    seq: int
    job: Job
    event: JobEvent
    unreadable: bool = False
    """Neither this copy nor the job itself can be read any more: `job` is what is left of it."""


class Mark(NamedTuple):
    """How far a walk through the jobs has come, in the order of their last change: of one that ended, its end."""

    ended_at: datetime
    id: JobId


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """What one batch took away, and where the next one goes on."""

    events: int
    evidence: int
    """Attempts."""
    after: Mark | None
    """None: nothing older is left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldRuns:
    """Runs that held nodes, and where the next page goes on."""

    runs: list[HeldRun]
    left_out: int
    """Runs of which the record cannot be read, or does not tell when they ended: what they held then is not known."""
    after: Mark | None
    """None: these were the last."""


class Journal(Protocol):
    """The durable truth.  A commit that returned survives a crash; one that raised left nothing behind."""

    incarnation: int
    """Which life of the scheduler has this journal open; one more than the life before."""
    last_vouched_at: datetime | None
    """When the life before this one said for the last time that it was alive; None for a new journal."""

    @property
    def unreadable(self) -> Mapping[JobId, str]:
        """Jobs that were found not to be readable as they were written, and what of them.  Each reads as what is left of
        it, with the reason `unreadable`, and takes no other with it."""
        ...

    async def commit(self, changes: Sequence[Change], repairs: Sequence[Repair] = ()) -> None:
        """Write jobs, their events, their outbox rows, notices of what is news, and repairs: all or none.

        Raises VersionConflict when a job's stored version is not `before` (creating: when the id exists),
        Superseded when a newer incarnation has opened the journal, JournalUnwritable when the disk refuses, Unstorable
        for a value that could not be read back.  Calls that arrive together share one fsync.
        """
        ...

    def problem(self) -> str | None:
        """Why not everything is written, in words; None when all is."""
        ...

    async def active(self) -> list[Job]:
        """Every job that is not terminal, in the order of `created_at`."""
        ...

    async def get(self, job_id: JobId) -> Job | None: ...

    async def find_by_key(self, user: str, idempotency_key: str) -> Job | None: ...

    async def page(self, query: JobQuery) -> list[Job]: ...

    async def counts(self, query: JobQuery | None = None) -> dict[Status, int]:
        """How many jobs stand in each status, of those that match user, project and search of *query*; statuses
        without jobs may be left out."""
        ...

    async def events(self, job_id: JobId) -> list[JobEvent]:
        """A job's history, oldest first; empty when there is no such job."""
        ...

    async def attempts(self, job_id: JobId) -> list[Attempt]:
        """The runs of a job, oldest first, each as the last event that tells of it left it."""
        ...

    async def held_runs(self, since: datetime, until: datetime, after: Mark | None, limit: int) -> HeldRuns:
        """Every run that held nodes at a moment from *since* on, before *until*: those of at most *limit* jobs that
        changed since, the oldest change beyond *after* first; the first page has also those of jobs that have not ended
        and did not change since.

        A job that changes during the walk may come again: no run is missed, and what is told last holds.
        """
        ...

    async def outbox(self, limit: int, after: int = 0) -> list[OutboxRow]:
        """The oldest changes that were not yet forgotten, in commit order; only those with `seq` above *after*."""
        ...

    async def outbox_size(self) -> int: ...

    async def unsent(self, among: Collection[JobId] | None = None) -> frozenset[JobId]:
        """The jobs, of those *among* if given, that have a change in the outbox."""
        ...

    async def forget(self, seqs: Sequence[int]) -> None:
        """Drop outbox rows that the mirror has confirmed.  Unknown numbers are fine."""
        ...

    async def notices(self, limit: int, after: int = 0) -> list[OutboxRow]:
        """The oldest changes that are news and were not yet forgotten as such, in commit order; only those with `seq`
        above *after*."""
        ...

    async def forget_notices(self, seqs: Sequence[int]) -> None:
        """Drop notices that were delivered.  Unknown numbers are fine."""
        ...

    async def repairs(self, limit: int, before: int | None = None) -> list[tuple[int, Repair]]:
        """The newest repairs first, each with its number; only those numbered below *before*.

        At least the newest 10,000 are kept.
        """
        ...

    async def projects(self) -> dict[str, Share]:
        """What was set for projects, by name.  One that cannot be read is left out, and the log names it."""
        ...

    async def set_project(self, name: str, share: Share | None) -> None:
        """Write down what a project may have; None forgets it, and it has the default again.  Raises as a commit does."""
        ...

    async def note(self, name: str, doc: Json | None) -> None:
        """Keep a small value in the place of the one before; None forgets it.  Raises as a commit does."""
        ...

    async def noted(self, name: str) -> Json | None:
        """The newest value; None when there is none that can be read."""
        ...

    async def notes(self, prefix: str) -> dict[str, Json | None]:
        """The newest value of each note whose name begins with *prefix*, by name; None: it cannot be read."""
        ...

    async def prune(self, before: datetime, after: Mark | None, limit: int) -> Pruned:
        """Take the history of at most *limit* jobs that ended before *before*, the oldest beyond *after* first: all events
        but the last of each, and the evidence of its attempts.  The jobs and their attempts stay, and so does all of a
        job of which a change or a notice is still to be sent."""
        ...

    async def vouch(self, at: datetime) -> None:
        """Write down that the scheduler is alive: the next life reads it as `last_vouched_at`."""
        ...

    async def raise_incarnation(self, at_least: int) -> None:
        """Go on as incarnation *at_least*, if that is higher.  Raises Superseded like a commit."""
        ...

    async def close(self) -> None:
        """Finish the commits that were asked for, and let go of what was held.  Safe to repeat."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class MirrorChange:
    """The newest state of one job for the mirror, with all of its events that the mirror has not seen."""

    job: Job
    events: tuple[JobEvent, ...] = ()
    queue_position: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgressUpdate:
    """What moves without a change of the job: progress of a run, place in the queue, why it waits."""

    job_id: JobId
    version: int
    """Taken only while the row has this version."""
    reason: Reason
    progress: Json | None
    queue_position: int | None
    verified_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Full rows, with the time of the database when it read them."""

    rows: tuple[Row, ...]
    read_at: datetime
    vouched_at: datetime | None
    """When the last scheduler of this cluster said it was alive."""


class Mirror(Protocol):
    """The copy in Supabase: what the scheduler tells the world, and what front ends write.

    Holds only rows of its own cluster.  Every call raises MirrorUnavailable when it is not known whether it was
    done (ask again: all are safe to repeat), MirrorRefused when the database said no and nothing was done, and
    every write raises Superseded, having changed nothing, when a newer incarnation has claimed the cluster.
    """

    async def claim(self, at_least: int) -> int:
        """Become the newest scheduler of the cluster: returns its incarnation, above every earlier one and not
        below *at_least*.  Called once in a life, before any write; a repeat after a lost answer claims anew."""
        ...

    async def apply(self, changes: Collection[MirrorChange], *, forced: bool = False) -> None:
        """Write jobs and events, all or none.  A row with a newer version keeps it, unless *forced* (the caller
        has seen that no scheduler wrote it); the same version again is the same.  Events are added once.
        `requested_action` and `user_id` of a row that is there are left as they are."""
        ...

    async def vouch(self, signs: Collection[ProgressUpdate]) -> None:
        """Say that the scheduler is alive, and what has moved.  A sign of an older version changes nothing."""
        ...

    async def inbox(self, after: tuple[datetime, JobId] | None, limit: int) -> Rows:
        """What front ends want: `pending` rows of version 0, and rows with a requested action; by `updated_at`
        and id, only those after the one given."""
        ...

    async def answer(self, job_id: JobId, action: str, refusal: str | None) -> None:
        """The requested *action* was taken, or refused in words (kept in `request_error`).  A request that was
        replaced by another meanwhile stays."""
        ...

    async def active(self, after: JobId | None, limit: int) -> list[Stub]:
        """Rows of jobs that are not terminal, and finished ones that differ from the scheduler's own copy, by id."""
        ...

    async def prune(self, before: datetime, after: Mark | None, limit: int) -> Pruned:
        """As `Journal.prune`, by what the rows say."""
        ...

    async def rows(self, job_ids: Collection[JobId]) -> Rows:
        """Those of the given jobs that are there, in any order."""
        ...

    async def page(self, query: JobQuery) -> list[Row]:
        """As `Journal.page` of a plain query, without the filter by project and user being indexed; `job` may be
        left out."""
        ...

    async def check(self) -> str:
        """What was found, in words, when everything is as it must be: reachable, key of the service role, schema
        of this release.  Raises MirrorRefused with the remedy, or MirrorUnavailable."""
        ...


class Webhook(Protocol):
    async def send(self, notice: OutboxRow) -> None:
        """Tell about one change.  Raises NoticeRefused when the receiver does not want this notice, NotDelivered when it
        is not there to take any; the same notice may arrive twice, with the same id."""
        ...


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

    async def examine(self, run: Run) -> Json:
        """What the ranks are doing: their stacks and last log lines, by rank.  Touches nothing."""
        ...

    async def checkpoints(self, job_id: JobId) -> list[Checkpoint]:
        """The complete checkpoints of a job, in any order.  Raises StorageUnavailable."""
        ...

    async def live(self) -> frozenset[Run]:
        """Runs that exist now, wanted or not."""
        ...

    async def recall(self, run: Run) -> Job | None:
        """The job as it was when this run, live or gone, got its nodes, from what the run keeps on the storage; None
        when it keeps nothing that can be read."""
        ...

    async def newest(self, job_id: JobId) -> Fence:
        """The highest fence of which the storage has a trace; 0 when there is none.  May raise OSError."""
        ...

    async def read_log(self, run: Run, rank: int, offset: int, limit: int) -> LogPart:
        """Part of a log of a run, live or long gone; a log that is not there yet is empty."""
        ...

    async def metrics(self, job_id: JobId, points: int) -> MetricsDocument:
        """What all runs of a job said they measured, live or long gone, thinned out to *points*.

        Raises StorageUnavailable.
        """
        ...

    async def trends(self, job_ids: Collection[JobId], points: int) -> dict[JobId, list[float]]:
        """The loss of each job in at most *points* numbers; jobs that told none are left out, and so are those
        whose long history is still being read: ask again later.  Raises StorageUnavailable."""
        ...

    async def nodes(self) -> tuple[Node, ...]:
        """The nodes that are alive now."""
        ...


class Clock(Protocol):
    def now(self) -> datetime:
        """Aware, UTC.  Somebody may set it, an hour forwards or back: for what is written down or shown."""
        ...

    def monotonic_s(self) -> float:
        """Seconds since some moment of this process; only differences mean something, and nobody can set it."""
        ...
