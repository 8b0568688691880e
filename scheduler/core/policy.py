"""The decision: who starts, who is stopped for whom, and why each of the others waits."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from scheduler.core.contender import Contender, Rules, Scene
from scheduler.core.model import Allocation, JobId, Reason
from scheduler.core.preemption import Board, Choice, choose
from scheduler.core.reservations import Room
from scheduler.core.turns import AT_ONCE, Part, Turn, order


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    allocation: Allocation
    after: tuple[JobId, ...] = ()
    """Those who are stopped for it, and must be gone before."""
    due: bool = False


@dataclass(slots=True, kw_only=True)
class Decision:
    starts: dict[JobId, Start] = field(default_factory=dict[JobId, Start])
    stops: dict[JobId, JobId] = field(default_factory=dict[JobId, JobId])
    prices: dict[JobId, float] = field(default_factory=dict[JobId, float])
    blocked: dict[JobId, Reason] = field(default_factory=dict[JobId, Reason])


def decide(scene: Scene, rules: Rules) -> Decision:
    total = scene.cluster.size
    ready = [job for job in scene.waiting if job.rests is None]
    decision = Decision()
    if not ready:
        return decision
    turns = order(ready, scene, rules, total)
    room = Room(scene, rules)
    board: Board | None = None
    budget = rules.lost_share * total * 3600 - scene.ledger.lost(scene.now_s)
    held = {project: part.held for project, part in turns.parts.items()}
    failed: set[object] = set()
    for turn in turns.waiting:
        job = turn.job
        if job.kept:
            continue
        allocation = room.place(job)
        if allocation:
            decision.starts[job.id] = Start(allocation=allocation, due=turn.due == AT_ONCE)
            held[job.project] += job.size
            continue
        if rules.preempt == "never" or not scene.running:
            continue
        if board is None:
            board = Board(turns.running, scene.ledger, rules, scene.now_s)
        if budget <= 0:
            continue
        if len(turns.parts) == 1 and turn.due != AT_ONCE and board.longest < rules.worth * turn.left:
            continue
        key = (job.need, job.only, turn[:3], job.project if len(turns.parts) > 1 else "")
        if key in failed:
            continue
        part = Part(turns.parts[job.project].entitled, held[job.project])
        on_one = rules.one_node and scene.cluster.on_one(job.need) >= job.need.fewest
        choice = choose(turn, board, room.space.free, part, rules, on_one=on_one)
        if choice is None:
            failed.add(key)
            continue
        budget -= choice.price
        for victim in choice.victims:
            board.gone.add(victim.job.id)
            decision.stops[victim.job.id] = job.id
            decision.prices[victim.job.id] = victim.price
            room.give(victim.job.need, victim.tenure)
            held[victim.job.project] -= victim.job.size
        room.take(job.need, choice.allocation)
        held[job.project] += job.size
        decision.starts[job.id] = Start(
            allocation=choice.allocation,
            after=tuple(victim.job.id for victim in choice.victims),
            due=turn.due == AT_ONCE,
        )
    return decision
