"""Jobs that wait for others: that these are there, how they stand, and what becomes of those whose wait is in vain."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import datetime

from scheduler.core import dependencies
from scheduler.core.dependencies import Parents
from scheduler.core.lifecycle import GiveUp
from scheduler.core.model import Job, JobSpec, Status
from scheduler.engine.job_store import JobStore
from scheduler.errors import InvalidSpec, JobNotFound, MirrorRefused, MirrorUnavailable, NotAllowed, Problem

log = logging.getLogger(__name__)


async def check(store: JobStore, specs: Sequence[JobSpec]) -> None:
    """Raises InvalidSpec for a job that is named and not there, MirrorUnavailable when only the database could tell."""
    problems = [
        Problem(f"after.{index}.job", f"there is no job {after.job!r}; correct its id, or take it out")
        for spec in specs
        for index, after in enumerate(spec.after)
        if await _status(store, after.job) is None
    ]
    if problems:
        raise InvalidSpec.of(*problems)


async def parents_of(store: JobStore, jobs: Iterable[Job]) -> Parents:
    """How those stand for which *jobs* wait; without those of which it is not known at the moment."""
    found: dict[str, Status | None] = {}
    for job_id in {after.job for job in jobs for after in job.spec.after}:
        try:
            found[job_id] = await _status(store, job_id)
        except (MirrorUnavailable, MirrorRefused) as error:
            log.info("how job %s stands is not known at the moment: %s", job_id, error)
    return found


async def fail_in_vain(store: JobStore, jobs: Iterable[Job], parents: Parents, now: datetime) -> None:
    """Those of *jobs* that wait for what cannot happen any more, and are not held, are failed in words."""
    for job in jobs:
        if not job.held and (reason := dependencies.will_never_start(job, parents)):
            with suppress(NotAllowed):  # somebody cancelled it meanwhile
                await store.apply(job, GiveUp(at=now, by="scheduler", reason=reason))


async def _status(store: JobStore, job_id: str) -> Status | None:
    """None: there is no such job."""
    try:
        return (await store.get(job_id)).status
    except JobNotFound:
        return None
