"""Each run is seen to its end, by one task, whatever happens on the way; and what runs is what should run."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace

from scheduler.core import reconcile
from scheduler.core.lifecycle import Action, RunEnded, StartRun, StopRun, start_of
from scheduler.core.model import Cause, Ending, Job, Outcome, Reason, StopKind
from scheduler.core.plain_values import plain_outcome
from scheduler.engine.found_runs import FoundRuns
from scheduler.engine.job_store import JobStore
from scheduler.engine.periodic import BackgroundTasks
from scheduler.engine.registry import Registry
from scheduler.engine.sync.heartbeat import Heartbeat
from scheduler.engine.sync.session import MirrorSession
from scheduler.errors import JournalUnwritable
from scheduler.ports import Clock, Run, Runner

log = logging.getLogger(__name__)

PAUSE_S = 1.0


class Supervisor:
    """Starts runs, or finds them started, and journals how each ended."""

    def __init__(
        self,
        runner: Runner,
        registry: Registry,
        store: JobStore,
        found: FoundRuns,
        session: MirrorSession | None,
        heartbeat: Heartbeat,
        background: BackgroundTasks,
        clock: Clock,
    ) -> None:
        self._runner, self._registry, self._store, self._found = runner, registry, store, found
        self._session, self._heartbeat = session, heartbeat
        self._background, self._clock = background, clock
        self._watched: dict[Run, asyncio.Task[None]] = {}

    def act(self, job: Job, action: Action) -> None:
        """Begin what was decided, and journalled, about *job*."""
        match action:
            case StartRun():
                self.follow(job)
            case StopRun():
                self._background.spawn(self._runner.stop(action))

    def follow(self, job: Job, *, is_up: bool = False) -> None:
        """Follow the newest run of a running job.  Safe to repeat: the start is, and one task is enough.

        A run that *is_up* is not started again: a start that fails would end it.
        """
        run = (job.id, job.fence)
        if run not in self._watched:
            task = self._watched[run] = self._background.spawn(self._see_to_its_end(job, is_up))
            task.add_done_callback(lambda _: self._watched.pop(run, None))

    async def once(self) -> reconcile.Runs:
        """Compare what should run with what does.  Level-triggered: a second pass finds nothing to do."""
        live = await self._runner.live()
        plan = self._compare(live)
        if (plan.orphans or self._found.has_unexplained) and await self._heartbeat.is_in_charge():
            await self._settle(self._compare(live).orphans)
        for job in self._registry.running():
            self.follow(job, is_up=(job.id, job.fence) in live)
            if job.stop:
                self.act(job, StopRun(job_id=job.id, fence=job.fence, kind=job.stop.kind))
        return plan

    def _compare(self, live: frozenset[Run]) -> reconcile.Runs:
        """Anew after every wait: the registry may have moved on."""
        return reconcile.compare_runs({job.id: job.fence for job in self._registry.running()}, live)

    async def _settle(self, orphans: Sequence[Run]) -> None:
        """A run that the journal proves to be over is stopped; one that it does not know is taken back, never ended
        on a guess."""
        strangers: list[Run] = []
        for job_id, fence in orphans:
            known = await self._store.find(job_id)
            if reconcile.is_over((job_id, fence), known):
                log.warning("orphan run %s of job %s: stopping it", fence, job_id)
                stop = StopRun(job_id=job_id, fence=fence, kind=StopKind.CANCEL)
                self._background.spawn(self._runner.stop(stop))
            elif known or self._session is None or self._session.has_read_rows:
                strangers.append((job_id, fence))
            # Else perhaps the database knows it, and more of it than its run does.
        await self._found.take_back(strangers, by="scheduler")

    async def _see_to_its_end(self, job: Job, is_up: bool) -> None:
        try:
            if not is_up:
                await self._runner.start(start_of(job))
            outcome = await self._runner.wait((job.id, job.fence))
        except Exception as error:
            log.exception("run %s of job %s could not be followed", job.fence, job.id)
            outcome = await self._abandoned(job, error)
        # Here all ends come by, also those that a run of an older release, or a hand on its files, left.
        await self._write_down(job, plain_outcome(outcome))

    async def _abandoned(self, job: Job, error: Exception) -> Outcome:
        """Nothing of it may be left before the job is tried again.  If it ran all the same, its own word counts."""
        await self._runner.stop(StopRun(job_id=job.id, fence=job.fence, kind=StopKind.CANCEL))
        outcome = await self._runner.wait((job.id, job.fence))
        if outcome.ending is not Ending.LOST:
            return outcome
        message = f"the run could not be started: {type(error).__name__}: {error}"
        reason = Reason(code="not_started", message=message)
        return replace(outcome, cause=Cause.INFRASTRUCTURE, reason=reason)

    async def _write_down(self, job: Job, outcome: Outcome) -> None:
        """The end of a run is a fact: a full disk only delays it."""
        while True:
            try:
                return await self._ended(job, outcome)
            except JournalUnwritable as error:
                log.error("the end of run %s of job %s waits for the journal: %s", job.fence, job.id, error)
                await asyncio.sleep(PAUSE_S)

    async def _ended(self, job: Job, outcome: Outcome) -> None:
        """Unless the run was replaced, and the journal came from a backup that was older than that: then it catches up."""
        await self._found.catch_up(job, by="scheduler")
        event = RunEnded(
            at=self._clock.now(),
            by="scheduler",
            fence=job.fence,
            outcome=outcome,
            end_of_line=self._registry.next_seq(),
        )
        await self._store.apply(job, event)
