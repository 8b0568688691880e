"""Each run is seen to its end, by one watcher, whatever happens on the way."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace

from scheduler.core.lifecycle import StopRun, start_of
from scheduler.core.model import Cause, Ending, Job, Outcome, Reason, StopKind
from scheduler.core.plain_values import plain_outcome
from scheduler.engine.periodic import BackgroundTasks
from scheduler.errors import JournalUnwritable
from scheduler.ports import Run, Runner

log = logging.getLogger("scheduler")

PAUSE_S = 1.0


class Supervisor:
    """Starts runs, or finds them started, and tells `ended` how each went."""

    def __init__(
        self, runner: Runner, background: BackgroundTasks, ended: Callable[[Job, Outcome], Awaitable[None]]
    ) -> None:
        self._runner, self._background, self._ended = runner, background, ended
        self._watchers: dict[Run, asyncio.Task[None]] = {}

    def follow(self, job: Job, *, is_up: bool = False) -> None:
        """Follow the newest run of a running job.  Safe to repeat: the start is, and one watcher is enough.

        A run that *is_up* is not started again: a start that fails would end it.
        """
        run = (job.id, job.fence)
        if run not in self._watchers:
            task = self._watchers[run] = self._background.spawn(self._see_to_its_end(job, is_up))
            task.add_done_callback(lambda _: self._watchers.pop(run, None))

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
