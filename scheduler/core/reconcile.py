"""What the registry believes against what is there: runs, and rows of the database.  Level-triggered, and pure.

Passive facts come first (what we had not seen), corrections second; once a plan has been carried out, the next
one is empty.  The periodic pass, start-up, the inbox, the dry run and the tests all use these functions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from scheduler.core.model import Attempt, Fence, Job, JobId, Json, Reason, Status

Run = tuple[JobId, Fence]


# Runs


@dataclass(frozen=True, slots=True, kw_only=True)
class Runs:
    """The runs that should be against those that are.  Each in order of job and fence."""

    attach: tuple[Run, ...] = ()
    """Wanted and alive, and nobody follows them yet."""
    lost: tuple[Run, ...] = ()
    """Wanted and not there.  A run that is only just being started is among them."""
    orphans: tuple[Run, ...] = ()
    """There and not among the wanted.  Whether one may be stopped, `is_over` says."""

    @property
    def is_empty(self) -> bool:
        return not (self.attach or self.lost or self.orphans)


def compare_runs(wanted: Mapping[JobId, Fence], live: Set[Run], attached: Set[Run] = frozenset()) -> Runs:
    """Compare the running jobs, each with its newest fence, with the runs that exist now."""
    runs = set(wanted.items())
    return Runs(
        attach=tuple(sorted((runs & live) - attached)),
        lost=tuple(sorted(runs - live)),
        orphans=tuple(sorted(live - runs)),
    )


def is_over(run: Run, known: Job | None) -> bool:
    """Whether the journal proves that nobody wants this run: its job had a newer one since, or it was seen to end.

    *known* is the job as the journal has it.  A run of a job that it does not know, or that is newer than what it
    knows, is no orphan: the journal was lost, or restored from a backup.
    """
    _, fence = run
    if known is None or known.fence < fence:
        return False
    return known.fence > fence or known.status is not Status.RUNNING


# Rows of the database


@dataclass(frozen=True, slots=True, kw_only=True)
class Stub:
    """The little of a row that tells whether it agrees with the registry."""

    id: JobId
    status: Status
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A job as the database has it.  Any part of it may have been written by anybody."""

    id: JobId
    status: Status
    version: int
    """0: no scheduler has written it yet."""
    name: str
    spec: Json | None
    """As it was written; not checked."""
    job: Job | None = None
    """The scheduler's own copy, as of its last write; None when there is none or it cannot be read."""
    attempts: tuple[Attempt, ...] = ()
    """The runs that the database knows of, the first one first; where `job` is left out, they are too."""
    user_id: str | None = None
    requested_action: str | None = None
    reason: Reason | None = None
    progress: Json | None = None
    attempt: int = 0
    queue_position: int | None = None
    created_at: datetime
    queued_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    updated_at: datetime
    """By the clock of the database, whoever wrote last."""
    verified_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Differences:
    """Ids, sorted."""

    unknown: tuple[JobId, ...] = ()
    """In the database, and neither in the registry nor in the journal."""
    differing: tuple[JobId, ...] = ()
    """Known, and the row says something else.  To be mirrored again."""
    missing: tuple[JobId, ...] = ()
    """Known to be active, and without an active row.  To be mirrored again."""


def compare_rows(
    known: Mapping[JobId, tuple[Status, int]], stubs: Iterable[Stub], unsent: Set[JobId]
) -> Differences:
    """Compare (status, version) of the *known* jobs with the active rows, and with finished ones that somebody altered;
    *unsent* ones are on their way.

    *known* holds every active job, and those finished ones that a row names.
    """
    rows = {stub.id: (stub.status, stub.version) for stub in stubs}
    settled = {job_id: stands for job_id, stands in known.items() if job_id not in unsent}
    return Differences(
        unknown=tuple(sorted(rows.keys() - known.keys())),
        differing=tuple(
            sorted(i for i, stands in settled.items() if i in rows and not _agrees(rows[i], stands))
        ),
        missing=tuple(sorted(i for i, (s, _) in settled.items() if i not in rows and not s.is_terminal)),
    )


def _agrees(row: tuple[Status, int], stands: tuple[Status, int]) -> bool:
    """A finished row is only among them when it is not as a scheduler wrote it."""
    return row == stands and not row[0].is_terminal


class Policy(StrEnum):
    """What becomes of waiting jobs that are found after an outage."""

    START = "start"
    HOLD = "hold"
    FAIL = "fail"


class Decision(StrEnum):
    """What to do with a row that only the database knows."""

    WAIT = "wait"
    """Nothing yet: it is young, and may explain itself."""
    ADOPT = "adopt"
    """Treat it as a submit."""
    RECOVER = "recover"
    """Take the scheduler's own copy back into the journal, as it stands."""
    HOLD = "hold"
    """The same, but a person must start it."""
    STALE = "stale"
    """No heartbeat says that anybody looks after it: mark it as failed."""
    FAIL = "fail"
    """Found after an outage, and the policy is to fail such jobs."""


_BY_POLICY = {Policy.START: Decision.RECOVER, Policy.HOLD: Decision.HOLD, Policy.FAIL: Decision.FAIL}


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What to do with a row that the registry does not know, and what was seen that led to it."""

    decision: Decision
    in_reality: str
    why: str


def judge(
    row: Row,
    *,
    live: Set[Run],
    vouched_at: datetime | None,
    now: datetime,
    stale_after_s: float,
    policy: Policy,
) -> Verdict:
    """Decide about a *row* that neither registry nor journal knows.  All times are the database's.

    Where the row carries the scheduler's own copy, that is believed, whatever else the row says.
    """
    status = row.job.status if row.job else row.status
    runs = sorted(fence for job_id, fence in live if job_id == row.id)
    seen = f"run {runs[-1]} is alive" if runs else "no run of it is alive"
    age_s = _age_s(row, vouched_at, now)
    told = f"last heartbeat {age_s:.0f} s ago; the limit is {stale_after_s:g} s"

    def verdict(decision: Decision, why: str) -> Verdict:
        return Verdict(decision=decision, in_reality=f"not in the registry; {seen}", why=why)

    if row.job and status is Status.RUNNING and runs:
        return verdict(Decision.RECOVER, "its run is alive, so it goes on")
    if row.job and (status is Status.PAUSED or status.is_terminal):
        return verdict(Decision.RECOVER, f"{status} jobs wait for a person, however long")
    if status is Status.PAUSED:
        return verdict(Decision.WAIT, "paused by no scheduler; a person may resume or cancel it")
    if status.is_terminal:
        return verdict(
            Decision.WAIT, f"{status}, with a copy that cannot be read; nothing is to be done for it"
        )
    if age_s >= stale_after_s:
        return verdict(Decision.STALE, told)
    if row.job and status is Status.RUNNING:
        return verdict(Decision.RECOVER, f"a scheduler ran it; {told}")
    if status is Status.RUNNING:
        return verdict(Decision.WAIT, f"no scheduler ever ran it; {told}")
    if row.job:
        return verdict(_BY_POLICY[policy], f"recover_queued is `{policy}`; {told}")
    return verdict(Decision.ADOPT, f"written by a front end; {told}")


def _age_s(row: Row, vouched_at: datetime | None, now: datetime) -> float:
    """Seconds since the last heartbeat of a scheduler that had the row, or anybody wrote it.

    The heartbeat of a scheduler counts for all rows it had written, however long they had been waiting.
    """
    vouched = vouched_at if row.version else None
    return (now - max(row.updated_at, vouched or row.updated_at)).total_seconds()


@dataclass(frozen=True, slots=True, kw_only=True)
class Repair:
    """One thing that was repaired, and why.  Kept in the journal, served at GET /api/training/repairs."""

    job_id: JobId
    at: datetime
    by: str
    """`reconciler`, `inbox` or `start-up`."""
    in_database: str
    in_reality: str
    decided: str
    why: str


def in_words(row: Row | Stub) -> str:
    """What the database says, for a repair."""
    return f"{row.status}, version {row.version}"


def oldest_first(rows: Sequence[Row]) -> list[Row]:
    """The order in which rows are taken in: first what runs, so that nobody is placed on its nodes; then as the
    queue was, by the old places and by when they came."""
    return sorted(rows, key=_turn)


def _turn(row: Row) -> tuple[bool, float, datetime, JobId]:
    return row.status is not Status.RUNNING, _place(row), row.queued_at or row.created_at, row.id


def _place(row: Row) -> float:
    seq = row.job.queue_seq if row.job else None
    return float("inf") if seq is None else seq
