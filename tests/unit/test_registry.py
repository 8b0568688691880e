"""What the scheduler keeps in memory, and in which order it would start it."""

from __future__ import annotations

import random

from scheduler.core.model import Job, Status
from scheduler.engine.registry import Registry
from scheduler.testing import a_job, a_spec


def some_jobs(seed: int = 7) -> list[Job]:
    """Every active status, many priorities, places in the line that repeat, in no order."""
    rng = random.Random(seed)
    statuses = [Status.QUEUED, Status.QUEUED, Status.RUNNING, Status.PAUSED, Status.PENDING]
    return [
        a_job(
            rng.choice(statuses),
            spec=a_spec(priority=rng.randint(-3, 3)),
            queue_seq=rng.choice([None, rng.randint(1, 50)]),
        )
        for _ in range(200)
    ]


def test_a_registry_filled_at_once_is_that_of_one_job_after_the_other() -> None:
    """R2: a restart fills it at once; its line must be the one that the life before had."""
    jobs = some_jobs()
    filled, grown = Registry(10), Registry(10)
    filled.fill(jobs)
    for job in jobs:
        grown.put(job)
    assert filled.queued() == grown.queued()
    assert filled.active() == grown.active()
    assert [filled.position(job) for job in jobs] == [grown.position(job) for job in jobs]
    assert filled.next_seq() == grown.next_seq()


def test_a_registry_filled_with_nothing_begins_a_new_line() -> None:
    """The very first start has no jobs."""
    registry = Registry(10)
    registry.fill([])
    assert (registry.active(), registry.next_seq()) == ([], 1)


def test_a_filled_registry_goes_on() -> None:
    """A job that leaves a line which was sorted at once must be found in it."""
    jobs = some_jobs(3)
    registry = Registry(10)
    registry.fill(jobs)
    waiting = registry.queued()
    registry.put(a_job("running", id=waiting[5].id))
    assert registry.queued() == waiting[:5] + waiting[6:]
