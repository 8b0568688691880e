"""The attempts of each job, as one journal tells of them: one after the other, and each with an end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime

from scheduler.core.model import Fence, Job, JobId, Status
from scheduler.ports import Change


class Attempts:
    """Which attempt of each job is under way."""

    def __init__(self) -> None:
        self._open: dict[JobId, Fence] = {}

    def begin_with(self, jobs: Iterable[Job]) -> None:
        self._open = {job.id: job.fence for job in jobs if job.status is Status.RUNNING}

    def take(self, before: Job | None, change: Change) -> Iterator[str]:
        """What is wrong with what this change tells of them."""
        job, told = change.job, change.event.attempt
        was_running = before is not None and before.status is Status.RUNNING
        if change.event.kind in ("Admit", "Recover") and job.status is Status.RUNNING:
            yield from self._begins(change, told and (told.fence, told.ended_at))
        elif was_running and job.status is not Status.RUNNING and change.event.kind == "Recover":
            yield from self._ended_elsewhere(change)
        elif was_running and job.status is not Status.RUNNING:
            if change.event.kind == "Recover" and _brings_its_end(change):
                self._open.pop(job.id, None)  # an older journal catches up: another one has told how it ended
            else:
                yield from self._ends(change, told and (told.fence, told.ended_at))
        elif change.event.kind == "GiveUp" and before is None and told:  # taken in, and nothing of it runs
            yield from self._ends(change, (told.fence, told.ended_at))
        elif told:
            yield f"{change.event.kind} of job {job.id} tells of attempt {told.fence}"

    def _begins(self, change: Change, told: tuple[Fence, datetime | None] | None) -> Iterator[str]:
        job = change.job
        if told != (job.fence, None):
            yield f"attempt {job.fence} of job {job.id} begins, and {told} is told"
        under_way = self._open.get(job.id)
        if change.event.kind == "Admit" and under_way is not None:
            yield f"attempt {job.fence} of job {job.id} begins, and attempt {under_way} has not ended"
        self._open[job.id] = job.fence

    def _ended_elsewhere(self, change: Change) -> Iterator[str]:
        """The journal came from a backup, and catches up with the database: with the attempts come their ends."""
        under_way = self._open.pop(change.job.id, None)
        ended = {run.fence for run in change.attempts if run.ended_at}
        if under_way is not None and under_way not in ended:
            yield f"attempt {under_way} of job {change.job.id} ended elsewhere, and its end is not taken over"

    def _ends(self, change: Change, told: tuple[Fence, datetime | None] | None) -> Iterator[str]:
        job = change.job
        if told != (job.fence, job.updated_at):
            yield f"attempt {job.fence} of job {job.id} ends, and {told} is told"
        self._open.pop(job.id, None)


def _brings_its_end(change: Change) -> bool:
    return any(run.fence == change.job.fence and run.ended_at for run in change.attempts)
