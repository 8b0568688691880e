"""What is free, and for whom it is kept."""

from __future__ import annotations

from scheduler.core.bin_packing import UNIT, Free, FreeSpace, Need
from scheduler.core.contender import Contender, Rules, Scene
from scheduler.core.model import Allocation, NodeId


class Room:
    """Free, and kept for nobody: less what others are being stopped for already."""

    def __init__(self, scene: Scene, rules: Rules) -> None:
        self.cluster = scene.cluster
        self.space = FreeSpace(scene.free)
        self._one_node = rules.one_node
        self._failed: set[tuple[Need, frozenset[NodeId] | None]] = set()
        for job in scene.waiting:
            if job.kept:
                self.take(job.need, job.kept)

    def place(self, job: Contender) -> Allocation | None:
        """Take room for the whole gang, if there is."""
        key = job.need, job.only
        if key in self._failed:  # room only shrinks, unless somebody is preempted: see `give`
            return None
        space = self.space if job.only is None else self._of(job.only)
        alone = self._one_node and self.cluster.on_one(job.need) >= job.need.fewest
        allocation = space.place_on_one(job.need) if alone else space.place(job.need)
        if allocation is None:
            self._failed.add(key)
        elif job.only is not None:
            self.take(job.need, allocation)
        return allocation

    def take(self, need: Need, allocation: Allocation) -> None:
        for node, ranks in allocation.ranks:
            if node in self.space.free:
                self.space.take(node, need, ranks)

    def give(self, need: Need, allocation: Allocation) -> None:
        """A run is preempted: what it holds is room again."""
        for node, ranks in allocation.ranks:
            if node in self.space.free:
                self.space.put(node, freed(self.space.free[node], need, ranks))
        self._failed.clear()

    def _of(self, only: frozenset[NodeId]) -> FreeSpace:
        return FreeSpace({node: free for node, free in self.space.free.items() if node in only})


def freed(free: Free, need: Need, ranks: int) -> Free:
    """What is free once *ranks* have gone.  Parts of GPUs are not put together: that is known once they are free."""
    cpus, (whole, parts) = free
    if need.part:
        parts = tuple(sorted((*parts, *[need.part] * ranks)))
    return cpus + ranks * need.cpus, (whole + ranks * need.whole, parts)


__all__ = ["UNIT", "Room", "freed"]
