"""Job arrays: submitted all at once, looked at and cancelled as a group.

Nothing is kept of an array but its jobs: each knows its place in it, and the ids of all follow from that of the array.
"""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

from scheduler.api.arrays import ArrayDocument, ArrayJob, SubmitArray
from scheduler.core import arrays
from scheduler.core.commands import JobAction
from scheduler.core.finite import finite
from scheduler.core.model import ArrayPlace, Job, JobId, JobSpec, Status
from scheduler.engine import dependencies
from scheduler.engine.cluster import Cluster
from scheduler.engine.commands import Commands
from scheduler.engine.job_store import JobStore
from scheduler.engine.periodic import all_of
from scheduler.engine.queries.job_view import JobViews
from scheduler.engine.registry import Registry
from scheduler.engine.spec_validation import Accepted, SpecValidator
from scheduler.errors import ArrayNotFound, InvalidSpec, JobNotFound, NotAllowed, Problem, VersionConflict

_SHOWN_IN_A_ROW = 100
_OUT = (Status.FAILED, Status.CANCELLED)


def child_id(array_id: str, index: int) -> JobId:
    """The id of the job with that index, as every life of the scheduler works it out."""
    return JobId(str(uuid.uuid5(uuid.UUID(array_id), str(index))))


class Arrays:
    """Every call may be repeated: a second one finds what the first one did."""

    def __init__(
        self,
        registry: Registry,
        store: JobStore,
        cluster: Cluster,
        validator: SpecValidator,
        views: JobViews,
        commands: Commands,
    ) -> None:
        self._registry, self._store, self._cluster = registry, store, cluster
        self._validator, self._views, self._commands = validator, views, commands

    async def submit_array(
        self, array_id: str, wanted: SubmitArray, idempotency_key: str | None
    ) -> tuple[ArrayDocument, bool]:
        """Accept all of its jobs in one commit, or none; the first of them carries the key."""
        if known := await self._submitted_before(array_id, wanted, idempotency_key):
            return await self.array(known), False
        jobs = await self._accepted(array_id, wanted, idempotency_key)
        try:
            await self._store.create(jobs)
        except VersionConflict:
            # Two submits with one key met; the journal let one in.
            known = await self._submitted_before(array_id, wanted, idempotency_key)
            if known is None:
                raise
            return await self.array(known), False
        return await self.array(array_id), True

    async def array(self, array_id: str) -> ArrayDocument:
        """How it stands.  Raises ArrayNotFound."""
        return await self._document(*await self._jobs(array_id))

    async def cancel_array(self, array_id: str, by: str) -> ArrayDocument:
        """Cancel all of its jobs that have not ended: those that wait first, so that none of them starts meanwhile."""
        _, known = await self._jobs(array_id)
        jobs = [job for job in known.values() if not job.status.is_terminal]
        for is_running in (False, True):
            chosen = [job.id for job in jobs if (job.status is Status.RUNNING) is is_running]
            await all_of(self._cancel(job_id, by) for job_id in chosen)
        return await self.array(array_id)

    async def _cancel(self, job_id: JobId, by: str) -> None:
        with suppress(NotAllowed):  # it has ended meanwhile
            await self._commands.act(job_id, JobAction.CANCEL, by)

    async def _submitted_before(self, array_id: str, wanted: SubmitArray, key: str | None) -> str | None:
        """The id of the array that an earlier submit with this id or key made."""
        known = await self._store.submitted_before(child_id(array_id, 1), wanted.spec.user, key)
        if known and known.spec.array is None:
            words = f"the idempotency key belongs to job {known.id}, which is of no array; give another key"
            raise NotAllowed(words)
        return known.spec.array.id if known and known.spec.array else None

    async def _accepted(self, array_id: str, wanted: SubmitArray, key: str | None) -> list[Job]:
        if problems := arrays.problems(wanted.spec, wanted.parameters, wanted.at_most):
            raise InvalidSpec.of(*problems)
        made = arrays.specs_of(wanted.spec, wanted.parameters)
        specs = [spec for spec, _ in made]
        try:
            accepted = await self._validator.admit_all(specs, self._cluster.possible_nodes())
        except InvalidSpec as error:
            raise InvalidSpec.of(*_told_once(error.problems, len(specs))) from None
        await dependencies.check(self._store, [wanted.spec])
        at_most = min(wanted.at_most or len(made), len(made))
        return [
            self._commands.accept(
                child_id(array_id, index),
                Accepted(_placed(one.spec, array_id, index, len(made), at_most, keys, wanted), one.notes),
                key if index == 1 else None,
            )
            for index, (one, (_, keys)) in enumerate(zip(accepted, made, strict=True), start=1)
        ]

    async def _jobs(self, array_id: str) -> tuple[ArrayPlace, dict[int, Job]]:
        """Those that are known, by their index; and what one of them says of the array."""
        place = await self._place(array_id)
        ids = {index: child_id(array_id, index) for index in range(1, place.size + 1)}
        found = await self._store.find_all(list(ids.values()))
        return place, {index: found[job_id] for index, job_id in ids.items() if job_id in found}

    async def _place(self, array_id: str) -> ArrayPlace:
        """That of any of its jobs: of the first that can be read, or of one that is active where a journal was lost."""
        with suppress(JobNotFound):
            job: Job | None = await self._store.get(child_id(array_id, 1))
            index = 1
            while job:
                if job.spec.array:
                    return job.spec.array
                index += 1
                job = await self._store.find(child_id(array_id, index))
        for job in self._registry.active():
            if job.spec.array and job.spec.array.id == array_id:
                return job.spec.array
        raise ArrayNotFound.of(array_id)

    async def _document(self, place: ArrayPlace, jobs: Mapping[int, Job]) -> ArrayDocument:
        first = next((job for job in jobs.values() if job.spec.array), next(iter(jobs.values())))
        shown: list[ArrayJob] = []
        for index, job in jobs.items():
            if index % _SHOWN_IN_A_ROW == 0:
                await asyncio.sleep(0)  # others have their turn
            shown.append(self._shown(index, place, job))
        counts = Counter(job.status for job in shown)
        best = arrays.best(((job, job.metric) for job in shown if job.status not in _OUT), place.metric_is)
        return ArrayDocument(
            array_id=place.id,
            name=arrays.name_of(first.spec),
            user=first.spec.user,
            project=first.spec.project,
            created_at=first.created_at,
            size=place.size,
            at_most=place.at_most,
            metric=place.metric,
            metric_is=place.metric_is,
            counts=counts,
            has_ended=all(job.status.is_terminal for job in shown),
            best=best.index if best else None,
            message=_sentence(place, counts, best),
            jobs=shown,
        )

    def _shown(self, index: int, place: ArrayPlace, job: Job) -> ArrayJob:
        document = self._views.document(self._registry.get(job.id) or job)
        results = document.result.metrics if document.result else {}
        reported = finite(results.get(place.metric))
        return ArrayJob(
            index=index,
            job_id=job.id,
            name=document.name,
            status=document.status,
            reason=document.reason.message,
            values=arrays.values_of(document.spec.config, place.keys),
            metric=finite((document.progress or {}).get(place.metric)) if reported is None else reported,
        )


def _placed(
    spec: JobSpec,
    array_id: str,
    index: int,
    size: int,
    at_most: int,
    keys: list[str],
    wanted: SubmitArray,
) -> JobSpec:
    place = ArrayPlace(
        id=array_id,
        index=index,
        size=size,
        at_most=at_most,
        keys=keys,
        metric=wanted.metric,
        metric_is=wanted.metric_is,
    )
    return replace(spec, array=place)


def _told_once(problems: Sequence[Problem], size: int) -> list[Problem]:
    """What is wrong with many of the jobs in the same way is one problem, which names the first of them."""
    jobs: dict[tuple[str, str], list[int]] = {}
    for one in problems:
        _, index, field = one.field.split(".", 2)
        jobs.setdefault((field, one.message), []).append(int(index) + 1)
    return [
        Problem(f"spec.{field}", message if len(which) == size else f"{message} ({_which(which, size)})")
        for (field, message), which in jobs.items()
    ]


def _which(jobs: Sequence[int], size: int) -> str:
    return (
        f"job {jobs[0]} of {size}" if len(jobs) == 1 else f"{len(jobs)} of {size} jobs, first job {jobs[0]}"
    )


def _sentence(place: ArrayPlace, counts: Counter[Status], best: ArrayJob | None) -> str:
    parts = ", ".join(f"{counts[status]} {status}" for status in Status if counts[status])
    missing = place.size - counts.total()
    unknown = f", {missing} not known any more" if missing else ""
    limit = f", {place.at_most} at once at most" if place.at_most < place.size else ""
    jobs = f"{place.size} jobs" if place.size > 1 else "1 job"
    so_far = f"; best {place.metric} so far: {best.metric:.6g}, of job {best.index}" if best else ""
    return f"{jobs}{limit}: {parts}{unknown}{so_far}"
