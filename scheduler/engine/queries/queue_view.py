"""The queue for people: shares, whose turn it is and why it waits, and who holds nodes for how much longer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime

from scheduler.api.base import ReasonDocument
from scheduler.api.projects import ProjectDocument
from scheduler.api.queue import HoldingJob, ProjectInQueue, QueueDocument, WaitingJob
from scheduler.core.contender import HOUR_S
from scheduler.core.forecast import Start
from scheduler.core.model import Job, JobId
from scheduler.core.needs import Outline, num_ranks
from scheduler.core.turns import Order
from scheduler.engine.cluster import Cluster
from scheduler.engine.policies import Fair, PolicyInCharge
from scheduler.engine.projects import Projects
from scheduler.engine.queries.expected_starts import ExpectedStarts
from scheduler.engine.queries.job_view import JobViews
from scheduler.engine.queries.queries import Queries
from scheduler.engine.registry import Registry
from scheduler.engine.shadow import NoShadow, Shadow
from scheduler.ports import Clock

SHOWN = 100
"""Jobs that wait, and jobs that run."""


class QueueView:
    """Reads; changes nothing."""

    def __init__(
        self,
        registry: Registry,
        cluster: Cluster,
        projects: Projects,
        views: JobViews,
        policy: PolicyInCharge,
        queries: Queries,
        clock: Clock,
        shadow: Shadow | NoShadow,
    ) -> None:
        self._registry, self._cluster, self._projects = registry, cluster, projects
        self._views, self._policy, self._lengths, self._clock = views, policy, queries.lengths, clock
        self._shadow = shadow
        self._starts = ExpectedStarts(queries.outlooks, clock) if queries.outlooks else None

    async def queue(self) -> QueueDocument:
        """The queue at this moment, with the shares as the newest pass divided them."""
        starts: Mapping[JobId, Start] = await self._starts.now() if self._starts else {}
        listed = await self._projects.projects()
        now, outline, fair = self._clock.now(), Outline(self._cluster.nodes), self._fair
        turns, running = self._views.turns, self._registry.running()
        used = _by_project(fair.used()) if fair else None
        return QueueDocument(
            at=now,
            policy="fair" if fair else "fifo",
            rules=fair.rules.fingerprint if fair else None,
            unit=listed.unit,
            size=outline.size,
            projects=[_project(one, turns if fair else None, used) for one in listed.projects],
            num_waiting=sum(one.queued for one in listed.projects),
            waiting=[
                self._waiting(job, outline, starts.get(job.id, Start())) for job in self._registry.line(SHOWN)
            ],
            num_holding=len(running),
            holding=self._holding(running, outline, turns, now),
            shadow=self._shadow.document(),
        )

    @property
    def _fair(self) -> Fair | None:
        return self._policy if isinstance(self._policy, Fair) else None

    def _waiting(self, job: Job, outline: Outline, start: Start) -> WaitingJob:
        seen, gang = self._views.document(job), job.spec.resources
        return WaitingJob(
            position=seen.queue_position,
            job_id=seen.job_id,
            name=seen.name,
            project=seen.spec.project,
            user=seen.spec.user,
            size=outline.size_of(gang, gang.fewest),
            reason=ReasonDocument(code=seen.reason.code, message=seen.reason.message),
            kept=job.kept is not None,
            starts_in_s=start.after_s,
            starts_after_s=start.more_than_s,
        )

    def _holding(
        self, running: list[Job], outline: Outline, turns: Order | None, now: datetime
    ) -> list[HoldingJob]:
        ends = sorted(
            ((self._lengths.left_s(job, now), job) for job in running if job.allocation),
            key=lambda one: (math.inf if one[0] is None else one[0], one[1].id),
        )
        over = turns.over if turns else frozenset[JobId]()
        return [self._holds(job, left_s, outline, over) for left_s, job in ends[:SHOWN]]

    def _holds(self, job: Job, left_s: float | None, outline: Outline, over: frozenset[JobId]) -> HoldingJob:
        assert job.allocation, f"{job.id} runs without an allocation"
        seen = self._views.document(job)
        return HoldingJob(
            job_id=seen.job_id,
            name=seen.name,
            project=seen.spec.project,
            user=seen.spec.user,
            size=outline.size_of(job.spec.resources, num_ranks(job.allocation)),
            left_s=left_s,
            on_loan=job.loan_of is not None or job.id in over,
            stopping=job.stop is not None,
        )


def _by_project(used: Mapping[tuple[str, str], float]) -> Mapping[str, float]:
    found: dict[str, float] = {}
    for (project, _), gpu_s in used.items():
        found[project] = found.get(project, 0.0) + gpu_s
    return found


def _project(one: ProjectDocument, turns: Order | None, used: Mapping[str, float] | None) -> ProjectInQueue:
    """A project that wants nothing is entitled to nothing."""
    entitled = None
    if turns is not None:
        part = turns.parts.get(one.name)
        entitled = part.entitled if part else 0.0
    return ProjectInQueue(
        **one.model_dump(),
        entitled=entitled,
        lent=None if entitled is None else max(0.0, one.held - entitled),
        usage_h=None if used is None else used.get(one.name, 0.0) / HOUR_S,
    )
