"""Projects: what each may have, in memory as in the journal, and what each holds now."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from dataclasses import replace

from pydantic import TypeAdapter, ValidationError

from scheduler.api.projects import LEAST_WEIGHT, MOST, ProjectDocument, ProjectList, ShareChanges
from scheduler.core.contender import Share
from scheduler.core.model import Job, Status
from scheduler.core.needs import Outline, num_ranks
from scheduler.core.spec import Label
from scheduler.engine.cluster import Cluster
from scheduler.engine.registry import Registry
from scheduler.errors import InvalidRequest, Problem
from scheduler.ports import Journal

log = logging.getLogger(__name__)

DEFAULT = Share()
"""Of a project for which nothing was set."""
_LABEL: TypeAdapter[str] = TypeAdapter(Label)


class Projects:
    """Shares by project.  Every change is safe to repeat."""

    def __init__(self, journal: Journal, registry: Registry, cluster: Cluster) -> None:
        self._journal, self._registry, self._cluster = journal, registry, cluster
        self._changing = asyncio.Lock()
        self.shares: Mapping[str, Share] = {}
        """Of those for which something was set; replaced as a whole when one changes."""

    async def load(self) -> None:
        """Begin with what the journal has."""
        self.shares = await self._journal.projects()

    async def set(self, name: str, changes: ShareChanges) -> Share:
        """Change what *changes* names, in the journal first.  Raises InvalidRequest with each field that is wrong."""
        return await asyncio.shield(asyncio.create_task(self._set(name, changes)))

    async def _set(self, name: str, changes: ShareChanges) -> Share:
        """To its end, whoever asked for it: memory must not fall behind the journal."""
        async with self._changing:
            share = replace(self.shares.get(name, DEFAULT), **changes)
            if problems := [*_of_name(name), *_of_share(share)]:
                words = "; ".join(map(str, problems))
                raise InvalidRequest(f"the project was not changed; {words}", tuple(problems))
            if share != self.shares.get(name):
                await self._journal.set_project(name, share)
                self.shares = {**self.shares, name: share}
            return share

    async def forget(self, name: str) -> None:
        """Back to the default; fine for one that has it."""
        await asyncio.shield(asyncio.create_task(self._forget(name)))

    async def _forget(self, name: str) -> None:
        async with self._changing:
            if name in self.shares:
                await self._journal.set_project(name, None)
                self.shares = {other: share for other, share in self.shares.items() if other != name}

    # As the API asks

    async def projects(self) -> ProjectList:
        """Every project that was set, or has a job that has not ended, by name."""
        jobs: dict[str, list[Job]] = {name: [] for name in self.shares}
        for job in self._registry.active():
            jobs.setdefault(job.spec.project, []).append(job)
        outline = Outline(self._cluster.nodes)
        found = [self._document(name, jobs[name], outline) for name in sorted(jobs)]
        return ProjectList(unit="GPU" if outline.unit == "GPU" else "CPU", projects=found)

    async def set_project(self, name: str, changes: ShareChanges, by: str) -> ProjectDocument:
        """The project as it is then, once that is on disk."""
        share = await self.set(name, changes)
        log.info("project %r has %s, as %s asked", name, share, by)
        return self._now(name)

    async def forget_project(self, name: str, by: str) -> ProjectDocument:
        """The project with the default share, once that is on disk."""
        await self.forget(name)
        log.info("project %r has the default share, as %s asked", name, by)
        return self._now(name)

    def _now(self, name: str) -> ProjectDocument:
        jobs = [job for job in self._registry.active() if job.spec.project == name]
        return self._document(name, jobs, Outline(self._cluster.nodes))

    def _document(self, name: str, jobs: Iterable[Job], outline: Outline) -> ProjectDocument:
        share, jobs = self.shares.get(name, DEFAULT), list(jobs)
        held = (
            outline.size_of(job.spec.resources, num_ranks(job.allocation))
            for job in jobs
            if job.status is Status.RUNNING and job.allocation
        )
        return ProjectDocument(
            name=name,
            weight=share.weight,
            quota=share.quota,
            limit=share.limit,
            held=sum(held),
            running=sum(job.status is Status.RUNNING for job in jobs),
            queued=sum(job.status is Status.QUEUED for job in jobs),
        )


def _of_name(name: str) -> list[Problem]:
    if not name:
        return [Problem("name", "is empty; only a project with a name can have a share of its own")]
    try:
        _LABEL.validate_python(name)
    except ValidationError as error:
        words = error.errors(include_url=False)[0]["msg"]
        return [Problem("name", f"cannot be the project of a job: {words}")]
    return []


def _of_share(share: Share) -> list[Problem]:
    """Also NaN and infinity are outside of every range."""
    found: list[Problem] = []
    if not LEAST_WEIGHT <= share.weight <= MOST:
        words = f"is {share.weight:g}; it must be above 0, from {LEAST_WEIGHT:g} to {MOST:,.0f}"
        found.append(Problem("weight", words))
    if not 0 <= share.quota <= MOST:
        found.append(Problem("quota", f"is {share.quota:g}; it must be from 0 to {MOST:,.0f}"))
    if share.limit is not None and not 0 <= share.limit <= MOST:
        words = f"is {share.limit:g}; it must be from 0 to {MOST:,.0f}, or none"
        found.append(Problem("limit", words))
    elif share.limit is not None and share.limit < share.quota:
        words = (
            f"is {share.limit:g}, and {share.quota:g} GPUs are its quota; raise the limit, or lower the quota"
        )
        found.append(Problem("limit", words))
    return found
