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
    Resume,
    RetryPolicy,
    RunEnded,
    StartRun,
    StopRun,
    apply,
    record,
)
from scheduler.core.model import (
    Allocation,
    Cause,
    Ending,
    Fence,
    Job,
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

POLICIES = st.builds(RetryPolicy, max_losses=st.integers(0, 3), backoff_s=st.floats(0, 5))
WHEN = {"at": st.just(NOON + timedelta(hours=1)), "by": st.sampled_from(["ann", "scheduler"])}
PLACES = {"queue_seq": st.integers(1000, 2000)}
OUTCOMES = st.builds(
    Outcome,
    ending=st.sampled_from(Ending),
    cause=st.none() | st.sampled_from(Cause),
    reason=st.just(Reason(code="seen", message="it ended")),
    progress=st.none() | st.just({"step": 3}),
    result=st.none() | st.just({"output_dir": "/o"}),
)
ENDS = st.builds(RunEnded, **WHEN, fence=st.integers(0, 6).map(Fence), outcome=OUTCOMES)
STOPS = st.builds(AskStop, **WHEN, kind=st.sampled_from(StopKind))
BY_HAND = st.builds(ForceStart, **WHEN, **PLACES) | st.builds(Resume, **WHEN, **PLACES) | STOPS
EVENTS: st.SearchStrategy[Event] = (
    st.builds(Admit, **WHEN, allocation=st.just(Allocation(ranks=((NodeId("node-1"), 1),))))
    | st.builds(Adopt, **WHEN, **PLACES)
    | st.builds(GiveUp, **WHEN, reason=st.just(Reason(code="stale", message="nobody vouched for it")))
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
        losses=draw(st.integers(0, num_ended - failures)),
        restarts=draw(st.integers(0, 2)),
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
    by_hand = isinstance(event, ForceStart | Resume)
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
    assert after.fence == job.fence + len(starts)
    assert [(start.job_id, start.fence) for start in starts] == [(job.id, after.fence)] * len(starts)
    assert bool(starts) == (job.status is Status.QUEUED and after.status is Status.RUNNING)


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
        Admit(at=NOON, by="scheduler", allocation=Allocation(ranks=((NodeId("node-1"), 1),))),
        Adopt(at=NOON, by="scheduler", queue_seq=1),
        ForceStart(at=NOON, by="ann", queue_seq=1),
        Resume(at=NOON, by="ann", queue_seq=1),
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
