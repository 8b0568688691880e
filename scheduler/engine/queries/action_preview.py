"""What an action would do, told before it is done.  The life of the job decides, on a copy that nobody keeps."""

from __future__ import annotations

from dataclasses import replace

from scheduler.api.forecasts import EffectDocument, Forecast, WhatIfDocument
from scheduler.api.serialize import last_saved, progress_of
from scheduler.core import commands, lifecycle
from scheduler.core.attempts import step_of
from scheduler.core.commands import ACTIONS, JobAction
from scheduler.core.durations import span
from scheduler.core.forecast import about
from scheduler.core.lifecycle import in_words
from scheduler.core.model import Job, Saved, Status, StopKind
from scheduler.engine.cluster import Cluster
from scheduler.engine.queries.forecaster import END_OF_LINE, Forecaster
from scheduler.engine.queries.what_ifs import WhatIfs
from scheduler.engine.registry import Registry
from scheduler.engine.spec_validation import SpecValidator, check_again
from scheduler.errors import NotAllowed, StorageUnavailable
from scheduler.ports import Clock, Runner
from scheduler.settings import Settings


class ActionPreviews:
    """Changes nothing; refuses what the command would refuse, in the same words."""

    def __init__(
        self,
        registry: Registry,
        runner: Runner,
        cluster: Cluster,
        validator: SpecValidator,
        forecaster: Forecaster,
        what_ifs: WhatIfs | None,
        clock: Clock,
        settings: Settings,
    ) -> None:
        self._registry, self._runner, self._cluster = registry, runner, cluster
        self._validator, self._forecaster, self._clock = validator, forecaster, clock
        self._what_ifs, self._ranks = what_ifs, what_ifs is not None
        self._policy, self._stop_grace_s = settings.retries(), settings.stop_grace_s

    async def of(
        self, job: Job, action: JobAction, chosen: Saved | None = None, preempt: bool = False
    ) -> EffectDocument:
        """*chosen*: the checkpoint to resume from, which is there.  *preempt*: of a force-start."""
        try:
            if commands.looks_at_spec(action, job):
                await check_again(job, self._validator, self._cluster)
            after = self.led_to(job, action, chosen, preempt)
        except NotAllowed as error:
            return refused(job.id, action, error.message, self._instead(job))
        forecast, what_if = await self._what_comes(job, after, action)
        return EffectDocument(
            job_id=job.id,
            action=action,
            allowed=True,
            message=await self._message(job, after, action),
            remedy=None,
            forecast=forecast,
            what_if=what_if,
        )

    async def _what_comes(
        self, job: Job, after: Job, action: JobAction
    ) -> tuple[Forecast | None, WhatIfDocument | None]:
        if not _comes_to_wait(after):
            return None, None
        waits = self._as_it_waits(after)
        if self._what_ifs is None or action is not JobAction.FORCE_START:
            return await self._forecaster.of(waits), None
        told = await self._what_ifs.of(job, waits)
        return told.forecast, told.what_if

    def allows(self, job: Job, action: JobAction) -> bool:
        """Whether it would change anything.  A spec that may have become invalid is not looked at."""
        try:
            return self.led_to(job, action) is not job
        except NotAllowed:
            return False

    def led_to(self, job: Job, action: JobAction, chosen: Saved | None = None, preempt: bool = False) -> Job:
        """The job after *action*; the same object when nothing changes.  Raises NotAllowed."""
        event = commands.event(
            action,
            job,
            at=self._clock.now(),
            by="you",
            end_of_line=END_OF_LINE,
            chosen=chosen,
            pushed=commands.pushed_by(action, ranks=self._ranks, preempt=preempt),
        )
        return lifecycle.apply(job, event, self._policy)[0]

    def _as_it_waits(self, after: Job) -> Job:
        """One that is preempted returns to its old place, or to the end, as the settings say."""
        keeps_place = after.status is Status.QUEUED or self._policy.preempted_keep_place
        return after if keeps_place else replace(after, queue_seq=END_OF_LINE)

    def _instead(self, job: Job) -> str | None:
        possible = [f"`{action}`" for action in JobAction if self.allows(job, action)]
        if not possible:
            return "submit it again as a new job" if job.status is Status.COMPLETED else None
        return f"possible now: {', '.join(possible)}"

    async def _message(self, job: Job, after: Job, action: JobAction) -> str:
        if after is job:
            return f"nothing changes: {_as_it_is(job)}"
        if job.status is Status.RUNNING and after.status is Status.RUNNING:
            return await self._of_stopping(job, action)
        if after.status is Status.QUEUED:
            return _of_waiting(job, after, action)
        kept = f"; checkpoint {in_words(job.saved)} stays, it can be resumed from there" if job.saved else ""
        return f"it is {ACTIONS[action].done} at once; nothing of it runs, so no work is lost{kept}"

    async def _of_stopping(self, job: Job, action: JobAction) -> str:
        if action is JobAction.CANCEL:
            return f"its processes are ended at once, without saving; {self.lost_by_kill(job)}"
        afterwards = {
            JobAction.PAUSE: "it holds nothing then, and goes on from there when it is resumed",
            JobAction.PREEMPT: "it gives its nodes back, and goes on from there when it is its turn again",
        }[action]
        seen = self._registry.sighting(job)
        if seen and step_of(seen.observation.progress) is None and last_saved(job, seen) is None:
            return f"it has not reported a step yet: without one it has nothing to save and is ended at once; {afterwards}"
        return f"it stops at its next step and saves; {await self._how_soon(job)}; {afterwards}"

    async def _how_soon(self, job: Job) -> str:
        seen = self._registry.sighting(job)
        pace = seen.observation.pace if seen else None
        limit = f"after {span(self._stop_grace_s)} it is ended all the same"
        if pace is None:
            return f"its pace is not known, {limit}"
        try:
            took_s = [one.seconds for one in await self._runner.checkpoints(job.id)]
        except StorageUnavailable:
            took_s = []
        if not took_s:
            return f"{about(pace.typical_s)} and the time to save, {limit}"
        return f"{about(pace.typical_s + max(took_s))}, {limit}"

    def lost_by_kill(self, job: Job) -> str:
        """What a kill now would cost, in words."""
        seen = self._registry.sighting(job)
        step, saved = step_of(progress_of(job, seen)), last_saved(job, seen)
        if seen is None:
            return "what it has not saved is lost; its run has not answered yet, so how much is not known"
        if saved is None:
            return "nothing was saved, so all of it is lost" if step else "it has not reported a step yet"
        if step is None or saved.step is None:
            return f"what it did since checkpoint {in_words(saved)} is lost"
        steps = max(0, step - saved.step)
        if not steps:
            return f"no step since checkpoint {in_words(saved)} is lost"
        are_lost = "1 step is" if steps == 1 else f"{steps:,} steps are"
        return f"{are_lost} lost, since checkpoint {in_words(saved)}"


def refused(job_id: str, action: str, message: str, remedy: str | None) -> EffectDocument:
    return EffectDocument(
        job_id=job_id, action=action, allowed=False, message=message, remedy=remedy, forecast=None
    )


def _comes_to_wait(after: Job) -> bool:
    if after.status is Status.RUNNING:
        return after.stop is not None and after.stop.kind is StopKind.PREEMPT
    return after.status is Status.QUEUED and not after.held


def _as_it_is(job: Job) -> str:
    if job.stop:
        return f"it is being stopped already ({job.stop.kind}, asked by {job.stop.by})"
    if job.held:
        return "it is held already"
    if job.pushed:
        runs = ", and runs are preempted for it" if job.pushed == "preempt" else ""
        return f"it is at the front of its project's part of the queue already{runs}"
    return "it waits in the queue already" if job.status is Status.QUEUED else f"it is {job.status} already"


def _of_waiting(job: Job, after: Job, action: JobAction) -> str:
    if after.held:
        return "it keeps its place in the queue, and does not start until it is resumed"
    if action is JobAction.RESUME or (action is JobAction.FORCE_START and job.status is Status.QUEUED):
        return f"{_begins(after)}{_way_in(job, after)}"
    left = job.saved
    kept = f"; checkpoint {in_words(left)} stays, and can be chosen later" if left else ""
    return f"it begins again at the beginning{kept}{_way_in(job, after)}"


def _begins(after: Job) -> str:
    if after.saved:
        return f"it goes on from checkpoint {in_words(after.saved)}"
    return "it begins at the beginning: nothing was saved"


def _way_in(job: Job, after: Job) -> str:
    preempting = "; runs are preempted for it" if after.pushed == "preempt" != job.pushed else ""
    if job.status is not Status.QUEUED:
        return f"; it joins the end of the queue{preempting}"
    is_moved = after.pushed != job.pushed
    front = "; it moves to the front of its project's part of the queue" if is_moved else ""
    if job.held:
        place = "" if is_moved else ", at its place in the queue"
        return f"; it is let go{place}{front}{preempting}"
    ends = "; its pause between two tries ends" if job.retry_at and not after.retry_at else ""
    return f"{ends}{front}{preempting}"
