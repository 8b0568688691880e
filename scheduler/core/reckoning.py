"""What is written down with each preemption, so that anybody can find out whether the choice was right.

It holds all that the choice depended on; no other record is needed to make it again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import TypeAdapter

from scheduler.core.bin_packing import UNIT, Free
from scheduler.core.contender import HOUR_S, Contender, Rules, Scene
from scheduler.core.durations import span
from scheduler.core.model import Allocation, JobId, Json, NodeId
from scheduler.core.preemption import Board, Choice, exclusion, preempted_lately, price, refusal
from scheduler.core.remaining import left
from scheduler.core.turns import AT_ONCE, Order, Part, Turn


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A run that could have been preempted for the newcomer."""

    id: JobId
    left: float
    """GPU seconds."""
    price: float
    """GPU seconds that its preemption costs."""
    seq: int
    cpus: int
    whole: int
    part: int
    """What each of its ranks gives back: CPU units, whole GPUs, units of a shared one."""
    ranks: tuple[tuple[NodeId, int], ...]

    @property
    def size(self) -> float:
        """GPUs that it holds; CPUs where it has none."""
        each = (self.whole + self.part / UNIT) or self.cpus / UNIT
        return each * sum(ranks for _, ranks in self.ranks)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reckoning:
    """Why these runs were preempted for this job, and not others."""

    newcomer: JobId
    claim: str
    """What its right rests on: `class`, `due`, `share` or `length`."""
    left: float
    num_ranks: int
    cpus: int
    whole: int
    part: int
    """What each of its ranks needs."""
    on_one: bool
    """All its ranks on one node."""
    only: tuple[NodeId, ...] | None
    """Nodes on which it may start; None: all."""
    candidates: tuple[Candidate, ...]
    excluded: tuple[tuple[JobId, str], ...]
    """Every other run, and why it was out of the question."""
    free: tuple[tuple[NodeId, Free], ...]
    """What was free on each node, and kept for nobody."""
    budget: float
    """GPU seconds that preemptions may cost in an hour."""
    spent: float
    """Of these, in the hour before this one."""
    chosen: tuple[JobId, ...]
    allocation: Allocation
    worth: float
    policy: str
    """Fingerprint of the rules."""

    @property
    def price(self) -> float:
        return sum(one.price for one in self.candidates if one.id in self.chosen)

    def price_of(self, victim: JobId) -> float:
        return next(one.price for one in self.candidates if one.id == victim)

    def sentence(self, names: Mapping[JobId, str]) -> str:
        """For the history of a victim: for whom, and what it costs."""
        name = names.get(self.newcomer, self.newcomer)
        right = {
            "class": "has a higher priority",
            "due": "had waited longest of all and was due",
            "share": "is within the share of its project, of which part was lent",
            "length": "has much less left",
        }[self.claim]
        held = sum(one.size for one in self.candidates if one.id in self.chosen)
        return f"preempted for {name}, which {right}; this costs {span(self.price / held)} of the time of its nodes"


RECKONING: TypeAdapter[Reckoning] = TypeAdapter(Reckoning)


def written(reckoning: Reckoning) -> Json:
    """As it stands in the journal."""
    return RECKONING.dump_python(reckoning, mode="json")


def read(doc: Json) -> Reckoning:
    return RECKONING.validate_python(doc)


class Evidence:
    """What is written down with each preemption of one pass; what is the same for all of them is made once."""

    def __init__(self, scene: Scene, order: Order, rules: Rules) -> None:
        self._scene, self._rules = scene, rules
        lately = preempted_lately(scene.ledger, scene.now_s)
        self._excluded: list[tuple[JobId, str]] = []
        self._runs: list[tuple[Candidate, Turn]] = []
        for run in scene.running:
            if why := exclusion(run, lately, rules, scene.now_s):
                self._excluded.append((run.id, why))
                continue
            turn = order.of_run(run, left(run, scene.now_s), rules, scene.now_s)
            self._runs.append((_candidate(run, turn, scene.now_s), turn))

    def reckon(
        self,
        newcomer: Turn,
        choice: Choice,
        board: Board,
        part: Part,
        *,
        free: Mapping[NodeId, Free],
        on_one: bool,
        spent: float,
    ) -> Reckoning:
        """Write down *choice*; *free*, *part* and *spent* as they were when it was made."""
        job, need, rules = newcomer.job, newcomer.job.need, self._rules
        candidates: list[Candidate] = []
        excluded = list(self._excluded)
        for run, turn in self._runs:
            gone = "gone_already" if run.id in board.gone else ""
            if why := gone or refusal(newcomer, turn, run.price, part, rules):
                excluded.append((run.id, why))
            else:
                candidates.append(run)
        return Reckoning(
            newcomer=job.id,
            claim=_claim(newcomer, [victim.turn for victim in choice.victims], part),
            left=newcomer.left,
            num_ranks=need.fewest,
            cpus=need.cpus,
            whole=need.whole,
            part=need.part,
            on_one=on_one,
            only=None if need.only is None else tuple(sorted(need.only)),
            candidates=tuple(candidates),
            excluded=tuple(excluded),
            free=tuple(free.items()),
            budget=rules.lost_share * self._scene.cluster.size * HOUR_S,
            spent=spent,
            chosen=tuple(victim.job.id for victim in choice.victims),
            allocation=choice.allocation,
            worth=rules.worth,
            policy=rules.fingerprint,
        )


def _candidate(run: Contender, turn: Turn, now_s: float) -> Candidate:
    assert run.tenure
    return Candidate(
        id=run.id,
        left=turn.left,
        price=price(run, now_s),
        seq=run.seq,
        cpus=run.need.cpus,
        whole=run.need.whole,
        part=run.need.part,
        ranks=run.tenure.allocation.ranks,
    )


def _claim(newcomer: Turn, victims: Sequence[Turn], part: Part) -> str:
    if any(newcomer.rank < victim.rank for victim in victims):
        return "class"
    if newcomer.due == AT_ONCE:
        return "due"
    owed = part.held + newcomer.job.size / 2 <= part.entitled
    lent = (victim for victim in victims if victim.job.project != newcomer.job.project)
    if owed and any(newcomer.over < victim.over for victim in lent):
        return "share"
    return "length"
