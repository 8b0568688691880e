"""Any job, any event: what must hold whatever happens."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import timedelta

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scheduler.core.invariants import violations
from scheduler.core.lifecycle import (
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
    apply,
    record,
)
from scheduler.core.model import (
    Allocation,
    Attempt,
    Cause,
    CheckpointId,
    Ending,
    Fence,
    Job,
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

BIG = os.environ.get("HYPOTHESIS_PROFILE") == "big"
often = settings(
    max_examples=20_000 if BIG else 300, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)

EDGES_OF_SPEC = {
    ("pending", "queued"),
    ("pending", "failed"),
    ("pending", "cancelled"),
    ("queued", "running"),
    ("queued", "failed"),
    ("queued", "cancelled"),
    ("running", "completed"),
    ("running", "failed"),
    ("running", "cancelled"),
    ("running", "paused"),
    ("running", "queued"),
    ("paused", "queued"),
    ("paused", "failed"),
    ("paused", "cancelled"),
    ("failed", "queued"),
    ("cancelled", "queued"),
}

POLICIES = st.builds(
    RetryPolicy,
    max_losses=st.integers(0, 3),
    max_repeats=st.integers(1, 3),
    backoff_s=st.floats(0, 5),
    on_hang=st.sampled_from(["retry", "fail"]),
    preempted_keep_place=st.booleans(),
)
IDS = st.sampled_from(["1.1", "1.2", "3.1"]).map(CheckpointId)
SAVED = st.builds(Saved, checkpoint=IDS, step=st.none() | st.integers(0, 100), at=st.just(NOON))
RESUMED = st.builds(Resumption, checkpoint=st.none() | IDS, step=st.none() | st.integers(0, 100))
WHY = Reason(code="seen", message="somebody saw something")
NODES = Allocation(ranks=((NodeId("node-1"), 1),))
WHEN = {"at": st.just(NOON + timedelta(hours=1)), "by": st.sampled_from(["ann", "scheduler"])}
PLACES = {"queue_seq": st.integers(1000, 2000)}
OUTCOMES = st.builds(
    Outcome,
    ending=st.sampled_from(Ending),
    cause=st.none() | st.sampled_from(Cause),
    reason=st.just(Reason(code="seen", message="it ended")),
    progress=st.none() | st.just({"step": 3}),
    resumed=st.none() | RESUMED,
    saved=st.none() | SAVED,
    signature=st.none() | st.sampled_from("AB"),
    result=st.none() | st.just({"output_dir": "/o"}),
)
ENDS = st.builds(
    RunEnded,
    **WHEN,
    fence=st.integers(0, 6).map(Fence),
    outcome=OUTCOMES,
    end_of_line=st.none() | st.integers(1000, 2000),
)
STOPS = st.builds(
    AskStop,
    **WHEN,
    kind=st.sampled_from(StopKind),
    why=st.none() | st.just(WHY),
    fence=st.none() | st.integers(1, 6).map(Fence),
)
STARTS = (
    st.builds(ForceStart, **WHEN, **PLACES)
    | st.builds(Restart, **WHEN, **PLACES)
    | st.builds(Resume, **WHEN, **PLACES, checkpoint=st.none() | SAVED)
)
BY_HAND = STARTS | STOPS
EVENTS: st.SearchStrategy[Event] = (
    st.builds(Admit, **WHEN, allocation=st.just(NODES))
    | st.builds(Adopt, **WHEN, **PLACES)
    | st.builds(GiveUp, **WHEN, reason=st.just(Reason(code="stale", message="nobody vouched for it")))
    | st.builds(Recover, **WHEN, reason=st.just(WHY), hold=st.booleans())
    | ENDS
    | BY_HAND
)


@st.composite
def jobs(draw: st.DrawFn) -> Job:
    """A job that breaks no rule, in any status."""
    status = draw(st.sampled_from(Status))
    needs_a_run = status in (Status.RUNNING, Status.PAUSED, Status.COMPLETED)
    fence = draw(st.integers(1 if needs_a_run else 0, 5))
    num_ended = fence - 1 if status is Status.RUNNING else fence
    failures = draw(st.integers(0, num_ended))
    losses = draw(st.integers(0, num_ended - failures))
    stops = st.none() | st.sampled_from(StopKind)
    kind = draw(stops) if status is Status.RUNNING else None
    rests = status is Status.QUEUED and draw(st.booleans())
    job = a_job(
        status,
        spec=a_spec(max_failures=draw(st.integers(0, 3))),
        fence=Fence(fence),
        started_at=NOON if fence else None,
        version=draw(st.integers(1, 50)),
        failures=failures,
        losses=losses,
        preemptions=draw(st.integers(0, num_ended - failures - losses)),
        repeats=draw(st.integers(0, 2)),
        last_failure=draw(st.none() | st.sampled_from("AB")),
        origin=Origin(checkpoint=draw(st.none() | IDS), after=Fence(draw(st.integers(0, fence)))),
        saved=draw(st.none() | SAVED),
        held=status is Status.QUEUED and draw(st.booleans()),
        stop=Stop(kind=kind, by="ann", at=NOON) if kind else None,
        retry_at=NOON if rests else None,
    )
    assert violations([job], []) == []
    return job


@st.composite
def situations(draw: st.DrawFn) -> tuple[Job, Event]:
    """A job and what happens to it; of the ends of runs, most are of the newest run."""
    job, event = draw(jobs()), draw(EVENTS)
    if isinstance(event, RunEnded) and draw(st.integers(0, 3)):
        event = replace(event, fence=job.fence)
    return job, event


@often
@given(situations(), POLICIES)
def test_one_event_takes_at_most_one_edge_and_one_version(
    situation: tuple[Job, Event], policy: RetryPolicy
) -> None:
    """Every move is one the promise allows, recorded once; a mirror takes each version once."""
    job, event = situation
    try:
        after, actions = apply(job, event, policy)
    except NotAllowed:
        return
    if after == job:
        assert after is job
        assert all(isinstance(action, StopRun) for action in actions)
        return
    assert after.version == job.version + 1
    assert after.updated_at == event.at
    assert after.status == job.status or (job.status.value, after.status.value) in EDGES_OF_SPEC
    assert violations([after], []) == []
    line = record(job, after, event)
    assert (line.from_status, line.to_status, line.version) == (job.status, after.status, after.version)


@often
@given(situations())
def test_what_makes_a_job_what_it_is_never_changes(situation: tuple[Job, Event]) -> None:
    """An id or a spec that changes on the way makes another job of it."""
    job, event = situation
    try:
        after, _ = apply(job, event)
    except NotAllowed:
        return
    assert (after.id, after.spec, after.created_at, after.idempotency_key) == (
        job.id,
        job.spec,
        job.created_at,
        job.idempotency_key,
    )


@often
@given(jobs().filter(lambda job: job.status.is_terminal), EVENTS)
def test_the_end_is_final_unless_a_person_acts(job: Job, event: Event) -> None:
    """And what is completed stays completed even then."""
    try:
        after, _ = apply(job, event)
    except NotAllowed:
        return
    if isinstance(event, Recover):
        assert after.status is job.status
        return
    by_hand = isinstance(event, ForceStart | Resume | Restart)
    assert after is job or (by_hand and job.status is not Status.COMPLETED)


@often
@given(jobs(), ENDS)
def test_a_stale_fence_changes_nothing(job: Job, event: RunEnded) -> None:
    """DESIGN rule 2: the word of a replaced run, or of one that never was, counts nothing."""
    if event.fence != job.fence or job.status is not Status.RUNNING:
        assert apply(job, event) == (job, [])


@often
@given(jobs(), ENDS)
def test_the_end_of_the_newest_run_always_frees_its_nodes(job: Job, event: RunEnded) -> None:
    """However it ended: nodes held by nobody's processes are lost to everybody."""
    if job.status is Status.RUNNING:
        after, actions = apply(job, replace(event, fence=job.fence))
        assert after.status is not Status.RUNNING
        assert (after.allocation, after.stop, actions) == (None, None, [])


@often
@given(jobs(), BY_HAND)
def test_what_a_person_asks_twice_happens_once(job: Job, event: Event) -> None:
    """A second click, or an answer that got lost: never queued twice, never stopped twice."""
    try:
        once, _ = apply(job, event)
    except NotAllowed:
        return
    twice, actions = apply(once, event)
    assert twice is once
    assert all(isinstance(action, StopRun) for action in actions)


@often
@given(situations())
def test_a_fence_grows_only_with_a_start(situation: tuple[Job, Event]) -> None:
    """And then by one, with exactly one run to start."""
    job, event = situation
    try:
        after, actions = apply(job, event)
    except NotAllowed:
        return
    starts = [action for action in actions if isinstance(action, StartRun)]
    assert [(start.job_id, start.fence) for start in starts] == [(job.id, after.fence)] * len(starts)
    if isinstance(event, Recover):
        assert after.fence == job.fence, "a run that is found again is the same run"
        return
    assert after.fence == job.fence + len(starts)
    assert bool(starts) == (job.status is Status.QUEUED and after.status is Status.RUNNING)


@often
@given(situations(), POLICIES)
def test_only_a_person_moves_the_origin_and_it_moves_past_every_run(
    situation: tuple[Job, Event], policy: RetryPolicy
) -> None:
    """L8: a retry that goes on from a past that was left undoes what a person asked for."""
    job, event = situation
    try:
        after, actions = apply(job, event, policy)
    except NotAllowed:
        return
    if after.origin != job.origin:
        assert isinstance(event, ForceStart | Restart | Resume)
        assert after.origin.after == job.fence
    if isinstance(event, Restart) or (isinstance(event, Resume) and event.checkpoint):
        chosen = event.checkpoint.checkpoint if isinstance(event, Resume) and event.checkpoint else None
        assert after.origin == Origin(checkpoint=chosen, after=job.fence)
        assert (after.saved and after.saved.checkpoint) == chosen
    assert all(action.origin == after.origin for action in actions if isinstance(action, StartRun))


@often
@given(situations(), POLICIES)
def test_what_is_held_stays_held_until_a_person_lets_it_go_or_it_ends(
    situation: tuple[Job, Event], policy: RetryPolicy
) -> None:
    """And when the person does, it is not held any more."""
    job, event = situation
    try:
        after, _ = apply(job, event, policy)
    except NotAllowed:
        return
    if job.held and not after.held and after.status is not Status.RUNNING:
        assert isinstance(event, STARTED_BY_HAND) or after.status.is_terminal
    if isinstance(event, STARTED_BY_HAND):
        assert not after.held


STARTED_BY_HAND = (ForceStart, Restart, Resume)


@often
@given(situations(), POLICIES)
def test_each_attempt_is_told_when_it_begins_and_when_it_ends(
    situation: tuple[Job, Event], policy: RetryPolicy
) -> None:
    """A row that stays open says of a run that is gone that it goes on (P1)."""
    job, event = situation
    try:
        after, _ = apply(job, event, policy)
    except NotAllowed:
        return
    if after is job:
        return
    told = record(job, after, event).attempt
    begins, ends = after.fence > job.fence, job.status is Status.RUNNING is not after.status
    if begins:
        assert told == Attempt(fence=after.fence, allocation=NODES, started_at=event.at)
    if ends:
        assert told is not None
        assert (told.fence, told.ended_at) == (job.fence, event.at)
        assert told.reason is not None
        assert told.ending is not None
    assert bool(told) == (begins or ends or (isinstance(event, Recover) and after.status is Status.RUNNING))


@often
@given(situations(), POLICIES)
def test_who_is_charged_is_charged_once(situation: tuple[Job, Event], policy: RetryPolicy) -> None:
    """DESIGN rule 9: one run, one account at most; and nothing but the end of a run costs a try."""
    job, event = situation
    try:
        after, _ = apply(job, event, policy)
    except NotAllowed:
        return
    paid = [now - was for was, now in zip(accounts(job), accounts(after), strict=True)]
    if isinstance(event, RunEnded):
        assert sorted(paid) in ([0, 0, 0], [0, 0, 1])
    else:
        assert paid == [0, 0, 0] or accounts(after) == (0, 0, 0)


def accounts(job: Job) -> tuple[int, int, int]:
    return job.failures, job.losses, job.preemptions


def test_every_edge_of_the_promise_can_be_taken() -> None:
    """An edge that no event takes is a promise that nobody keeps."""
    ends = [
        RunEnded(
            at=NOON,
            by="scheduler",
            fence=Fence(1),
            outcome=Outcome(ending=ending, reason=Reason(code="seen", message="it ended")),
        )
        for ending in Ending
    ]
    stops = [AskStop(at=NOON, by="ann", kind=kind) for kind in StopKind]
    others = [
        Admit(at=NOON, by="scheduler", allocation=NODES),
        Adopt(at=NOON, by="scheduler", queue_seq=1),
        ForceStart(at=NOON, by="ann", queue_seq=1),
        Resume(at=NOON, by="ann", queue_seq=1),
        Restart(at=NOON, by="ann", queue_seq=1),
        GiveUp(at=NOON, by="ann", reason=Reason(code="stale", message="nobody vouched for it")),
    ]
    told = [Stop(kind=kind, by="ann", at=NOON) for kind in StopKind]
    starts = [*map(a_job, Status), *(a_job("running", stop=stop) for stop in told)]
    moves = (move(job, event) for job in starts for event in [*ends, *stops, *others])
    assert {(before, after) for before, after in moves if before != after} == EDGES_OF_SPEC


def move(job: Job, event: Event) -> tuple[str, str]:
    try:
        after, _ = apply(job, event)
    except NotAllowed:
        return job.status.value, job.status.value
    return job.status.value, after.status.value
