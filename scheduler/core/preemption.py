"""Who is stopped so that another can start: the runs that lose least, among those that have longest to go.

A run is a candidate when it stands behind the newcomer in the order, has had its minimum run, can stop and go
on, and was not preempted too often.  Its price is what is lost: GPUs x (work since the last checkpoint, or none
where the loop saves when asked, + saving + starting again).
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from scheduler.core.bin_packing import Free, Need
from scheduler.core.contender import HOUR_S, Contender, Ledger, Rules, Scene
from scheduler.core.model import Allocation, JobId, NodeId
from scheduler.core.remaining import left, slack_s
from scheduler.core.reservations import freed
from scheduler.core.turns import AT_ONCE, Order, Part, Turn

ALWAYS = 4
"""Preemptions that any job may have; beyond them `PER_HOUR` for each hour that it ran."""
PER_HOUR = 2
FREE = -99
"""The level of a node for which nobody is stopped: before all others."""


class Victim(NamedTuple):
    """A run that may be preempted for somebody."""

    level: int
    """Runs of one level have about equally much left: less than twice as much as one another."""
    price: float
    seq: int
    turn: Turn
    tenure: Allocation

    @property
    def job(self) -> Contender:
        return self.turn.job


@dataclass(frozen=True, slots=True)
class Choice:
    """The victims, and the nodes that the newcomer gets."""

    victims: tuple[Victim, ...]
    allocation: Allocation

    @property
    def price(self) -> float:
        return sum(victim.price for victim in self.victims)


class Board:
    """The runs of one pass as candidates, by node; each node's in the order in which they would be stopped.

    A run that is not much longer than any of *newcomers*, and need not give way for another reason, is left out.
    """

    def __init__(self, scene: Scene, order: Order, rules: Rules, newcomers: Sequence[Turn]) -> None:
        now_s = scene.now_s
        self.by_node: defaultdict[NodeId, list[Victim]] = defaultdict(list)
        self.gone: set[JobId] = set()
        self.cluster = scene.cluster
        lately = preempted_lately(scene.ledger, now_s)
        any_due = any(turn.due == AT_ONCE for turn in newcomers)
        floor = 0.0 if any_due else rules.worth * min(turn.left for turn in newcomers)
        highest = newcomers[0].rank
        found: list[Victim] = []
        for job in scene.running:
            has = left(job, now_s)
            over = job.id in order.over
            if has < floor and not over and -job.priority <= highest:
                continue
            if exclusion(job, lately, rules, now_s):
                continue
            turn = order.of_run(job, has, rules, now_s)
            tenure = job.tenure
            assert tenure
            found.append(
                Victim(-level_of(has, job.size), price(job, now_s), -job.seq, turn, tenure.allocation)
            )
        found.sort()
        for victim in found:
            for node, _ in victim.tenure.ranks:
                self.by_node[node].append(victim)
        self.by_regret = sorted(
            ((victims[0].level, victims[0].price, node) for node, victims in self.by_node.items()),
        )
        """The nodes; no choice on one is better than what stands before its name."""


def level_of(left: float, size: float) -> int:
    """By how long its nodes would be held: of two as long, the one that costs less is stopped, however large."""
    return int(math.log2(1 + left / size)) if size > 0 else 0


def preempted_lately(ledger: Ledger, now_s: float) -> Counter[JobId]:
    """How often each job was, in the last hour."""
    return Counter(loss.job_id for loss in ledger.losses if loss.at_s > now_s - HOUR_S)


def price(job: Contender, now_s: float) -> float:
    """GPU seconds that a preemption of it costs."""
    tenure = job.tenure
    assert tenure
    lost_s = 0.0
    if not job.saves_when_asked:
        began_s = tenure.since_s + job.start_s
        lost_s = max(0.0, now_s - max(began_s, tenure.saved_at_s or began_s))
    return job.size * (lost_s + job.save_s + job.start_s)


def min_run_s(job: Contender, rules: Rules) -> float:
    """How long a run of it is left alone."""
    return min(rules.max_min_run_s, rules.min_run_s * 2.0 ** min(job.preemptions, 30))


def gives_way_s(job: Contender, rules: Rules, now_s: float) -> float:
    """When a due job may have the nodes of this run at the latest, as far as anyone can tell."""
    tenure = job.tenure
    assert tenure
    has = left(job, now_s)
    ends_s = now_s + has / max(job.size, 1e-9)
    if (
        slack_s(job, has, now_s) <= 0
        or rules.preempt != "all"
        or not (job.preemptible and job.stops_when_asked)
    ):
        return ends_s
    alone_s = rules.due_for_s if tenure.due else min_run_s(job, rules)
    return min(ends_s, max(now_s, tenure.since_s + alone_s))


def exclusion(job: Contender, lately: Mapping[JobId, int], rules: Rules, now_s: float) -> str:
    """Why this run is not preempted, whoever comes; empty when it may be."""
    tenure = job.tenure
    assert tenure
    had_s = now_s - tenure.since_s
    if tenure.stopping:
        return "stopping"
    if not job.preemptible:
        return "not_preemptible"
    if not job.stops_when_asked:
        return "not_seen_to_stop"
    if tenure.due and had_s < rules.due_for_s:
        return "due"
    if had_s < min_run_s(job, rules) and tenure.loan_of is None:
        return "just_started"
    if lately.get(job.id, 0) >= PER_HOUR:
        return "twice_this_hour"
    if job.preemptions >= ALWAYS and job.preemptions >= ALWAYS + PER_HOUR * (job.ran_s + had_s) / HOUR_S:
        return "too_often"
    return ""


def refusal(newcomer: Turn, victim: Turn, cost: float, part: Part, rules: Rules) -> str:
    """Why *newcomer* may not have *victim* preempted; empty when it may.  *part*: what its project has by now.

    A higher class, a due job, and a share that is not filled go before length; among equals only much less left.
    """
    tenure = victim.job.tenure
    if tenure and tenure.loan_of == newcomer.job.id:
        return ""
    if rules.preempt == "never":
        return "switched_off"
    if newcomer.job.project == victim.job.project:
        newcomer, victim = _among_users(newcomer), _among_users(victim)
    if not newcomer < victim:
        return "goes_before"
    if newcomer.over > victim.over and newcomer.due > AT_ONCE:
        return "within_its_share"
    if newcomer.rank < victim.rank:
        return ""
    if rules.preempt == "class":
        return "same_class"
    owed = newcomer.over < victim.over and part.held + newcomer.job.size / 2 <= part.entitled
    if owed and newcomer.job.project != victim.job.project:
        return ""
    if rules.preempt == "share":
        return "not_owed"
    if newcomer.due < victim.due or victim.left >= rules.worth * (newcomer.left + cost):
        return ""
    return "too_little_left"


def _among_users(turn: Turn) -> Turn:
    """Between jobs of one project its share says nothing; what each user has of it does."""
    return turn._replace(over=turn.user_over)


def choose(
    newcomer: Turn,
    board: Board,
    free: Mapping[NodeId, Free],
    part: Part,
    rules: Rules,
    *,
    on_one: bool,
) -> Choice | None:
    """The victims for *newcomer*, or None when no set of them frees nodes for its whole gang."""

    def allowed(victim: Victim) -> bool:
        return victim.job.id not in board.gone and not refusal(
            newcomer, victim.turn, victim.price, part, rules
        )

    job = newcomer.job
    if on_one:
        return _best_node(job.need, job.need.fewest, board, free, allowed)
    return _several(job, board, free, allowed)


def _best_node(
    need: Need,
    ranks: int,
    board: Board,
    free: Mapping[NodeId, Free],
    allowed: Callable[[Victim], bool],
) -> Choice | None:
    best: tuple[tuple[int, float, NodeId], list[Victim]] | None = None
    for bound in board.by_regret:
        if best and best[0] <= bound:
            break
        node = bound[2]
        if node not in free or not need.may_be_on(node):
            continue
        found = _clear(node, need, ranks, board.by_node[node], free[node], allowed)
        if found:
            key = max(victim.level for victim in found), sum(victim.price for victim in found), node
            if best is None or key < best[0]:
                best = key, found
    if best is None:
        return None
    return Choice(tuple(best[1]), Allocation(ranks=((best[0][2], ranks),)))


def _clear(
    node: NodeId, need: Need, ranks: int, victims: list[Victim], free: Free, allowed: Callable[[Victim], bool]
) -> list[Victim]:
    """Stop one after the other until *ranks* fit, then leave alone who need not have been; empty: it does not do."""
    chosen: list[Victim] = []
    after = free
    for victim in victims:
        if need.on(after) >= ranks:
            break
        if allowed(victim):
            chosen.append(victim)
            after = freed(after, victim.job.need, _on(victim, node))
    if need.on(after) < ranks:
        return []
    for victim in sorted(chosen, key=lambda victim: (-victim.level, -victim.price)):
        rest = [other for other in chosen if other is not victim]
        if need.on(_without(node, free, rest)) >= ranks:
            chosen = rest
    return chosen


def _without(node: NodeId, free: Free, victims: Iterable[Victim]) -> Free:
    for victim in victims:
        free = freed(free, victim.job.need, _on(victim, node))
    return free


def _on(victim: Victim, node: NodeId) -> int:
    return sum(ranks for where, ranks in victim.tenure.ranks if where == node)


def _several(
    job: Contender, board: Board, free: Mapping[NodeId, Free], allowed: Callable[[Victim], bool]
) -> Choice | None:
    """The nodes that give most each, those that cost least first; the last may be shared."""
    left = job.need.fewest
    chosen: dict[JobId, Victim] = {}
    places: list[tuple[NodeId, int]] = []
    for ranks, _, _, node, needed in _offers(job, board, free, allowed):
        if left <= 0:
            break
        taken = min(-ranks, left)
        if taken < -ranks:
            needed = _clear(node, job.need, taken, board.by_node.get(node, []), free[node], allowed)
        chosen.update((victim.job.id, victim) for victim in needed)
        places.append((node, taken))
        left -= taken
    if left > 0:
        return None
    return Choice(tuple(chosen.values()), Allocation(ranks=tuple(places)))


Offer = tuple[int, int, float, NodeId, list[Victim]]
"""Minus the ranks that a node could hold, the level and the price of those who must go for it, it, and they."""


def _offers(
    job: Contender, board: Board, free: Mapping[NodeId, Free], allowed: Callable[[Victim], bool]
) -> list[Offer]:
    """The best first; no further ones are looked for once there are enough that nothing could be better than."""
    need, left = job.need, job.need.fewest
    most = board.cluster.on_one(need)
    offers: list[Offer] = []
    for node, have in free.items():
        if need.may_be_on(node) and (ranks := need.on(have)):
            offers.append((-ranks, FREE, 0.0, node, []))
    full = most * sum(-offer[0] == most for offer in offers)
    for _, _, node in board.by_regret:
        if full >= left:
            break
        if node not in free or not need.may_be_on(node):
            continue
        here = [victim for victim in board.by_node[node] if allowed(victim)]
        ranks, now = need.on(_without(node, free[node], here)), need.on(free[node])
        if ranks > now:
            needed = _clear(node, need, ranks, here, free[node], lambda _: True)
            level = max(victim.level for victim in needed)
            offers.append((-ranks, level, sum(victim.price for victim in needed), node, needed))
            full += ranks if ranks == most else 0
    best: dict[NodeId, Offer] = {}
    for offer in sorted(offers, reverse=True):  # the better one of a node last
        best[offer[3]] = offer
    return sorted(best.values())
