"""The shell around the core: commands, questions, and the turns that move jobs along."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from datetime import datetime

from scheduler.api.health import ShutdownAnswer
from scheduler.api.jobs import ActionAnswer, ForceStartAnswer, JobDocument, SubmittedJob
from scheduler.api.repairs import ReconcileAnswer
from scheduler.api.serialize import submitted
from scheduler.core import commands, lifecycle, ordering, placement, reconcile
from scheduler.core.codec import UNREADABLE_LOOP
from scheduler.core.commands import ACTIONS, JobAction
from scheduler.core.lifecycle import (
    GiveUp,
    Recover,
    RunEnded,
    StartRun,
    StopRun,
)
from scheduler.core.model import (
    Job,
    JobId,
    JobSpec,
    Node,
    NodeId,
    Outcome,
    Reason,
    Saved,
    Snapshot,
    Status,
    StopKind,
)
from scheduler.core.reconcile import Policy
from scheduler.core.rows import parse_spec
from scheduler.engine.change_feed import WATCHED_PLACES, ChangeFeed, QueuePositions
from scheduler.engine.found_runs import FoundRuns
from scheduler.engine.job_store import JobStore
from scheduler.engine.periodic import BackgroundTasks, PeriodicTask, all_of
from scheduler.engine.queries.advising import advice
from scheduler.engine.queries.job_view import PLANNED_AT_ONCE, JobViews
from scheduler.engine.queries.queries import Queries
from scheduler.engine.registry import Registry
from scheduler.engine.run_metrics import RunMetrics
from scheduler.engine.run_monitor import RunMonitor
from scheduler.engine.shutdown import Shutdown
from scheduler.engine.spec_validation import Accepted, SpecValidator
from scheduler.engine.supervisor import Supervisor
from scheduler.engine.sync.sync import Sync
from scheduler.engine.telemetry import NoTelemetry, Telemetry
from scheduler.errors import (
    InvalidRequest,
    InvalidSpec,
    JournalUnwritable,
    MirrorRefused,
    MirrorUnavailable,
    NotAllowed,
    VersionConflict,
)
from scheduler.ports import Clock, Journal, Mirror, Run, Runner, Webhook
from scheduler.settings import Settings

log = logging.getLogger("scheduler")


class Engine:
    """The one writer.  Every public method may be repeated: a second call finds what the first one did."""

    def __init__(
        self,
        *,
        journal: Journal,
        runner: Runner,
        clock: Clock,
        settings: Settings,
        door: SpecValidator,
        mirror: Mirror | None = None,
        webhook: Webhook | None = None,
        telemetry: Telemetry | None = None,
    ) -> None:
        self.journal, self.runner, self.clock = journal, runner, clock
        self.settings, self.door = settings, door
        self.registry = Registry(settings.finished_in_memory)
        self.nodes: tuple[Node, ...] = ()
        self._ever_seen: dict[NodeId, Node] = {}
        self.feed, self._places = ChangeFeed(), QueuePositions()
        self.view = JobViews(self.registry, clock, settings.limits(), settings.overdue_after_s)
        self.background = BackgroundTasks(clock)
        self.follower = Supervisor(runner, self.background, self._ended)
        self.meter = RunMetrics(telemetry or NoTelemetry())
        self.book = JobStore(
            journal=journal,
            registry=self.registry,
            policy=settings.retries(),
            committed=self._committed,
            act=self._act,
            meter=self.meter.committed,
        )
        self.found = FoundRuns(self.book, runner, clock)
        self.closing = Shutdown(self.book, self.registry, clock)
        self.watcher = RunMonitor(
            runner=runner,
            registry=self.registry,
            book=self.book,
            view=self.view,
            clock=clock,
            settings=settings,
            nodes=lambda: self.nodes,
            told=lambda job_id: self.feed.tell([job_id]),
            in_charge=self._is_in_charge,
        )
        self.sync = Sync(
            journal=journal,
            mirror=mirror,
            webhook=webhook,
            book=self.book,
            registry=self.registry,
            runner=runner,
            clock=clock,
            settings=settings,
            check=self._check,
            act_on=self.act,
            signs=self.view.signs,
        )
        self.ask = Queries(
            journal=journal,
            registry=self.registry,
            runner=runner,
            door=door,
            view=self.view,
            feed=self.feed,
            find=self.book.find,
            get=self._get,
            is_mirrored=mirror is not None,
            advice=advice(
                journal=journal,
                registry=self.registry,
                runner=runner,
                clock=clock,
                settings=settings,
                door=door,
                view=self.view,
                snapshot=self._snapshot,
                possible_nodes=self._possible_nodes,
                check_again=self._check_again,
            ),
        )
        self.tick = PeriodicTask("tick", settings.tick_every_s, self.tick_once, clock)
        self.loops = (
            self.tick,
            PeriodicTask("observe", settings.observe_every_s, self.observe_once, clock),
            PeriodicTask("liveness", settings.liveness_every_s, self.liveness_once, clock),
            *self.sync.loops,
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
            return self.view.document(known), False
        job = self._accept(job_id, await self._check(spec), idempotency_key)
        try:
            await self.book.create([job])
        except VersionConflict:
            # Two submits with one key met; the journal let one in.
            known = await self.book.submitted_before(
                job.id, spec.user, idempotency_key
            ) or await self.book.find(job.id)
            if known is None:
                raise
            return self.view.document(known), False
        return self.view.document(self.registry.get(job.id) or job), True

    async def submit_batch(self, jobs: list[tuple[str, JobSpec]]) -> list[SubmittedJob]:
        """Accept all of these jobs in one commit, or none.  Safe to repeat with the same ids."""
        first = await self.book.find(JobId(jobs[0][0])) if jobs else None
        if first is None:
            accepted = await self.door.admit_all([spec for _, spec in jobs], self._possible_nodes())
            ids = (job_id for job_id, _ in jobs)
            await self.book.create(
                [self._accept(job_id, one, None) for job_id, one in zip(ids, accepted, strict=True)]
            )
        return [submitted(self.view.document(await self._get(job_id))) for job_id, _ in jobs]

    async def act(
        self, job_id: str, action: JobAction, by: str, checkpoint: str | None = None
    ) -> ActionAnswer:
        """Do what *by* asks, as `ACTIONS` has it: written down before any signal is sent.

        A run that is stopped shows its new status when its processes are gone.  *checkpoint*: where a resume goes on.
        """
        if checkpoint and not ACTIONS[action].takes_checkpoint:
            raise InvalidRequest(f"{action} takes no checkpoint; resume does")
        before = await self._get(job_id)
        chosen = await self.ask.checkpoint(before, checkpoint) if checkpoint else None
        job = await self._ask(before, action, by, chosen)
        return self._queued(before, job) if action is JobAction.FORCE_START else self.view.document(job)

    def _queued(self, before: Job, job: Job) -> ForceStartAnswer:
        position = self.registry.position(job)
        return ForceStartAnswer(
            success=True,
            job_id=job.id,
            previous_status=before.status,
            new_status=Status.QUEUED,
            queue_position=position,
            message=f"Job queued successfully (position {position})",
        )

    async def reconcile(self, dry_run: bool) -> ReconcileAnswer:
        """Compare everything now.  Raises what the database raises."""
        return await self.sync.reconciler.once(dry_run=dry_run)

    async def shutdown(self, save: bool, by: str) -> ShutdownAnswer:
        """Nothing starts any more, and what runs gives way; without *save* nobody waits for it to save.

        An operator who does not end it after all finds it starting jobs again a minute after the grace.
        """
        grace_s = self.settings.stop_grace_s if save else 0.0
        return ShutdownAnswer(running=await self.closing.begin(grace_s, by), grace_s=grace_s)

    # Turns: each is one pass; `run_forever` paces them

    async def recover(self) -> None:
        """Before serving: read the journal, find what still lives, ask the database, take up every intention."""
        self.registry.fill(await self.journal.active())
        # Places in milliseconds: jobs of a journal that was lost, found again later, stand before those of this one.
        self.registry.begin_after(int(self.clock.now().timestamp() * 1000))
        await self._look_at_nodes()
        await self._after_an_outage()
        try:
            await self.sync.reconciler.once(by="start-up")
        except (MirrorUnavailable, MirrorRefused) as error:
            log.error("starting without the database, which is asked again soon: %s", error)
        await self.liveness_once()

    async def _after_an_outage(self) -> None:
        """Waiting jobs of the journal were promised a start; after a long silence the operator may want a say."""
        last, now = self.journal.last_vouched_at, self.clock.now()
        away_s = (now - last).total_seconds() if last else 0.0
        policy = self.settings.recover_queued
        if away_s <= self.settings.stale_after_s or policy is Policy.START:
            return
        why = f"the scheduler was away for {away_s:.0f} s and recover_queued is `{policy}`"
        waiting = [job for job in self.registry.queued() if not (job.held and policy is Policy.HOLD)]
        events = ((job, _after_outage(policy, now, why)) for job in waiting)
        await all_of(self.book.apply(job, event) for job, event in events)

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
        waits = {**line.paused, **plan.blocked}
        if self.closing.is_on:
            waits |= self.closing.reasons(job for job in line.ready if job.id in plan.start)
        self.view.planned(waits, now)  # 3. reasons, for whoever asks or watches
        head = [job.id for job in self.registry.queued(WATCHED_PLACES)]
        self.feed.tell(self._places.moved(head, self.view.blocked))
        if self.closing.is_on:
            await self.closing.all_give_way()  # a start that was under way is one too many
        else:
            await all_of(self._admit(job_id, plan, now) for job_id in plan.start)  # 4. write it down, do it
        return plan

    async def observe_once(self) -> None:
        """Look at every run: proof of life, progress, time limit, hangs, drained nodes."""
        await self.watcher.once()
        self.meter.look(self.registry)

    async def liveness_once(self) -> reconcile.Runs:
        """Compare what should run with what does; level-triggered, so a second pass finds nothing to do."""
        live = await self.runner.live()
        plan = self._compare(live)
        if (plan.orphans or self.found.has_unexplained) and await self._is_in_charge():
            await self._settle(self._compare(live).orphans)
        for job in self.registry.running():
            self.follower.follow(job, is_up=(job.id, job.fence) in live)
            if job.stop:
                self.background.spawn(
                    self.runner.stop(StopRun(job_id=job.id, fence=job.fence, kind=job.stop.kind))
                )
        return plan

    def _compare(self, live: frozenset[Run]) -> reconcile.Runs:
        return reconcile.compare_runs({job.id: job.fence for job in self.registry.running()}, live)

    async def _is_in_charge(self) -> bool:
        """Raises Superseded in an older life that woke up: runs that it does not know are those of its successor."""
        try:
            await self.sync.voucher.once()
        except JournalUnwritable:
            return False  # perhaps not
        except (MirrorUnavailable, MirrorRefused):
            return True  # by the journal
        return True

    async def _settle(self, unwanted: Sequence[Run]) -> None:
        """What the journal proves to be over is stopped; what it does not know is taken back, never ended on a guess."""
        strangers: list[Run] = []
        for job_id, fence in unwanted:
            known = await self.book.find(job_id)
            if reconcile.is_over((job_id, fence), known):
                log.warning("run %s of job %s is wanted by nobody; stopping it", fence, job_id)
                stop = StopRun(job_id=job_id, fence=fence, kind=StopKind.CANCEL)
                self.background.spawn(self.runner.stop(stop))
            elif known or self.sync.reconciler.has_read_database:
                strangers.append((job_id, fence))
            # Else perhaps the database knows it, and more of it than its run does.
        await self.found.take_back(strangers, by="scheduler")

    # What commits lead to

    def _committed(self, job: Job) -> None:
        self.view.blocked.pop(job.id, None)
        self.feed.tell([job.id])
        self.tick.wake()
        self.sync.wake()

    def _act(self, job: Job, action: lifecycle.Action) -> None:
        match action:
            case StartRun():
                self.follower.follow(job)
            case StopRun():
                self.background.spawn(self.runner.stop(action))

    async def _admit(self, job_id: JobId, plan: placement.Plan, now: datetime) -> None:
        job = self.registry.get(job_id)
        if job is None or self.found.is_unexplained(job_id):
            return
        newest = await self.found.catch_up(job, by="scheduler")
        job = self.registry.get(job_id)
        if job and job.status is Status.QUEUED:
            admit = lifecycle.Admit(at=now, by="scheduler", allocation=plan.start[job_id], after=newest)
            admitted = await self.book.apply(job, admit)
            self.watcher.times.begins((job_id, admitted.fence))

    # Runs

    async def _ended(self, job: Job, outcome: Outcome) -> None:
        """Unless the run was replaced, and the journal came from a backup that was older than that: then it catches up."""
        await self.found.catch_up(job, by="scheduler")
        event = RunEnded(
            at=self.clock.now(),
            by="scheduler",
            fence=job.fence,
            outcome=outcome,
            end_of_line=self.registry.next_seq(),
        )
        await self.book.apply(job, event)

    # Small things

    async def _ask(self, job: Job, action: JobAction, by: str, chosen: Saved | None = None) -> Job:
        if commands.looks_at_spec(action, job):
            await self._check_again(job)
        seq = self.registry.next_seq()
        event = commands.event(action, job, at=self.clock.now(), by=by, end_of_line=seq, chosen=chosen)
        return await self.book.apply(job, event)

    async def _get(self, job_id: str) -> Job:
        return await self.sync.adoption.get(job_id)

    async def _check(self, spec: JobSpec) -> Accepted:
        return await self.door.admit(spec, self._possible_nodes())

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

    def _accept(self, job_id: str, accepted: Accepted, key: str | None) -> Job:
        return lifecycle.accept(
            JobId(job_id),
            accepted.spec,
            at=self.clock.now(),
            queue_seq=self.registry.next_seq(),
            idempotency_key=key,
            notes=accepted.notes,
        )

    async def _check_again(self, job: Job) -> None:
        """What was valid when it was submitted may be gone by now: a file moved, a loop no longer allowed."""
        try:
            await self._check(parse_spec(job.raw_spec) if job.spec.loop == UNREADABLE_LOOP else job.spec)
        except InvalidSpec as error:
            words = "; ".join(map(str, error.problems))
            raise NotAllowed(
                f"job {job.id} cannot start, its stored spec is not valid now: {words}"
            ) from error


def _after_outage(policy: Policy, now: datetime, why: str) -> lifecycle.Event:
    if policy is Policy.FAIL:
        reason = Reason(code="failed_after_outage", message=f"{why}; force-start it to run it")
        return GiveUp(at=now, by="start-up", reason=reason)
    reason = Reason(code="held", message=f"{why}; force-start it, or mark it as failed")
    return Recover(at=now, by="start-up", reason=reason, hold=True)
