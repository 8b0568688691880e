"""How long runs go on: by their own steps, or as runs like them did."""

from __future__ import annotations

from datetime import datetime, timedelta

from scheduler.api.serialize import progress_of
from scheduler.core.forecast import Usual, left_s
from scheduler.core.model import Job, Status, StopKind
from scheduler.engine.registry import Registry
from scheduler.ports import Clock, JobQuery, Journal
from scheduler.settings import Settings

_PAST_RUNS = 500
_REMEMBERED_FOR = timedelta(seconds=30)


class RunLengths:
    """Reads; changes nothing."""

    def __init__(self, journal: Journal, registry: Registry, clock: Clock, settings: Settings) -> None:
        self._journal, self._registry, self._clock = journal, registry, clock
        self._stop_grace_s = settings.stop_grace_s
        self._usual: Usual | None = None
        self._usual_at = clock.now()

    def left_s(self, job: Job, now: datetime) -> float | None:
        """How much longer a running job will have its nodes; None: nobody can tell."""
        seen = self._registry.sighting(job)
        if job.stop:
            return self._until_stopped_s(job, now)
        said = seen.observation if seen else None
        return left_s(
            job,
            progress=progress_of(job, seen),
            pace=said.pace if said else None,
            stepped_at=said.stepped_at if said else None,
            now=now,
        )

    async def usual(self) -> Usual:
        """How long runs took, of the newest that completed.  Read again when it is half a minute old."""
        now = self._clock.now()
        if self._usual is None or now - self._usual_at > _REMEMBERED_FOR:
            query = JobQuery(statuses=frozenset({Status.COMPLETED}), limit=_PAST_RUNS)
            self._usual, self._usual_at = Usual(await self._journal.page(query)), now
        return self._usual

    def _until_stopped_s(self, job: Job, now: datetime) -> float:
        """At its next step, as far as that is known; at the latest when it is made to."""
        assert job.stop is not None
        if job.stop.kind is StopKind.CANCEL:
            return 0.0
        seen = self._registry.sighting(job)
        pace = seen.observation.pace if seen else None
        patience_s = max(0.0, self._stop_grace_s - (now - job.stop.at).total_seconds())
        return min(patience_s, pace.longest_s) if pace else patience_s
