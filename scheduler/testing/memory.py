"""A journal without a disk, which keeps the promises of the real one and fails when it is told to."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, TypeVar

from pydantic import TypeAdapter

from scheduler.api.cursors import is_found, place_of
from scheduler.core.codec import encode
from scheduler.core.contender import SHARE, Share
from scheduler.core.model import ATTEMPT, EVENT, JOB, NOTE, Attempt, Fence, Job, JobEvent, JobId, Json, Status
from scheduler.core.reconcile import Repair
from scheduler.core.usage import HeldRun, held_run, overlaps
from scheduler.errors import Superseded, VersionConflict
from scheduler.ports import Change, HeldRuns, JobQuery, Mark, OutboxRow, Place, Pruned

T = TypeVar("T")


class Crash(BaseException):
    """The scheduler's process ends here.  No `except Exception` may survive it."""


def _nothing() -> None:
    pass


@dataclass
class Disk:
    """What survives a crash: give the same disk to the next `MemoryJournal`.

    Documents are kept as JSON, so that nothing a test holds is shared with what was written.
    """

    jobs: dict[JobId, bytes] = field(default_factory=dict)
    events: dict[JobId, list[bytes]] = field(default_factory=dict)
    attempts: dict[JobId, dict[Fence, bytes]] = field(default_factory=dict)
    outbox: dict[int, tuple[bytes, bytes]] = field(default_factory=dict)
    notices: dict[int, tuple[bytes, bytes]] = field(default_factory=dict)
    repairs: list[Repair] = field(default_factory=list)
    projects: dict[str, bytes] = field(default_factory=dict)
    notes: dict[str, bytes] = field(default_factory=dict)
    keys: dict[tuple[str, str], JobId] = field(default_factory=dict)
    last_seq: int = 0
    opened: int = 0
    incarnation: int = 0
    vouched_at: datetime | None = None
    num_writes: int = 0
    fail_next: Exception | None = None
    """Raised by the next write, which leaves nothing."""
    before_commit: Callable[[], None] = _nothing
    """Called when a write is about to become durable; raise `Crash` to lose it."""
    after_commit: Callable[[], None] = _nothing
    """Called when a write is durable and its caller does not know yet; raise `Crash` to keep it so."""

    def all_jobs(self) -> list[Job]:
        """Every job, in the order of `created_at`."""
        jobs = [JOB.validate_json(doc) for doc in self.jobs.values()]
        return sorted(jobs, key=_age)


class MemoryJournal:
    """A `scheduler.ports.Journal` on a `Disk`.  Each one made is the next incarnation.  It never waits."""

    incarnation: int
    last_vouched_at: datetime | None

    def __init__(self, disk: Disk | None = None) -> None:
        self.disk = disk or Disk()
        self.disk.opened += 1
        self.disk.incarnation += 1
        self._opened, self.incarnation = self.disk.opened, self.disk.incarnation
        self.last_vouched_at = self.disk.vouched_at
        self.unreadable: Mapping[JobId, str] = {}
        """None: nothing but this writes to it."""

    async def commit(self, changes: Sequence[Change], repairs: Sequence[Repair] = ()) -> None:
        self._check_owner()
        docs = [(_doc(JOB, change.job), _doc(EVENT, change.event)) for change in changes]
        runs = [
            (change.job.id, run.fence, _doc(ATTEMPT, run))
            for change in changes
            for run in (*change.attempts, change.event.attempt)
            if run
        ]
        keys = self._check(changes)
        self._before_write()
        self.disk.keys |= keys
        for change, (job, event) in zip(changes, docs, strict=True):
            self.disk.last_seq += 1
            self.disk.jobs[change.job.id] = job
            self.disk.events.setdefault(change.job.id, []).append(event)
            self.disk.outbox[self.disk.last_seq] = (job, event)
            if change.is_news:
                self.disk.notices[self.disk.last_seq] = (job, event)
        for job_id, fence, run in runs:
            self.disk.attempts.setdefault(job_id, {})[fence] = run
        self.disk.repairs += repairs
        self.disk.after_commit()

    async def forget(self, seqs: Sequence[int]) -> None:
        self._delete(self.disk.outbox, seqs)

    async def forget_notices(self, seqs: Sequence[int]) -> None:
        self._delete(self.disk.notices, seqs)

    async def prune(self, before: datetime, after: Mark | None, limit: int) -> Pruned:
        self._check_owner()
        self._before_write()
        over = sorted((job.updated_at, job.id) for job in self.disk.all_jobs() if job.status.is_terminal)
        page = [place for place in over if place[0] < before and (after is None or place > after)][:limit]
        unsent = {job.id for rows in (self.disk.outbox, self.disk.notices) for job in _jobs_of(rows)}
        ids = [job_id for _, job_id in page if job_id not in unsent]
        taken = [self._prune(job_id) for job_id in ids]
        self.disk.after_commit()
        return Pruned(
            events=sum(events for events, _ in taken),
            evidence=sum(evidence for _, evidence in taken),
            after=Mark(*page[-1]) if len(page) == limit else None,
        )

    def _prune(self, job_id: JobId) -> tuple[int, int]:
        events, runs = self.disk.events[job_id], self.disk.attempts.get(job_id, {})
        self.disk.events[job_id] = events[-1:]
        told = {fence: run for fence, doc in runs.items() if (run := ATTEMPT.validate_json(doc)).evidence}
        for fence, run in told.items():
            runs[fence] = _doc(ATTEMPT, replace(run, evidence=None))
        return len(events) - 1, len(told)

    async def set_project(self, name: str, share: Share | None) -> None:
        self._check_owner()
        doc = share and _doc(SHARE, share)
        self._before_write()
        if doc:
            self.disk.projects[name] = doc
        else:
            self.disk.projects.pop(name, None)
        self.disk.after_commit()

    async def note(self, name: str, doc: Json | None) -> None:
        self._check_owner()
        document = None if doc is None else _doc(NOTE, doc)
        self._before_write()
        if document is None:
            self.disk.notes.pop(name, None)
        else:
            self.disk.notes[name] = document
        self.disk.after_commit()

    async def vouch(self, at: datetime) -> None:
        self._check_owner()
        self._before_write()
        self.disk.vouched_at = at
        self.disk.after_commit()

    async def raise_incarnation(self, at_least: int) -> None:
        self._check_owner()
        self._before_write()
        self.disk.incarnation = max(self.disk.incarnation, at_least)
        self.disk.after_commit()
        self.incarnation = self.disk.incarnation

    async def active(self) -> list[Job]:
        return [job for job in self.disk.all_jobs() if not job.status.is_terminal]

    async def get(self, job_id: JobId) -> Job | None:
        doc = self.disk.jobs.get(job_id)
        return JOB.validate_json(doc) if doc else None

    async def find_by_key(self, user: str, idempotency_key: str) -> Job | None:
        job_id = self.disk.keys.get((user, idempotency_key))
        return await self.get(job_id) if job_id else None

    async def page(self, query: JobQuery) -> list[Job]:
        found = [job for job in self.disk.all_jobs() if _matches(job, query) and _has_status(job, query)]
        found.sort(key=lambda job: _rank(place_of(job, query.sort)), reverse=query.sort.is_down)
        return [job for job in found if _is_beyond(place_of(job, query.sort), query)][: query.limit]

    async def counts(self, query: JobQuery | None = None) -> dict[Status, int]:
        counts: dict[Status, int] = {}
        for job in self.disk.all_jobs():
            if _matches(job, query or JobQuery()):
                counts[job.status] = counts.get(job.status, 0) + 1
        return counts

    async def events(self, job_id: JobId) -> list[JobEvent]:
        return [EVENT.validate_json(doc) for doc in self.disk.events.get(job_id, [])]

    async def attempts(self, job_id: JobId) -> list[Attempt]:
        runs = self.disk.attempts.get(job_id, {})
        return [ATTEMPT.validate_json(doc) for _, doc in sorted(runs.items())]

    async def held_runs(self, since: datetime, until: datetime, after: Mark | None, limit: int) -> HeldRuns:
        jobs = [job for job in self.disk.all_jobs() if job.created_at < until]
        changed = sorted((job.updated_at, job.id) for job in jobs if job.updated_at >= since)
        page = [place for place in changed if after is None or place > after][:limit]
        still = [
            job.id for job in jobs if job.updated_at < since and not job.status.is_terminal and not after
        ]
        wanted = {job_id for _, job_id in page}.union(still)
        runs = [
            _held_run(job, attempt)
            for job in jobs
            if job.id in wanted
            for attempt in await self.attempts(job.id)
        ]
        return HeldRuns(
            runs=[run for run in runs if run and overlaps(run, since, until)],
            left_out=runs.count(None),
            after=Mark(*page[-1]) if len(page) == limit else None,
        )

    async def outbox(self, limit: int, after: int = 0) -> list[OutboxRow]:
        return _oldest(self.disk.outbox, limit, after)

    async def outbox_size(self) -> int:
        return len(self.disk.outbox)

    async def unsent(self, among: Collection[JobId] | None = None) -> frozenset[JobId]:
        waiting = frozenset(JOB.validate_json(job).id for job, _ in self.disk.outbox.values())
        return waiting if among is None else waiting.intersection(among)

    async def notices(self, limit: int, after: int = 0) -> list[OutboxRow]:
        return _oldest(self.disk.notices, limit, after)

    async def repairs(self, limit: int, before: int | None = None) -> list[tuple[int, Repair]]:
        numbered = list(enumerate(self.disk.repairs, start=1))[
            : None if before is None else max(before - 1, 0)
        ]
        return numbered[::-1][:limit]

    async def projects(self) -> dict[str, Share]:
        return {name: SHARE.validate_json(doc) for name, doc in sorted(self.disk.projects.items())}

    async def noted(self, name: str) -> Json | None:
        doc = self.disk.notes.get(name)
        return NOTE.validate_json(doc) if doc else None

    async def notes(self, prefix: str) -> dict[str, Json | None]:
        docs = sorted(self.disk.notes.items())
        return {name: NOTE.validate_json(doc) for name, doc in docs if name.startswith(prefix)}

    def problem(self) -> str | None:
        return None

    async def close(self) -> None:
        """Nothing to let go of."""

    def _check_owner(self) -> None:
        if self.disk.opened != self._opened:
            raise Superseded(
                f"the journal was opened by incarnation {self.disk.incarnation}; this is {self.incarnation}"
            )

    def _delete(self, rows: dict[int, tuple[bytes, bytes]], seqs: Sequence[int]) -> None:
        self._check_owner()
        self._before_write()
        for seq in seqs:
            rows.pop(seq, None)
        self.disk.after_commit()

    def _before_write(self) -> None:
        failure, self.disk.fail_next = self.disk.fail_next, None
        if failure:
            raise failure
        self.disk.before_commit()
        self.disk.num_writes += 1

    def _check(self, changes: Sequence[Change]) -> dict[tuple[str, str], JobId]:
        """Return the idempotency keys that *changes* take."""
        versions: dict[JobId, int] = {}
        keys: dict[tuple[str, str], JobId] = {}
        for change in changes:
            job = change.job
            if (change.event.job_id, change.event.version) != (
                job.id,
                job.version,
            ) or job.version <= change.before:
                raise ValueError(f"the event of job {job.id} is not that of its new version")
            stored = versions.get(job.id) or self._stored_version(job.id)
            if stored != change.before:
                raise VersionConflict(f"job {job.id} is at version {stored}, not {change.before}")
            versions[job.id] = job.version
            if job.idempotency_key is not None:
                key = (job.spec.user, job.idempotency_key)
                if (keys | self.disk.keys).get(key, job.id) != job.id:
                    raise VersionConflict(f"idempotency key {key} belongs to another job")
                keys[key] = job.id
        return keys

    def _stored_version(self, job_id: JobId) -> int:
        doc = self.disk.jobs.get(job_id)
        return JOB.validate_json(doc).version if doc else 0


def _doc(adapter: TypeAdapter[T], value: T) -> bytes:
    return encode(adapter, value, "it")


def _jobs_of(rows: dict[int, tuple[bytes, bytes]]) -> list[Job]:
    return [JOB.validate_json(job) for job, _ in rows.values()]


def _held_run(job: Job, attempt: Attempt) -> HeldRun | None:
    runs = job.status is Status.RUNNING and job.fence == attempt.fence
    return held_run(job.id, job.spec.project, job.spec.user, job.spec.resources, attempt, runs=runs)


def _oldest(rows: dict[int, tuple[bytes, bytes]], limit: int, after: int = 0) -> list[OutboxRow]:
    wanted = [(seq, docs) for seq, docs in rows.items() if seq > after][:limit]
    return [
        OutboxRow(seq=seq, job=JOB.validate_json(job), event=EVENT.validate_json(event))
        for seq, (job, event) in wanted
    ]


def _age(job: Job) -> tuple[datetime, JobId]:
    return job.created_at, job.id


def _matches(job: Job, query: JobQuery) -> bool:
    return (
        query.user in (None, job.spec.user)
        and query.project in (None, job.spec.project)
        and (not query.search or is_found(job, query.search))
    )


def _has_status(job: Job, query: JobQuery) -> bool:
    return not query.statuses or job.status in query.statuses


def _is_beyond(place: Place, query: JobQuery) -> bool:
    if query.after is None:
        return True
    here, there = _rank(place), _rank(query.after)
    return here < there if query.sort.is_down else here > there


def _rank(place: Place) -> tuple[Any, ...]:
    return place.value, place.created_at, place.id
