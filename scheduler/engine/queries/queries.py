"""What may be asked: nothing here changes anything."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from scheduler.api.base import ReasonDocument
from scheduler.api.cursors import cursor_of, cursor_of_number, number_of_cursor, place_of
from scheduler.api.forecasts import EffectDocument, Explanation, PlanAnswer, WhatIfDocument
from scheduler.api.health import LoopList
from scheduler.api.jobs import AttemptPage, Changes, CheckpointPage, EventPage, JobDocument, JobPage
from scheduler.api.logs import LogChunk, LogView, RankLog
from scheduler.api.metrics import MetricsDocument
from scheduler.api.redaction import redacted
from scheduler.api.repairs import RepairPage
from scheduler.api.serialize import attempt_document, checkpoint_document, event_document
from scheduler.core.attempts import step_of
from scheduler.core.checkpoints import lineage
from scheduler.core.commands import JobAction, action_of
from scheduler.core.model import Attempt, CheckpointId, Fence, Job, JobId, JobSpec, Saved, Status
from scheduler.core.redaction import REACH_CHARS, Redactor
from scheduler.engine.change_feed import ChangeFeed
from scheduler.engine.cluster import Cluster
from scheduler.engine.job_store import JobStore
from scheduler.engine.policies import Fair, PolicyInCharge
from scheduler.engine.queries.action_preview import ActionPreviews, refused
from scheduler.engine.queries.explanation import Explainer
from scheduler.engine.queries.forecaster import ByQueue, Forecaster
from scheduler.engine.queries.job_view import JobViews
from scheduler.engine.queries.outlooks import Outlooks
from scheduler.engine.queries.run_lengths import RunLengths
from scheduler.engine.queries.submit_preview import SubmitPreview
from scheduler.engine.queries.what_ifs import WhatIfs
from scheduler.engine.registry import Registry
from scheduler.engine.spec_validation import SpecValidator
from scheduler.engine.sync.reconciler import repair_document
from scheduler.engine.sync.session import MirrorSession
from scheduler.errors import CheckpointNotFound, InvalidRequest, NotAllowed
from scheduler.ports import Clock, JobQuery, Journal, LogPart, Runner
from scheduler.settings import Settings

PRUNED = (
    "earlier events are not here: they were pruned (SCHEDULER_KEEP_DAYS after the end of a job only its last one is kept), "
    "or are those of a journal that was lost"
)


class Queries:
    """Answers from registry and journal; about a job that neither knows, from the database."""

    def __init__(
        self,
        journal: Journal,
        runner: Runner,
        registry: Registry,
        store: JobStore,
        cluster: Cluster,
        validator: SpecValidator,
        views: JobViews,
        feed: ChangeFeed,
        session: MirrorSession | None,
        policy: PolicyInCharge,
        clock: Clock,
        settings: Settings,
    ) -> None:
        self._journal, self._runner, self._registry, self._store = journal, runner, registry, store
        self._validator, self._views, self._feed = validator, views, feed
        self._is_mirrored, self._life = session is not None, journal.incarnation
        self.lengths = lengths = RunLengths(journal, registry, clock, settings)
        self.outlooks = outlooks = (
            Outlooks(policy, registry, store, lengths, clock) if isinstance(policy, Fair) else None
        )
        forecaster = Forecaster(outlooks or ByQueue(registry, store, cluster, lengths, clock))
        self._what_ifs = WhatIfs(outlooks) if outlooks else None
        self._previews = ActionPreviews(
            registry, runner, cluster, validator, forecaster, self._what_ifs, clock, settings
        )
        self._explainer = Explainer(views, forecaster, lengths, self._previews, clock)
        self._submit_preview = SubmitPreview(validator, store, cluster, forecaster, clock)

    async def status(self, job_id: str) -> JobDocument:
        (document,) = await self._documents([await self._store.get(job_id)])
        return document

    async def documents(self, job_ids: list[str]) -> dict[str, JobDocument]:
        """Those of the given jobs that registry or journal know."""
        known = [job for job_id in job_ids if (job := await self._store.find(JobId(job_id)))]
        return {document.job_id: document for document in await self._documents(known)}

    async def _documents(self, jobs: Sequence[Job]) -> list[JobDocument]:
        """What waits for the database is looked up last: what was on its way by then may have arrived, never the other
        way round."""
        found = [self._views.document(self._registry.get(job.id) or job) for job in jobs]
        if not (self._is_mirrored and found):
            return found
        unsent = await self._journal.unsent([job.id for job in jobs])
        return [
            document.model_copy(update={"unmirrored": True}) if document.job_id in unsent else document
            for document in found
        ]

    async def repairs(self, cursor: str | None, limit: int) -> RepairPage:
        """What was repaired, newest first."""
        found = await self._journal.repairs(limit, number_of_cursor(cursor) if cursor else None)
        return RepairPage(
            repairs=[repair_document(repair) for _, repair in found],
            next_cursor=cursor_of_number(found[-1][0]) if len(found) == limit else None,
        )

    async def events(self, job_id: str) -> EventPage:
        job = await self._store.get(job_id)
        found = await self._journal.events(job.id)
        page = EventPage(
            job_id=job.id,
            events=[event_document(event) for event in found],
            note=PRUNED if found and found[0].version > 1 else None,
        )
        return redacted(page, Redactor.of(job.spec))

    async def attempts(self, job_id: str) -> AttemptPage:
        job = await self._store.get(job_id)
        found = [self._as_seen(job, attempt) for attempt in await self._journal.attempts(job.id)]
        attempts = [attempt_document(attempt) for attempt in found]
        return redacted(AttemptPage(job_id=job.id, attempts=attempts), Redactor.of(job.spec))

    def _as_seen(self, job: Job, attempt: Attempt) -> Attempt:
        """The row of a run that goes on, with what it says of itself."""
        seen = self._registry.sighting(job)
        if seen is None or attempt.ended_at or attempt.fence != seen.fence:
            return attempt
        said = seen.observation
        return replace(attempt, resumed=said.resumed, saved=said.saved, last_step=step_of(said.progress))

    async def checkpoints(self, job_id: str) -> CheckpointPage:
        job = await self._store.get(job_id)
        found = await self._runner.checkpoints(job.id)
        continuing = lineage(found, job.origin)
        following = continuing[0].id if continuing else None
        newest_first = sorted(found, key=lambda checkpoint: (checkpoint.at, checkpoint.number), reverse=True)
        return CheckpointPage(
            job_id=job.id,
            checkpoints=[
                checkpoint_document(checkpoint, is_next=checkpoint.id == following)
                for checkpoint in newest_first
            ],
        )

    async def metrics(self, job_id: str, points: int) -> MetricsDocument:
        """What the loop measured in all attempts, thinned out to *points* rows."""
        job = await self._store.get(job_id)
        found, redactor = await self._runner.metrics(job.id, points), Redactor.of(job.spec)
        return found.model_copy(update={"samples": [redacted(sample, redactor) for sample in found.samples]})

    async def trends(self, job_ids: list[str], points: int) -> dict[str, list[float]]:
        """The loss of each job in at most *points* numbers.  Jobs that are not known, or told none, are left out."""
        known = [JobId(job_id) for job_id in job_ids if await self._store.find(JobId(job_id))]
        found = await self._runner.trends(known, points)
        return {str(job_id): values for job_id, values in found.items()}

    async def checkpoint(self, job: Job, wanted: str) -> Saved:
        """The complete checkpoint *wanted*; CheckpointNotFound names those that there are."""
        found = {checkpoint.id: checkpoint for checkpoint in await self._runner.checkpoints(job.id)}
        chosen = found.get(CheckpointId(wanted))
        if chosen is None:
            there = ", ".join(sorted(found)) or "none"
            raise CheckpointNotFound(f"job {job.id} has no complete checkpoint {wanted!r}; there is: {there}")
        return Saved(checkpoint=chosen.id, step=chosen.step, at=chosen.at)

    async def jobs(self, query: JobQuery) -> JobPage:
        rows = await self._journal.page(query)
        is_full = len(rows) == query.limit
        return JobPage(
            jobs=await self._documents(rows),
            next_cursor=cursor_of(place_of(rows[-1], query.sort), query.sort) if rows and is_full else None,
            counts=await self._counts(query, rows),
        )

    async def _counts(self, query: JobQuery, rows: list[Job]) -> dict[Status, int]:
        """Of all that match but the status: told by the page itself where it has all of them."""
        if query.after or query.statuses or len(rows) == query.limit:
            return await self._journal.counts(query)
        return Counter(job.status for job in rows)

    async def changes(self, after: int, life: int, wait_s: float) -> Changes:
        """What has changed after number *after*: at once when there is something, else within *wait_s*.

        In another *life*, and for whoever is too far behind, `missed` says that everything is to be loaded anew.
        """
        is_this_life = life == self._life
        news = await self._feed.after(after, wait_s) if is_this_life else self._feed.since(0)
        missed = news.job_ids is None or not is_this_life
        told = [] if missed else news.job_ids or []
        known = [job for job_id in told if (job := await self._store.find(job_id))]
        return Changes(
            life=self._life,
            seq=news.seq,
            jobs=[self._views.document(job) for job in known],
            counts=await self._journal.counts(),
            missed=missed,
        )

    async def logs(self, job_id: str, rank: int, attempt: int | None, offset: int, limit: int) -> LogChunk:
        """Part of a rank's log.  `attempt` defaults to the newest; a negative `offset` counts from the end."""
        job = await self._store.get(job_id)
        wanted = job.attempt if attempt is None else attempt
        if not 1 <= wanted <= job.attempt:
            raise InvalidRequest(
                f"job {job.id} has had {job.attempt} attempts; there is no log of attempt {wanted} yet"
            )
        part = await self._read_log(job, Fence(wanted), rank, offset, limit)
        over = job.status is not Status.RUNNING or wanted < job.attempt
        return LogChunk(
            job_id=job.id,
            attempt=wanted,
            rank=rank,
            text=part.text,
            offset=part.offset,
            next_offset=part.next_offset,
            ended=over and part.is_end,
        )

    async def _read_log(self, job: Job, fence: Fence, rank: int, offset: int, limit: int) -> LogPart:
        """Without secrets, also where a piece begins or ends within one."""
        run = (job.id, fence)
        part = await self._runner.read_log(run, rank, offset, limit)
        if not part.text:
            return part
        begin = max(0, part.offset - REACH_CHARS)
        before = await self._runner.read_log(run, rank, begin, part.offset - begin) if part.offset else None
        after = None if part.is_end else await self._runner.read_log(run, rank, part.next_offset, REACH_CHARS)
        around = (before.text if before else ""), (after.text if after else "")
        return replace(part, text=Redactor.of(job.spec).between(around[0], part.text, around[1]))

    async def log_view(self, job_id: str, attempt: int, offsets: dict[int, int], limit: int) -> LogView:
        """How the job stands, and what the ranks in *offsets* printed in *attempt* after each, *limit* bytes at most.

        A negative offset counts from the end; no offsets: no log is read, and *attempt* may be one to come.
        """
        job = await self._store.get(job_id)
        is_over = job.status is not Status.RUNNING or attempt < job.attempt
        ending = await self._ending(job, attempt) if attempt and is_over else None
        seen = self._views.document(job)
        parts = await asyncio.gather(
            *(self._read_log(job, Fence(attempt), rank, offset, limit) for rank, offset in offsets.items())
        )
        return LogView(
            job_id=job.id,
            status=job.status,
            reason=seen.reason,
            queue_position=seen.queue_position,
            newest_attempt=job.attempt,
            most_ranks=job.spec.resources.most,
            is_over=is_over,
            ending=ending,
            logs=[
                RankLog(
                    rank=rank,
                    text=part.text,
                    offset=part.offset,
                    next_offset=part.next_offset,
                    is_end=part.is_end,
                )
                for rank, part in zip(offsets, parts, strict=True)
            ],
        )

    async def _ending(self, job: Job, attempt: int) -> ReasonDocument | None:
        attempts = await self._journal.attempts(job.id)
        ending = next((attempt_document(one).reason for one in attempts if one.fence == attempt), None)
        return ending and redacted(ending, Redactor.of(job.spec))

    async def explain(self, job_id: str) -> Explanation:
        job = await self._store.get(job_id)
        return redacted(await self._explainer.of(job), Redactor.of(job.spec))

    async def effect(
        self, job_id: str, action: str, checkpoint: str | None = None, preempt: bool = False
    ) -> EffectDocument:
        """What *action*, as in the paths of the API, would do now; a checkpoint that is not there is refused."""
        job, wanted = await self._store.get(job_id), action_of(action)
        try:
            chosen = await self.checkpoint(job, checkpoint) if checkpoint else None
        except CheckpointNotFound as error:
            return refused(job.id, action, error.message, "choose one that is there, or leave it out")
        return redacted(await self._previews.of(job, wanted, chosen, preempt), Redactor.of(job.spec))

    async def what_if(
        self, job_id: str, priority: int | None = None, front: bool = False, preempt: bool = False
    ) -> WhatIfDocument:
        """What one change of a job that waits would do; nothing is done."""
        if [priority is not None, front, preempt].count(True) != 1:
            raise InvalidRequest("ask for exactly one change: priority, front or preempt")
        job = await self._store.get(job_id)
        if self._what_ifs is None:
            raise NotAllowed(
                "only the policy fair plays what a change would do; it needs SCHEDULER_POLICY=fair"
            )
        if job.status is not Status.QUEUED:
            raise NotAllowed(
                f"job {job.id} is {job.status}; what a change would do is played for jobs that wait"
            )
        if priority is None:
            after = self._previews.led_to(job, JobAction.FORCE_START, preempt=preempt)
        else:
            after = replace(job, spec=replace(job.spec, priority=priority))
        return redacted((await self._what_ifs.of(job, after)).what_if, Redactor.of(job.spec))

    async def plan(self, spec: JobSpec) -> PlanAnswer:
        """A submit that is not made."""
        return await self._submit_preview.of(spec)

    async def loops(self) -> LoopList:
        return await asyncio.to_thread(self._validator.loops)
