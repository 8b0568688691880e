"""Whose turn it is: one order for the jobs that run and those that wait.

First the class (a higher priority), then who is due, then who is within the share of its project and user, then
who has least left, then who is older.  A job that runs is preempted only for one that stands before it here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from scheduler.core.contender import DAY_S, Contender, Rules, Scene
from scheduler.core.entitlements import DEFAULT, Claim, by_usage, entitle
from scheduler.core.remaining import left

AT_ONCE, NOT_YET = 0, 1
WITHIN, OVER = 0, 1


class Turn(NamedTuple):
    """A place in the order: compared from left to right, smaller is first."""

    rank: int
    """Minus its priority."""
    due: int
    over: int
    """Whether it is over the share of its project or user."""
    left: float
    seq: int
    job: Contender

    @property
    def claim(self) -> tuple[int, int, int]:
        return self[:3]


@dataclass(frozen=True, slots=True)
class Part:
    """What a project is entitled to, and holds."""

    entitled: float
    held: float


@dataclass(frozen=True, slots=True)
class Order:
    waiting: list[Turn]
    running: list[Turn]
    """In no order."""
    parts: Mapping[str, Part]


def order(ready: Iterable[Contender], scene: Scene, rules: Rules, total: float) -> Order:
    now_s = scene.now_s
    due = _due(ready, scene, rules, total)
    waiting = [
        Turn(-job.priority, _is_due(job, due, now_s), 0, left(job, now_s), job.seq, job) for job in ready
    ]
    running = [
        Turn(-job.priority, _has_its_hour(job, rules, now_s), 0, left(job, now_s), job.seq, job)
        for job in scene.running
    ]
    parts = _parts(waiting, running, scene, total)
    if len(parts) > 1 or scene.shares or _has_users(waiting, running):
        waiting, running = _within(waiting, running, scene, parts)
    waiting.sort()
    return Order(waiting, running, parts)


def _is_due(job: Contender, due: set[str], now_s: float) -> int:
    return AT_ONCE if job.id in due else NOT_YET


def _has_its_hour(job: Contender, rules: Rules, now_s: float) -> int:
    tenure = job.tenure
    return AT_ONCE if tenure and tenure.due and now_s - tenure.since_s < rules.due_for_s else NOT_YET


def _due(ready: Iterable[Contender], scene: Scene, rules: Rules, total: float) -> set[str]:
    """Who has waited so long that it goes next: the longest first, as long as the budget of the day lasts."""
    before_s = scene.now_s - rules.due_after_s
    late = [job for job in ready if job.waits_since_s <= before_s]
    found: set[str] = set()
    if late:
        budget = rules.due_share * total * DAY_S - scene.ledger.granted(scene.now_s)
        for job in sorted(late, key=lambda job: (job.waits_since_s, job.seq)):
            budget -= job.size * rules.due_for_s
            if budget < 0:
                break
            found.add(job.id)
    return found


def _has_users(waiting: list[Turn], running: list[Turn]) -> bool:
    return len({turn.job.user for turns in (waiting, running) for turn in turns}) > 1


def _parts(waiting: list[Turn], running: list[Turn], scene: Scene, total: float) -> dict[str, Part]:
    demand: defaultdict[str, float] = defaultdict(float)
    held: defaultdict[str, float] = defaultdict(float)
    for turn in waiting:
        demand[turn.job.project] += turn.job.size
    for turn in running:
        held[turn.job.project] += turn.job.size
        demand[turn.job.project] += turn.job.size
    if len(demand) == 1:
        return {project: Part(min(total, wants), held[project]) for project, wants in demand.items()}
    used: defaultdict[str, float] = defaultdict(float)
    for (project, _), gpu_s in scene.usage.items():
        used[project] += gpu_s
    shares = {project: scene.shares.get(project, DEFAULT) for project in demand}
    weights = by_usage({project: share.weight for project, share in shares.items()}, used)
    claims = {
        project: Claim(
            wants if (limit := shares[project].limit) is None else min(wants, limit),
            weights[project],
            shares[project].quota,
        )
        for project, wants in demand.items()
    }
    entitled = entitle(claims, total)
    return {project: Part(entitled[project], held[project]) for project in demand}


def _within(
    waiting: list[Turn], running: list[Turn], scene: Scene, parts: Mapping[str, Part]
) -> tuple[list[Turn], list[Turn]]:
    """Mark who is over the share: in each project those first in its own order fill it, whether they run or wait.

    A gang is within when at least half of it is, so that shares that are no multiple of a gang come out even in
    the long run: usage moves the weights.
    """
    members: defaultdict[str, list[Turn]] = defaultdict(list)
    for turns in (waiting, running):
        for turn in turns:
            members[turn.job.project].append(turn)
    done_waiting: list[Turn] = []
    done_running: list[Turn] = []
    for project, turns in members.items():
        entitled = parts[project].entitled
        turns = _by_user(sorted(turns), project, scene, entitled)
        filled = 0.0
        for turn in turns:
            job = turn.job
            over = OVER if filled + job.size / 2 > entitled else WITHIN
            if not over:
                filled += job.size
            marked = Turn(turn.rank, turn.due, over, turn.left, turn.seq, job)
            (done_waiting if job.tenure is None else done_running).append(marked)
    return done_waiting, done_running


def _by_user(turns: list[Turn], project: str, scene: Scene, entitled: float) -> list[Turn]:
    """The same, those over the share of their user within the project after the others of their class."""
    demand: defaultdict[str, float] = defaultdict(float)
    for turn in turns:
        demand[turn.job.user] += turn.job.size
    if len(demand) == 1:
        return turns
    usage = {user: scene.usage.get((project, user), 0.0) for user in demand}
    weights = by_usage(dict.fromkeys(demand, 1.0), usage)
    parts = entitle({user: Claim(wants, weights[user]) for user, wants in demand.items()}, entitled)
    filled: defaultdict[str, float] = defaultdict(float)
    over: list[tuple[int, int, int, Turn]] = []
    for turn in turns:
        user, size = turn.job.user, turn.job.size
        is_over = filled[user] + size / 2 > parts[user]
        if not is_over:
            filled[user] += size
        over.append((turn.rank, turn.due, is_over, turn))
    return [turn for *_, turn in sorted(over)]
