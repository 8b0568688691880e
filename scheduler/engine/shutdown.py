"""The operator is about to end this scheduler: nothing starts any more, and what runs is preempted."""

from __future__ import annotations

from collections.abc import Iterable

from scheduler.core.lifecycle import AskStop
from scheduler.core.model import OPERATOR_DOWN, Job, JobId, Reason, StopKind
from scheduler.engine.job_store import JobStore
from scheduler.engine.periodic import all_of
from scheduler.engine.registry import Registry
from scheduler.ports import Clock

CLOSING_S = 60.0
"""Whoever stops the scheduler has so long, beyond the grace of the runs; then it was not meant, and jobs start again."""
WHY = Reason(code=OPERATOR_DOWN, message="the operator stopped the scheduler")
WAITS = Reason(
    code="closing",
    message="there is room for it, and the operator is stopping the scheduler; it starts at the next `scheduler up`",
)

SHOWN = (
    "it is being stopped: runs save and are preempted, and nothing starts; if nobody ends it, it goes on by itself in a "
    "minute or two"
)


class Shutdown:
    """Begins when an operator asks for it, and ends with this life of the scheduler, or after a while by itself."""

    def __init__(self, store: JobStore, registry: Registry, clock: Clock) -> None:
        self._store, self._registry, self._clock = store, registry, clock
        self._until_s: float | None = None

    @property
    def is_on(self) -> bool:
        return self._until_s is not None and self._clock.monotonic_s() < self._until_s

    async def begin(self, grace_s: float, by: str) -> int:
        """Returns how many jobs run.  What becomes of them is in the journal before any run is signalled, so that the
        next life knows who ended them.  Safe to repeat."""
        self._until_s = self._clock.monotonic_s() + grace_s + CLOSING_S
        running = len(self._registry.running())
        await self.preempt_all(by)
        return running

    async def preempt_all(self, by: str = "scheduler") -> None:
        now = self._clock.now()
        events = (
            (job, AskStop(at=now, by=by, kind=StopKind.PREEMPT, why=WHY, fence=job.fence))
            for job in self._registry.running()
            if job.stop is None
        )
        await all_of(self._store.apply(job, event) for job, event in events)

    def problem(self) -> str | None:
        return SHOWN if self.is_on else None

    def reasons(self, could_start: Iterable[Job]) -> dict[JobId, Reason]:
        """Why these wait for which there is room; one that was preempted for the operator says so itself."""
        return {job.id: job.reason if job.reason.code == OPERATOR_DOWN else WAITS for job in could_start}
