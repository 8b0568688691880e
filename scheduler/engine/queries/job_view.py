"""How jobs look from outside: what the registry, placement and the runs know, put together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from scheduler.api.jobs import JobDocument
from scheduler.api.serialize import document_or_stand_in, is_stand_in, job_document, progress_of, why
from scheduler.core.hangs import Silence, judge
from scheduler.core.lifecycle import Event
from scheduler.core.model import Job, JobId, Phase, Reason, Status
from scheduler.core.turns import Order
from scheduler.engine.registry import Registry
from scheduler.ports import Clock, ProgressUpdate
from scheduler.settings import Settings

PLANNED_AT_ONCE = 10_000
"""Placement looks so far down the queue in one pass: about 50 ms.  Who stands behind waits for those before."""


class JobViews:
    """Reads; changes nothing.  Placement leaves its reasons here after each pass."""

    def __init__(self, registry: Registry, clock: Clock, settings: Settings) -> None:
        self._registry, self._clock, self._limits = registry, clock, settings.limits()
        self._overdue_after_s = settings.overdue_after_s
        self._reasons: Mapping[JobId, Reason] = {}
        self._moved: set[JobId] = set()
        """Those of which the newest pass knew an older version."""
        self.looked_at: datetime | None = None
        self.turns: Order | None = None
        """Of the newest pass, where the policy knows shares."""
        self.unreadable: dict[JobId, str] = {}
        """Jobs that could not be shown whole when they were last looked at, and why."""

    def planned(self, reasons: Mapping[JobId, Reason], at: datetime, turns: Order | None = None) -> None:
        self._reasons, self.looked_at, self.turns = reasons, at, turns
        self._moved.clear()

    def waits(self, job_id: JobId) -> Reason | None:
        """Why this job waits, as the newest pass saw it; None where that pass did not see it as it is now."""
        return None if job_id in self._moved else self._reasons.get(job_id)

    def committed(self, _before: Job | None, after: Job, _event: Event | None) -> None:
        """Why it waited was true of the job as it was."""
        self._moved.add(after.id)

    def document(self, job: Job) -> JobDocument:
        """Of every job, whatever it holds: one that cannot be shown is said to be so, alone."""
        shown = document_or_stand_in(job, lambda: self._document(job))
        if is_stand_in(shown):
            self.unreadable[job.id] = shown.reason.message
        else:
            self.unreadable.pop(job.id, None)
        return shown

    def problem(self, in_journal: Mapping[JobId, str]) -> str | None:
        """Of the jobs that could not be shown whole, or not be read in the journal."""
        broken = {**self.unreadable, **in_journal}
        if not broken:
            return None
        named = "; ".join(f"job {job_id} ({words})" for job_id, words in sorted(broken.items())[:3])
        return f"{len(broken)} jobs cannot be read whole, and are shown as what is left of them: {named}"

    def _document(self, job: Job) -> JobDocument:
        return job_document(
            job,
            position=self._registry.position(job),
            waits=self._waits(job),
            looked_at=self.looked_at,
            seen=self._registry.sighting(job),
            silence=self.silence(job),
            now=self._clock.now(),
            overdue_after_s=self._overdue_after_s,
        )

    def silence(self, job: Job, at_s: float | None = None) -> Silence | None:
        """What it means that a run has made no step for so long; None while it is not seen, or stops.

        Counted by our own monotonic clock since something new was seen of it: nobody can set that clock, and the ones
        of the nodes do not matter.  *at_s*: at that moment of it; else now.
        """
        seen = self._registry.sighting(job)
        if job.status is not Status.RUNNING or job.stop or seen is None:
            return None
        said = seen.observation
        if said.stepped_at is None and Phase.STARTING not in said.phases:
            return None
        silent_s = (self._clock.monotonic_s() if at_s is None else at_s) - seen.moved_s
        counts_steps = "step" in (said.progress or {})
        told_s = job.spec.hang_after_s
        return judge(said.pace, silent_s, self._limits, counts_steps=counts_steps, told_s=told_s)

    def progress_updates(self, limit: int) -> Sequence[ProgressUpdate]:
        """Of the running jobs, and of those next in the queue; *limit* in all."""
        running = self._registry.running()[:limit]
        return [
            self._progress_update(job) for job in [*running, *self._registry.queued(limit - len(running))]
        ]

    def _progress_update(self, job: Job) -> ProgressUpdate:
        seen = self._registry.sighting(job)
        return ProgressUpdate(
            job_id=job.id,
            version=job.version,
            reason=why(job, self._waits(job), seen, self.silence(job)),
            progress=progress_of(job, seen),
            queue_position=self._registry.position(job),
            verified_at=seen.at if seen else job.updated_at,
        )

    def _waits(self, job: Job) -> Reason | None:
        return self.waits(job.id) or self._far_behind(job)

    def _far_behind(self, job: Job) -> Reason | None:
        position = self._registry.position(job)
        if position is None or position <= PLANNED_AT_ONCE:
            return None
        return Reason(code="behind", message=f"waits behind the {position - 1:,} jobs before it in the queue")
