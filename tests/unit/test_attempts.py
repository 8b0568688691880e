"""The row of an attempt: when, where, how it ended, why, and what it cost."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from scheduler.core import attempts
from scheduler.core.lifecycle import Admit, AskStop, Event, Recover, RunEnded, apply, record
from scheduler.core.model import (
    Allocation,
    Attempt,
    Cause,
    CheckpointId,
    Ending,
    Fence,
    Job,
    NodeId,
    Outcome,
    Reason,
    Resumption,
    Saved,
    Stop,
    StopKind,
)
from scheduler.testing.builders import a_job
from scheduler.testing.clock import NOON

LATER = NOON + timedelta(hours=1)
NODES = Allocation(ranks=((NodeId("a"), 1),))
BOOM = Reason(code="loop_failed", message="boom", detail="Traceback ...")
GONE = Reason(code="stopped", message="the loop saved and returned")
DEAD = Reason(code="run_lost", message="the actor of the run died")


def an_outcome(ending: Ending = Ending.FAILED, reason: Reason = BOOM, **fields: Any) -> Outcome:
    return Outcome(ending=ending, reason=reason, **fields)


def running(**fields: Any) -> Job:
    return a_job("running", **{"allocation": NODES, "admitted_at": NOON, **fields})


def row(job: Job, outcome: Outcome) -> Attempt:
    """What history keeps of the attempt that ended so."""
    event = RunEnded(at=LATER, by="scheduler", fence=job.fence, outcome=outcome)
    attempt = record(job, apply(job, event)[0], event).attempt
    assert attempt is not None
    return attempt


def told(kind: StopKind, why: Reason | None = None, **fields: Any) -> Job:
    return running(stop=Stop(kind=kind, by="ann", at=NOON, why=why, **fields))


def test_it_begins_when_the_job_gets_its_nodes() -> None:
    before = a_job(fence=Fence(2), started_at=NOON)
    event = Admit(at=LATER, by="scheduler", allocation=NODES)
    after, _ = apply(before, event)
    assert record(before, after, event).attempt == Attempt(fence=Fence(3), allocation=NODES, started_at=LATER)


def test_it_ends_with_the_run_and_keeps_what_the_run_said() -> None:
    saved = Saved(checkpoint=CheckpointId("1.2"), step=20, at=NOON)
    resumed = Resumption(checkpoint=CheckpointId("0.1"), step=5, checked=("data order",))
    outcome = an_outcome(
        cause=Cause.USER, progress={"step": 27}, saved=saved, resumed=resumed, evidence={"logs": {"0": ["x"]}}
    )
    assert row(running(), outcome) == Attempt(
        fence=Fence(1),
        allocation=NODES,
        started_at=NOON,
        ended_at=LATER,
        ending=Ending.FAILED,
        cause=Cause.USER,
        reason=BOOM,
        resumed=resumed,
        last_step=27,
        saved=saved,
        steps_lost=7,
        evidence={"logs": {"0": ["x"]}},
    )


def test_its_reason_is_what_was_seen_and_not_what_became_of_the_job() -> None:
    """The job says `retrying`; the attempt says why it failed."""
    assert row(running(), an_outcome(Ending.LOST, DEAD)).reason == DEAD


@pytest.mark.parametrize("event", ["AskStop", "stale RunEnded"])
def test_what_neither_begins_nor_ends_a_run_tells_of_none(event: str) -> None:
    job = running(fence=Fence(2))
    events: dict[str, Event] = {
        "AskStop": AskStop(at=LATER, by="ann", kind=StopKind.PAUSE),
        "stale RunEnded": RunEnded(at=LATER, by="x", fence=Fence(1), outcome=an_outcome()),
    }
    after, _ = apply(job, events[event])
    assert (after is job) or record(job, after, events[event]).attempt is None


def test_a_run_that_is_found_again_after_the_journal_was_lost_has_its_row() -> None:
    """The new journal knows nothing of its beginning."""
    job = running(fence=Fence(4))
    event = Recover(at=LATER, by="start-up", reason=Reason(code="recovered", message="found"))
    attempt = record(None, apply(job, event)[0], event).attempt
    assert attempt == Attempt(fence=Fence(4), allocation=NODES, started_at=NOON)


def test_a_job_without_the_time_of_its_newest_start_ends_all_the_same() -> None:
    """A copy that the database kept may be older than the run."""
    assert row(running(admitted_at=None, started_at=NOON), an_outcome()).started_at == NOON


@pytest.mark.parametrize(
    ("stop", "ending", "said", "cause"),
    [
        (None, Ending.FAILED, Cause.USER, Cause.USER),
        (None, Ending.COMPLETED, None, None),
        (StopKind.PAUSE, Ending.STOPPED, None, None),
        (StopKind.PREEMPT, Ending.STOPPED, None, Cause.PREEMPTION),
        (StopKind.HUNG, Ending.STOPPED, None, Cause.INFRASTRUCTURE),
    ],
)
def test_its_cause_is_who_is_charged_for_it(
    stop: StopKind | None, ending: Ending, said: Cause | None, cause: Cause | None
) -> None:
    job = told(stop) if stop else running()
    assert row(job, an_outcome(ending, cause=said)).cause == cause


class TestWhy:
    HUNG = Reason(code="hung", message="it hung: no step for 11 min")

    @pytest.mark.parametrize(
        ("job", "outcome", "code", "message"),
        [
            (
                told(StopKind.PAUSE),
                an_outcome(Ending.STOPPED, GONE),
                "pause_asked",
                "ann asked to pause it; the loop saved and returned",
            ),
            (
                told(StopKind.PREEMPT, Reason(code="node_drained", message="node a is being drained")),
                an_outcome(Ending.STOPPED, GONE),
                "node_drained",
                "node a is being drained; the loop saved and returned",
            ),
            (
                told(StopKind.HUNG, HUNG),
                an_outcome(Ending.LOST, DEAD),
                "hung",
                "it hung: no step for 11 min; the actor of the run died",
            ),
            (told(StopKind.PAUSE), an_outcome(Ending.LOST, DEAD), "run_lost", "the actor of the run died"),
            (told(StopKind.PAUSE), an_outcome(Ending.FAILED, BOOM), "loop_failed", "boom"),
        ],
    )
    def test_who_asked_says_why_unless_the_run_knows_better(
        self, job: Job, outcome: Outcome, code: str, message: str
    ) -> None:
        reason = row(job, outcome).reason
        assert reason is not None
        assert (reason.code, reason.message) == (code, message)

    def test_the_stacks_of_a_hanging_run_are_kept(self) -> None:
        """They were taken before it was killed; at its end there is nothing left to look at."""
        job = told(StopKind.HUNG, self.HUNG, evidence={"stacks": {"0": "in all_reduce()"}})
        attempt = row(job, an_outcome(Ending.LOST, DEAD, evidence={"logs": {}}))
        assert attempt.evidence == {"stacks": {"0": "in all_reduce()"}}


class TestStepsLost:
    @pytest.mark.parametrize(
        ("last", "began_at", "saved_at", "lost"),
        [
            (27, None, 20, 7),
            (27, None, None, 27),
            (27, 25, None, 2),
            (27, 10, 20, 7),
            (20, None, 20, 0),
            (19, None, 20, 0),  # progress is told less often than checkpoints are
            (None, None, 20, None),
        ],
    )
    def test_are_those_that_no_checkpoint_holds(
        self, last: int | None, began_at: int | None, saved_at: int | None, lost: int | None
    ) -> None:
        outcome = an_outcome(
            progress=None if last is None else {"step": last},
            resumed=began_at and Resumption(checkpoint=CheckpointId("1.1"), step=began_at),
            saved=saved_at and Saved(checkpoint=CheckpointId("2.1"), step=saved_at, at=NOON),
        )
        attempt = row(running(), outcome)
        assert (attempt.last_step, attempt.steps_lost) == (last, lost)

    def test_are_all_of_them_where_no_checkpoint_was_whole_at_the_start(self) -> None:
        began_again = Resumption(checkpoint=None, step=None, skipped=("1.1: a file is missing",))
        assert row(running(), an_outcome(progress={"step": 9}, resumed=began_again)).steps_lost == 9

    def test_are_unknown_where_the_checkpoint_does_not_say_its_step(self) -> None:
        saved = Saved(checkpoint=CheckpointId("1.1"), step=None, at=NOON)
        assert row(running(), an_outcome(progress={"step": 9}, saved=saved)).steps_lost is None

    def test_are_none_once_the_work_is_done(self) -> None:
        done = an_outcome(Ending.COMPLETED, progress={"step": 60})
        assert row(running(), done).steps_lost == 0

    @pytest.mark.parametrize("step", [True, "7", 7.0, None])
    def test_a_step_is_a_whole_number(self, step: object) -> None:
        """A loop may put anything into its progress."""
        assert attempts.step_of({"step": step}) is None
        assert attempts.step_of(None) is None


def test_an_attempt_that_is_ended_is_told_as_one_and_the_same() -> None:
    """Rows are found by their fence: begin and end must agree on everything but the end."""
    job = running(fence=Fence(3))
    begun = attempts.begun(job)
    ended = row(job, an_outcome())
    assert replace(ended, ended_at=None, ending=None, cause=None, reason=None) == begun
