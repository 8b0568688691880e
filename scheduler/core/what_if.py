"""What would change if a person changed one thing: two outlooks, and the difference in rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from scheduler.core.contender import ABOVE_ALL, Contender, Rules, Scene
from scheduler.core.forecast import HORIZON_S, Start
from scheduler.core.model import JobId
from scheduler.core.outlook import MAX_LOOKS, LengthS, Outlook, Parents, Preempted, play

MAX_ROWS = 10
LEAST_S = 10.0
"""What moves by less is not told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """Another job that would start sooner or later."""

    job_id: JobId
    before: Start
    now: Start
    """Before the change, and with it."""
    by_s: float
    """Later by so many seconds; below zero: sooner."""

    @property
    def at_least(self) -> bool:
        """One of the two was not played to its start: it moves by `by_s` or more."""
        return self.before.after_s is None or self.now.after_s is None


@dataclass(frozen=True, slots=True, kw_only=True)
class WhatIf:
    """The difference that a change makes."""

    before: Start | None
    now: Start | None
    """When the job itself starts without the change and with it; None: it does not wait."""
    moved: tuple[Moved, ...]
    """The other jobs, the largest difference first."""
    num_more: int
    """Further ones, that are left out."""
    preempted: tuple[Preempted, ...]
    """Runs that the first pass stops with the change and not without."""
    spared: tuple[Preempted, ...]
    """And the other way round."""
    line: tuple[JobId, ...] = ()
    """All that wait, with the change, as `Outlook.line`."""


def what_if(
    scene: Scene,
    changed: Scene,
    rules: Rules,
    length_s: LengthS,
    *,
    job_id: JobId,
    rest_ends_s: Mapping[JobId, float] | None = None,
    parents: Parents | None = None,
    looks: int = MAX_LOOKS,
    horizon_s: float = HORIZON_S,
) -> WhatIf:
    """Play *scene* and *changed*, in which *job_id* was changed; the rest as for `outlook.play`."""

    def played(one: Scene) -> Outlook:
        return play(
            one,
            rules,
            length_s,
            rest_ends_s=rest_ends_s,
            parents=parents,
            looks=looks,
            horizon_s=horizon_s,
        )

    before, now = played(scene), played(changed)
    moved = sorted(_moved(before, now, job_id), key=lambda row: (-abs(row.by_s), row.job_id))
    return WhatIf(
        before=before.starts.get(job_id),
        now=now.starts.get(job_id),
        moved=tuple(moved[:MAX_ROWS]),
        num_more=max(0, len(moved) - MAX_ROWS),
        preempted=_only_in(now, before),
        spared=_only_in(before, now),
        line=now.line,
    )


def with_priority(scene: Scene, job_id: JobId, priority: int) -> Scene:
    """The job, whether it waits or runs, has another priority."""
    return _with(scene, job_id, priority=priority)


def in_front(scene: Scene, job_id: JobId) -> Scene:
    """The job goes before the others of its project that have the same claim."""
    return _with(scene, job_id, first=True)


def preempting(scene: Scene, job_id: JobId) -> Scene:
    """The job is to start now, and runs are preempted for it: as if nobody else had so high a priority.

    Runs that may not be preempted stay, and so does the budget of the hour.
    """
    return _with(scene, job_id, priority=ABOVE_ALL, first=True)


def _with(scene: Scene, job_id: JobId, **fields: int) -> Scene:
    def one(job: Contender) -> Contender:
        return replace(job, **fields) if job.id == job_id else job

    return replace(scene, waiting=tuple(map(one, scene.waiting)), running=tuple(map(one, scene.running)))


def _moved(before: Outlook, now: Outlook, job_id: JobId) -> Iterator[Moved]:
    for other, start in before.starts.items():
        later = now.starts.get(other)
        if other == job_id or later is None:
            continue
        by_s = _later_by_s(start, later)
        if by_s is not None and abs(by_s) >= LEAST_S:
            yield Moved(job_id=other, before=start, now=later, by_s=by_s)


def _later_by_s(before: Start, now: Start) -> float | None:
    """By how much, or by how much at least; None: nobody can tell."""
    if before.after_s is not None and now.after_s is not None:
        return now.after_s - before.after_s
    if before.after_s is not None and now.more_than_s is not None:
        return max(0.0, now.more_than_s - before.after_s)
    if before.more_than_s is not None and now.after_s is not None:
        return min(0.0, now.after_s - before.more_than_s)
    return None


def _only_in(one: Outlook, other: Outlook) -> tuple[Preempted, ...]:
    there = {run.job_id for run in other.preempted}
    return tuple(run for run in one.preempted if run.job_id not in there)
