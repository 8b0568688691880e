"""Where each job must go on, by what people asked for and what its runs have saved; without the code under test."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

from scheduler.core.model import CheckpointId, Job, JobId, Origin, Status
from scheduler.ports import Change, Run

if TYPE_CHECKING:
    from tests.sim.runs import Cluster


@dataclass(frozen=True, slots=True)
class Course:
    """What a person asked for last."""

    begins_with: CheckpointId | None = None
    left: int = 0
    """This attempt and those before it belong to a past that was left."""


class Courses:
    """Of the jobs of one journal."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._courses: dict[JobId, Course] = {}

    def take(self, before: Job | None, change: Change, is_alone: bool) -> Iterator[str]:
        """What is wrong with where the job is to go on after this change."""
        job = change.job
        origin_before = before.origin if before else job.origin
        catches_up = change.event.kind == "Recover" and not is_alone
        if job.origin != origin_before and not catches_up and change.event.kind not in MOVES_ORIGIN:
            yield f"{change.event.kind} of job {job.id} moves its origin to {job.origin}"
        if _left_its_past(before, change):
            chosen = job.origin.checkpoint if change.event.kind == "Resume" else None
            self._courses[job.id] = Course(begins_with=chosen, left=job.fence)
            if chosen is not None and chosen not in self._cluster.saved_by(job.id):
                yield f"job {job.id} is to go on from {chosen}, which does not exist"
        if before and is_alone and change.event.kind in SAYS_WHERE and job.status is not Status.RUNNING:
            yield from self._says_where(job)

    def run_began(self, run: Run, began_at: CheckpointId | None) -> Iterator[str]:
        """A run that lives now began there."""
        expected = self._newest(run[0], before=run[1])
        if began_at != expected:
            yield f"run {run[1]} of job {run[0]} goes on from {began_at}, and not from {expected}"

    def _says_where(self, job: Job) -> Iterator[str]:
        says, expected = job.saved and job.saved.checkpoint, self._newest(job.id)
        if says != expected:
            yield f"job {job.id} says that it goes on from {says}, and it is {expected}"

    def _newest(self, job_id: JobId, before: float = inf) -> CheckpointId | None:
        """What a run begins with whose attempt is to come, or *before* others."""
        course, saved = self._courses.get(job_id, Course()), self._cluster.saved_by(job_id)
        since = [name for name, fence in saved.items() if course.left < fence < before]
        return since[-1] if since else course.begins_with


MOVES_ORIGIN = ("Resume", "Restart", "ForceStart")
SAYS_WHERE = ("RunEnded", "Resume", "Restart", "ForceStart")


def _left_its_past(before: Job | None, change: Change) -> bool:
    match change.event.kind:
        case "Restart":
            return True
        case "ForceStart":
            return change.event.from_status is not Status.QUEUED
        case "Resume":
            return change.job.origin != (before.origin if before else Origin())
        case _:
            return False
