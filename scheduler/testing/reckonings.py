"""Makes the choice of a preemption again from its reckoning alone.  Shares no code with the policy."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

from scheduler.core.model import JobId, NodeId
from scheduler.core.reckoning import Candidate, Reckoning

UNIT = 10_000
"""CPUs are told in ten-thousandths."""
Room = tuple[int, int]
"""CPU units and whole GPUs."""


def faults(told: Reckoning, victim: JobId) -> list[str]:
    """What is wrong with a choice; empty when the evidence bears it out.  Of gangs that share a GPU it says nothing."""
    by_id = {one.id: one for one in told.candidates}
    found: list[str] = []
    if victim not in told.chosen or not set(told.chosen) <= set(by_id):
        return ["the victim is no candidate"]
    if told.spent >= told.budget:
        found.append("the budget was used up")
    if told.claim == "length" and any(
        by_id[one].left < told.worth * (told.left + by_id[one].price) for one in told.chosen
    ):
        found.append("a victim has too little left")
    if told.part or any(one.part for one in told.candidates):
        return found
    free = {node: (cpus, devices[0]) for node, (cpus, devices) in told.free}
    if any(_fits(free, told, node, told.chosen) < ranks for node, ranks in told.allocation.ranks):
        found.append("what is freed is not enough")
    if told.on_one:
        found += _of_one_node(free, told)
    return found


def _of_one_node(free: Mapping[NodeId, Room], told: Reckoning) -> list[str]:
    here = told.allocation.ranks[0][0]
    found: list[str] = []
    if any(_fits(free, told, here, set(told.chosen) - {one}) >= told.num_ranks for one in told.chosen):
        found.append("a victim more than it takes")
    best = min(_offers(free, told), default=None)
    if best != _regret(told, told.chosen, here):
        found.append(f"{best} was better")
    return found


def _fits(free: Mapping[NodeId, Room], told: Reckoning, node: NodeId, chosen: Collection[JobId]) -> int:
    """Ranks of the newcomer on *node*, once *chosen* have gone."""
    cpus, whole = free[node]
    for one in told.candidates:
        held = sum(ranks for where, ranks in one.ranks if where == node) if one.id in chosen else 0
        cpus, whole = cpus + held * one.cpus, whole + held * one.whole
    by_cpus = cpus // told.cpus
    return min(by_cpus, whole // told.whole) if told.whole else by_cpus


def _level(one: Candidate) -> int:
    ranks = sum(ranks for _, ranks in one.ranks)
    size = one.whole * ranks if one.whole else one.cpus / UNIT * ranks
    return int(math.log2(1 + one.left / size))


def _regret(told: Reckoning, chosen: Collection[JobId], node: NodeId) -> tuple[int, float, NodeId]:
    victims = [one for one in told.candidates if one.id in chosen]
    return -min(_level(one) for one in victims), sum(one.price for one in victims), node


def _offers(free: Mapping[NodeId, Room], told: Reckoning) -> list[tuple[int, float, NodeId]]:
    """For each node: stop who holds it longest, of those the cheapest and newest, until it is enough; spare whom one can."""
    offers: list[tuple[int, float, NodeId]] = []
    for node in free:
        if told.only is not None and node not in told.only:
            continue
        here = [one for one in told.candidates if any(where == node for where, _ in one.ranks)]
        here.sort(key=lambda one: (-_level(one), one.price, -one.seq))
        chosen: list[Candidate] = []
        for one in here:
            if _fits(free, told, node, [each.id for each in chosen]) < told.num_ranks:
                chosen.append(one)
        if not chosen or _fits(free, told, node, [each.id for each in chosen]) < told.num_ranks:
            continue
        for one in sorted(chosen, key=lambda one: (_level(one), -one.price)):
            rest = [each.id for each in chosen if each is not one]
            if _fits(free, told, node, rest) >= told.num_ranks:
                chosen.remove(one)
        offers.append(_regret(told, [one.id for one in chosen], node))
    return offers
