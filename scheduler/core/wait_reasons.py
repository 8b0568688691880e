"""Why a job waits, as the pass that decided saw it: one stable word, and a sentence that a tired person reads once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import Enum, auto
from functools import cached_property

from scheduler.core.aside import Aside
from scheduler.core.bin_packing import UNIT, Free, gpu_units
from scheduler.core.contender import HOUR_S, Contender, Rules, Scene
from scheduler.core.durations import span
from scheduler.core.model import JobId, NodeId, Reason
from scheduler.core.placement import feasible
from scheduler.core.reservations import Room
from scheduler.core.turns import OVER, Order, Turn

Where = frozenset[NodeId] | None
"""Nodes on which a job may start; None: all."""
Place = tuple[Turn, int, Turn | None]
"""A turn, how many wait before it for nodes on which it may start too, and the one next before it."""


class Outcome(Enum):
    """What stood in the way of a job."""

    LIMIT = auto()
    """Its project may not hold more."""
    QUOTA = auto()
    """It may not be preempted, and what its project is guaranteed is in use by others of that kind."""
    STOPPING = auto()
    """Others are being stopped for it."""
    BRAKE = auto()
    """There are victims, but preemptions cost enough in this hour."""
    DUE = auto()
    """It goes next, where it could start soonest."""
    WAITS = auto()
    """There is no room for it, and nobody may be preempted for it."""


class WaitReasons(Mapping[JobId, Reason]):
    """Of all that wait, in the order of their turn and then those that are not considered."""

    def __init__(
        self,
        scene: Scene,
        rules: Rules,
        turns: Order,
        resting: Mapping[JobId, Reason],
        waits: Mapping[JobId, Outcome],
        room: Room,
    ) -> None:
        self._scene, self._rules, self._turns, self._room = scene, rules, turns, room
        self._resting, self._waits = resting, waits
        self._places: dict[JobId, Place] | None = None
        self._free_words: dict[tuple[Where, bool], str] = {}

    def __iter__(self) -> Iterator[JobId]:
        yield from self._waits
        yield from self._resting

    def __len__(self) -> int:
        return len(self._waits) + len(self._resting)

    def __getitem__(self, job_id: JobId) -> Reason:
        if job_id in self._resting:
            return self._resting[job_id]
        outcome = self._waits[job_id]
        turn, ahead, first = self._place_of(job_id)
        job = turn.job
        if self._room.cluster.in_all(job.need) < job.need.fewest:
            return self._does_not_fit(job)
        match outcome:
            case Outcome.LIMIT:
                return self._limit(job)
            case Outcome.QUOTA:
                return self._quota(job)
            case Outcome.STOPPING:
                return Reason(
                    code="waiting_for_resources",
                    message="starts when the runs that are preempted for it have saved and stopped",
                )
            case Outcome.BRAKE:
                return self._brake()
            case Outcome.DUE:
                return self._due(job)
            case Outcome.WAITS:
                return self._waits_its_turn(turn, ahead, first)

    def _waits_its_turn(self, turn: Turn, ahead: int, first: Turn | None) -> Reason:
        job = turn.job
        part = self._turns.parts[job.project]
        entitled, held, unit = part.entitled, part.held, self._room.cluster.unit
        several = len(self._turns.parts) > 1
        if several and turn.over == OVER:
            who = job.project or "no project"
            return Reason(
                code="over_share",
                message=f"{who} holds {held:g} of its {entitled:.3g} {unit}s; those within their share go first",
            )
        if several and held + job.size / 2 <= entitled and self._turns.over:
            who = job.project or "no project"
            return Reason(
                code="on_loan",
                message=f"{who} holds {held:g} of its {entitled:.3g} {unit}s; the rest is lent to others, who give "
                "it back once they have run for their minimum and stop when asked",
            )
        if ahead and first is not None:
            return self._behind(turn, ahead, first)
        return self._no_room(job)

    def _behind(self, turn: Turn, ahead: int, first: Turn) -> Reason:
        jobs = "1 job" if ahead == 1 else f"{ahead} jobs"
        if (first.rank, first.due) < (turn.rank, turn.due):
            return Reason(code="behind", message=f"behind {jobs} of a higher priority, or due")
        if first.left > turn.left and (first.is_moved or turn.is_moved):
            return Reason(
                code="behind", message=f"behind {jobs}, one of which a person put in front of its project's"
            )
        if first.left == turn.left:
            return Reason(
                code="behind",
                message=f"behind {jobs} that came before it with as much left, as far as anyone can tell; needs "
                f"{turn.job.need}, and {self._what_is_free(turn.job)}",
            )
        return Reason(
            code="behind",
            message=f"behind {jobs} with less left: {_length(first)}; this one has {_length(turn)}",
        )

    def _no_room(self, job: Contender) -> Reason:
        fits, on_one = self._room.space.within(job.need.only).capacity(job.need), self._room.alone(job.need)
        if aside := self._set_aside.now(job.need, fits, on_one=on_one):
            return aside
        message = (
            f"needs {job.need}, and {self._what_is_free(job)}; no run has so much more left that it is stopped for "
            "this one"
        )
        return Reason(code="waiting_for_resources", message=message)

    def _what_is_free(self, job: Contender) -> str:
        """Such as "2 of 8 GPUs are free, at most 1 on one node"."""
        in_gpus = job.need.gang.gpus_per_rank > 0
        if (known := self._free_words.get((job.need.only, in_gpus))) is not None:
            return known

        def amounts(of: Iterable[Free]) -> list[float]:
            return [(gpu_units(devices) if in_gpus else cpus) / UNIT for cpus, devices in of]

        totals = self._room.cluster.totals
        left = amounts(self._room.space.within(job.need.only).free.values())
        all_ = amounts(have for node, have in totals.items() if job.need.may_be_on(node))
        unit = "GPU" if in_gpus else "CPU"
        words = (
            f"{sum(left):g} of {sum(all_):g} {unit}s are free, at most {max(left, default=0.0):g} on one node"
        )
        self._free_words[job.need.only, in_gpus] = words
        return words

    def _does_not_fit(self, job: Contender) -> Reason:
        cluster = self._room.cluster
        offer = f"needs {job.need.gang}; the nodes that are not being drained could never hold it"
        never = feasible(job.need.gang, cluster.nodes)
        never = never or self._set_aside.ever(job.need, cluster.in_all(job.need))
        return never or Reason(code="does_not_fit_here", message=offer)

    @cached_property
    def _set_aside(self) -> Aside:
        held = ((job.need.gang, job.tenure.allocation) for job in self._scene.running if job.tenure)
        return Aside(self._room.cluster.nodes, tuple(held))

    def _limit(self, job: Contender) -> Reason:
        limit, held = self._scene.shares[job.project].limit, self._turns.parts[job.project].held
        unit = self._room.cluster.unit
        message = f"{job.project} may hold {limit:g} {unit}s at once and holds {held:g}; this job needs {job.size:g}"
        return Reason(code="quota", message=message)

    def _quota(self, job: Contender) -> Reason:
        share = self._scene.shares.get(job.project)
        quota, unit = share.quota if share else 0.0, self._room.cluster.unit
        message = (
            f"it must not be preempted, so it starts only within the quota of {job.project or 'no project'}: "
            f"{quota:g} {unit}s, of which not enough are left for {job.size:g}"
        )
        return Reason(code="quota", message=message)

    def _brake(self) -> Reason:
        return Reason(
            code="brake",
            message=f"runs could be stopped for it, but preemptions of the last hour cost "
            f"{self._scene.ledger.lost(self._scene.now_s) / HOUR_S:.2g} {self._room.cluster.unit} hours already: "
            f"{self._rules.lost_share:.0%} of the cluster is the most",
        )

    def _due(self, job: Contender) -> Reason:
        place = next((place for place in self._room.places if place.owner == job.id), None)
        when = (
            f"; a place is kept for it, free in {span(place.at_s - self._scene.now_s)} at the latest"
            if place
            else ""
        )
        return Reason(code="due", message=f"{self._why_due(job)} and goes next{when}")

    def _why_due(self, job: Contender) -> str:
        now_s = self._scene.now_s
        waited_s = now_s - job.waits_since_s
        if job.deadline_s is None or waited_s >= self._rules.due_after_s:
            return f"has waited {span(waited_s)}"
        if job.deadline_s <= now_s:
            return f"is late, {span(now_s - job.deadline_s)} after its deadline,"
        return f"has to be done in {span(job.deadline_s - now_s)}, which is only just time enough,"

    def _place_of(self, job_id: JobId) -> Place:
        if self._places is None:
            self._places = _places([turn for turn in self._turns.waiting if turn.job.id in self._waits])
        return self._places[job_id]


def _places(waiting: Sequence[Turn]) -> dict[JobId, Place]:
    wheres = {turn.job.need.only for turn in waiting}
    if len(wheres) == 1:
        turns = enumerate(waiting)
        return {turn.job.id: (turn, ahead, waiting[ahead - 1] if ahead else None) for ahead, turn in turns}
    rivals = {where: [one for one in wheres if _meet(where, one)] for where in wheres}
    before: dict[Where, tuple[int, Turn | None]] = dict.fromkeys(wheres, (0, None))
    found: dict[JobId, Place] = {}
    for turn in waiting:
        ahead, last = before[turn.job.need.only]
        found[turn.job.id] = turn, ahead, last
        for one in rivals[turn.job.need.only]:
            before[one] = before[one][0] + 1, turn
    return found


def _meet(one: Where, other: Where) -> bool:
    """Whether they could want the same node."""
    if one is None or other is None:
        return bool(one is None or one) and bool(other is None or other)
    return not one.isdisjoint(other)


def _length(turn: Turn) -> str:
    job = turn.job
    if job.told is not None:
        return span(turn.left / max(job.size, 1e-9))
    had_s = job.attained / max(job.size, 1e-9)
    return f"as much again as the {span(had_s)} it has had" if had_s else "never run yet"
