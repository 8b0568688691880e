"""Whose turn it is."""

from __future__ import annotations

from datetime import timedelta

import pytest

from scheduler.core.model import JobId, Reason, Status
from scheduler.core.ordering import order
from scheduler.testing.builders import a_job, a_spec
from scheduler.testing.clock import NOON


def test_higher_priority_first_then_the_place_in_the_line() -> None:
    """L2: without other settings first in, first out."""
    jobs = [
        a_job(id="late", queue_seq=9),
        a_job(id="early", queue_seq=2),
        a_job(id="urgent", queue_seq=7, spec=a_spec(priority=5)),
        a_job(id="patient", queue_seq=1, spec=a_spec(priority=-1)),
    ]
    assert [job.id for job in order(jobs, now=NOON).ready] == ["urgent", "early", "late", "patient"]


@pytest.mark.parametrize("status", [status for status in Status if status is not Status.QUEUED])
def test_only_queued_jobs_are_in_the_line(status: Status) -> None:
    """A running job in the line would be started twice."""
    line = order([a_job(status)], now=NOON)
    assert line.ready == []
    assert line.paused == {}


def test_a_job_that_rests_between_two_tries_says_when_it_is_tried_again() -> None:
    """The pause would else look like a job that nobody looks at."""
    ended = Reason(code="retrying", message="attempt 1 ended: boom", detail="Traceback ...")
    job = a_job(id="j", queued_at=NOON, retry_at=NOON + timedelta(seconds=7.2), reason=ended)
    line = order([job, a_job(id="k")], now=NOON)
    assert [job.id for job in line.ready] == ["k"]
    reason = line.paused[JobId("j")]
    assert reason.code == "retry_pause"
    assert reason.message == "tried again in 8 s; attempt 1 ended: boom"
    assert reason.detail == "Traceback ..."


def test_when_the_pause_is_over_the_job_is_back_at_its_place() -> None:
    """At the very moment, not a tick later."""
    job = a_job(id="j", queue_seq=1, retry_at=NOON)
    assert [job.id for job in order([a_job(id="k", queue_seq=2), job], now=NOON).ready] == ["j", "k"]


def test_a_held_job_does_not_start_and_holds_nobody_up() -> None:
    """Also when the pause before its next try is over."""
    by_ann = Reason(code="held", message="held in the queue by ann; resume it to let it start")
    held = a_job(id="j", queue_seq=1, held=True, reason=by_ann, retry_at=NOON)
    line = order([held, a_job(id="k", queue_seq=2)], now=NOON)
    assert [job.id for job in line.ready] == ["k"]
    assert line.paused == {"j": by_ann}


def test_a_held_job_says_so_whatever_happened_to_it_last() -> None:
    found = Reason(code="recovered", message="found in the database")
    line = order([a_job(id="j", held=True, reason=found)], now=NOON)
    assert line.paused[JobId("j")].code == "held"
