"""Whose turn it is: one order for the jobs that run and those that wait.

First the class (a higher priority), then who is due, then who is within the share of its project and user, then
who has least left, then who is older.  A job that runs is preempted only for one that stands before it here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from scheduler.core.contender import DAY_S, Contender, Rules, Scene
from scheduler.core.entitlements import DEFAULT, Claim, by_usage, entitle
from scheduler.core.model import JobId
from scheduler.core.remaining import left, slack_s

AT_ONCE, NOT_YET = 0, 1
WITHIN, OVER = 0, 1


class Turn(NamedTuple):
    """A place in the order: compared from left to right, smaller is first."""

    rank: int
    """Minus its priority."""
    due: int
    over: int
    """Whether it is over the share of its project or user."""
    since: float
    """Of who is due: since when it waits, or its deadline.  Length does not count among them."""
    place: tuple[float, int]
    """Its own `left` and `seq`; or those of another of its project, where a person put one in front."""
    left: float
    seq: int
    job: Contender
    user_over: int = WITHIN
    """Whether it is over what its user may have of the share of the project."""

    @property
    def claim(self) -> tuple[int, int, int]:
        return self[:3]

    @property
    def is_moved(self) -> bool:
        return self.place != (self.left, self.seq)

    @property
    def by_itself(self) -> Turn:
        """Without what a person moved, which gives no right to preempt a run, and takes none."""
        return self._replace(place=(self.left, self.seq)) if self.is_moved else self


@dataclass(frozen=True, slots=True)
class Part:
    """What a project is entitled to, and holds."""

    entitled: float
    held: float


@dataclass(frozen=True, slots=True)
class Order:
    """Everybody's turn, and what the shares came to."""

    waiting: list[Turn]
    over: frozenset[JobId]
    """Those of the running that are over the share of their project."""
    user_over: frozenset[JobId]
    """Those of the running that are over what their user may have of it."""
    parts: Mapping[str, Part]

    def of_run(self, job: Contender, left: float, rules: Rules, now_s: float) -> Turn:
        turn = _turn_of_run(job, left, rules, now_s)
        over, user_over = job.id in self.over, job.id in self.user_over
        if over and not _was_due(job, rules, now_s):  # a deadline counts within the share
            turn = turn._replace(due=NOT_YET)
        return turn._replace(over=OVER if over else WITHIN, user_over=OVER if user_over else WITHIN)


def order(ready: Sequence[Contender], scene: Scene, rules: Rules) -> Order:
    """Line up *ready*, of those that wait, and divide the cluster among all."""
    now_s = scene.now_s
    due = _due(ready, scene, rules)
    parts = _parts(ready, scene)
    shared = len(parts) > 1 or bool(scene.shares) or _has_users(ready, scene.running)
    at_first = OVER if shared else WITHIN
    waiting: list[Turn] = []
    for job in ready:
        has, since = left(job, now_s), due.get(job.id, 0.0)
        due_now = AT_ONCE if job.id in due else NOT_YET
        waiting.append(Turn(-job.priority, due_now, at_first, since, (has, job.seq), has, job.seq, job))
    waiting = _with_first_in_front(waiting)
    running: list[Turn] = []
    if shared:
        running = [_turn_of_run(job, left(job, now_s), rules, now_s) for job in scene.running]
        waiting, running = _within(waiting, running, scene, parts)
    waiting.sort()
    return Order(
        waiting=waiting,
        over=frozenset(turn.job.id for turn in running if turn.over == OVER),
        user_over=frozenset(turn.job.id for turn in running if turn.user_over == OVER),
        parts=parts,
    )


def _turn_of_run(job: Contender, left: float, rules: Rules, now_s: float) -> Turn:
    """The place of a job that runs.  One that was due stays so for its first hour, and as long as its deadline is near."""
    is_due = _was_due(job, rules, now_s) or slack_s(job, left, now_s) <= 0
    due = AT_ONCE if is_due else NOT_YET
    return Turn(-job.priority, due, OVER, 0.0, (left, job.seq), left, job.seq, job)


def _was_due(job: Contender, rules: Rules, now_s: float) -> bool:
    """When it got its nodes, not longer ago than what it is given for that."""
    tenure = job.tenure
    return tenure is not None and tenure.due and now_s - tenure.since_s < rules.due_for_s


def _with_first_in_front(turns: list[Turn]) -> list[Turn]:
    """The places that a project has in the order stay as they are: of those of one claim, who is `first` gets the
    foremost, and the others move up one behind it.  So no other project waits behind more places than before.
    """
    claims = {(turn.job.project, turn[:4]) for turn in turns if turn.job.first}
    if not claims:
        return turns
    moved: list[Turn] = []
    members: defaultdict[tuple[str, tuple[int, int, int, float]], list[Turn]] = defaultdict(list)
    for turn in turns:
        if (key := (turn.job.project, turn[:4])) in claims:
            members[key].append(turn)
        else:
            moved.append(turn)
    for group in members.values():
        places = sorted(turn.place for turn in group)
        group.sort(key=lambda turn: (not turn.job.first, turn.place))
        moved += [turn._replace(place=place) for turn, place in zip(group, places, strict=True)]
    return moved


def _due(ready: Sequence[Contender], scene: Scene, rules: Rules) -> dict[JobId, float]:
    """Who goes next, and since when it should have: who waits longest, then who has the nearest deadline, as long as
    the budget of the day lasts.
    """
    now_s = scene.now_s
    before_s = now_s - rules.due_after_s
    late = [(job.waits_since_s, job.seq, job) for job in ready if job.waits_since_s <= before_s]
    late += [
        (job.deadline_s, job.seq, job)
        for job in ready
        if job.deadline_s is not None
        and job.waits_since_s > before_s
        and slack_s(job, left(job, now_s), now_s) <= 0
    ]
    found: dict[JobId, float] = {}
    if late:
        budget = rules.due_share * scene.cluster.size * DAY_S - scene.ledger.granted(now_s)
        for since_s, _, job in sorted(late, key=_by_age):
            budget -= job.size * rules.due_for_s
            if budget < 0:
                break
            found[job.id] = since_s
    return found


def _by_age(late: tuple[float, int, Contender]) -> tuple[float, int]:
    return late[:2]


def _has_users(ready: Sequence[Contender], running: Sequence[Contender]) -> bool:
    return len({job.user for jobs in (ready, running) for job in jobs}) > 1


def _parts(ready: Sequence[Contender], scene: Scene) -> dict[str, Part]:
    total = scene.cluster.size
    projects = {job.project for jobs in (ready, scene.running) for job in jobs}
    if len(projects) == 1:
        return {projects.pop(): Part(total, sum([job.size for job in scene.running]))}
    demand: defaultdict[str, float] = defaultdict(float)
    held: defaultdict[str, float] = defaultdict(float)
    for job in ready:
        demand[job.project] += job.size
    for job in scene.running:
        held[job.project] += job.size
        demand[job.project] += job.size
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
    """Mark who is over the share.  In each project who is due fills it, then its runs, then those that wait, all in its
    own order: a project whose runs fill its share takes nothing from others for its next short job, which may only take
    from a run of its own (`preemption.refusal`).

    A gang is within when at least half of it is, so that shares that are no multiple of a gang come out even in
    the long run: usage moves the weights.
    """
    members: defaultdict[str, list[Turn]] = defaultdict(list)
    for turns in (waiting, running):
        for turn in turns:
            members[turn.job.project].append(turn)
    marked: list[Turn] = []
    runs: list[Turn] = []
    for project, turns in members.items():
        turns.sort(key=_filling)
        entitled, filled = parts[project].entitled, 0.0
        for turn in _by_user(turns, project, scene, entitled):
            job = turn.job
            if within := filled + job.size / 2 <= entitled:
                filled += job.size
                turn = turn._replace(over=WITHIN)
            if job.tenure is not None:
                runs.append(turn)
            elif within or turn.due == NOT_YET:
                marked.append(turn)
            else:  # who is due goes before the others of its project, not before their shares
                marked.append(turn._replace(due=NOT_YET, since=0.0))
    return marked, runs


def _filling(turn: Turn) -> tuple[bool, Turn]:
    """In the order in which they fill a share."""
    return turn.job.tenure is None and turn.due != AT_ONCE, turn


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
    placed: list[Turn] = []
    after: list[Turn] = []
    claim: object = None
    for turn in turns:
        its = turn[:3], turn.job.tenure is None
        if after and its != claim:
            placed += after
            after = []
        claim = its
        user, size = turn.job.user, turn.job.size
        if filled[user] + size / 2 > parts[user]:
            after.append(turn._replace(user_over=OVER))
        else:
            filled[user] += size
            placed.append(turn)
    return placed + after
