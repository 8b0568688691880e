"""Wanted against live."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from scheduler.core.model import Fence, JobId
from scheduler.core.reconcile import Plan, Run, reconcile

runs = st.frozensets(st.tuples(st.sampled_from("abcd").map(JobId), st.integers(1, 3).map(Fence)))


def run(job: str, fence: int) -> Run:
    return JobId(job), Fence(fence)


def test_what_is_wanted_and_alive_is_attached() -> None:
    """R1: runs that outlived the scheduler go on untouched."""
    assert reconcile({JobId("a"): Fence(2)}, {run("a", 2)}) == Plan(attach=(run("a", 2),))


def test_what_is_wanted_and_gone_is_lost() -> None:
    """P1: otherwise the job stays `running` for days."""
    assert reconcile({JobId("a"): Fence(2)}, set()) == Plan(lost=(run("a", 2),))


def test_a_run_that_was_replaced_is_an_orphan() -> None:
    """The job is wanted, but with a newer fence: the old run must not go on beside it."""
    plan = reconcile({JobId("a"): Fence(2)}, {run("a", 1), run("b", 1)})
    assert plan == Plan(lost=(run("a", 2),), orphans=(run("a", 1), run("b", 1)))


@given(
    wanted=st.dictionaries(st.sampled_from("abcd").map(JobId), st.integers(1, 3).map(Fence)),
    live=runs,
    attached=runs,
)
def test_once_carried_out_there_is_nothing_left_to_do(
    wanted: dict[JobId, Fence], live: frozenset[Run], attached: frozenset[Run]
) -> None:
    """R7: level-triggered; run twice, the second pass does nothing."""
    plan = reconcile(wanted, live, attached)
    live_after = live - set(plan.orphans)
    wanted_after = {job: fence for job, fence in wanted.items() if (job, fence) not in plan.lost}
    assert reconcile(wanted_after, live_after, attached | set(plan.attach)).is_empty


@given(wanted=st.dictionaries(st.sampled_from("abcd").map(JobId), st.integers(1, 3).map(Fence)), live=runs)
def test_every_run_that_is_wanted_or_live_is_accounted_for_once(
    wanted: dict[JobId, Fence], live: frozenset[Run]
) -> None:
    """A run in no list would be forgotten, one in two lists attached and stopped."""
    plan = reconcile(wanted, live)
    parts = [*plan.attach, *plan.lost, *plan.orphans]
    assert sorted(parts) == sorted(set(wanted.items()) | live)
