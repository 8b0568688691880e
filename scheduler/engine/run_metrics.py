"""Counts and times what happens, as it happens: jobs taken in, starts, ends."""

from __future__ import annotations

from itertools import pairwise

from scheduler.core.lifecycle import Admit, Adopt, Event, RunEnded
from scheduler.core.model import Cause, Ending, Job, Phase, StopKind
from scheduler.core.retry import answerable
from scheduler.engine.registry import Registry
from scheduler.engine.telemetry import (
    JOBS_ACCEPTED,
    QUEUE_WAIT,
    RUN_FAILURES,
    RUN_STARTS,
    RUNS_ENDED,
    START,
    START_PHASE,
    Measure,
    Telemetry,
)
from scheduler.ports import Run

START_PHASES = (Phase.RESERVING, Phase.STARTING, Phase.LOADING, Phase.TRAINING)
"""In their order.  With the first moment of the last one the run has started."""
NOBODY = "nobody"
_LIKELY = (
    (Ending.COMPLETED, NOBODY),
    (Ending.STOPPED, NOBODY),
    (Ending.STOPPED, Cause.PREEMPTION),
    (Ending.FAILED, Cause.USER),
    (Ending.LOST, Cause.INFRASTRUCTURE),
    (Ending.LOST, Cause.PREEMPTION),
)
MAX_CODES = 60
"""Codes of failures are ours and few; should that ever change, the others are counted as `other`."""


class RunMetrics:
    """Told of each change after it was written down.  A run is timed by the life of the scheduler that started it."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry
        self._starting: dict[Run, set[Phase]] = {}
        self._codes: set[str] = set()
        self._show_what_may_come()

    def committed(self, before: Job | None, after: Job, event: Event | None) -> None:
        match event:
            case None | Adopt():
                self._telemetry.add(JOBS_ACCEPTED)
            case Admit() if before and after.allocation:
                self._starting[(after.id, after.fence)] = set()
                if before.queued_at:
                    self._observe(QUEUE_WAIT, (event.at - before.queued_at).total_seconds())
            case RunEnded() if before:
                self._starting.pop((before.id, before.fence), None)
                self._count_end(before, event)
            case _:
                pass

    def look(self, registry: Registry) -> None:
        """Time the phases that the starting runs have left behind, each once."""
        for job_id, fence in list(self._starting):
            job = registry.get(job_id)
            sighting = registry.sighting(job) if job else None
            if job and sighting and sighting.fence == fence:
                self._time_start(job, sighting.observation.phases)

    def _time_start(self, job: Job, began_s: dict[str, float]) -> None:
        run = (job.id, job.fence)
        timed = self._starting[run]
        for phase, following in pairwise(START_PHASES):
            if phase not in timed and phase in began_s and following in began_s:
                timed.add(phase)
                self._observe(START_PHASE, began_s[following] - began_s[phase], phase=phase.value)
        if Phase.TRAINING in began_s:
            del self._starting[run]
            if job.admitted_at:
                self._observe(START, began_s[Phase.TRAINING] - job.admitted_at.timestamp())

    def _count_end(self, before: Job, event: RunEnded) -> None:
        ending, cause = event.outcome.ending, _cause(before, event)
        self._telemetry.add(RUNS_ENDED, ending=ending.value, cause=cause)
        if ending in (Ending.FAILED, Ending.LOST) and cause != NOBODY:
            self._telemetry.add(RUN_FAILURES, cause=cause, code=self._bounded(_code(before, event)))

    def _bounded(self, code: str) -> str:
        if code in self._codes or len(self._codes) < MAX_CODES:
            self._codes.add(code)
            return code
        return "other"

    def _observe(self, measure: Measure, seconds: float, **tags: str) -> None:
        """Two machines may tell the time differently: what ended before it began took no time."""
        self._telemetry.observe(measure, max(0.0, seconds), **tags)

    def _show_what_may_come(self) -> None:
        self._telemetry.add(JOBS_ACCEPTED, 0)
        for ending, cause in _LIKELY:
            self._telemetry.add(RUNS_ENDED, 0, ending=ending.value, cause=str(cause))
        for start in ("warm", "cold"):
            self._telemetry.add(RUN_STARTS, 0, start=start)


def _cause(before: Job, event: RunEnded) -> str:
    """Who answers for it.  Nobody: it completed, or it was told to end."""
    told_to_end = before.stop and before.stop.kind in (StopKind.CANCEL, StopKind.TIMEOUT)
    if event.outcome.ending is Ending.COMPLETED or told_to_end:
        return NOBODY
    return str(answerable(before, event.outcome) or NOBODY)


def _code(before: Job, event: RunEnded) -> str:
    stop = before.stop
    hung = stop is not None and stop.kind is StopKind.HUNG
    return "hung" if hung else event.outcome.reason.code
