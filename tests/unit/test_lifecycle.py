"""The life of a job, move by move."""

from __future__ import annotations

import runpy
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from scheduler.core.lifecycle import (
    EDGES,
    Admit,
    Adopt,
    AskStop,
    Event,
    ForceStart,
    GiveUp,
    Resume,
    RetryPolicy,
    RunEnded,
    StartRun,
    StopRun,
    accept,
    apply,
    record,
)
from scheduler.core.model import (
    Allocation,
    Cause,
    Ending,
    Fence,
    Job,
    JobId,
    NodeId,
    Outcome,
    Reason,
    Status,
    Stop,
    StopKind,
)
from scheduler.errors import NotAllowed
from scheduler.testing.builders import a_job, a_spec
from scheduler.testing.clock import NOON

LATER = NOON + timedelta(hours=1)
NODES = Allocation(ranks=((NodeId("a"), 1),))
POLICY = RetryPolicy(max_losses=2, backoff_s=2.0, backoff_max_s=5.0)

ADMIT = Admit(at=LATER, by="scheduler", allocation=NODES)
FORCE_START = ForceStart(at=LATER, by="ann", queue_seq=99)
RESUME = Resume(at=LATER, by="ann", queue_seq=99)
GIVE_UP = GiveUp(at=LATER, by="ann", reason=Reason(code="given_up", message="marked as failed by ann"))


def ask(kind: StopKind) -> AskStop:
    return AskStop(at=LATER, by="ann", kind=kind)


def ended(ending: Ending, cause: Cause | None = None, fence: int = 1, message: str = "boom") -> RunEnded:
    outcome = Outcome(
        ending=ending, cause=cause, reason=Reason(code="exception", message=message, detail="Traceback ...")
    )
    return RunEnded(at=LATER, by="scheduler", fence=Fence(fence), outcome=outcome)


def after(job: Job, event: Event) -> Job:
    return apply(job, event, POLICY)[0]


def running(stop: StopKind | None = None, *, max_failures: int = 0, **fields: object) -> Job:
    told = Stop(kind=stop, by="ann", at=NOON) if stop else None
    return a_job("running", spec=a_spec(max_failures=max_failures), stop=told, **fields)


EDGES_OF_SPEC = {
    "pending": {"queued", "failed", "cancelled"},
    "queued": {"running", "failed", "cancelled"},
    "running": {"completed", "failed", "cancelled", "paused", "queued"},
    "paused": {"queued", "failed", "cancelled"},
    "failed": {"queued"},
    "cancelled": {"queued"},
    "completed": set[str](),
}


def test_the_edges_are_those_of_the_promise() -> None:
    """The table of SPEC.md, copied by hand: a move more or less is another product."""
    assert {status.value: {to.value for to in tos} for status, tos in EDGES.items()} == EDGES_OF_SPEC


def test_the_drawn_state_machine_is_not_stale() -> None:
    """docs/state_machine.md is made from EDGES; after a change: python docs/state_machine.py"""
    docs = Path(__file__).parents[2] / "docs"
    page = runpy.run_path(str(docs / "state_machine.py"))["page"]
    assert (docs / "state_machine.md").read_text() == page()


class TestAccepted:
    def test_a_new_job_is_queued_at_version_one(self) -> None:
        """L1: an accepted job that is not in the line would never start (P2)."""
        job = accept(JobId("j"), a_spec(), at=NOON, queue_seq=7, idempotency_key="k")
        assert (job.status, job.version, job.fence, job.attempt) == (Status.QUEUED, 1, 0, 0)
        assert (job.queue_seq, job.queued_at, job.idempotency_key) == (7, NOON, "k")

    def test_the_first_line_of_history_is_the_submit(self) -> None:
        """Every move is recorded: job, from, to, when, who, why."""
        job = accept(JobId("j"), a_spec(user="ann"), at=NOON, queue_seq=7)
        event = record(None, job, None)
        assert (event.kind, event.by, event.from_status, event.to_status) == (
            "Submitted",
            "ann",
            None,
            Status.QUEUED,
        )
        assert (event.version, event.at, event.reason) == (1, NOON, job.reason)

    def test_each_move_is_recorded_with_its_reason(self) -> None:
        before = running()
        job = after(before, ended(Ending.COMPLETED, message="all 60 steps done"))
        event = record(before, job, ended(Ending.COMPLETED))
        assert (event.kind, event.from_status, event.to_status) == (
            "RunEnded",
            Status.RUNNING,
            Status.COMPLETED,
        )
        assert (event.version, event.at, event.reason.message) == (job.version, LATER, "all 60 steps done")


class TestStarted:
    def test_the_run_gets_its_nodes_and_the_next_fence(self) -> None:
        """DESIGN rule 2: a fence handed out twice lets two runs write one job."""
        job, actions = apply(a_job(fence=Fence(4), started_at=NOON, retry_at=NOON), ADMIT)
        assert (job.status, job.fence, job.attempt, job.allocation) == (Status.RUNNING, 5, 5, NODES)
        assert job.retry_at is None
        assert actions == [
            StartRun(job_id=job.id, fence=Fence(5), spec=job.spec, allocation=NODES, restarts=0)
        ]

    def test_started_at_is_the_first_run_and_admitted_at_the_newest(self) -> None:
        """max_runtime_s limits one run; counted from the first it would end every retry at once."""
        job = after(a_job(fence=Fence(1), started_at=NOON, admitted_at=NOON), ADMIT)
        assert (job.started_at, job.admitted_at) == (NOON, LATER)

    @pytest.mark.parametrize("status", [status for status in Status if status is not Status.QUEUED])
    def test_only_a_queued_job_starts(self, status: Status) -> None:
        with pytest.raises(NotAllowed, match=f"it is {status}, not queued"):
            apply(a_job(status), ADMIT)


class TestEndedByItself:
    def test_a_completed_run_completes_the_job(self) -> None:
        outcome = Outcome(
            ending=Ending.COMPLETED,
            reason=Reason(code="completed", message="done"),
            result={"output_dir": "/o"},
            progress={"step": 60},
        )
        job = after(running(), RunEnded(at=LATER, by="scheduler", fence=Fence(1), outcome=outcome))
        assert (job.status, job.allocation, job.finished_at) == (Status.COMPLETED, None, LATER)
        assert (job.result, job.progress) == ({"output_dir": "/o"}, {"step": 60})

    def test_the_final_record_wins_over_a_cancel_that_came_too_late(self) -> None:
        """DESIGN rule 4: the work is done and the model is there; `cancelled` would deny it."""
        assert after(running(StopKind.CANCEL), ended(Ending.COMPLETED)).status is Status.COMPLETED

    def test_a_failing_loop_fails_the_job_with_its_traceback(self) -> None:
        job = after(running(), ended(Ending.FAILED, Cause.USER, message="ValueError: no"))
        assert job.status is Status.FAILED
        assert job.reason.message == "ValueError: no (attempt 1; max_failures is 0)"
        assert job.reason.detail == "Traceback ..."

    def test_within_its_budget_a_failing_loop_is_tried_again_after_a_pause(self) -> None:
        """R5; without the pause a loop that fails at once would be started all the time."""
        job = after(running(max_failures=2, queue_seq=3), ended(Ending.FAILED, Cause.USER))
        assert (job.status, job.queue_seq, job.failures) == (Status.QUEUED, 3, 1)
        assert job.retry_at == LATER + timedelta(seconds=2)
        assert "attempt 1 ended: boom" in job.reason.message
        assert "(1 of 2 retries used)" in job.reason.message

    def test_the_pause_doubles_up_to_its_limit(self) -> None:
        pauses = [POLICY.pause(tries).total_seconds() for tries in (1, 2, 3, 100)]
        assert pauses == [2, 4, 5, 5]

    def test_a_lost_run_does_not_burn_the_attempts_of_the_user(self) -> None:
        """DESIGN rule 9: a dead node is not the fault of the loop."""
        job = after(running(), ended(Ending.LOST))
        assert (job.status, job.failures, job.losses) == (Status.QUEUED, 0, 1)

    def test_what_counts_is_who_is_answerable_not_how_it_looked(self) -> None:
        """A rank that the kernel killed raises like a loop that failed."""
        job = after(running(), ended(Ending.FAILED, Cause.INFRASTRUCTURE))
        assert (job.status, job.failures, job.losses) == (Status.QUEUED, 0, 1)

    def test_the_budget_for_lost_runs_ends_too(self) -> None:
        """R5: retried while the budget lasts, then failed with what was seen."""
        job = after(running(losses=2, fence=Fence(3)), ended(Ending.LOST, fence=3, message="node a is gone"))
        assert job.status is Status.FAILED
        assert job.reason.message == "node a is gone (attempt 3; the limit for lost runs is 2)"

    def test_a_preempted_run_costs_nobody_anything(self) -> None:
        job = after(running(losses=2), ended(Ending.LOST, Cause.PREEMPTION))
        assert (job.status, job.losses, job.failures, job.retry_at) == (Status.QUEUED, 2, 0, None)

    def test_a_run_that_stopped_though_nobody_asked_was_lost(self) -> None:
        """Else it would be started again for ever, without a pause."""
        job = after(running(), ended(Ending.STOPPED))
        assert (job.status, job.losses) == (Status.QUEUED, 1)
        assert job.retry_at is not None

    @pytest.mark.parametrize("fence", [0, 1, 3])
    def test_a_replaced_run_cannot_finish_the_job(self, fence: int) -> None:
        """A node that wakes up must not end its successor."""
        job = running(fence=Fence(2))
        assert apply(job, ended(Ending.COMPLETED, fence=fence)) == (job, [])

    @pytest.mark.parametrize("status", [status for status in Status if status is not Status.RUNNING])
    def test_the_end_of_a_run_says_nothing_about_a_job_that_does_not_run(self, status: Status) -> None:
        job = a_job(status)
        assert apply(job, ended(Ending.COMPLETED, fence=job.fence))[0] is job


class TestAskedToStop:
    @pytest.mark.parametrize("status", ["pending", "queued", "paused"])
    def test_a_job_that_waits_is_cancelled_at_once(self, status: str) -> None:
        """L7."""
        job, actions = apply(a_job(status), ask(StopKind.CANCEL))
        assert (job.status, job.finished_at, actions) == (Status.CANCELLED, LATER, [])
        assert job.reason.message == "cancelled by ann"

    def test_a_running_job_is_only_told_to_stop(self) -> None:
        """DESIGN rules 1 and 12: the intention is written; `cancelled` waits until the processes are gone."""
        job, actions = apply(running(), ask(StopKind.CANCEL))
        assert (job.status, job.allocation is None) == (Status.RUNNING, False)
        assert job.stop == Stop(kind=StopKind.CANCEL, by="ann", at=LATER)
        assert actions == [StopRun(job_id=job.id, fence=job.fence, kind=StopKind.CANCEL)]

    @pytest.mark.parametrize(
        ("told", "asked", "holds"),
        [
            ("cancel", "cancel", "cancel"),
            ("cancel", "pause", "cancel"),
            ("cancel", "preempt", "cancel"),
            ("pause", "cancel", "cancel"),
            ("pause", "timeout", "pause"),
            ("pause", "preempt", "pause"),
            ("preempt", "pause", "pause"),
            ("preempt", "timeout", "preempt"),
            ("timeout", "cancel", "cancel"),
        ],
    )
    def test_a_stop_gives_way_only_to_a_stronger_one(self, told: str, asked: str, holds: str) -> None:
        """A job that a person pauses must not come back by itself because it was also preempted."""
        before = running(StopKind(told))
        job, actions = apply(before, ask(StopKind(asked)))
        assert job.stop is not None
        assert job.stop.kind == holds
        assert (job is before) == (told == holds)
        assert actions == [StopRun(job_id=job.id, fence=job.fence, kind=StopKind(holds))]

    @pytest.mark.parametrize("ending", [Ending.STOPPED, Ending.FAILED, Ending.LOST])
    def test_once_gone_a_cancelled_run_is_cancelled_however_it_went(self, ending: Ending) -> None:
        job = after(running(StopKind.CANCEL), ended(ending))
        assert (job.status, job.stop, job.allocation) == (Status.CANCELLED, None, None)
        assert job.reason.message.startswith("cancelled by ann; ")

    def test_a_paused_run_waits_for_a_person(self) -> None:
        job = after(running(StopKind.PAUSE), ended(Ending.STOPPED))
        assert (job.status, job.failures, job.losses, job.finished_at) == (Status.PAUSED, 0, 0, None)

    def test_a_preempted_run_keeps_its_place(self) -> None:
        job = after(running(StopKind.PREEMPT, queue_seq=3), ended(Ending.STOPPED))
        assert (job.status, job.queue_seq, job.retry_at) == (Status.QUEUED, 3, None)

    def test_out_of_time_is_failed_with_the_limit(self) -> None:
        job = a_job(
            "running", spec=a_spec(max_runtime_s=60), stop=Stop(kind=StopKind.TIMEOUT, by="x", at=NOON)
        )
        job = after(job, ended(Ending.STOPPED))
        assert (job.status, job.reason.code) == (Status.FAILED, "timeout")
        assert "max_runtime_s=60" in job.reason.message

    @pytest.mark.parametrize(("status", "kind"), [("cancelled", "cancel"), ("paused", "pause")])
    def test_what_is_done_already_changes_nothing(self, status: str, kind: str) -> None:
        job = a_job(status)
        assert apply(job, ask(StopKind(kind))) == (job, [])

    @pytest.mark.parametrize("status", ["completed", "failed"])
    def test_what_has_ended_cannot_be_cancelled(self, status: str) -> None:
        message = f"it is {status}, not pending or queued or paused or running"
        with pytest.raises(NotAllowed, match=message):
            apply(a_job(status), ask(StopKind.CANCEL))

    @pytest.mark.parametrize("status", ["pending", "queued", "failed", "completed"])
    def test_only_a_running_job_can_be_paused(self, status: str) -> None:
        """No edge leads from queued to paused."""
        with pytest.raises(NotAllowed, match="cannot pause"):
            apply(a_job(status), ask(StopKind.PAUSE))


class TestStartedByHand:
    @pytest.mark.parametrize("status", ["pending", "failed", "cancelled"])
    def test_force_start_puts_the_job_at_the_end_of_the_line(self, status: str) -> None:
        """L3."""
        job = after(replace(a_job(status), failures=1, losses=1, fence=Fence(2)), FORCE_START)
        assert (job.status, job.queue_seq, job.queued_at) == (Status.QUEUED, 99, LATER)
        assert (job.failures, job.losses, job.finished_at) == (0, 0, None)

    def test_a_job_that_ran_starts_again_from_the_beginning_in_a_folder_of_its_own(self) -> None:
        """Otherwise it would go on from the checkpoint it was meant to leave behind."""
        job = after(a_job("failed", progress={"step": 7}), FORCE_START)
        assert (job.restarts, job.progress) == (1, None)
        assert after(a_job("cancelled", fence=Fence(0), started_at=None), FORCE_START).restarts == 0

    def test_a_second_force_start_never_queues_twice(self) -> None:
        """L4."""
        job = a_job(queue_seq=3)
        assert apply(job, FORCE_START) == (job, [])

    def test_force_start_ends_a_pause_between_two_tries(self) -> None:
        """P7: *Start Job Now* must do something for a job that rests."""
        job = after(a_job(queue_seq=3, retry_at=LATER + timedelta(hours=1)), FORCE_START)
        assert (job.status, job.queue_seq, job.retry_at) == (Status.QUEUED, 3, None)

    @pytest.mark.parametrize(
        ("status", "hint"),
        [("running", "use pause and resume"), ("completed", "cannot be restarted"), ("paused", "use resume")],
    )
    def test_force_start_says_what_to_do_instead(self, status: str, hint: str) -> None:
        """L4."""
        with pytest.raises(NotAllowed, match=hint):
            apply(a_job(status), FORCE_START)

    @pytest.mark.parametrize("status", ["paused", "failed", "cancelled"])
    def test_resume_goes_on_where_it_was(self, status: str) -> None:
        """L7, L8: the same training folder, so the last checkpoint is found."""
        job = after(a_job(status, progress={"step": 7}), RESUME)
        assert (job.status, job.queue_seq, job.restarts, job.progress) == (Status.QUEUED, 99, 0, {"step": 7})

    @pytest.mark.parametrize("status", ["pending", "running", "completed"])
    def test_resume_of_anything_else_is_refused(self, status: str) -> None:
        with pytest.raises(NotAllowed, match="cannot resume"):
            apply(a_job(status), RESUME)

    def test_a_second_resume_changes_nothing(self) -> None:
        job = a_job()
        assert apply(job, RESUME) == (job, [])


class TestGivenUp:
    @pytest.mark.parametrize("status", ["pending", "queued", "paused"])
    def test_a_job_that_waits_can_be_marked_as_failed(self, status: str) -> None:
        """L7, P7."""
        job = after(a_job(status), GIVE_UP)
        assert (job.status, job.reason, job.finished_at) == (Status.FAILED, GIVE_UP.reason, LATER)

    def test_a_second_time_changes_nothing(self) -> None:
        job = a_job("failed")
        assert apply(job, GIVE_UP) == (job, [])

    @pytest.mark.parametrize("status", ["running", "completed", "cancelled"])
    def test_nothing_else_can_be_marked_as_failed(self, status: str) -> None:
        """A running job marked as failed would go on running behind its back (P1, mirrored)."""
        with pytest.raises(NotAllowed, match="cannot mark as failed"):
            apply(a_job(status), GIVE_UP)


class TestAdopted:
    def test_a_pending_row_is_queued(self) -> None:
        """P2, R4."""
        job = after(a_job("pending"), Adopt(at=LATER, by="scheduler", queue_seq=5))
        assert (job.status, job.queue_seq, job.queued_at) == (Status.QUEUED, 5, LATER)

    def test_a_job_is_adopted_once(self) -> None:
        with pytest.raises(NotAllowed, match="it is queued, not pending"):
            apply(a_job(), Adopt(at=LATER, by="scheduler", queue_seq=5))


def test_a_pause_between_tries_is_over_when_the_job_leaves_the_line() -> None:
    """A cancelled job that still says `tried again in 8 s` would lie."""
    job = after(a_job(retry_at=LATER), ask(StopKind.CANCEL))
    assert job.retry_at is None
