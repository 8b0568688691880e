"""Registry against runs, and against rows of the database."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.core.model import Fence, JobId, Status
from scheduler.core.reconcile import (
    Decision,
    Differences,
    Policy,
    Row,
    Run,
    Runs,
    Stub,
    compare_rows,
    compare_runs,
    judge,
    oldest_first,
)
from scheduler.testing.builders import a_job
from scheduler.testing.clock import NOON

runs = st.frozensets(st.tuples(st.sampled_from("abcd").map(JobId), st.integers(1, 3).map(Fence)))


def run(job: str, fence: int) -> Run:
    return JobId(job), Fence(fence)


def test_what_is_wanted_and_alive_is_attached() -> None:
    """R1: runs that outlived the scheduler go on untouched."""
    assert compare_runs({JobId("a"): Fence(2)}, {run("a", 2)}) == Runs(attach=(run("a", 2),))


def test_what_is_wanted_and_gone_is_lost() -> None:
    """P1: otherwise the job stays `running` for days."""
    assert compare_runs({JobId("a"): Fence(2)}, set()) == Runs(lost=(run("a", 2),))


def test_a_run_that_was_replaced_is_an_orphan() -> None:
    """The job is wanted, but with a newer fence: the old run must not go on beside it."""
    plan = compare_runs({JobId("a"): Fence(2)}, {run("a", 1), run("b", 1)})
    assert plan == Runs(lost=(run("a", 2),), orphans=(run("a", 1), run("b", 1)))


@given(
    wanted=st.dictionaries(st.sampled_from("abcd").map(JobId), st.integers(1, 3).map(Fence)),
    live=runs,
    attached=runs,
)
def test_once_carried_out_there_is_nothing_left_to_do(
    wanted: dict[JobId, Fence], live: frozenset[Run], attached: frozenset[Run]
) -> None:
    """R7: level-triggered; run twice, the second pass does nothing."""
    plan = compare_runs(wanted, live, attached)
    live_after = live - set(plan.orphans)
    wanted_after = {job: fence for job, fence in wanted.items() if (job, fence) not in plan.lost}
    assert compare_runs(wanted_after, live_after, attached | set(plan.attach)).is_empty


@given(wanted=st.dictionaries(st.sampled_from("abcd").map(JobId), st.integers(1, 3).map(Fence)), live=runs)
def test_every_run_that_is_wanted_or_live_is_accounted_for_once(
    wanted: dict[JobId, Fence], live: frozenset[Run]
) -> None:
    """A run in no list would be forgotten, one in two lists attached and stopped."""
    plan = compare_runs(wanted, live)
    parts = [*plan.attach, *plan.lost, *plan.orphans]
    assert sorted(parts) == sorted(set(wanted.items()) | live)


# Rows

LIMIT_S = 600.0


def a_row(status: str, **fields: Any) -> Row:
    """A row that no scheduler has written, touched just now."""
    likely: dict[str, Any] = {"version": 0, "name": "job", "spec": {"loop": "sft"}}
    times = {"created_at": NOON, "updated_at": NOON}
    return Row(**({"id": JobId("a"), "status": Status(status)} | likely | times | fields))


def our_row(status: str, **fields: Any) -> Row:
    """A row with the scheduler's own copy."""
    job = a_job(status, id=JobId("a"), version=4)
    return a_row(status, version=4, job=job, **fields)


def decide(row: Row, *, age_s: float = 0.0, vouched_s: float | None = None, **given: Any) -> Decision:
    """*age_s*: since the row was written; *vouched_s*: since a scheduler said that it was alive."""
    now = row.updated_at + timedelta(seconds=age_s)
    vouched_at = None if vouched_s is None else now - timedelta(seconds=vouched_s)
    known: dict[str, Any] = {"live": frozenset(), "stale_after_s": LIMIT_S, "policy": Policy.START}
    return judge(row, vouched_at=vouched_at, now=now, **(known | given)).decision


ALIVE = {"live": frozenset({(JobId("a"), Fence(1))})}

VERDICTS: dict[str, tuple[Decision, Decision]] = {
    "R4: a front end's young row is adopted": (Decision.ADOPT, decide(a_row("pending"), age_s=599)),
    "R2: an old one is stale": (Decision.STALE, decide(a_row("pending"), age_s=600)),
    "R2: what another system queued is adopted while young": (
        Decision.ADOPT,
        decide(a_row("queued"), age_s=5),
    ),
    "P1: a row made `running` by hand is given time": (Decision.WAIT, decide(a_row("running"), age_s=599)),
    "P1: and not more": (Decision.STALE, decide(a_row("running"), age_s=600)),
    "no scheduler vouches for what it did not write": (
        Decision.STALE,
        decide(a_row("queued"), age_s=600, vouched_s=1),
    ),
    "R2: hours in the line under a living scheduler are no age": (
        Decision.RECOVER,
        decide(our_row("queued"), age_s=9000, vouched_s=599),
    ),
    "R2: but since its death they are": (
        Decision.STALE,
        decide(our_row("queued"), age_s=9000, vouched_s=600),
    ),
    "a live run goes on, however old its row": (
        Decision.RECOVER,
        decide(our_row("running"), age_s=9000, vouched_s=9000, **ALIVE),
    ),
    "a run that is gone is seen to its end while young": (Decision.RECOVER, decide(our_row("running"))),
    "and stale when old": (Decision.STALE, decide(our_row("running"), age_s=600)),
    "a paused job waits however long": (Decision.RECOVER, decide(our_row("paused"), age_s=1e6)),
    "what was paused by nobody is left": (Decision.WAIT, decide(a_row("paused"), age_s=1e6)),
    "R10: held": (Decision.HOLD, decide(our_row("queued"), policy=Policy.HOLD)),
    "R10: failed": (Decision.FAIL, decide(our_row("queued"), policy=Policy.FAIL)),
    "R10: a live run is neither": (
        Decision.RECOVER,
        decide(our_row("running"), policy=Policy.FAIL, **ALIVE),
    ),
    "R10: nor is a front end's new row": (Decision.ADOPT, decide(a_row("pending"), policy=Policy.FAIL)),
    "our copy beats what somebody wrote over the row": (
        Decision.RECOVER,
        decide(replace(our_row("completed"), status=Status.RUNNING), age_s=1e6),
    ),
}


@pytest.mark.parametrize("case", VERDICTS)
def test_what_becomes_of_a_row_that_only_the_database_knows(case: str) -> None:
    """Each case names the promise that it is."""
    expected, decided = VERDICTS[case]
    assert decided is expected


def test_a_verdict_says_what_was_seen_and_why() -> None:
    """Repairs are shown to people: the numbers of the decision are in its words."""
    now = NOON + timedelta(seconds=700)
    verdict = judge(
        a_row("running"), live=frozenset(), vouched_at=None, now=now, stale_after_s=600, policy=Policy.START
    )
    assert verdict.in_reality == "not in the registry; no run of it is alive"
    assert verdict.why == "last heartbeat 700 s ago; the limit is 600 s"


QUEUED, RUNNING = Status.QUEUED, Status.RUNNING
A = JobId("a")


def test_a_row_that_agrees_is_left_alone() -> None:
    """R7: otherwise each pass would write every row."""
    assert compare_rows({A: (QUEUED, 2)}, [Stub(id=A, status=QUEUED, version=2)], set()) == Differences()


@pytest.mark.parametrize("status, version", [(RUNNING, 2), (QUEUED, 1), (QUEUED, 3)])
def test_a_row_with_another_status_or_version_differs(status: Status, version: int) -> None:
    """P1: a row that was changed by hand is put right."""
    found = compare_rows({A: (QUEUED, 2)}, [Stub(id=A, status=status, version=version)], set())
    assert found == Differences(differing=(A,))


def test_what_is_still_in_the_outbox_is_no_difference() -> None:
    """The relay brings it; a repair would be a lie."""
    assert compare_rows({A: (QUEUED, 2)}, [Stub(id=A, status=QUEUED, version=1)], {A}) == Differences()


def test_an_active_job_without_an_active_row_is_missing_and_a_finished_one_is_not() -> None:
    """A row that was deleted, or set to `completed` by hand, comes back."""
    assert compare_rows({A: (RUNNING, 2)}, [], set()) == Differences(missing=(A,))
    assert compare_rows({A: (Status.FAILED, 2)}, [], set()) == Differences()


def test_rows_that_nobody_knows_are_unknown() -> None:
    """P2, P3: they are looked at, whatever their status."""
    assert compare_rows({}, [Stub(id=A, status=QUEUED, version=2)], set()) == Differences(unknown=(A,))


def test_rows_enter_the_line_in_their_old_order() -> None:
    """R2: first those with a place, then by when they came."""
    hours = [NOON + timedelta(hours=n) for n in range(4)]
    rows = [
        a_row("pending", id=JobId("new"), created_at=hours[3]),
        a_row("pending", id=JobId("older"), created_at=hours[2]),
        a_row("queued", id=JobId("second"), created_at=hours[0], job=a_job(queue_seq=8)),
        a_row("queued", id=JobId("first"), created_at=hours[1], job=a_job(queue_seq=7)),
    ]
    assert [row.id for row in oldest_first(rows)] == ["first", "second", "older", "new"]
