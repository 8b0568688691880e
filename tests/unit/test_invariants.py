"""The checker is checked: each forged state must be named, and a healthy registry must not be."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from scheduler.core.invariants import violations
from scheduler.core.model import Allocation, Fence, Gang, Job, JobSpec, NodeId, Origin, Status, Stop, StopKind
from scheduler.testing.builders import a_job, a_node, a_spec
from scheduler.testing.clock import NOON

STOP = Stop(kind=StopKind.CANCEL, by="ann", at=NOON)
NODES = [a_node("node-1", cpus=8, gpus=2)]


def on(node: str, ranks: int) -> Allocation:
    return Allocation(ranks=((NodeId(node), ranks),))


def held(ranks: int = 1, cpus: float = 1.0, gpus: float = 0.0) -> Job:
    return a_job("running", spec=a_spec(ranks=ranks, cpus=cpus, gpus=gpus))


def test_a_healthy_registry_has_no_violations() -> None:
    """A checker that cries wolf is turned off."""
    jobs = [a_job(status) for status in Status] + [held(ranks=2, gpus=0.5), held(cpus=4, gpus=1)]
    assert violations(jobs, NODES) == []


@pytest.mark.parametrize(
    ("words", "status", "forged"),
    [
        ("allocation exactly while it runs", "running", {"allocation": None}),
        ("allocation exactly while it runs", "queued", {"allocation": on("node-1", 1)}),
        ("allocation exactly while it runs", "completed", {"allocation": on("node-1", 1)}),
        ("gang whole", "running", {"allocation": on("node-1", 2)}),
        ("gang whole", "running", {"allocation": Allocation(ranks=())}),
        (
            "at least one rank",
            "running",
            {"allocation": Allocation(ranks=((NodeId("a"), 0), (NodeId("node-1"), 1)))},
        ),
        ("place in the queue", "queued", {"queue_seq": None}),
        ("finished_at", "failed", {"finished_at": None}),
        ("finished_at", "queued", {"finished_at": NOON}),
        ("finished_at", "paused", {"finished_at": NOON}),
        ("told to stop only while it runs", "queued", {"stop": STOP}),
        ("told to stop only while it runs", "cancelled", {"stop": STOP}),
        ("pause before a retry", "running", {"retry_at": NOON}),
        ("had a run", "running", {"fence": Fence(0), "started_at": None}),
        ("had a run", "completed", {"fence": Fence(0), "started_at": None}),
        ("negative fence", "queued", {"fence": Fence(-1)}),
        ("started_at", "running", {"started_at": None}),
        ("started_at", "queued", {"started_at": NOON}),
        ("version of 1", "queued", {"version": 0}),
        ("negative count", "queued", {"losses": -1}),
        ("negative count", "queued", {"preemptions": -1}),
        ("negative count", "queued", {"repeats": -1}),
        ("more failures, losses and preemptions than runs", "queued", {"failures": 1}),
        ("more failures, losses and preemptions than runs", "running", {"losses": 1}),
        ("more failures, losses and preemptions than runs", "running", {"preemptions": 1}),
        ("held only in the queue", "running", {"held": True}),
        ("held only in the queue", "paused", {"held": True}),
        ("begin after a run that is still to come", "queued", {"origin": Origin(after=Fence(1))}),
    ],
)
def test_a_forged_job_is_named(words: str, status: str, forged: dict[str, Any]) -> None:
    """DESIGN: what was wrong and with which job."""
    job = replace(a_job(status), **forged)
    found = violations([job], NODES)
    assert len(found) >= 1
    assert any(words in line and job.id in line for line in found), found


@pytest.mark.parametrize(("ranks", "is_whole"), [(1, False), (2, True), (3, True), (4, True), (5, False)])
def test_an_elastic_gang_is_whole_between_its_fewest_and_its_most(ranks: int, is_whole: bool) -> None:
    gang = Gang(min_ranks=2, max_ranks=4)
    job = a_job("running", spec=JobSpec(loop="torch_ddp", resources=gang), allocation=on("node-1", ranks))
    assert any("gang whole" in line for line in violations([job], NODES)) != is_whole


def test_two_queued_jobs_cannot_hold_one_place() -> None:
    """R2: the order of the line would depend on chance."""
    assert violations([a_job(queue_seq=5), a_job(queue_seq=5)], NODES) == [
        "place 5 of the queue is held by 2 queued jobs"
    ]
    assert violations([a_job(queue_seq=5), a_job("running", queue_seq=5)], NODES) == []


def test_a_job_is_in_the_registry_once() -> None:
    """Two copies would be started twice."""
    job = a_job("completed")
    assert violations([job, job], NODES) == [f"job {job.id} is in the registry 2 times"]


@pytest.mark.parametrize(
    ("words", "jobs"),
    [
        ("9 of 8 CPUs", [held(cpus=5), held(cpus=4)]),
        ("3 of 2 GPUs", [held(ranks=2, gpus=1), held(gpus=1)]),
        ("2.1 of 2 GPUs", [held(gpus=2), held(gpus=0.1)]),
        ("3 ranks that take 0.6 GPU or more share 2 GPUs", [held(ranks=3, gpus=0.6)]),
        ("5 ranks that take 0.4 GPU or more share 2 GPUs", [held(ranks=5, gpus=0.4)]),
    ],
)
def test_an_oversubscribed_node_is_named(words: str, jobs: list[Job]) -> None:
    """Two ranks on one device's memory die together, or hang."""
    found = violations(jobs, NODES)
    assert any(words in line and "node-1" in line for line in found), found


def test_fractions_share_only_what_whole_ranks_leave() -> None:
    """Three GPUs, one of them taken whole: three ranks of 0.6 cannot lie on two devices."""
    found = violations([held(gpus=1), held(ranks=3, gpus=0.6)], [a_node("node-1", gpus=3)])
    assert found == [
        "node node-1 is oversubscribed: 3 ranks that take 0.6 GPU or more share 2 GPUs",
    ]


def test_fractions_that_fill_their_devices_are_fine() -> None:
    """The crowd rule must not complain about a legal packing."""
    assert violations([held(ranks=4, gpus=0.5)], NODES) == []
    assert violations([held(gpus=1), held(gpus=0.7), held(gpus=0.3)], NODES) == []
    assert violations([held(ranks=6, gpus=0.3333)], NODES) == []


def test_a_run_on_a_node_that_has_gone_is_no_violation() -> None:
    """Its end is on its way."""
    assert violations([held(ranks=100)], []) == []
