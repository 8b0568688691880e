"""Who used how much of the cluster of late: GPU seconds by project and user, the older the less they count."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from pydantic import TypeAdapter

from scheduler.core.entitlements import decayed
from scheduler.core.events import Event
from scheduler.core.model import Job, JobId
from scheduler.ports import Clock

Who = tuple[str, str]
"""Project and user."""
LINES: TypeAdapter[list[tuple[str, str, float, float]]] = TypeAdapter(list[tuple[str, str, float, float]])
FORGOTTEN = 1.0
"""Less than so many GPU seconds are not worth a line."""


class GpuUsage:
    """Follows the commits; what is held is priced once, when the job gets it."""

    def __init__(self, size_of: Callable[[Job], float], half_life_s: float, clock: Clock) -> None:
        """*size_of*: how many GPUs a running job holds.  *half_life_s*: after which usage counts half."""
        self._size_of, self._half_life_s, self._clock = size_of, half_life_s, clock
        self._holds: dict[JobId, tuple[Who, float]] = {}
        self._held: dict[Who, float] = {}
        self._used: dict[Who, tuple[float, float]] = {}
        """Decayed GPU seconds, and as of when."""

    def begin(self, running: Iterable[Job]) -> None:
        """These hold nodes as this life begins."""
        for job in running:
            if job.id not in self._holds:
                self._takes(job)

    def remembered(self, doc: object, at_s: float) -> None:
        """What an earlier life counted until *at_s*.  What was held then is taken to have been held until now."""
        now_s = self._now_s()
        for project, user, used, held in LINES.validate_python(doc):
            passed_s = max(0.0, now_s - at_s)
            self._used[project, user] = decayed(used, held, passed_s, self._half_life_s), now_s

    def to_remember(self) -> object:
        lines = [
            (project, user, used, self._held.get((project, user), 0.0))
            for (project, user), used in self.now().items()
        ]
        return LINES.dump_python(lines, mode="json")

    def now(self) -> Mapping[Who, float]:
        """Decayed GPU seconds of everybody who used something in the last days."""
        now_s = self._now_s()
        used = {who: self._as_of(who, now_s) for who in self._used | self._held}
        return {who: gpu_s for who, gpu_s in used.items() if gpu_s >= FORGOTTEN}

    def committed(self, _before: Job | None, after: Job, _event: Event | None) -> None:
        if after.allocation and after.id not in self._holds:
            self._takes(after)
        elif after.allocation is None and after.id in self._holds:
            self._gives_back(after.id)

    def _takes(self, job: Job) -> None:
        who = job.spec.project, job.spec.user
        self._holds[job.id] = who, self._size_of(job)
        self._changes(who, self._holds[job.id][1])

    def _gives_back(self, job_id: JobId) -> None:
        who, size = self._holds.pop(job_id)
        self._changes(who, -size)

    def _changes(self, who: Who, more: float) -> None:
        now_s = self._now_s()
        self._used[who] = self._as_of(who, now_s), now_s
        self._held[who] = max(0.0, self._held.get(who, 0.0) + more)

    def _as_of(self, who: Who, now_s: float) -> float:
        used, at_s = self._used.get(who, (0.0, now_s))
        return decayed(used, self._held.get(who, 0.0), max(0.0, now_s - at_s), self._half_life_s)

    def _now_s(self) -> float:
        return self._clock.now().timestamp()
