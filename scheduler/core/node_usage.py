"""Who holds which node: the allocations of the running jobs, seen from the nodes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from scheduler.core.model import Job, Node, NodeId


@dataclass(frozen=True, slots=True)
class NodeShare:
    """What one running job has of one node."""

    job: Job
    ranks: int

    @property
    def cpus(self) -> float:
        return self.ranks * self.job.spec.resources.cpus_per_rank

    @property
    def gpus(self) -> float:
        return self.ranks * self.job.spec.resources.gpus_per_rank


@dataclass(frozen=True, slots=True)
class Use:
    """Of one kind of thing, on a node or on all together.  The three add up to what there is."""

    held: float = 0.0
    free: float = 0.0
    other: float = 0.0
    """Held by something on this Ray that is no job of ours, or by a run that is just ending."""


def holdings(running: Iterable[Job]) -> Mapping[NodeId, list[NodeShare]]:
    """By node, in the order of the jobs.  Nodes that nobody holds are left out."""
    found: defaultdict[NodeId, list[NodeShare]] = defaultdict(list)
    for job in running:
        ranks: defaultdict[NodeId, int] = defaultdict(int)
        for node, count in job.allocation.ranks if job.allocation else ():
            ranks[node] += count
        for node, count in ranks.items():
            found[node].append(NodeShare(job, count))
    return found


def cpu_use(nodes: Iterable[Node], held: Mapping[NodeId, Sequence[NodeShare]]) -> Use:
    return _sum(cpus_of(node, held.get(node.id, ())) for node in nodes)


def gpu_use(nodes: Iterable[Node], held: Mapping[NodeId, Sequence[NodeShare]]) -> Use:
    return _sum(gpus_of(node, held.get(node.id, ())) for node in nodes)


def cpus_of(node: Node, held: Iterable[NodeShare]) -> Use:
    return _use(node.cpus, node.available_cpus, sum(one.cpus for one in held))


def gpus_of(node: Node, held: Iterable[NodeShare]) -> Use:
    return _use(node.gpus, node.available_gpus, sum(one.gpus for one in held))


def _use(total: float, available: float | None, ours: float) -> Use:
    """*available* is what Ray says.  It lags: what is held by our books is not free.  Where it is not known, our
    books are all there is."""
    left = max(0.0, total - ours)
    free = left if available is None else min(left, available)
    return Use(held=total - left, free=free, other=left - free)


def _sum(uses: Iterable[Use]) -> Use:
    found = list(uses)
    return Use(
        held=sum(use.held for use in found),
        free=sum(use.free for use in found),
        other=sum(use.other for use in found),
    )
