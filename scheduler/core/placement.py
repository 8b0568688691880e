"""Which queued jobs start now, on which nodes, and why each of the others waits.

First in, first out over gangs: all ranks of a job or none.  A job that must wait keeps a place: where it
would go on the empty cluster.  Later jobs may start beside that place, never in it, so nobody starves.

An elastic gang starts with as many ranks as there is room for, and waits for its fewest: its place is for
so many.  Nothing starts on a node that is being drained or set aside, and no place is kept there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from scheduler.core import node_labels
from scheduler.core.aside import Aside
from scheduler.core.bin_packing import (
    UNIT,
    Free,
    FreeSpace,
    Need,
    free_now,
    gpu_units,
    lesser,
    open_nodes,
    take,
    total,
    units,
)
from scheduler.core.model import Allocation, Gang, Job, JobId, Node, NodeId, Reason, Snapshot
from scheduler.core.needs import Outline, avoided


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The outcome of one pass; every job of the queue is in exactly one of the two."""

    start: dict[JobId, Allocation] = field(default_factory=dict[JobId, Allocation])
    blocked: dict[JobId, Reason] = field(default_factory=dict[JobId, Reason])


def plan(queue: Sequence[Job], snapshot: Snapshot) -> Plan:
    """Decide for each job of *queue*, given in the order of its turn.

    `blocked` says why as things stand after the starts.  Codes: `waiting_for_resources`, `behind` (there is
    room, but it is kept for a job further ahead), `does_not_fit_here` (the live nodes, without those that are
    being drained, could never hold it).
    """
    gangs, lost = {job.spec.resources for job in queue}, [job for job in queue if job.avoids]
    cluster = Outline(snapshot.nodes if lost or any(gang.on for gang in gangs) else ())  # else nobody asks it
    needs = {gang: cluster.need_of(gang) for gang in gangs}
    shy = {job.id: cluster.need_of(job.spec.resources, job.avoids) for job in lost} if avoided(lost) else {}
    untried = {*needs.values(), *shy.values()}  # once a shape failed it fails for the pass: room only shrinks
    line = Reservations(snapshot)
    started: dict[JobId, Allocation] = {}
    waiting: dict[JobId, Need] = {}
    for job in queue:
        need = shy.get(job.id) or needs[job.spec.resources]
        if need in untried:
            if allocation := line.start(need):
                started[job.id] = allocation
                continue
            untried.discard(need)
        waiting[job.id] = need
        if untried:  # else nobody is left who could get in the way
            line.keep_place(job, need)

    explain = WaitReasons(snapshot, line)
    reasons = {need: explain(need) for need in set(waiting.values())}
    return Plan(start=started, blocked={job_id: reasons[need] for job_id, need in waiting.items()})


def fit(gang: Gang, snapshot: Snapshot) -> Allocation | None:
    """Where *gang* would go now, with nobody waiting; None when not even its fewest ranks fit."""
    need = Outline(snapshot.nodes).need_of(gang)
    return FreeSpace(free_now(snapshot)).within(need.only).place(need)


def feasible(gang: Gang, nodes: Iterable[Node]) -> Reason | None:
    """None when *nodes* could hold the gang with nothing else on them, else what the largest of them offers.

    The nodes may be ones that do not exist yet, of a kind that an autoscaler adds; their ids do not matter.
    One that is being drained or is set aside counts: it may stay after all, or another may take its place.
    """
    nodes, need = tuple(nodes), Need(gang)
    right = [node for node in nodes if node_labels.matches(gang, node)]
    empty = FreeSpace({NodeId(str(index)): total(node) for index, node in enumerate(right)})
    fits = empty.capacity(need)
    return None if fits >= need.fewest else _does_not_fit(gang, fits, right, nodes)


class Reservations:
    """What is free, and what of it the jobs that wait keep from those behind them."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.free = free_now(snapshot)
        self.room = FreeSpace(self.free)
        """Free, and not kept for anyone."""
        self.keepers: dict[NodeId, Job] = {}
        """Who was the last to take from the room on the node."""
        self.empty = FreeSpace({node.id: total(node) for node in open_nodes(snapshot.nodes)})
        self._unkept = self.empty.copy()
        self._left: dict[NodeId, Free] = {}
        """Of the nodes on which places are kept, what is free beside all of these."""
        self._over: set[Need] = set()

    def start(self, need: Need) -> Allocation | None:
        allocation = self.room.within(need.only).place(need)
        if allocation:
            take(self.free, need, allocation)
            take(self._left, need, allocation)
        return allocation

    def keep_place(self, job: Job, need: Need) -> None:
        """Keep for *job* the place it would have on the empty cluster, beside those kept before.

        It does not depend on what runs now, so it does not wander from pass to pass.  Once the cluster is too
        small for one more, the place lies over others: of each node the greater part is kept, not the sum.
        """
        if need in self._over:
            return  # the place would be the same as that of the first job of this shape
        if beside := self._unkept.within(need.only).place(need, need.fewest):
            for node, ranks in beside.ranks:
                self._left[node] = need.off(self._left.get(node, self.free[node]), ranks)
                self._keep(job, node, self._left[node])
            return
        self._over.add(need)
        over = self.empty.copy().within(need.only).place(need, need.fewest)
        for node, ranks in over.ranks if over else ():
            self._keep(job, node, need.off(self.free[node], ranks))

    def _keep(self, job: Job, node: NodeId, left: Free) -> None:
        room = lesser(self.room.free[node], left)
        if room != self.room.free[node]:
            self.room.put(node, room)
            self.keepers[node] = job


class WaitReasons:
    """Why a gang waits, in words and numbers, as things stand at the end of the pass."""

    def __init__(self, snapshot: Snapshot, line: Reservations) -> None:
        self.nodes, self.line = snapshot.nodes, line
        self.aside = Aside(snapshot.nodes, snapshot.running)
        self.free = FreeSpace(line.free)
        self.here = open_nodes(self.nodes)
        self.drained = _drained_words(sum(node.draining for node in self.nodes))
        self._words: dict[frozenset[NodeId] | None, tuple[str, str]] = {}

    def __call__(self, need: Need) -> Reason:
        at_most = self.line.empty.within(need.only).capacity(need)
        if at_most < need.fewest:
            never = feasible(need.gang, self.nodes) or self.aside.ever(need, at_most)
            return never or self._only_with_drained(need.gang, at_most)
        fits = self.free.within(need.only).capacity(need)
        ahead = self._ahead(need) if fits >= need.fewest else None
        if ahead:
            who = f"job {ahead.spec.name} ({ahead.id})"
            return Reason(code="behind", message=f"waits behind {who}, which needs {ahead.spec.resources}")
        if aside := self.aside.now(need, fits):
            return aside
        words = "; ".join([*self._free_words(need), *self.drained])
        message = f"needs {need}; {_such_ranks(fits)} now ({words})"
        return Reason(code="waiting_for_resources", message=message)

    def _free_words(self, need: Need) -> list[str]:
        """Of the nodes on which it may be."""
        if need.only not in self._words:
            free = self.free.within(need.only).free.values()
            here = [node for node in self.here if need.may_be_on(node.id)]
            cpus, gpus = [cpus for cpus, _ in free], [gpu_units(devices) for _, devices in free]
            self._words[need.only] = (
                _free_words("GPU", gpus, sum(units(node.gpus) for node in here)),
                _free_words("CPU", cpus, sum(units(node.cpus) for node in here)),
            )
        gpu_words, cpu_words = self._words[need.only]
        return [gpu_words, cpu_words] if need.gang.gpus_per_rank else [cpu_words]

    def _only_with_drained(self, gang: Gang, fits: int) -> Reason:
        offer = f"{_such_ranks(fits)} on the others, even with nothing else running"
        message = "; ".join([f"needs {gang}", *self.drained, offer])
        return Reason(code="does_not_fit_here", message=message)

    def _ahead(self, need: Need) -> Job | None:
        """Who keeps what this gang could otherwise have."""
        free, room = self.line.free, self.line.room.free
        keepers = ((node, job) for node, job in self.line.keepers.items() if need.may_be_on(node))
        return next((job for node, job in keepers if need.on(room[node]) < need.on(free[node])), None)


def _does_not_fit(gang: Gang, fits: int, nodes: Sequence[Node], all_nodes: Sequence[Node]) -> Reason:
    """*nodes*: those with the labels that it asks for, of *all_nodes*."""
    here = f"with {gang.where}" if gang.on else "here"
    if fits:
        offer = f"only {fits} of them fit on the nodes {here}, even with nothing else running"
    elif not all_nodes:
        offer = "there is no live node"
    elif not nodes:
        offer = f"no node has {gang.where}; {node_labels.instead(gang, all_nodes)}"
    else:
        largest = max(
            nodes, key=lambda node: (node.gpus, node.cpus) if gang.gpus_per_rank else (node.cpus, 0.0)
        )
        gpus = f" and {largest.gpus:g} GPU" if gang.gpus_per_rank else ""
        offer = f"the largest node {here} has {largest.cpus:g} CPU{gpus}"
    return Reason(code="does_not_fit_here", message=f"needs {gang}; {offer}")


def _such_ranks(fits: int) -> str:
    return {0: "no such rank fits", 1: "1 such rank fits"}.get(fits, f"{fits} such ranks fit")


def _drained_words(count: int) -> list[str]:
    return [{1: "a node is being drained"}.get(count, f"{count} nodes are being drained")] if count else []


def _free_words(what: str, free: Sequence[int], of: int) -> str:
    words = f"{sum(free) / UNIT:g} of {of / UNIT:g} {what}s free"
    return f"{words}, at most {max(free) / UNIT:g} on one node" if len(free) > 1 and sum(free) else words
