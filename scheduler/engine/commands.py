"""What people ask for: jobs, and what is to become of them.  Journalled first, done then."""

from __future__ import annotations

from scheduler.api.health import ShutdownAnswer
from scheduler.api.jobs import ActionAnswer, ForceStartAnswer, JobDocument, SubmittedJob
from scheduler.api.serialize import submitted
from scheduler.core import commands, lifecycle
from scheduler.core.commands import ACTIONS, JobAction
from scheduler.core.model import Job, JobId, JobSpec, Pushed, Saved, Status
from scheduler.engine import dependencies
from scheduler.engine.cluster import Cluster
from scheduler.engine.job_store import JobStore
from scheduler.engine.policies import PolicyInCharge
from scheduler.engine.queries.job_view import JobViews
from scheduler.engine.queries.queries import Queries
from scheduler.engine.registry import Registry
from scheduler.engine.shutdown import Shutdown
from scheduler.engine.spec_validation import Accepted, SpecValidator, check_again
from scheduler.errors import InvalidRequest, VersionConflict
from scheduler.ports import Clock
from scheduler.settings import Settings


class Commands:
    """Every one may be repeated: a second call finds what the first one did."""

    def __init__(
        self,
        registry: Registry,
        store: JobStore,
        cluster: Cluster,
        validator: SpecValidator,
        views: JobViews,
        queries: Queries,
        policy: PolicyInCharge,
        shutdown: Shutdown,
        clock: Clock,
        settings: Settings,
    ) -> None:
        self._registry, self._store, self._cluster, self._validator = registry, store, cluster, validator
        self._views, self._queries = views, queries
        self._shutdown, self._clock = shutdown, clock
        self._ranks, self._stop_grace_s = policy.ranks, settings.stop_grace_s

    async def submit(
        self, job_id: str, spec: JobSpec, idempotency_key: str | None
    ) -> tuple[JobDocument, bool]:
        """Accept a job.

        When this returns, the job is in the journal and survives a crash.  When it raises or times out, the job
        may or may not be there: call again with the same id or key, and the first one is returned with False.
        """
        if known := await self._store.submitted_before(JobId(job_id), spec.user, idempotency_key):
            return self._views.document(known), False
        accepted = await self.validate(spec)
        job = self.accept(job_id, accepted, idempotency_key)
        try:
            await self._store.create([job])
        except VersionConflict:
            # Two submits with one key met; the journal let one in.
            known = await self._store.submitted_before(
                job.id, spec.user, idempotency_key
            ) or await self._store.find(job.id)
            if known is None:
                raise
            return self._views.document(known), False
        return self._views.document(self._registry.get(job.id) or job), True

    async def validate(self, spec: JobSpec) -> Accepted:
        """*spec* as it would run.  Raises InvalidSpec, and MirrorUnavailable when only the database could tell."""
        accepted = await self._validator.admit(spec, self._cluster.possible_nodes())
        await dependencies.check(self._store, [spec])
        return accepted

    async def submit_batch(self, jobs: list[tuple[str, JobSpec]]) -> list[SubmittedJob]:
        """Accept all of these jobs in one commit, or none.  Safe to repeat with the same ids."""
        first = await self._store.find(JobId(jobs[0][0])) if jobs else None
        if first is None:
            specs = [spec for _, spec in jobs]
            accepted = await self._validator.admit_all(specs, self._cluster.possible_nodes())
            await dependencies.check(self._store, specs)
            ids = (job_id for job_id, _ in jobs)
            await self._store.create(
                [self.accept(job_id, one, None) for job_id, one in zip(ids, accepted, strict=True)]
            )
        return [submitted(self._views.document(await self._store.get(job_id))) for job_id, _ in jobs]

    async def act(
        self,
        job_id: str,
        action: JobAction,
        by: str,
        checkpoint: str | None = None,
        preempt: bool = False,
    ) -> ActionAnswer:
        """Do what *by* asks, as `ACTIONS` has it: journalled before any signal is sent.

        A run that is stopped shows its new status when its processes are gone.  *checkpoint*: where a resume goes on.
        *preempt*: other runs are preempted for a job that is force-started.
        Raises NotAllowed, in words, for what the job cannot do as it stands.
        """
        if checkpoint and not ACTIONS[action].takes_checkpoint:
            raise InvalidRequest(f"{action} takes no checkpoint; resume does")
        pushed = commands.pushed_by(action, ranks=self._ranks, preempt=preempt)
        before = await self._store.get(job_id)
        chosen = await self._queries.checkpoint(before, checkpoint) if checkpoint else None
        job = await self._act(before, action, by, chosen, pushed)
        return self._queued(before, job) if action is JobAction.FORCE_START else self._views.document(job)

    def _queued(self, before: Job, job: Job) -> ForceStartAnswer:
        position = self._registry.position(job)
        return ForceStartAnswer(
            success=True,
            job_id=job.id,
            previous_status=before.status,
            new_status=Status.QUEUED,
            queue_position=position,
            message=f"Job queued successfully (position {position})",
        )

    async def shutdown(self, save: bool, by: str) -> ShutdownAnswer:
        """Nothing starts any more, and what runs is preempted; without *save* nobody waits for it to save.

        An operator who does not end it after all finds it starting jobs again a minute after the grace.
        """
        grace_s = self._stop_grace_s if save else 0.0
        return ShutdownAnswer(running=await self._shutdown.begin(grace_s, by), grace_s=grace_s)

    async def _act(self, job: Job, action: JobAction, by: str, chosen: Saved | None, pushed: Pushed) -> Job:
        if commands.looks_at_spec(action, job):
            await check_again(job, self._validator, self._cluster)
        seq = self._registry.next_seq()
        event = commands.event(
            action, job, at=self._clock.now(), by=by, end_of_line=seq, chosen=chosen, pushed=pushed
        )
        return await self._store.apply(job, event)

    def accept(self, job_id: str, accepted: Accepted, key: str | None) -> Job:
        """The new job, at the end of the queue; nothing is written yet."""
        return lifecycle.accept(
            JobId(job_id),
            accepted.spec,
            at=self._clock.now(),
            queue_seq=self._registry.next_seq(),
            idempotency_key=key,
            notes=accepted.notes,
        )
