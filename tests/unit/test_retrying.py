"""Who is answerable for a run that did not complete, and whether there is another."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from statistics import mean
from typing import Any

import pytest

from scheduler.core.model import (
    OPERATOR_DOWN,
    Cause,
    CheckpointId,
    Ending,
    Fence,
    Job,
    Outcome,
    Reason,
    Saved,
    Stop,
    StopKind,
)
from scheduler.core.retry import RetryPolicy, judge
from scheduler.testing.builders import a_job, a_spec
from scheduler.testing.clock import NOON

POLICY = RetryPolicy(max_losses=2, max_repeats=3, backoff_s=2.0, backoff_max_s=5.0)
SAVED = Saved(checkpoint=CheckpointId("1.1"), step=10, at=NOON)


def running(stop: StopKind | None = None, *, max_failures: int = 0, **counts: Any) -> Job:
    told = Stop(kind=stop, by="ann", at=NOON) if stop else None
    return a_job("running", spec=a_spec(max_failures=max_failures), fence=Fence(9), stop=told, **counts)


def ended(
    ending: Ending, cause: Cause | None = None, *, signature: str | None = None, saved: Saved | None = None
) -> Outcome:
    reason = Reason(code="seen", message="boom")
    return Outcome(ending=ending, cause=cause, reason=reason, signature=signature, saved=saved)


def accounts(job: Job) -> dict[str, int]:
    counts = {"failures": job.failures, "losses": job.losses, "preemptions": job.preemptions}
    return {name: count for name, count in counts.items() if count}


class TestThePause:
    @pytest.mark.parametrize(("tries", "longest_s"), [(1, 2), (2, 4), (3, 5), (100, 5)])
    def test_it_doubles_up_to_its_limit_and_half_of_it_is_a_lot(self, tries: int, longest_s: float) -> None:
        pauses = [POLICY.pause(a_job(), tries).total_seconds() for _ in range(200)]
        assert all(longest_s / 2 <= pause <= longest_s for pause in pauses)
        assert mean(pauses) == pytest.approx(0.75 * longest_s, rel=0.05)

    def test_jobs_that_failed_together_do_not_return_together(self) -> None:
        """A node that died takes all its jobs at once."""
        pauses = {POLICY.pause(a_job(), 1) for _ in range(50)}
        assert len(pauses) == 50

    def test_the_same_retry_draws_the_same_lot(self) -> None:
        """A crash while it is written down must not move it."""
        job = running()
        assert POLICY.pause(job, 1) == POLICY.pause(job, 1)
        assert POLICY.pause(job, 1) != POLICY.pause(replace(job, fence=Fence(10)), 1)

    def test_a_run_that_got_on_is_tried_again_at_once(self) -> None:
        """A pause is for what fails before it gets anywhere; else each killed rank would cost it too."""
        lost = judge(running(), ended(Ending.LOST), POLICY)
        got_on = judge(running(), ended(Ending.LOST, saved=SAVED), POLICY)
        assert lost.retry_after is not None
        assert (got_on.retry_after, got_on.given_up, got_on.job.losses) == (None, None, 1)

    def test_none_is_none(self) -> None:
        assert RetryPolicy(backoff_s=0.0).pause(a_job(), 5) == timedelta(0)


class TestWhoIsCharged:
    @pytest.mark.parametrize(
        ("stop", "ending", "cause", "account"),
        [
            (None, Ending.FAILED, None, "failures"),
            (None, Ending.FAILED, Cause.USER, "failures"),
            (None, Ending.FAILED, Cause.INFRASTRUCTURE, "losses"),
            (None, Ending.LOST, None, "losses"),
            (None, Ending.LOST, Cause.PREEMPTION, "preemptions"),
            (None, Ending.STOPPED, None, "losses"),  # nobody asked
            (StopKind.PAUSE, Ending.STOPPED, None, None),
            (StopKind.PAUSE, Ending.LOST, Cause.INFRASTRUCTURE, "losses"),
            (StopKind.PAUSE, Ending.FAILED, Cause.USER, "failures"),
            (StopKind.PREEMPT, Ending.STOPPED, None, "preemptions"),
            (StopKind.PREEMPT, Ending.LOST, Cause.INFRASTRUCTURE, "preemptions"),
            (StopKind.PREEMPT, Ending.FAILED, Cause.USER, "failures"),
            (StopKind.HUNG, Ending.STOPPED, None, "losses"),
            (StopKind.HUNG, Ending.LOST, None, "losses"),
            (StopKind.HUNG, Ending.FAILED, Cause.USER, "losses"),
        ],
    )
    def test_by_what_ended_the_run_and_who_had_asked(
        self, stop: StopKind | None, ending: Ending, cause: Cause | None, account: str | None
    ) -> None:
        verdict = judge(running(stop, max_failures=9), ended(ending, cause), POLICY)
        assert accounts(verdict.job) == ({account: 1} if account else {})
        assert verdict.given_up is None

    @pytest.mark.parametrize("ending", [Ending.STOPPED, Ending.LOST])
    @pytest.mark.parametrize("stop", [None, StopKind.PREEMPT, StopKind.PAUSE])
    def test_what_the_operator_ended_is_nobodys_loss(self, stop: StopKind | None, ending: Ending) -> None:
        """B3: by the journal, or, where the scheduler did not answer, by the word left in the run's folder."""
        told = Reason(code=OPERATOR_DOWN, message="the operator stopped the scheduler")
        by_word = replace(ended(ending), reason=told)
        by_journal = running()
        by_journal = replace(by_journal, stop=Stop(kind=StopKind.PREEMPT, by="ann", at=NOON, why=told))
        for verdict in (judge(running(stop), by_word, POLICY), judge(by_journal, ended(ending), POLICY)):
            assert (accounts(verdict.job), verdict.given_up, verdict.retry_after) == ({}, None, None)

    def test_a_loop_that_raises_while_the_operator_stops_it_has_failed(self) -> None:
        told = Reason(code=OPERATOR_DOWN, message="the operator stopped the scheduler")
        job = replace(running(), stop=Stop(kind=StopKind.PREEMPT, by="ann", at=NOON, why=told))
        assert judge(job, ended(Ending.FAILED, Cause.USER), POLICY).given_up == "max_failures is 0"

    def test_one_account_does_not_pay_for_another(self) -> None:
        """R5: a node that dies must not use up the tries that a user set for the loop."""
        spent = running(max_failures=2, failures=2, preemptions=4)
        assert judge(spent, ended(Ending.LOST), POLICY).given_up is None
        assert judge(spent, ended(Ending.FAILED), POLICY).given_up == "max_failures is 2"

    @pytest.mark.parametrize(
        ("outcome", "counts", "words"),
        [
            (ended(Ending.FAILED), {"failures": 1}, "max_failures is 1"),
            (ended(Ending.LOST), {"losses": 2}, "the limit for lost runs is 2"),
        ],
    )
    def test_each_account_has_an_end(self, outcome: Outcome, counts: dict[str, Any], words: str) -> None:
        assert judge(running(max_failures=1, **counts), outcome, POLICY).given_up == words

    def test_a_preemption_is_never_a_reason_to_fail(self) -> None:
        """S3: others failed jobs that had been preempted too often, through no fault of theirs."""
        verdict = judge(running(preemptions=1000), ended(Ending.LOST, Cause.PREEMPTION), POLICY)
        assert (verdict.given_up, verdict.job.preemptions) == (None, 1001)

    def test_what_is_left_is_said(self) -> None:
        assert judge(running(losses=1), ended(Ending.LOST), POLICY).used == "2 of 2 retries used"
        assert judge(running(StopKind.PAUSE), ended(Ending.STOPPED), POLICY).used == ""

    def test_who_gave_way_waits_for_nodes_and_for_nothing_else(self) -> None:
        assert judge(running(), ended(Ending.LOST), POLICY).retry_after is not None
        assert judge(running(StopKind.PREEMPT), ended(Ending.STOPPED), POLICY).retry_after is None

    def test_a_policy_may_let_hanging_runs_fail(self) -> None:
        verdict = judge(running(StopKind.HUNG), ended(Ending.LOST), replace(POLICY, on_hang="fail"))
        assert verdict.given_up == "hanging runs are not tried again"
        assert verdict.job.losses == 1


class TestTheSameFailureAgain:
    def fail(
        self, job: Job, signature: str | None = "A", saved: Saved | None = None
    ) -> tuple[Job, str | None]:
        verdict = judge(job, ended(Ending.FAILED, signature=signature, saved=saved), POLICY)
        return verdict.job, verdict.given_up

    def test_a_loop_that_cannot_work_is_not_tried_to_the_end_of_its_budget(self) -> None:
        """A wrong path in its config costs three starts, and not a hundred."""
        job, given_up = running(max_failures=100), None
        for runs in (1, 2, 3):
            assert given_up is None
            job, given_up = self.fail(job)
            assert job.repeats == runs
        assert given_up == (
            "it failed in the same way 3 times in a row before it saved anything, with 2 of 100 retries used"
        )

    @pytest.mark.parametrize(("signature", "repeats"), [("A", 3), ("B", 1), (None, 2)])
    def test_only_the_same_counts(self, signature: str | None, repeats: int) -> None:
        """A failure without signature says nothing about the loop, neither so nor so."""
        job = replace(running(max_failures=100), repeats=2, last_failure="A")
        assert self.fail(job, signature)[0].repeats == repeats

    def test_a_run_that_saved_something_got_further_and_the_count_begins_again(self) -> None:
        job = replace(running(max_failures=100), repeats=2, last_failure="A")
        job, given_up = self.fail(job, saved=SAVED)
        assert (job.repeats, given_up) == (0, None)
        for _ in range(2):
            job, given_up = self.fail(job)
            assert given_up is None
        assert self.fail(job)[1] is not None

    def test_the_budget_is_named_where_it_is_spent_at_the_same_time(self) -> None:
        job = replace(running(max_failures=2), failures=2, repeats=2, last_failure="A")
        assert self.fail(job)[1] == "max_failures is 2"

    def test_it_counts_for_the_infrastructure_too(self) -> None:
        """A gang that never comes up loses its runs all in one way."""
        policy = replace(POLICY, max_losses=100)
        job = replace(running(), repeats=2, last_failure="A")
        assert judge(job, ended(Ending.LOST, signature="A"), policy).given_up is not None
