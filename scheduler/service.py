"""The shell around the core: commands, questions, and the turns that move jobs along."""

from __future__ import annotations

import asyncio
import logging
from datetime import datetime

from scheduler.answers import event_document, job_document, submitted
from scheduler.book import Book
from scheduler.core import lifecycle, ordering, placement, reconcile
from scheduler.core.lifecycle import (
    AskStop,
    ForceStart,
    GiveUp,
    RetryPolicy,
    RunEnded,
    StartRun,
    StopRun,
)
from scheduler.core.model import (
    Fence,
    Job,
    JobId,
    JobSpec,
    Node,
    NodeId,
    Outcome,
    Reason,
    Snapshot,
    Status,
    StopKind,
)
from scheduler.documents import (
    EventPage,
    ForceStartAnswer,
    JobDocument,
    JobPage,
    LogChunk,
    LoopList,
    SubmittedJob,
)
from scheduler.errors import (
    InvalidRequest,
    InvalidSpec,
    NotAllowed,
    RunUnreachable,
    VersionConflict,
)
from scheduler.following import Follower
from scheduler.pacing import Background, Loop
from scheduler.paging import cursor_after, position_of_cursor
from scheduler.ports import Clock, JobQuery, Journal, Runner
from scheduler.registry import Registry, Sighting
from scheduler.settings import Settings
from scheduler.validation import Door

log = logging.getLogger("scheduler")

PLANNED_AT_ONCE = 10_000
"""Placement looks so far down the line in one pass: about 50 ms.  Who stands behind waits for those before."""


class Service:
    """The one writer.  Every public method may be repeated: a second call finds what the first one did."""

    def __init__(
        self, *, journal: Journal, runner: Runner, clock: Clock, settings: Settings, door: Door
    ) -> None:
        self.journal, self.runner, self.clock = journal, runner, clock
        self.settings, self.door = settings, door
        self.registry = Registry(settings.finished_in_memory)
        self.nodes: tuple[Node, ...] = ()
        self._ever_seen: dict[NodeId, Node] = {}
        self.blocked: dict[JobId, Reason] = {}
        self.looked_at: datetime | None = None
        self._started_at = clock.now()
        self.background = Background(clock)
        self.follower = Follower(runner, self.background, self._ended)
        self.book = Book(
            journal=journal,
            registry=self.registry,
            policy=RetryPolicy(
                max_losses=settings.max_losses,
                backoff_s=settings.retry_backoff_s,
                backoff_max_s=settings.retry_backoff_max_s,
            ),
            committed=self._committed,
            act=self._act,
        )
        self.tick = Loop("tick", settings.tick_every_s, self.tick_once, clock)
        self.loops = (
            self.tick,
            Loop("observe", settings.observe_every_s, self.observe_once, clock),
            Loop("liveness", settings.liveness_every_s, self.liveness_once, clock),
            Loop("relay", settings.liveness_every_s, self.relay_once, clock),
        )

    # Commands

    async def submit(
        self, job_id: str, spec: JobSpec, idempotency_key: str | None
    ) -> tuple[JobDocument, bool]:
        """Accept a job.

        When this returns, the job is in the journal and survives a crash.  When it raises or times out, the job
        may or may not be there: call again with the same id or key, and the first one is returned with False.
        """
        if known := await self.book.submitted_before(JobId(job_id), spec.user, idempotency_key):
            return self._document(known), False
        await asyncio.to_thread(self.door.check, spec, self._possible_nodes())
        job = self._accept(job_id, spec, idempotency_key)
        try:
            await self.book.create([job])
        except VersionConflict:
            # Two submits with one key met; the journal let one in.
            known = await self.book.submitted_before(
                job.id, spec.user, idempotency_key
            ) or await self.book.find(job.id)
            if known is None:
                raise
            return self._document(known), False
        return self._document(self.registry.get(job.id) or job), True

    async def submit_batch(self, jobs: list[tuple[str, JobSpec]]) -> list[SubmittedJob]:
        """Accept all of these jobs in one commit, or none.  Safe to repeat with the same ids."""
        first = await self.book.find(JobId(jobs[0][0])) if jobs else None
        if first is None:
            await asyncio.to_thread(self.door.check_all, [spec for _, spec in jobs], self._possible_nodes())
            await self.book.create([self._accept(job_id, spec, None) for job_id, spec in jobs])
        return [submitted(self._document(await self.book.get(job_id))) for job_id, _ in jobs]

    async def cancel(self, job_id: str, by: str) -> JobDocument:
        """Written down before any signal is sent; `cancelled` is shown when the processes are gone."""
        job = await self.book.get(job_id)
        return self._document(
            await self.book.advance(job, AskStop(at=self.clock.now(), by=by, kind=StopKind.CANCEL))
        )

    async def force_start(self, job_id: str, by: str) -> ForceStartAnswer:
        """Into the line, from the beginning.  A job that waits there already keeps its place."""
        before = await self.book.get(job_id)
        if before.status in (Status.PENDING, Status.FAILED, Status.CANCELLED):
            await self._check_again(before)
        seq = self.registry.next_seq()
        job = await self.book.advance(before, ForceStart(at=self.clock.now(), by=by, queue_seq=seq))
        position = self.registry.position(job)
        return ForceStartAnswer(
            success=True,
            job_id=job.id,
            previous_status=before.status,
            new_status=Status.QUEUED,
            queue_position=position,
            message=f"Job queued successfully (position {position})",
        )

    async def mark_failed(self, job_id: str, by: str) -> JobDocument:
        job = await self.book.get(job_id)
        if job.status is Status.PAUSED:
            raise NotAllowed(f"job {job.id} is paused and can go on: resume it, or cancel it")
        reason = Reason(code="given_up", message=f"marked as failed by {by}")
        return self._document(await self.book.advance(job, GiveUp(at=self.clock.now(), by=by, reason=reason)))

    # Questions

    async def status(self, job_id: str) -> JobDocument:
        return self._document(await self.book.get(job_id))

    async def events(self, job_id: str) -> EventPage:
        job = await self.book.get(job_id)
        return EventPage(
            job_id=job.id, events=[event_document(event) for event in await self.journal.events(job.id)]
        )

    async def jobs(
        self,
        statuses: frozenset[Status],
        user: str | None,
        project: str | None,
        cursor: str | None,
        limit: int,
    ) -> JobPage:
        after = position_of_cursor(cursor) if cursor else None
        query = JobQuery(statuses=statuses, user=user, project=project, after=after, limit=limit)
        rows = await self.journal.page(query)
        full = len(rows) == limit
        return JobPage(
            jobs=[self._document(self.registry.get(job.id) or job) for job in rows],
            next_cursor=cursor_after(rows[-1]) if rows and full else None,
        )

    async def logs(self, job_id: str, rank: int, attempt: int | None, offset: int, limit: int) -> LogChunk:
        """Part of a rank's log.  `attempt` defaults to the newest; a negative `offset` counts from the end."""
        job = await self.book.get(job_id)
        wanted = job.attempt if attempt is None else attempt
        if not 1 <= wanted <= job.attempt:
            raise InvalidRequest(
                f"job {job.id} has had {job.attempt} attempts; there is no log of attempt {wanted} yet"
            )
        part = await self.runner.read_log((job.id, Fence(wanted)), rank, offset, limit)
        over = job.status is not Status.RUNNING or wanted < job.attempt
        return LogChunk(
            job_id=job.id,
            attempt=wanted,
            rank=rank,
            text=part.text,
            offset=part.offset,
            next_offset=part.next_offset,
            ended=over and part.is_end,
        )

    async def known_loops(self) -> LoopList:
        return await asyncio.to_thread(self.door.loops)

    # Turns: each is one pass; `run_forever` paces them

    async def recover(self) -> None:
        """Before serving: read the journal, find what still lives, take up every intention again."""
        for job in await self.journal.active():
            self.registry.put(job)
        await self._look_at_nodes()
        await self.liveness_once()

    async def run_forever(self) -> None:
        """Until cancelled, or until a newer life of the scheduler owns the journal (raises Superseded)."""
        async with asyncio.TaskGroup() as group:
            for loop in self.loops:
                group.create_task(loop.run_forever(), name=loop.name)

    async def tick_once(self) -> placement.Plan:
        await self._look_at_nodes()
        now = self.clock.now()
        line = ordering.order(self.registry.queued(PLANNED_AT_ONCE), now=now)  # 1. who is first
        plan = placement.plan(line.ready, self._snapshot())  # 2. who fits, who waits and why
        self.blocked = {**line.paused, **plan.blocked}  # 3. reasons, for whoever asks
        self.looked_at = now
        await asyncio.gather(
            *(self._admit(job_id, plan, now) for job_id in plan.start)
        )  # 4. write it down, do it
        return plan

    async def observe_once(self) -> None:
        """Fetch progress and proof of life from every run; who is out of time is asked to stop."""
        await asyncio.gather(*(self._observe(job) for job in self.registry.running()))

    async def liveness_once(self) -> reconcile.Plan:
        """Compare what should run with what does; level-triggered, so a second pass finds nothing to do."""
        live = await self.runner.live()
        running = {job.id: job for job in self.registry.running()}
        plan = reconcile.reconcile({job.id: job.fence for job in running.values()}, live)
        for job in running.values():
            self.follower.follow(job)
            if job.stop:
                self.background.spawn(
                    self.runner.stop(StopRun(job_id=job.id, fence=job.fence, kind=job.stop.kind))
                )
        for job_id, fence in plan.orphans:
            log.warning("run %s of job %s is wanted by nobody; stopping it", fence, job_id)
            self.background.spawn(self.runner.stop(StopRun(job_id=job_id, fence=fence, kind=StopKind.CANCEL)))
        return plan

    async def relay_once(self) -> int:
        """Empty the outbox; returns how many changes it held.

        There is no mirror to deliver to yet: one that is set up later begins with a copy of every job.
        """
        delivered = 0
        while rows := await self.journal.outbox(limit=1000):
            await self.journal.forget([row.seq for row in rows])
            delivered += len(rows)
        return delivered

    # What commits lead to

    def _committed(self, job: Job) -> None:
        self.blocked.pop(job.id, None)
        self.tick.wake()

    def _act(self, job: Job, action: lifecycle.Action) -> None:
        match action:
            case StartRun():
                self.follower.follow(job)
            case StopRun():
                self.background.spawn(self.runner.stop(action))

    async def _admit(self, job_id: JobId, plan: placement.Plan, now: datetime) -> None:
        job = self.registry.get(job_id)
        if job and job.status is Status.QUEUED:
            await self.book.advance(
                job, lifecycle.Admit(at=now, by="scheduler", allocation=plan.start[job_id])
            )

    # Runs

    async def _ended(self, job: Job, outcome: Outcome) -> None:
        event = RunEnded(at=self.clock.now(), by="scheduler", fence=job.fence, outcome=outcome)
        await self.book.advance(job, event)

    async def _observe(self, job: Job) -> None:
        if self._out_of_time(job):
            await self.book.advance(job, AskStop(at=self.clock.now(), by="scheduler", kind=StopKind.TIMEOUT))
        try:
            observation = await self.runner.observe((job.id, job.fence))
        except RunUnreachable:
            await self._silent(job)
        else:
            self.registry.see(job.id, Sighting(job.fence, observation, self.clock.now()))

    def _out_of_time(self, job: Job) -> bool:
        limit, since = job.spec.max_runtime_s, job.admitted_at
        if limit is None or since is None or job.stop:
            return False
        return (self.clock.now() - since).total_seconds() > limit

    async def _silent(self, job: Job) -> None:
        """Unknown is not dead: only past the deadline is the run killed, and its death then is a fact."""
        seen = self.registry.sighting(job)
        since = max(
            filter(None, (job.admitted_at, seen.at if seen else None, self._started_at)), default=None
        )
        if since and (self.clock.now() - since).total_seconds() > self.settings.lost_after_s:
            await self.runner.stop(StopRun(job_id=job.id, fence=job.fence, kind=StopKind.CANCEL))

    # Small things

    def _far_behind(self, job: Job) -> Reason | None:
        position = self.registry.position(job)
        if position is None or position <= PLANNED_AT_ONCE:
            return None
        return Reason(code="behind", message=f"waits behind the {position - 1:,} jobs before it in the line")

    async def _look_at_nodes(self) -> None:
        self.nodes = await self.runner.nodes()
        self._ever_seen |= {node.id: node for node in self.nodes}

    def _possible_nodes(self) -> list[Node]:
        """A node that is away for now may come back: what it could hold is not refused, it waits."""
        return list(self._ever_seen.values())

    def _snapshot(self) -> Snapshot:
        held = tuple(
            (job.spec.resources, job.allocation) for job in self.registry.running() if job.allocation
        )
        return Snapshot(nodes=self.nodes, running=held)

    def _accept(self, job_id: str, spec: JobSpec, key: str | None) -> Job:
        seq = self.registry.next_seq()
        return lifecycle.accept(JobId(job_id), spec, at=self.clock.now(), queue_seq=seq, idempotency_key=key)

    async def _check_again(self, job: Job) -> None:
        """What was valid when it was submitted may be gone by now: a file moved, a loop no longer allowed."""
        try:
            await asyncio.to_thread(self.door.check, job.spec, self._possible_nodes())
        except InvalidSpec as error:
            words = "; ".join(map(str, error.problems))
            raise NotAllowed(
                f"job {job.id} cannot start, its stored spec is not valid now: {words}"
            ) from error

    def _document(self, job: Job) -> JobDocument:
        return job_document(
            job,
            position=self.registry.position(job),
            waits=self.blocked.get(job.id) or self._far_behind(job),
            looked_at=self.looked_at,
            seen=self.registry.sighting(job),
            now=self.clock.now(),
        )
