"""Who holds which node, and what is left of it."""

from __future__ import annotations

import pytest

from scheduler.core.model import Allocation, NodeId
from scheduler.core.node_usage import Use, cpu_use, gpu_use, holdings
from scheduler.testing import a_job, a_node, a_spec

ONE, TWO = NodeId("node-1"), NodeId("node-2")


def running(*ranks: tuple[NodeId, int], cpus: float = 1.0, gpus: float = 0.0):
    spec = a_spec(ranks=sum(count for _, count in ranks), cpus=cpus, gpus=gpus)
    return a_job("running", spec=spec, allocation=Allocation(ranks=ranks))


def test_a_gang_holds_on_each_node_what_its_ranks_there_need() -> None:
    """Not what the whole gang needs."""
    gang = running((ONE, 3), (TWO, 1), cpus=2.0, gpus=0.5)
    other = running((TWO, 1))
    held = holdings([gang, other])
    assert [(one.job.id, one.ranks, one.cpus, one.gpus) for one in held[ONE]] == [(gang.id, 3, 6.0, 1.5)]
    assert [(one.job.id, one.ranks) for one in held[TWO]] == [(gang.id, 1), (other.id, 1)]


def test_a_node_named_twice_in_an_allocation_is_one_holding() -> None:
    """Ranks may lie on a node, on another one, and on the first again."""
    held = holdings([running((ONE, 1), (TWO, 1), (ONE, 2))])
    assert [one.ranks for one in held[ONE]] == [3]


def test_a_job_without_an_allocation_holds_nothing() -> None:
    """A row may say `running` of a run that was never started."""
    assert holdings([a_job("running", allocation=None)]) == {}


@pytest.mark.parametrize(
    ("available", "use"),
    [
        (None, Use(held=2, free=6)),
        (6.0, Use(held=2, free=6)),
        (8.0, Use(held=2, free=6)),  # Ray has not seen the run yet
        (5.0, Use(held=2, free=5, other=1)),
    ],
)
def test_held_free_and_other_add_up_to_what_the_node_has(available: float | None, use: Use) -> None:
    """What is held by our books is not free, whatever Ray says meanwhile."""
    node = a_node("node-1", cpus=8.0, available_cpus=available)
    assert cpu_use([node], holdings([running((ONE, 2))])) == use


def test_a_run_that_is_larger_than_its_node_leaves_nothing_free_and_nothing_negative() -> None:
    """The node came back smaller than it was."""
    use = gpu_use([a_node("node-1", gpus=1.0)], holdings([running((ONE, 2), gpus=1.0)]))
    assert use == Use(held=1, free=0, other=0)
