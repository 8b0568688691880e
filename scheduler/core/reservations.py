"""What is free, for whom it is kept, and what of that may be lent until then.

A place is kept for a due job only, and where it could start soonest.  Others may have a loan of it when their
own steps tell that they end before; the owner may have it back at any time.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from scheduler.core.bin_packing import Free, FreeSpace, Need, lesser
from scheduler.core.contender import Contender, Rules, Scene
from scheduler.core.model import Allocation, JobId, NodeId


@dataclass(frozen=True, slots=True)
class Place:
    """Kept for a job until it starts."""

    owner: JobId
    allocation: Allocation
    at_s: float
    """When everything that it needs there should be free."""


class Room:
    """Free, and kept for nobody: less what others are being stopped for already."""

    def __init__(self, scene: Scene, rules: Rules) -> None:
        self.cluster, self.now_s = scene.cluster, scene.now_s
        self.space = FreeSpace(scene.free)
        self.places: list[Place] = []
        self.cleared: set[JobId] = set()
        """Those for whom others were stopped, and are gone."""
        self._real: dict[NodeId, Free] | None = None
        """Free, whether it is kept or not.  Only where something is kept."""
        self._there: dict[NodeId, Free] | None = None
        """Free already.  Only where somebody is being stopped, whose nodes `space` counts as free."""
        self._one_node = rules.one_node
        self._failed: set[Need] = set()
        for job in scene.waiting:
            if job.kept is not None:
                self._hand_over(job, job.kept)

    def alone(self, need: Need) -> bool:
        """Whether this gang starts on one node only."""
        return self._one_node and self.cluster.on_one(need) >= need.fewest

    def place(self, job: Contender) -> Allocation | None:
        """Take room for the whole gang, if there is."""
        need = job.need
        if need in self._failed:  # room only shrinks, unless somebody is preempted: see `give`
            return None
        space = self.space.within(need.only)
        allocation = space.place_on_one(need) if self.alone(need) else space.place(need)
        if allocation is None:
            self._failed.add(need)
            return None
        if self._real is not None:
            _take(self._real, need, allocation)
        return allocation

    def take(self, need: Need, allocation: Allocation) -> None:
        for node, ranks in allocation.ranks:
            if node in self.space.free:
                self.space.take(node, need, ranks)
        if self._real is not None:
            _take(self._real, need, allocation)

    def give(self, need: Need, allocation: Allocation) -> None:
        """A run is preempted: what it holds is room for those who can wait until it has gone."""
        if self._there is None:
            self._there = dict(self.space.free)
        for node, ranks in allocation.ranks:
            if node in self.space.free:
                self.space.put(node, freed(self.space.free[node], need, ranks))
                if self._real is not None:
                    self._real[node] = freed(self._real[node], need, ranks)
        self._failed.clear()

    def is_there(self, need: Need, allocation: Allocation) -> bool:
        """Whether what was taken is free already, and not only once those have gone who are being stopped."""
        if self._there is None:
            return True
        if any(need.on(self._there[node]) < ranks for node, ranks in allocation.ranks):
            return False
        _take(self._there, need, allocation)
        return True

    def keep(self, job: Contender, place: Place) -> None:
        """Nobody else starts there, but on a loan."""
        if self._real is None:
            self._real = dict(self.space.free)
        for node, ranks in place.allocation.ranks:
            self.space.take(node, job.need, ranks)
        self.places.append(place)

    def lend(self, job: Contender) -> tuple[Allocation, JobId] | None:
        """A place that is kept for another, to one whose steps tell that it ends before."""
        if (
            not self.places
            or self._real is None
            or self._there is not None
            or job.told is None
            or not self.alone(job.need)
        ):
            return None
        ends_s = self.now_s + job.start_s + job.told.left_s
        for place in self.places:
            for node, _ in place.allocation.ranks if ends_s <= place.at_s else ():
                if job.need.may_be_on(node) and job.need.on(self._real[node]) >= job.need.fewest:
                    allocation = Allocation(ranks=((node, job.need.fewest),))
                    _take(self._real, job.need, allocation)
                    self.space.put(node, lesser(self.space.free[node], self._real[node]))
                    return allocation, place.owner
        return None

    def _hand_over(self, job: Contender, kept: Allocation) -> None:
        free = self.space.free
        if all(node in free and job.need.on(free[node]) >= ranks for node, ranks in kept.ranks):
            self.cleared.add(job.id)
        self.take(job.need, kept)


Runs = Mapping[NodeId, Sequence[tuple[float, int, Need, int]]]
"""On each node: until when a run has it, its place in the queue, its shape and how many ranks are there."""


def runs_until(running: Iterable[Contender], gives_way_s: Callable[[Contender], float]) -> Runs:
    """Who holds which node until *gives_way_s* of it; on each node the first to go before the others."""
    runs: defaultdict[NodeId, list[tuple[float, int, Need, int]]] = defaultdict(list)
    for job in running:
        if job.tenure:
            until_s = gives_way_s(job)
            for node, ranks in job.tenure.allocation.ranks:
                runs[node].append((until_s, job.seq, job.need, ranks))
    for each in runs.values():
        if len(each) > 1:
            each.sort(key=lambda run: run[:2])
    return runs


def soonest(job: Contender, room: Room, runs: Runs) -> Place | None:
    """Where *job* could start first."""
    free = room.space.within(job.need.only).free
    if room.alone(job.need):
        offers = _offers(job.need, job.need.fewest, free, runs, room.now_s)
        if not offers:
            return None
        at_s, node = min(offers)
        return Place(job.id, Allocation(ranks=((node, job.need.fewest),)), at_s)
    most = room.cluster.on_one(job.need)
    left, at_s = job.need.fewest, room.now_s
    places: list[tuple[NodeId, int]] = []
    for at_s, node in sorted(_offers(job.need, most, free, runs, room.now_s)) if most else ():
        places.append((node, min(most, left)))
        left -= most
        if left <= 0:
            return Place(job.id, Allocation(ranks=tuple(places)), at_s)
    return None


def _offers(
    need: Need, ranks: int, free: Mapping[NodeId, Free], runs: Runs, now_s: float
) -> list[tuple[float, NodeId]]:
    """When each node could hold *ranks*."""
    offers: list[tuple[float, NodeId]] = []
    for node, have in free.items():
        at_s, fits = now_s, need.on(have) >= ranks
        for until_s, _, other, held in () if fits else runs.get(node, ()):
            have, at_s = freed(have, other, held), until_s
            if fits := need.on(have) >= ranks:
                break
        if fits:
            offers.append((at_s, node))
    return offers


def freed(free: Free, need: Need, ranks: int) -> Free:
    """What is free once *ranks* have gone.  Parts of GPUs are not put together: that is known once they are free."""
    cpus, (whole, parts) = free
    if need.part:
        parts = tuple(sorted((*parts, *[need.part] * ranks)))
    return cpus + ranks * need.cpus, (whole + ranks * need.whole, parts)


def _take(free: dict[NodeId, Free], need: Need, allocation: Allocation) -> None:
    for node, ranks in allocation.ranks:
        if node in free:
            free[node] = need.off(free[node], ranks)
