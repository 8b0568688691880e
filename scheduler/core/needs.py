"""The cluster in outline: what it has in all, which gangs could ever start on it, and how large each of them is."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from scheduler.core import node_labels
from scheduler.core.bin_packing import UNIT, Free, FreeSpace, Need, gpu_units, open_nodes, total
from scheduler.core.model import Allocation, Gang, Job, Node, NodeId

MOST_AVOIDED = 16


@lru_cache(maxsize=16_384)
def shape(gang: Gang) -> Need:
    """One for equal gangs, so that what was found for one holds for all of them."""
    return Need(gang)


def avoided(jobs: Iterable[Job]) -> bool:
    """Whether jobs keep off the nodes on which they were lost: not when that is so many nodes that these are hardly to
    blame, as after an outage of the whole cluster."""
    return len({job.avoids for job in jobs if job.avoids}) <= MOST_AVOIDED


class Outline:
    """What nodes have, with nothing on them.  Made once for the same nodes: it remembers what was asked."""

    def __init__(self, nodes: tuple[Node, ...]) -> None:
        self.nodes, self._open = nodes, open_nodes(nodes)
        self.totals: dict[NodeId, Free] = {node.id: total(node) for node in self._open}
        self.kinds = set(self.totals.values())
        gpus = sum(gpu_units(devices) for _, devices in self.totals.values()) / UNIT
        cpus = sum(cpus for cpus, _ in self.totals.values()) / UNIT
        self.unit = "GPU" if gpus else "CPU"
        self.size = gpus or cpus
        """What is shared: its GPUs, or its CPUs where it has none."""
        self._gpus_per_cpu = gpus / cpus if gpus and cpus else 1.0
        self._empty: FreeSpace | None = None
        self._with: dict[str, frozenset[NodeId]] = {}
        self._without: dict[tuple[str, tuple[NodeId, ...]], frozenset[NodeId]] = {}
        self._needs: dict[tuple[Gang, tuple[NodeId, ...]], Need] = {}
        self._on_one: dict[Need, int] = {}
        self._in_all: dict[Need, int] = {}

    def need_of(self, gang: Gang, avoids: tuple[NodeId, ...] = ()) -> Need:
        """Of *gang* on these nodes: one for equal ones, with the nodes that have the labels it asks for, but not those
        that it *avoids*, as long as the others can hold it."""
        if not gang.on and not avoids:
            return shape(gang)
        key = gang, avoids
        if key not in self._needs:
            self._needs[key] = self._avoiding(gang, avoids) if avoids else Need(gang, self._matching(gang))
        return self._needs[key]

    def _avoiding(self, gang: Gang, avoids: tuple[NodeId, ...]) -> Need:
        usual = self.need_of(gang)
        key = gang.where, avoids
        if key not in self._without:
            there = self.totals.keys() if usual.only is None else usual.only
            self._without[key] = frozenset(there - set(avoids))
        others = Need(gang, self._without[key], is_shy=True)
        return others if self.in_all(others) >= gang.fewest else usual

    def size_of(self, gang: Gang, ranks: int) -> float:
        """GPUs that so many ranks hold; one that asks for none is priced by its part of the CPUs."""
        if gang.gpus_per_rank and self.unit == "GPU":
            return ranks * gang.gpus_per_rank
        return ranks * gang.cpus_per_rank * self._gpus_per_cpu

    def on_one(self, need: Need) -> int:
        """Ranks that the best node could hold with nothing else on it."""
        if need not in self._on_one:
            kinds = (
                self.kinds if need.only is None else {self.totals[node] for node in self._there(need.only)}
            )
            self._on_one[need] = max((need.on(kind) for kind in kinds), default=0)
        return self._on_one[need]

    def in_all(self, need: Need) -> int:
        if need not in self._in_all:
            self._empty = self._empty or FreeSpace(self.totals)
            self._in_all[need] = self._empty.within(need.only).capacity(need)
        return self._in_all[need]

    def _matching(self, gang: Gang) -> frozenset[NodeId]:
        if gang.where not in self._with:
            found = (node.id for node in self._open if node_labels.matches(gang, node))
            self._with[gang.where] = frozenset(found)
        return self._with[gang.where]

    def _there(self, only: frozenset[NodeId]) -> list[NodeId]:
        return [node for node in only if node in self.totals]


def num_ranks(allocation: Allocation) -> int:
    return sum(ranks for _, ranks in allocation.ranks)
