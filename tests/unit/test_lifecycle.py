"""The life of a job, move by move."""

from __future__ import annotations

import runpy
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from scheduler.core.lifecycle import (
    EDGES,
    Admit,
    Adopt,
    AskStop,
    Event,
    ForceStart,
    GiveUp,
    Recover,
    Restart,
    Resume,
    RunEnded,
    StartRun,
    StopRun,
    accept,
    apply,
    is_news,
    record,
)
from scheduler.core.model import (
    OPERATOR_DOWN,
    Allocation,
    Cause,
    CheckpointId,
    Ending,
    Fence,
    Job,
    JobId,
    NodeId,
    Origin,
    Outcome,
    Reason,
    Resumption,
    Saved,
    Status,
    Stop,
    StopKind,
)
from scheduler.core.retry import RetryPolicy
from scheduler.errors import NotAllowed
from scheduler.testing.builders import a_job, a_spec
from scheduler.testing.clock import NOON

LATER = NOON + timedelta(hours=1)
NODES = Allocation(ranks=((NodeId("a"), 1),))
POLICY = RetryPolicy(max_losses=2, backoff_s=2.0, backoff_max_s=5.0)

ADMIT = Admit(at=LATER, by="scheduler", allocation=NODES)
FORCE_START = ForceStart(at=LATER, by="ann", queue_seq=99)
RESUME = Resume(at=LATER, by="ann", queue_seq=99)
RESTART = Restart(at=LATER, by="ann", queue_seq=99)
SAVED = Saved(checkpoint=CheckpointId("1.2"), step=20, at=NOON)
CHOOSE = replace(RESUME, checkpoint=SAVED)
BEGAN_WITH = Origin(checkpoint=CheckpointId("1.2"), after=Fence(3))
HUNG = Reason(code="hung", message="it hung: no step for 11 min")
GIVE_UP = GiveUp(at=LATER, by="ann", reason=Reason(code="given_up", message="marked as failed by ann"))


def ask(kind: StopKind) -> AskStop:
    return AskStop(at=LATER, by="ann", kind=kind)


def ended(
    ending: Ending, cause: Cause | None = None, fence: int = 1, message: str = "boom", **fields: Any
) -> RunEnded:
    reason = Reason(code="exception", message=message, detail="Traceback ...")
    outcome = Outcome(ending=ending, cause=cause, reason=reason, **fields)
    return RunEnded(at=LATER, by="scheduler", fence=Fence(fence), outcome=outcome)


def after(job: Job, event: Event) -> Job:
    return apply(job, event, POLICY)[0]


def running(stop: StopKind | None = None, *, max_failures: int = 0, **fields: object) -> Job:
    told = Stop(kind=stop, by="ann", at=NOON) if stop else None
    return a_job("running", spec=a_spec(max_failures=max_failures), stop=told, **fields)


def waiting(**fields: Any) -> Job:
    """In the line, after three runs."""
    return a_job(**{"fence": Fence(3), "started_at": NOON, "queue_seq": 7, **fields})


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
            StartRun(job_id=job.id, fence=Fence(5), spec=job.spec, allocation=NODES, origin=job.origin)
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
        assert job.retry_at == LATER + POLICY.pause(job, 1)
        assert "attempt 1 ended: boom" in job.reason.message
        assert "(1 of 2 retries used)" in job.reason.message

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
            ("hung", "pause", "pause"),
            ("pause", "hung", "pause"),
            ("preempt", "hung", "preempt"),
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

    @pytest.mark.parametrize("status", ["pending", "failed", "completed", "cancelled"])
    def test_what_neither_runs_nor_waits_in_the_line_cannot_be_paused(self, status: str) -> None:
        with pytest.raises(NotAllowed, match="cannot pause"):
            apply(a_job(status), ask(StopKind.PAUSE))


class TestStartedByHand:
    @pytest.mark.parametrize("status", ["pending", "failed", "cancelled"])
    def test_force_start_puts_the_job_at_the_end_of_the_line(self, status: str) -> None:
        """L3."""
        job = after(replace(a_job(status), failures=1, losses=1, fence=Fence(2)), FORCE_START)
        assert (job.status, job.queue_seq, job.queued_at) == (Status.QUEUED, 99, LATER)
        assert (job.failures, job.losses, job.finished_at) == (0, 0, None)

    def test_a_job_that_ran_starts_again_from_the_beginning(self) -> None:
        """Otherwise it would go on from the checkpoint it was meant to leave behind."""
        job = after(a_job("failed", fence=Fence(3), progress={"step": 7}, saved=SAVED), FORCE_START)
        assert (job.origin, job.saved, job.progress) == (Origin(after=Fence(3)), None, None)
        never_ran = a_job("cancelled", fence=Fence(0), started_at=None)
        assert after(never_ran, FORCE_START).origin == Origin()

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
        """L7, L8: the same origin, so the last checkpoint is found."""
        before = a_job(status, progress={"step": 7}, saved=SAVED)
        job = after(before, RESUME)
        assert (job.status, job.queue_seq, job.origin) == (Status.QUEUED, 99, before.origin)
        assert (job.saved, job.progress) == (SAVED, {"step": 7})
        assert job.reason.message == "resumed by ann; goes on from checkpoint 1.2 (step 20)"

    @pytest.mark.parametrize("status", ["pending", "running", "completed"])
    def test_resume_of_anything_else_is_refused(self, status: str) -> None:
        with pytest.raises(NotAllowed, match="cannot resume"):
            apply(a_job(status), RESUME)

    def test_a_second_resume_changes_nothing(self) -> None:
        job = a_job()
        assert apply(job, RESUME) == (job, [])


class TestHeld:
    def test_a_job_that_is_paused_in_the_line_is_held_there(self) -> None:
        """L7: it has nothing to save and no nodes to give back; `paused` would cost it its place."""
        job, actions = apply(waiting(), ask(StopKind.PAUSE))
        assert (job.status, job.held, job.queue_seq, actions) == (Status.QUEUED, True, 7, [])
        assert job.reason.message == "held in the queue by ann; resume it to let it start"

    def test_it_does_not_start_though_its_start_was_planned_before(self) -> None:
        """The pause was answered first; a plan is only a wish."""
        job = waiting(held=True)
        assert apply(job, ADMIT) == (job, [])

    def test_a_second_pause_changes_nothing(self) -> None:
        job = waiting(held=True)
        assert apply(job, ask(StopKind.PAUSE)) == (job, [])

    def test_a_row_that_no_scheduler_took_into_the_line_cannot_be_held_there(self) -> None:
        """Its spec was not looked at yet, and it has no place to keep."""
        for event in (ask(StopKind.PAUSE), RESTART, CHOOSE):
            with pytest.raises(NotAllowed, match="not accepted into the queue yet; ask again soon"):
                apply(waiting(queue_seq=None), event)

    @pytest.mark.parametrize(
        "event", [RESUME, CHOOSE, RESTART, FORCE_START], ids=lambda it: type(it).__name__
    )
    @pytest.mark.parametrize("origin", [Origin(), BEGAN_WITH, Origin(after=Fence(3))])
    def test_a_person_lets_it_go_and_it_keeps_its_place(self, event: Event, origin: Origin) -> None:
        """Also with a choice that was made before it was held."""
        job = after(waiting(held=True, origin=origin), event)
        assert (job.status, job.held, job.queue_seq) == (Status.QUEUED, False, 7)

    def test_let_go_it_rests_until_its_next_try_all_the_same(self) -> None:
        """Only *force start* ends that pause."""
        assert after(waiting(held=True, retry_at=LATER), RESUME).retry_at == LATER

    @pytest.mark.parametrize("hold", [False, True])
    def test_it_stays_held_when_it_is_found_after_an_outage(self, hold: bool) -> None:
        """The person who paused it knows nothing of a lost disk."""
        found = Recover(at=LATER, by="start-up", reason=Reason(code="recovered", message="found"), hold=hold)
        assert after(waiting(held=True), found).held
        assert after(waiting(), found).held == hold

    def test_it_can_be_cancelled(self) -> None:
        job = after(waiting(held=True), ask(StopKind.CANCEL))
        assert (job.status, job.held) == (Status.CANCELLED, False)


class TestGoesOn:
    @pytest.mark.parametrize("status", ["paused", "failed", "cancelled"])
    def test_from_the_checkpoint_that_a_person_chose(self, status: str) -> None:
        """L8: later checkpoints, whole as they are, belong to a past that was left."""
        newest = replace(SAVED, checkpoint=CheckpointId("3.1"))
        job = after(a_job(status, fence=Fence(3), saved=newest), CHOOSE)
        assert (job.status, job.origin, job.saved) == (Status.QUEUED, BEGAN_WITH, SAVED)
        assert job.reason.message == "resumed by ann; goes on from checkpoint 1.2 (step 20)"

    def test_a_job_in_the_line_may_be_told_where_to_go_on_and_keeps_its_place(self) -> None:
        job = after(waiting(), CHOOSE)
        assert (job.status, job.queue_seq, job.origin, job.saved) == (Status.QUEUED, 7, BEGAN_WITH, SAVED)
        assert apply(job, CHOOSE)[0] is job

    def test_the_same_choice_after_another_run_leaves_that_run_behind_too(self) -> None:
        """Else the job would go on from what the run since then has saved."""
        job = after(waiting(origin=BEGAN_WITH, fence=Fence(4)), CHOOSE)
        assert job.origin == replace(BEGAN_WITH, after=Fence(4))

    def test_resumed_with_nothing_saved_it_says_that_it_begins_at_the_beginning(self) -> None:
        job = after(a_job("failed"), RESUME)
        assert job.reason.message == "resumed by ann; begins at the beginning: nothing was saved"

    @pytest.mark.parametrize("status", ["queued", "paused", "failed", "cancelled"])
    def test_restarted_it_leaves_all_that_was_saved(self, status: str) -> None:
        before = a_job(status, fence=Fence(3), started_at=NOON, saved=SAVED, progress={"step": 30})
        job = after(before, RESTART)
        assert (job.status, job.origin, job.saved) == (Status.QUEUED, Origin(after=Fence(3)), None)
        assert (job.progress, job.reason.message) == (None, "restarted from the beginning by ann")
        assert apply(job, RESTART)[0] is job, "a second restart changes nothing"

    def test_restarted_in_the_line_it_keeps_its_place(self) -> None:
        assert after(waiting(), RESTART).queue_seq == 7
        assert after(a_job("failed"), RESTART).queue_seq == RESTART.queue_seq

    @pytest.mark.parametrize("status", ["pending", "running", "completed"])
    def test_a_restart_of_anything_else_is_refused(self, status: str) -> None:
        with pytest.raises(NotAllowed, match=f"cannot restart job .* it is {status}"):
            apply(a_job(status), RESTART)

    @pytest.mark.parametrize(
        "event", [RESUME, CHOOSE, RESTART, FORCE_START], ids=lambda it: type(it).__name__
    )
    def test_who_is_asked_for_by_a_person_has_all_tries_again(self, event: Event) -> None:
        tried = {"failures": 1, "losses": 1, "preemptions": 1, "repeats": 1, "last_failure": "x"}
        job = after(a_job("failed", fence=Fence(3), **tried), event)
        assert (job.failures, job.losses, job.preemptions, job.repeats, job.last_failure) == (
            0,
            0,
            0,
            0,
            None,
        )

    def test_the_run_is_told_where(self) -> None:
        _, actions = apply(waiting(origin=BEGAN_WITH), ADMIT)
        assert [action.origin for action in actions if isinstance(action, StartRun)] == [BEGAN_WITH]

    def test_what_the_run_saved_is_where_the_next_one_goes_on(self) -> None:
        newest = replace(SAVED, checkpoint=CheckpointId("1.3"), step=30)
        job = after(running(saved=SAVED), ended(Ending.LOST, saved=newest))
        assert job.saved == newest
        assert job.reason.message == (
            "attempt 1 ended: boom; goes on from checkpoint 1.3 (step 30) (1 of 2 retries used)"
        )

    def test_a_run_that_saved_nothing_takes_nothing_away(self) -> None:
        went_on = Resumption(checkpoint=SAVED.checkpoint, step=SAVED.step)
        job = after(running(saved=SAVED), ended(Ending.LOST, resumed=went_on))
        assert (job.saved, job.resumed) == (SAVED, went_on)

    def test_a_job_does_not_claim_checkpoints_that_were_found_broken(self) -> None:
        broken = Resumption(checkpoint=None, step=None, skipped=("1.2: a file is missing",))
        job = after(running(saved=SAVED), ended(Ending.LOST, resumed=broken))
        assert job.saved is None
        assert "; begins again (" in job.reason.message


class TestGaveWay:
    @pytest.mark.parametrize("ending", [Ending.STOPPED, Ending.LOST])
    def test_a_preempted_job_is_charged_to_an_account_of_its_own(self, ending: Ending) -> None:
        """Also where it was too slow to save and had to be killed."""
        job = after(running(StopKind.PREEMPT, losses=2, fence=Fence(3)), ended(ending, fence=3))
        assert (job.status, job.preemptions, job.losses, job.retry_at) == (Status.QUEUED, 1, 2, None)

    def test_it_says_to_whom(self) -> None:
        why = Reason(code="node_drained", message="node a is being drained")
        told = Stop(kind=StopKind.PREEMPT, by="scheduler", at=NOON, why=why)
        job = after(replace(running(), stop=told), ended(Ending.STOPPED, saved=SAVED))
        assert job.reason.code == "preempted"
        assert job.reason.message == (
            "preempted: node a is being drained; goes on from checkpoint 1.2 (step 20) when it has nodes again"
        )

    @pytest.mark.parametrize(("keeps", "place"), [(True, 3), (False, 50)])
    def test_its_place_is_as_the_policy_says(self, keeps: bool, place: int) -> None:
        policy = replace(POLICY, preempted_keep_place=keeps)
        event = replace(ended(Ending.STOPPED), end_of_line=50)
        job, _ = apply(running(StopKind.PREEMPT, queue_seq=3), event, policy)
        assert job.queue_seq == place

    def test_others_keep_their_place_whatever_the_policy_for_those_who_gave_way(self) -> None:
        policy = replace(POLICY, preempted_keep_place=False)
        event = replace(ended(Ending.LOST), end_of_line=50)
        assert apply(running(queue_seq=3), event, policy)[0].queue_seq == 3

    def test_a_job_in_the_line_has_given_its_nodes_already(self) -> None:
        job = waiting()
        assert apply(job, ask(StopKind.PREEMPT)) == (job, [])

    def test_a_loop_that_failed_while_it_gave_way_failed(self) -> None:
        job = after(running(StopKind.PREEMPT), ended(Ending.FAILED, Cause.USER))
        assert (job.status, job.failures, job.preemptions) == (Status.FAILED, 1, 0)


class TestStoppedByTheOperator:
    WHY = Reason(code=OPERATOR_DOWN, message="the operator stopped the scheduler")
    STOP = AskStop(at=LATER, by="ann", kind=StopKind.PREEMPT, why=WHY)

    @pytest.mark.parametrize("ending", [Ending.STOPPED, Ending.LOST])
    def test_it_goes_on_in_its_old_place_and_nobody_is_charged(self, ending: Ending) -> None:
        """B3: also where who gives way to others goes to the end of the line."""
        policy = replace(POLICY, max_losses=0, preempted_keep_place=False)
        told, _ = apply(running(queue_seq=7, saved=SAVED), self.STOP)
        event = replace(ended(ending), end_of_line=99)
        job, _ = apply(told, event, policy)
        assert (job.status, job.queue_seq, job.retry_at) == (Status.QUEUED, 7, None)
        assert (job.losses, job.failures, job.preemptions) == (0, 0, 0)
        assert job.reason.code == OPERATOR_DOWN
        assert job.reason.message == (
            "the operator stopped the scheduler; goes on from checkpoint 1.2 (step 20)"
        )
        assert not is_news(told, job, event)
        attempt = record(told, job, event).attempt
        assert attempt is not None and attempt.reason is not None
        assert (attempt.cause, attempt.reason.code) == (None, OPERATOR_DOWN)

    def test_the_word_in_its_folder_is_enough_where_no_scheduler_could_write_it_down(self) -> None:
        event = replace(ended(Ending.STOPPED), outcome=Outcome(ending=Ending.STOPPED, reason=self.WHY))
        job = after(running(queue_seq=7), event)
        assert (job.status, job.queue_seq, job.losses, job.reason.code) == (
            Status.QUEUED,
            7,
            0,
            OPERATOR_DOWN,
        )

    @pytest.mark.parametrize(
        ("asked", "becomes"), [(StopKind.CANCEL, Status.CANCELLED), (StopKind.PAUSE, Status.PAUSED)]
    )
    def test_what_a_person_asked_of_the_job_holds(self, asked: StopKind, becomes: Status) -> None:
        told = after(after(running(), ask(asked)), self.STOP)
        word = Outcome(ending=Ending.STOPPED, reason=self.WHY)
        assert after(told, replace(ended(Ending.STOPPED), outcome=word)).status is becomes


class TestHung:
    def stopped(self, **fields: Any) -> Job:
        evidence = {"stacks": {"0": "in all_reduce()"}}
        event = AskStop(at=NOON, by="scheduler", kind=StopKind.HUNG, why=HUNG, evidence=evidence)
        return after(running(**fields), event)

    def test_what_was_seen_is_written_down_before_anything_is_touched(self) -> None:
        job = self.stopped()
        assert job.status is Status.RUNNING
        assert job.stop is not None
        assert (job.stop.why, job.stop.evidence) == (HUNG, {"stacks": {"0": "in all_reduce()"}})
        assert job.reason.message == "the run is being stopped: it hung: no step for 11 min"

    @pytest.mark.parametrize("ending", [Ending.STOPPED, Ending.LOST, Ending.FAILED])
    def test_it_is_tried_again_as_a_lost_run_and_says_that_it_hung(self, ending: Ending) -> None:
        job = after(self.stopped(), ended(ending))
        assert (job.status, job.losses, job.failures) == (Status.QUEUED, 1, 0)
        assert job.retry_at is not None
        assert "attempt 1 ended: it hung: no step for 11 min; begins again" in job.reason.message

    def test_or_fails_if_the_policy_is_so(self) -> None:
        job, _ = apply(self.stopped(), ended(Ending.LOST), replace(POLICY, on_hang="fail"))
        assert job.status is Status.FAILED
        assert job.reason.message == (
            "it hung: no step for 11 min (attempt 1; hanging runs are not tried again)"
        )

    def test_it_completed_after_all(self) -> None:
        assert after(self.stopped(), ended(Ending.COMPLETED)).status is Status.COMPLETED


class TestSeenOfOneRun:
    """Between what is seen of a run and what is asked for because of it, the run may end and another begin."""

    def seen(self, fence: int) -> AskStop:
        return AskStop(at=LATER, by="scheduler", kind=StopKind.HUNG, why=HUNG, fence=Fence(fence))

    def test_it_stops_that_run(self) -> None:
        job, actions = apply(running(fence=Fence(2)), self.seen(2))
        assert actions == [StopRun(job_id=job.id, fence=Fence(2), kind=StopKind.HUNG)]

    def test_it_does_not_stop_the_next_one(self) -> None:
        job = running(fence=Fence(2))
        assert apply(job, self.seen(1)) == (job, [])

    @pytest.mark.parametrize("status", [status for status in Status if status is not Status.RUNNING])
    def test_it_is_no_mistake_when_the_run_has_ended(self, status: Status) -> None:
        """Nobody is there to be told that it is too late."""
        job = a_job(status)
        assert apply(job, self.seen(job.fence)) == (job, [])


class TestIsNews:
    """R10: what the system did to a job, and neither its loop nor a person."""

    @pytest.mark.parametrize(
        ("stop", "ending", "cause", "is_told"),
        [
            (None, Ending.LOST, Cause.INFRASTRUCTURE, True),
            (None, Ending.FAILED, Cause.USER, False),
            (None, Ending.COMPLETED, None, False),
            (StopKind.HUNG, Ending.LOST, Cause.INFRASTRUCTURE, True),
            (StopKind.HUNG, Ending.STOPPED, None, True),
            (StopKind.HUNG, Ending.COMPLETED, None, False),
            (StopKind.PAUSE, Ending.LOST, Cause.INFRASTRUCTURE, False),
            (StopKind.PREEMPT, Ending.STOPPED, None, False),
            (StopKind.TIMEOUT, Ending.STOPPED, None, False),
        ],
    )
    def test_the_end_of_a_run(
        self, stop: StopKind | None, ending: Ending, cause: Cause | None, is_told: bool
    ) -> None:
        before, event = running(stop), ended(ending, cause)
        assert is_news(before, after(before, event), event) == is_told


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
