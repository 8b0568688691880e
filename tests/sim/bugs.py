"""Mistakes that were made on purpose, each as small as a real one would be: a simulation that misses them is blind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from scheduler.core import (
    arrays,
    dependencies,
    hangs,
    lifecycle,
    node_labels,
    ordering,
    reconcile,
    retry,
    run_end,
)
from scheduler.core.lifecycle import RunEnded
from scheduler.core.model import Cause, Ending, Job, Origin, Outcome, Reason, Status
from scheduler.core.reservations import Room
from scheduler.engine import job_store, shadow, supervisor
from scheduler.engine.cluster import Cluster
from scheduler.engine.found_runs import FoundRuns
from scheduler.engine.job_store import JobStore
from scheduler.engine.kept_places import KeptPlaces
from scheduler.engine.queries import job_view
from scheduler.engine.recurring import RecurringJobs
from scheduler.engine.run_times import RunTimes
from scheduler.engine.supervisor import Supervisor
from scheduler.engine.sync import adoption, inbox, notifier, relay
from scheduler.testing.memory_mirror import MemoryMirror
from tests.sim.faults import Trouble

Plant = Callable[[pytest.MonkeyPatch], None]


def rows_of_a_newer_version_are_overwritten(patch: pytest.MonkeyPatch) -> None:
    """The database takes what an old request, late on the network, says of a job that has moved on."""
    apply = MemoryMirror._apply
    patch.setattr(
        MemoryMirror, "_apply", lambda self, changes, events, forced: apply(self, changes, events, True)
    )


def writes_of_an_older_incarnation_are_taken(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(MemoryMirror, "_guard", lambda self, incarnation: None)


def changes_are_forgotten_before_the_database_answers(patch: pytest.MonkeyPatch) -> None:
    deliver = relay.Relay._deliver

    async def forget_first(self: Any, rows: Any) -> Any:
        await self._journal.forget([row.seq for row in rows])
        return await deliver(self, rows)

    patch.setattr(relay.Relay, "_deliver", forget_first)


def only_the_newest_event_is_sent(patch: pytest.MonkeyPatch) -> None:
    coalesce = relay.coalesce

    def newest(*args: Any) -> Any:
        return [replace(change, events=change.events[-1:]) for change in coalesce(*args)]

    patch.setattr(relay, "coalesce", newest)


def age_is_that_of_the_row_alone(patch: pytest.MonkeyPatch) -> None:
    """A job that has waited for long under a living scheduler counts as stale once the journal is lost."""
    judge = reconcile.judge
    patch.setattr(adoption, "judge", lambda row, **seen: judge(row, **seen | {"vouched_at": None}))


def whoever_is_alive_vouches_for_every_row(patch: pytest.MonkeyPatch) -> None:
    """A row that no scheduler knows never gets old while one is alive."""
    judge = reconcile.judge
    patch.setattr(adoption, "judge", lambda row, **seen: judge(row, **seen | {"vouched_at": seen["now"]}))


def acts_before_it_is_written_down(patch: pytest.MonkeyPatch) -> None:
    advance = JobStore._apply

    async def act_first(self: JobStore, job: Job, event: Any, **options: Any) -> Job:
        before = await self.find(job.id) or job
        after, actions = lifecycle.apply(before, event, self._policy)
        for action in actions:
            self.on_action(after, action)
        return await advance(self, job, event, **options)

    patch.setattr(JobStore, "_apply", act_first)


def a_submit_is_answered_before_it_is_on_disk(patch: pytest.MonkeyPatch) -> None:
    async def create_later(self: JobStore, jobs: list[Job]) -> None:
        asyncio.get_running_loop().create_task(self._create(jobs))

    patch.setattr(JobStore, "create", create_later)


def requests_are_answered_before_they_are_done(patch: pytest.MonkeyPatch) -> None:
    take = inbox.Inbox._take_request

    async def answer_first(self: Any, row: Any) -> None:
        await (await self._session.claimed()).answer(row.id, row.requested_action, None)
        await take(self, row)

    patch.setattr(inbox.Inbox, "_take_request", answer_first)


def runs_are_stopped_on_a_guess(patch: pytest.MonkeyPatch) -> None:
    """What the journal does not know is taken for nobody's, as if a journal could not be lost."""
    patch.setattr(reconcile, "is_over", lambda run, known: True)


def fences_are_counted_by_the_journal_alone(patch: pytest.MonkeyPatch) -> None:
    """After a backup is restored, a run gets the fence of one that it does not remember."""

    async def catch_up(self: FoundRuns, job: Job, by: str) -> int:
        return 0

    patch.setattr(FoundRuns, "catch_up", catch_up)


def the_final_record_of_a_run_is_not_asked_for(patch: pytest.MonkeyPatch) -> None:
    async def abandoned(self: Any, job: Job, error: Exception) -> Outcome:
        await self._runner.stop(
            lifecycle.StopRun(job_id=job.id, fence=job.fence, kind=lifecycle.StopKind.CANCEL)
        )
        reason = Reason(code="not_started", message=str(error))
        return Outcome(ending=Ending.LOST, cause=Cause.INFRASTRUCTURE, reason=reason)

    patch.setattr(Supervisor, "_abandoned", abandoned)


def notices_are_forgotten_before_they_are_heard(patch: pytest.MonkeyPatch) -> None:
    async def once(self: Any) -> int:
        for notice in await self._journal.notices(notifier.BATCH):
            await self._journal.forget_notices([notice.seq])
            await self._webhook.send(notice)
        return 0

    patch.setattr(notifier.Notifier, "once", once)


def the_end_of_a_replaced_run_counts(patch: pytest.MonkeyPatch) -> None:
    end = lifecycle._end_run
    patch.setattr(
        lifecycle, "_end_run", lambda job, event, policy: end(job, replace(event, fence=job.fence), policy)
    )


def a_past_that_was_left_comes_back(patch: pytest.MonkeyPatch) -> None:
    """A restarted job goes on from the newest checkpoint that there is."""
    begin = lifecycle._from_the_beginning
    patch.setattr(lifecycle, "_from_the_beginning", lambda job: replace(begin(job), origin=Origin()))


def the_choice_of_a_person_is_not_handed_on(patch: pytest.MonkeyPatch) -> None:
    start_of = lifecycle.start_of
    patch.setattr(supervisor, "start_of", lambda job: replace(start_of(job), origin=Origin()))


def a_retry_forgets_what_was_saved(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(lifecycle, "_saved", lambda job, outcome: outcome.saved)


def held_jobs_are_started(patch: pytest.MonkeyPatch) -> None:
    rests = ordering._rests
    patch.setattr(ordering, "_rests", lambda job, now: rests(replace(job, held=False), now))
    admit = lifecycle._admit
    patch.setattr(lifecycle, "_admit", lambda job, event: admit(replace(job, held=False), event))


def jobs_do_not_wait_for_others(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ordering, "waits_for", lambda job, now, parents: None)


def whoever_waits_is_failed_with_any_parent(patch: pytest.MonkeyPatch) -> None:
    """A parent that a person resumes later is over for its children as soon as it rests."""
    patch.setattr(dependencies, "_is_over", lambda after, status: status is not Status.COMPLETED)


def the_end_of_an_attempt_is_not_told(patch: pytest.MonkeyPatch) -> None:
    tell = lifecycle._attempt
    patch.setattr(lifecycle, "_attempt", lambda *step: None if isinstance(step[2], RunEnded) else tell(*step))


def a_slow_run_is_taken_for_one_that_hangs(patch: pytest.MonkeyPatch) -> None:
    judge = hangs.judge
    patch.setattr(
        job_view, "judge", lambda pace, silent_s, limits, **more: judge(pace, silent_s + 1e4, limits, **more)
    )


def what_a_loop_returns_is_kept_as_it_is(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(supervisor, "plain_outcome", lambda outcome: outcome)


def an_end_that_cannot_be_kept_is_not_told(patch: pytest.MonkeyPatch) -> None:
    """The run is over, and its job is shown as running for ever."""
    what_a_loop_returns_is_kept_as_it_is(patch)
    patch.setattr(job_store, "without_words", lambda job, event, why: (job, event))


def that_nobody_complained_is_taken_for_a_proof(patch: pytest.MonkeyPatch) -> None:
    """A rank whose thread ended without a word counts as one that finished."""
    patch.setattr(
        run_end, "ending_by_record", lambda records, was_asked_to_stop: (Ending.COMPLETED, records[:1])
    )


def what_the_operator_ends_is_charged(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(retry, "by_operator", lambda stop, outcome: False)


def clocks_of_nodes_are_believed(patch: pytest.MonkeyPatch) -> None:
    """How long a run is silent is told by comparing its node's clock with our own."""

    def moved_s(self: Any, run: Any, observation: Any, told: Any, asked_s: float) -> float:
        return asked_s - (self._clock.now() - observation.stepped_at).total_seconds()

    patch.setattr(RunTimes, "moved_s", moved_s)


def time_limits_go_by_the_wall_clock(patch: pytest.MonkeyPatch) -> None:
    def going_s(self: Any, job: Job, told: Any) -> float:
        return (self._clock.now() - job.admitted_at).total_seconds()

    patch.setattr(RunTimes, "going_s", going_s)


def runs_are_stopped_for_jobs_for_which_nothing_is_kept(patch: pytest.MonkeyPatch) -> None:
    async def keep(self: KeptPlaces, *_: Any) -> None:
        pass

    patch.setattr(KeptPlaces, "keep", keep)
    patch.setattr(KeptPlaces, "is_kept_for", lambda self, job_id: True)


def what_is_kept_is_room_for_all(patch: pytest.MonkeyPatch) -> None:
    """The room that a victim leaves is stolen by whoever comes first."""
    hand_over = Room._hand_over

    def free_for_all(self: Room, job: Any, kept: Any) -> None:
        space = self.space.copy()
        hand_over(self, job, kept)
        self.space = space

    patch.setattr(Room, "_hand_over", free_for_all)


def what_a_stop_leaves_over_is_taken_before_it_is_free(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Room, "is_there", lambda self, need, allocation: True)


def recurring_jobs_meet_themselves(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(RecurringJobs, "_earlier_job", lambda self, one, key: None)


def arrays_know_no_limit(patch: pytest.MonkeyPatch) -> None:
    """Also where several are eligible in one pass."""
    patch.setattr(arrays, "over_limit", lambda ready, holding: {})


def a_pass_counts_only_what_runs_already(patch: pytest.MonkeyPatch) -> None:
    """Of an array that has room for one more, all that wait start at once."""
    over_limit = arrays.over_limit

    def one_by_one(ready: Any, holding: Any) -> Any:
        holding, waits = list(holding), dict[Any, Any]()
        for one in ready:
            waits |= over_limit([one], holding)
        return waits

    patch.setattr(arrays, "over_limit", one_by_one)


def the_policy_in_shadow_fails(patch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise ZeroDivisionError("planted")

    patch.setattr(shadow, "differences", fails)


Troubles = frozenset[Trouble]
"""What must go wrong beside the bug for it to show; fewer troubles show it sooner."""


def any_node_will_do(patch: pytest.MonkeyPatch) -> None:
    """Placement looks at room alone, and not at the labels that a job asks for."""
    patch.setattr(node_labels, "matches", lambda gang, node: True)


def what_is_set_aside_gets_new_runs(patch: pytest.MonkeyPatch) -> None:
    """It is written down, shown, and nothing follows."""
    patch.setattr(Cluster, "_marked", lambda self, nodes: nodes)


ALL: list[tuple[Plant, Troubles]] = [
    (rows_of_a_newer_version_are_overwritten, frozenset({Trouble.DATABASE})),
    (writes_of_an_older_incarnation_are_taken, frozenset({Trouble.FREEZE, Trouble.JOURNAL_LOST})),
    (the_end_of_a_replaced_run_counts, frozenset({Trouble.CLUSTER})),
    (changes_are_forgotten_before_the_database_answers, frozenset({Trouble.DATABASE})),
    (only_the_newest_event_is_sent, frozenset({Trouble.DATABASE})),
    (age_is_that_of_the_row_alone, frozenset({Trouble.JOURNAL_LOST, Trouble.CRASH})),
    (
        whoever_is_alive_vouches_for_every_row,
        frozenset({Trouble.JOURNAL_LOST, Trouble.TAMPER, Trouble.CRASH}),
    ),
    (acts_before_it_is_written_down, frozenset()),
    (a_submit_is_answered_before_it_is_on_disk, frozenset({Trouble.DISK})),
    (requests_are_answered_before_they_are_done, frozenset({Trouble.CRASH, Trouble.DISK})),
    (runs_are_stopped_on_a_guess, frozenset({Trouble.JOURNAL_LOST, Trouble.CRASH})),
    (fences_are_counted_by_the_journal_alone, frozenset({Trouble.JOURNAL_LOST, Trouble.CRASH})),
    (what_a_loop_returns_is_kept_as_it_is, frozenset()),
    (an_end_that_cannot_be_kept_is_not_told, frozenset()),
    (that_nobody_complained_is_taken_for_a_proof, frozenset()),
    (the_final_record_of_a_run_is_not_asked_for, frozenset({Trouble.CLUSTER})),
    (a_past_that_was_left_comes_back, frozenset()),
    (the_choice_of_a_person_is_not_handed_on, frozenset()),
    (a_retry_forgets_what_was_saved, frozenset()),
    (held_jobs_are_started, frozenset()),
    (jobs_do_not_wait_for_others, frozenset()),
    (whoever_waits_is_failed_with_any_parent, frozenset()),
    (arrays_know_no_limit, frozenset()),
    (a_pass_counts_only_what_runs_already, frozenset()),
    (runs_are_stopped_for_jobs_for_which_nothing_is_kept, frozenset()),
    (what_is_kept_is_room_for_all, frozenset()),
    (what_a_stop_leaves_over_is_taken_before_it_is_free, frozenset()),
    (recurring_jobs_meet_themselves, frozenset()),
    (any_node_will_do, frozenset()),
    (what_is_set_aside_gets_new_runs, frozenset({Trouble.CLUSTER})),
    (the_policy_in_shadow_fails, frozenset()),
    (the_end_of_an_attempt_is_not_told, frozenset()),
    (what_the_operator_ends_is_charged, frozenset({Trouble.OPERATOR})),
    (a_slow_run_is_taken_for_one_that_hangs, frozenset()),
    (clocks_of_nodes_are_believed, frozenset({Trouble.SKEW})),
    (time_limits_go_by_the_wall_clock, frozenset({Trouble.SKEW})),
    (notices_are_forgotten_before_they_are_heard, frozenset({Trouble.WEBHOOK, Trouble.CLUSTER})),
]
