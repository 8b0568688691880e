"""What is counted and timed when jobs move, and how often."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from scheduler.core import lifecycle
from scheduler.core.lifecycle import Admit, AskStop, Recover, RunEnded
from scheduler.core.model import Allocation, Cause, Ending, Job, NodeId, Outcome, Phase, Reason, StopKind
from scheduler.core.observation import Sighting
from scheduler.engine import telemetry
from scheduler.engine.registry import Registry
from scheduler.engine.run_metrics import MAX_CODES, RunMetrics
from scheduler.ports import Observation
from scheduler.testing import a_job
from scheduler.testing.clock import NOON
from scheduler.testing.memory_telemetry import MemoryTelemetry

HERE = Allocation(ranks=((NodeId("node-1"), 1),))


class Metered:
    """A job whose every change is told to a meter."""

    def __init__(self) -> None:
        self.telemetry = MemoryTelemetry()
        self.meter, self.registry = RunMetrics(self.telemetry), Registry(10)
        self.job = a_job("queued", created_at=NOON)

    def apply(self, event: lifecycle.Event) -> Job:
        before, (self.job, _) = self.job, lifecycle.apply(self.job, event)
        self.registry.put(self.job)
        self.meter.committed(before, self.job, event)
        return self.job

    def admit(self, at: datetime = NOON) -> Job:
        return self.apply(Admit(at=at, by="scheduler", allocation=HERE))

    def end(self, ending: Ending, cause: Cause | None = None, code: str = "test") -> Job:
        outcome = Outcome(ending=ending, cause=cause, reason=Reason(code=code, message=code))
        at = NOON + timedelta(hours=1)
        return self.apply(
            RunEnded(at=at, by="scheduler", fence=self.job.fence, outcome=outcome, end_of_line=99)
        )

    def see(self, **began_s: float) -> None:
        """The run says when its phases began, in seconds after noon."""
        phases = {name: NOON.timestamp() + at_s for name, at_s in began_s.items()}
        said = Observation(phase=Phase.STARTING, phases=phases)
        self.registry.see(self.job.id, Sighting(self.job.fence, said, NOON))
        self.meter.look(self.registry)

    def ended(self, ending: str, cause: str) -> float | None:
        return self.telemetry.value(telemetry.RUNS_ENDED, ending=ending, cause=cause)

    def failed(self, cause: str, code: str) -> float | None:
        return self.telemetry.value(telemetry.RUN_FAILURES, cause=cause, code=code)


@pytest.fixture
def metered() -> Metered:
    return Metered()


def test_a_submitted_job_is_counted_once(metered: Metered) -> None:
    """And none before the first: an increase from nothing would not be seen."""
    assert metered.telemetry.value(telemetry.JOBS_ACCEPTED) == 0
    metered.meter.committed(None, metered.job, None)
    assert metered.telemetry.value(telemetry.JOBS_ACCEPTED) == 1


def test_the_wait_is_timed_from_the_line_to_the_nodes(metered: Metered) -> None:
    metered.admit(NOON + timedelta(seconds=90))
    assert metered.telemetry.observed(telemetry.QUEUE_WAIT) == [90.0]


def test_each_phase_of_a_start_is_timed_once_when_it_is_over(metered: Metered) -> None:
    """Runs are looked at every second; a phase is not timed at each look."""
    metered.admit()
    metered.see(reserving=0.5, starting=1.5)
    metered.see(reserving=0.5, starting=1.5)
    assert metered.telemetry.observed(telemetry.START_PHASE, phase="starting") == []
    metered.see(reserving=0.5, starting=1.5, loading=4.0, training=10.0)
    metered.see(reserving=0.5, starting=1.5, loading=4.0, training=10.0, saving=12.0)
    phases = ("reserving", "starting", "loading")
    seen = {phase: metered.telemetry.observed(telemetry.START_PHASE, phase=phase) for phase in phases}
    assert seen == {"reserving": [1.0], "starting": [2.5], "loading": [6.0]}
    assert metered.telemetry.observed(telemetry.START) == [10.0]


def test_clocks_that_differ_give_no_negative_time(metered: Metered) -> None:
    metered.admit()
    metered.see(reserving=0.0, starting=-2.0, loading=1.0)
    assert metered.telemetry.observed(telemetry.START_PHASE, phase="reserving") == [0.0]


def test_a_run_of_an_earlier_life_is_not_timed_again() -> None:
    """The life that started it has timed it."""
    later = Metered()
    later.job = a_job("running", created_at=NOON)
    later.apply(Recover(at=NOON, by="start-up", reason=Reason(code="recovered", message="")))
    later.see(reserving=0.0, starting=1.0, loading=2.0, training=3.0)
    assert later.telemetry.observed(telemetry.START) == []
    assert later.telemetry.observed(telemetry.START_PHASE, phase="starting") == []


def test_a_completed_run_is_nobodys_failure(metered: Metered) -> None:
    metered.admit()
    metered.end(Ending.COMPLETED)
    assert metered.ended("completed", "nobody") == 1


@pytest.mark.parametrize(
    ("ending", "cause", "code"),
    [
        (Ending.FAILED, Cause.USER, "loop_failed"),
        (Ending.LOST, Cause.INFRASTRUCTURE, "node_lost"),
        (Ending.LOST, Cause.PREEMPTION, "node_drained"),
    ],
)
def test_a_failure_is_counted_by_cause_and_code(
    metered: Metered, ending: Ending, cause: Cause, code: str
) -> None:
    metered.admit()
    metered.end(ending, cause, code)
    assert metered.ended(ending.value, cause.value) == 1
    assert metered.failed(cause.value, code) == 1


def test_a_cancelled_run_that_had_to_be_killed_is_no_failure(metered: Metered) -> None:
    """It is gone because a person wanted it: nobody is to be woken."""
    metered.admit()
    metered.apply(AskStop(at=NOON, by="ann", kind=StopKind.CANCEL))
    metered.end(Ending.LOST, Cause.INFRASTRUCTURE, "run_lost")
    assert metered.ended("lost", "nobody") == 1
    assert metered.failed("infrastructure", "run_lost") is None


def test_a_hang_is_counted_as_what_it_was_and_not_as_how_it_was_ended(metered: Metered) -> None:
    metered.admit()
    why = Reason(code="hung", message="it hung")
    metered.apply(AskStop(at=NOON, by="scheduler", kind=StopKind.HUNG, why=why, fence=metered.job.fence))
    metered.end(Ending.LOST, Cause.INFRASTRUCTURE, "run_lost")
    assert metered.failed("infrastructure", "hung") == 1


def test_codes_that_nobody_expected_make_no_endless_number_of_series(metered: Metered) -> None:
    for number in range(MAX_CODES + 5):
        metered.job = a_job("running", created_at=NOON)
        metered.end(Ending.FAILED, Cause.USER, f"code-{number}")
    assert metered.failed("user", "code-0") == 1
    assert metered.failed("user", "other") == 5
