"""Jobs as the policy sees them: what each holds or needs, what is left of it, and what its preemption would cost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime

from scheduler.api.serialize import progress_of
from scheduler.core import ordering
from scheduler.core.attempts import step_of
from scheduler.core.contender import ABOVE_ALL, Contender, Tenure, Told
from scheduler.core.dependencies import Parents
from scheduler.core.finite import finite
from scheduler.core.forecast import steps_left_s
from scheduler.core.model import Job, JobId, Node, Reason
from scheduler.core.needs import Outline, avoided, num_ranks
from scheduler.engine.loop_habits import LoopHabits
from scheduler.engine.registry import Registry


class Contenders:
    """Builds them anew in each pass; of a job that has not changed, the one that was built before."""

    def __init__(self, registry: Registry, habits: LoopHabits) -> None:
        self._registry, self._habits = registry, habits
        self._outline, self._nodes = Outline(()), object()
        self._built: dict[JobId, tuple[Job, Contender]] = {}
        self._avoided = True

    def outline(self, nodes: tuple[Node, ...]) -> Outline:
        """The same as long as the nodes are: it remembers what was asked of it."""
        kinds = [
            (node.id, node.cpus, node.gpus, node.draining, node.set_aside, node.labels) for node in nodes
        ]
        if kinds != self._nodes:
            self._outline, self._nodes = Outline(nodes), kinds
            self._built.clear()
        return self._outline

    def size_of(self, job: Job) -> float:
        """GPUs that it holds, or needs at the fewest."""
        gang = job.spec.resources
        ranks = num_ranks(job.allocation) if job.allocation else gang.fewest
        return self._outline.size_of(gang, ranks)

    def owes(self, job_id: JobId) -> float:
        """The size of one that waited in the last pass; 0 when it was granted its nodes before, and waited for them."""
        built = self._built[job_id][1]
        return 0.0 if built.kept else built.size

    def waiting(self, jobs: Iterable[Job], now: datetime, parents: Parents) -> tuple[Contender, ...]:
        jobs = list(jobs)
        paused = ordering.order(jobs, now=now, parents=parents).paused
        if self._avoided != (is_avoided := avoided(jobs)):
            self._avoided = is_avoided
            self._built.clear()
        built = {job.id: (job, self._waiting(job, paused)) for job in jobs}
        self._built = built
        return tuple(contender for _, contender in built.values())

    def running(self, jobs: Iterable[Job], now: datetime) -> tuple[Contender, ...]:
        return tuple(self._running(job, now) for job in jobs)

    def _waiting(self, job: Job, paused: Mapping[JobId, Reason]) -> Contender:
        before, rests = self._built.get(job.id), paused.get(job.id)
        if before and before[0] is job:
            built = before[1]
            return built if built.rests == rests else replace(built, rests=rests)
        queued_s = (job.queued_at or job.created_at).timestamp()
        left_s = _left_by_earlier_runs_s(job)
        told = None if left_s is None else Told(left_s=left_s, at_s=queued_s)
        return self._contender(job, waits_since_s=queued_s, rests=rests, told=told, tenure=None)

    def _running(self, job: Job, now: datetime) -> Contender:
        assert job.allocation, f"{job.id} runs without an allocation"
        since = job.admitted_at or job.updated_at
        seen = self._registry.sighting(job)
        said = seen.observation if seen else None
        if said:
            self._habits.look(job, said)
        saved = said.saved if said else None
        return self._contender(
            job,
            waits_since_s=(job.queued_at or job.created_at).timestamp(),
            rests=None,
            told=self._told(job, since, now),
            tenure=Tenure(
                allocation=job.allocation,
                since_s=since.timestamp(),
                saved_at_s=saved.at.timestamp() if saved else None,
                due=job.is_due,
                loan_of=job.loan_of,
                stopping=job.stop is not None,
            ),
            has_saved=saved is not None or job.saved is not None,
        )

    def _told(self, job: Job, since: datetime, now: datetime) -> Told | None:
        """By its steps; before it has made two, by those of its earlier runs."""
        seen = self._registry.sighting(job)
        if seen:
            said = seen.observation
            left_s = steps_left_s(progress_of(job, seen), said.pace, said.stepped_at, now)
            if left_s is not None:
                return Told(left_s=left_s, at_s=now.timestamp())
        left_s = _left_by_earlier_runs_s(job)
        start_s = self._habits.of(job.spec).start_s
        return None if left_s is None else Told(left_s=left_s, at_s=since.timestamp() + start_s)

    def _contender(
        self,
        job: Job,
        *,
        waits_since_s: float,
        rests: Reason | None,
        told: Told | None,
        tenure: Tenure | None,
        has_saved: bool = False,
    ) -> Contender:
        spec, habit, size = job.spec, self._habits.of(job.spec), self.size_of(job)
        return Contender(
            id=job.id,
            name=spec.name,
            need=self._outline.need_of(spec.resources, job.avoids if self._avoided else ()),
            size=size,
            priority=ABOVE_ALL if job.pushed == "preempt" else spec.priority,
            project=spec.project,
            user=spec.user,
            seq=job.queue_seq or 0,
            first=bool(job.pushed),
            waits_since_s=waits_since_s,
            rests=rests,
            ran_s=job.ran_s,
            attained=job.ran_s * size,
            told=told,
            tenure=tenure,
            kept=job.kept,
            preemptions=job.preemptions,
            preemptible=spec.preemptible,
            stops_when_asked=habit.stops and has_saved,
            saves_when_asked=habit.saves,
            save_s=habit.save_s,
            start_s=habit.start_s,
            array=spec.array,
            deadline_s=spec.deadline.timestamp() if spec.deadline else None,
        )


def _left_by_earlier_runs_s(job: Job) -> float | None:
    """Of what it had saved when it last ended, at the speed that it had until then."""
    step, total = step_of(job.progress), finite((job.progress or {}).get("total_steps"))
    if not step or total is None or not job.ran_s:
        return None
    done = (job.saved.step if job.saved else 0) or 0
    return max(0.0, total - done) * job.ran_s / step
