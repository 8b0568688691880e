"""What is free on the nodes, and the search for room: whole-number arithmetic, no policy."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Mapping

from scheduler.core.model import Allocation, Gang, Node, NodeId, Snapshot

UNIT = 10_000
"""Ray counts resources in ten-thousandths; so do we, in whole numbers."""

Devices = tuple[int, tuple[int, ...]]
"""The GPUs of one node: how many are wholly free, and what is left of each shared one, ascending."""
Free = tuple[int, Devices]
"""What is free on one node: CPU units, GPUs."""
NO_GPUS: Devices = (0, ())


class Need:
    """A gang in whole numbers, and where it may be.  Compared by identity: one for each shape in a pass."""

    __slots__ = ("cpus", "fewest", "gang", "is_shy", "most", "only", "part", "whole")

    def __init__(self, gang: Gang, only: frozenset[NodeId] | None = None, *, is_shy: bool = False) -> None:
        gpus = max(1, units(gang.gpus_per_rank)) if gang.gpus_per_rank else 0
        self.gang, self.fewest, self.most = gang, gang.fewest, gang.most
        self.only, self.is_shy = only, is_shy
        """Nodes on which it may start; None: on all.  Whether those on which it was lost are not among them."""
        self.cpus = max(1, units(gang.cpus_per_rank))
        self.whole, self.part = divmod(gpus, UNIT)

    def __str__(self) -> str:
        return f"{self.gang}, not where it was lost" if self.is_shy else str(self.gang)

    def may_be_on(self, node: NodeId) -> bool:
        return self.only is None or node in self.only

    def on_devices(self, devices: Devices) -> int:
        """Ranks that the GPUs of one node can carry; a fraction must fit on a single GPU."""
        if self.whole:
            return devices[0] // self.whole
        if self.part:
            return devices[0] * (UNIT // self.part) + sum(left // self.part for left in devices[1])
        return self.most

    def on(self, free: Free) -> int:
        return min(self.most, free[0] // self.cpus, self.on_devices(free[1]))

    def off(self, free: Free, ranks: int) -> Free:
        """What is left once *ranks* are taken off.  What is not there is taken as far as it goes: the
        freest GPUs first, because those are the ones that a kept place waits for."""
        cpus, devices = max(0, free[0] - ranks * self.cpus), free[1]
        if self.whole:
            return cpus, _without_whole(devices, ranks * self.whole)
        if self.part:
            return cpus, _without_parts(devices, self.part, ranks)
        return cpus, devices


class FreeSpace:
    """Nodes sorted by what is free on them: one shelf for each state of the GPUs, by CPUs within it."""

    def __init__(self, free: Mapping[NodeId, Free], whole: FreeSpace | None = None) -> None:
        self.free = dict(free)
        self._whole = whole
        self._parts: dict[frozenset[NodeId], FreeSpace] = {}
        self._shelves: dict[Devices, list[tuple[int, NodeId]]] = {}
        for node, (cpus, devices) in free.items():
            if cpus:  # every rank needs some: without CPUs a node can hold nothing
                self._shelves.setdefault(devices, []).append((cpus, node))
        for shelf in self._shelves.values():
            shelf.sort()
        self._order = sorted((gpu_units(devices), devices) for devices in self._shelves)

    def copy(self) -> FreeSpace:
        other = FreeSpace({})
        other.free, other._order = dict(self.free), list(self._order)
        other._shelves = {devices: list(shelf) for devices, shelf in self._shelves.items()}
        return other

    def within(self, only: frozenset[NodeId] | None) -> FreeSpace:
        """The same, of *only* these nodes: what is taken in one is taken in the other."""
        if only is None:
            return self
        if only not in self._parts:
            free = {node: self.free[node] for node in only if node in self.free}
            self._parts[only] = FreeSpace(free, self)
        return self._parts[only]

    def capacity(self, need: Need) -> int:
        """How many ranks fit, over all nodes (not counted beyond what one gang can use on each node)."""
        ranks = 0
        for devices, shelf in self._shelves.items():
            most = min(need.most, need.on_devices(devices))
            if most and shelf[0][0] >= most * need.cpus:
                ranks += most * len(shelf)
            elif most:
                ranks += sum(min(most, cpus // need.cpus) for cpus, _ in shelf)
        return ranks

    def place(self, need: Need, at_most: int | None = None) -> Allocation | None:
        """Take room for the whole gang: on one node if any can hold it, else on as few as possible.

        An elastic gang gets as many ranks as there is room for, but not more than *at_most*.  Among equals
        the node with the least left over (GPUs, then CPUs), then the smallest id.
        """
        most = need.most if at_most is None else at_most
        if on_one := self._find(need, most, 1):
            self.take(on_one[0], need, most)
            return Allocation(ranks=((on_one[0], most),))
        ranks = min(most, self.capacity(need))
        if ranks < need.fewest:
            return None
        return Allocation(ranks=tuple(self._spread(need, ranks)))

    def place_on_one(self, need: Need) -> Allocation | None:
        """As `place`, but on one node or not at all; an elastic gang gets the most that one node can hold."""
        for ranks in range(need.most, need.fewest - 1, -1):
            if on_one := self._find(need, ranks, 1):
                self.take(on_one[0], need, ranks)
                return Allocation(ranks=((on_one[0], ranks),))
        return None

    def take(self, node: NodeId, need: Need, ranks: int) -> None:
        self.put(node, need.off(self.free[node], ranks))

    def _spread(self, need: Need, ranks: int) -> Iterator[tuple[NodeId, int]]:
        """Fill the most spacious nodes first: no other way takes fewer."""
        left = ranks
        while left:
            count = min(left, self._most(need))
            for node in self._find(need, count, left // count):
                self.take(node, need, count)
                left -= count
                yield node, count

    def _find(self, need: Need, ranks: int, limit: int) -> list[NodeId]:
        """Up to *limit* nodes that can each hold *ranks*, best fit first."""
        least = (ranks * need.cpus, NodeId(""))
        for _, devices in self._order:
            if need.on_devices(devices) >= ranks:
                shelf = self._shelves[devices]
                if shelf[-1] >= least:
                    first = bisect_left(shelf, least)
                    return [node for _, node in shelf[first : first + limit]]
        return []

    def _most(self, need: Need) -> int:
        """Ranks that the most spacious node can hold."""
        return max(
            min(need.on_devices(devices), shelf[-1][0] // need.cpus)
            for devices, shelf in self._shelves.items()
        )

    def put(self, node: NodeId, after: Free) -> None:
        """Say what is free on *node* now."""
        if self._whole is not None:
            self._whole.put(node, after)
            return
        self._put(node, after)
        for part in self._parts.values():
            if node in part.free:
                part._put(node, after)

    def _put(self, node: NodeId, after: Free) -> None:
        before, self.free[node] = self.free[node], after
        if before == after:
            return
        if before[0]:
            shelf = self._shelves[before[1]]
            del shelf[bisect_left(shelf, (before[0], node))]
            if not shelf:
                del self._shelves[before[1]]
                self._order.remove((gpu_units(before[1]), before[1]))
        if after[0]:
            if after[1] not in self._shelves:
                self._shelves[after[1]] = []
                insort(self._order, (gpu_units(after[1]), after[1]))
            insort(self._shelves[after[1]], (after[0], node))


def free_now(snapshot: Snapshot) -> dict[NodeId, Free]:
    """For each node the lesser of what our own runs leave and what Ray says is available.

    Nodes that are being drained or are set aside are left out: what is free on them is for nobody.
    """
    nodes = open_nodes(snapshot.nodes)
    free = {node.id: total(node) for node in nodes}
    for gang, allocation in snapshot.running:
        take(free, Need(gang), allocation)
    for node in nodes:
        cpus, devices = free[node.id]
        if node.available_cpus is not None:
            cpus = min(cpus, units(node.available_cpus))
        if node.available_gpus is not None:
            devices = _at_most(devices, units(node.available_gpus))
        free[node.id] = cpus, devices
    return free


def open_nodes(nodes: Iterable[Node]) -> tuple[Node, ...]:
    """Those on which something new may start."""
    return tuple(node for node in nodes if not (node.draining or node.set_aside))


def take(free: dict[NodeId, Free], need: Need, allocation: Allocation) -> None:
    for node, ranks in allocation.ranks:
        if node not in free:  # a run may still be ending on a node that has gone, or is going
            continue
        known = need.on_devices(free[node][1]) >= ranks
        cpus, devices = need.off(free[node], ranks)
        # Fractions that came and went may lie otherwise than we think: then no GPU of the node is counted on.
        free[node] = cpus, devices if known else NO_GPUS


def lesser(one: Free, other: Free) -> Free:
    """The most that both allow, GPU by GPU from the freest."""
    if one[1] == other[1]:
        return min(one[0], other[0]), one[1]
    both = [min(pair) for pair in zip(_each_gpu(one[1]), _each_gpu(other[1]), strict=False)]
    parts = sorted(left for left in both if 0 < left < UNIT)
    return min(one[0], other[0]), (both.count(UNIT), tuple(parts))


def total(node: Node) -> Free:
    whole, part = divmod(units(node.gpus), UNIT)
    return units(node.cpus), (whole, (part,) if part else ())


def units(amount: float) -> int:
    return round(amount * UNIT)


def gpu_units(devices: Devices) -> int:
    return devices[0] * UNIT + sum(devices[1])


def _each_gpu(devices: Devices) -> list[int]:
    return [UNIT] * devices[0] + list(devices[1][::-1])


def _without_whole(devices: Devices, gpus: int) -> Devices:
    whole, parts = devices
    if gpus <= whole:
        return whole - gpus, parts
    return 0, parts[: max(0, len(parts) - (gpus - whole))]


def _without_parts(devices: Devices, part: int, ranks: int) -> Devices:
    """Best fit, rank by rank: the shared GPU with the least room that is enough, else a whole one."""
    whole, parts = devices
    rest: list[int] = []
    for left in parts:
        here = min(ranks, left // part)
        rest.append(left - here * part)
        ranks -= here
    while ranks and whole:
        here = min(ranks, UNIT // part)
        rest.append(UNIT - here * part)
        ranks, whole = ranks - here, whole - 1
    rest = sorted(left for left in rest if left)
    return whole, tuple(rest[: max(0, len(rest) - ranks)])


def _at_most(devices: Devices, limit: int) -> Devices:
    """Without what somebody else holds: whole GPUs as long as it can be, then part of one."""
    while (excess := gpu_units(devices) - limit) > 0:
        devices = _without_whole(devices, 1) if excess >= UNIT else _without_parts(devices, excess, 1)
    return devices
