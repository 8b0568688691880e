"""Which queued jobs start now, on which nodes, and why each of the others waits.

First in, first out over gangs: all ranks of a job or none.  A job that must wait keeps a place: where it
would go on the empty cluster.  Later jobs may start beside that place, never in it, so nobody starves.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from scheduler.core.model import Allocation, Gang, Job, JobId, Node, NodeId, Reason, Snapshot
from scheduler.core.shelves import NOTHING, UNIT, Free, Need, Shelves, free_now, gpu_units, take, total, units


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The outcome of one pass; every job of the queue is in exactly one of the two."""

    start: dict[JobId, Allocation] = field(default_factory=dict[JobId, Allocation])
    blocked: dict[JobId, Reason] = field(default_factory=dict[JobId, Reason])


def plan(queue: Sequence[Job], snapshot: Snapshot) -> Plan:
    """Decide for each job of *queue*, given in the order of its turn.

    `blocked` says why as things stand after the starts.  Codes: `waiting_for_resources`, `behind` (there is
    room, but it is kept for a job further ahead), `does_not_fit_here` (the live nodes could never hold it).
    """
    needs = {gang: Need(gang) for gang in {job.spec.resources for job in queue}}
    untried = set(needs.values())  # once a shape failed it fails for the whole pass: room only shrinks
    free = free_now(snapshot)
    line = Line({node.id: total(node) for node in snapshot.nodes}, free)
    started: dict[JobId, Allocation] = {}
    waiting: list[tuple[JobId, Need]] = []
    for job in queue:
        need = needs[job.spec.resources]
        if need in untried:
            allocation = line.room.place(need)
            if allocation is not None:
                started[job.id] = allocation
                take(free, need, allocation)
                continue
            untried.discard(need)
        waiting.append((job.id, need))
        if untried:  # else nobody is left who could get in the way
            line.keep_place(job, need)

    explain = Explanation(snapshot.nodes, free, line)
    reasons = {need: explain(need) for need in {need for _, need in waiting}}
    return Plan(start=started, blocked={job_id: reasons[need] for job_id, need in waiting})


def fit(gang: Gang, snapshot: Snapshot) -> Allocation | None:
    """Where *gang* would go now, with nobody waiting; None when it does not fit."""
    return Shelves(free_now(snapshot)).place(Need(gang))


def feasible(gang: Gang, nodes: Iterable[Node]) -> Reason | None:
    """None when *nodes* could hold the gang with nothing else on them, else what the largest of them offers.

    The nodes may be ones that do not exist yet, of a kind that an autoscaler adds; their ids do not matter.
    """
    nodes, need = tuple(nodes), Need(gang)
    empty = Shelves({NodeId(str(index)): total(node) for index, node in enumerate(nodes)})
    fits = empty.capacity(need)
    return None if fits >= need.ranks else _does_not_fit(gang, fits, nodes)


class Line:
    """What the jobs that wait keep from those behind them."""

    def __init__(self, total: Mapping[NodeId, Free], free: Mapping[NodeId, Free]) -> None:
        self.room = Shelves(free)
        """Free, and not kept for anyone."""
        self.empty = Shelves(total)
        self.unkept = Shelves(total)
        """The empty cluster without the places that are kept."""
        self.keepers: dict[NodeId, Job] = {}
        """Who was the last to take from the room on the node."""
        self._sharing: set[Need] = set()

    def keep_place(self, job: Job, need: Need) -> None:
        """Keep for *job* the place it would have on the empty cluster, apart from those kept before.

        It does not depend on what runs now, so it does not wander from pass to pass.  Where the cluster is
        too small for one more place, its place is on nodes that others keep too, and these are closed.
        """
        if need in self._sharing:
            return
        if apart := self.unkept.place(need):
            for node, ranks in apart.ranks:
                self._keep(job, node, need.off(self.room.free[node], ranks))
            return
        self._sharing.add(need)  # its place would be the same again, and that is closed already
        shared = self.empty.copy().place(need)
        for node, _ in shared.ranks if shared else ():
            self._keep(job, node, NOTHING)

    def _keep(self, job: Job, node: NodeId, left: Free) -> None:
        if self.room.free[node] != left:
            self.room.put(node, left)
            self.keepers[node] = job


class Explanation:
    """Why a gang waits, in words and numbers, as things stand at the end of the pass."""

    def __init__(self, nodes: tuple[Node, ...], free: Mapping[NodeId, Free], line: Line) -> None:
        self.nodes, self.line = nodes, line
        self.free = Shelves(free)
        cpus, gpus = [cpus for cpus, _ in free.values()], [gpu_units(gpus) for _, gpus in free.values()]
        self.cpu_words = _free_words("CPU", cpus, sum(units(node.cpus) for node in nodes))
        self.gpu_words = _free_words("GPU", gpus, sum(units(node.gpus) for node in nodes))

    def __call__(self, need: Need) -> Reason:
        at_most = self.line.empty.capacity(need)
        if at_most < need.ranks:
            return _does_not_fit(need.gang, at_most, self.nodes)
        fits = self.free.capacity(need)
        if fits >= need.ranks:
            return self._behind(need)
        such = {0: "no such rank fits", 1: "1 such rank fits"}.get(fits, f"{fits} such ranks fit")
        words = f"{self.gpu_words}; {self.cpu_words}" if need.gang.gpus_per_rank else self.cpu_words
        return Reason(code="waiting_for_resources", message=f"needs {need.gang}; {such} now ({words})")

    def _behind(self, need: Need) -> Reason:
        room = self.line.room.free
        ahead = next(
            job
            for node, job in self.line.keepers.items()
            if need.on(room[node]) < need.on(self.free.free[node])
        )
        return Reason(
            code="behind",
            message=f"waits behind job {ahead.spec.name} ({ahead.id}), which needs {ahead.spec.resources}",
        )


def _does_not_fit(gang: Gang, fits: int, nodes: Sequence[Node]) -> Reason:
    if fits:
        offer = f"only {fits} of them fit on the nodes here, even with nothing else running"
    elif not nodes:
        offer = "there is no live node"
    else:
        largest = max(
            nodes, key=lambda node: (node.gpus, node.cpus) if gang.gpus_per_rank else (node.cpus, 0.0)
        )
        gpus = f" and {largest.gpus:g} GPU" if gang.gpus_per_rank else ""
        offer = f"the largest node here has {largest.cpus:g} CPU{gpus}"
    return Reason(code="does_not_fit_here", message=f"needs {gang}; {offer}")


def _free_words(what: str, free: Sequence[int], total: int) -> str:
    words = f"{sum(free) / UNIT:g} of {total / UNIT:g} {what}s free"
    return f"{words}, at most {max(free) / UNIT:g} on one node" if len(free) > 1 and sum(free) else words
