"""The policy: who starts, who is preempted for whom, and why each of the others waits.

The same function decides for the scheduler, plays a what-if, a forecast or a trace, and is tested.  It knows no
clock and keeps nothing: whatever it depends on stands in the `Scene`.

What the engine does with it, on each tick:

- it builds a `Contender` for each queued and each running job, from the `Job` and what it knows of its run:
  `need` by `Outline.need_of(spec.resources)`, `size` by `Outline.size_of` (the fewest ranks, or those that it holds),
  `rests` by `eligible.rests`, `told` by `forecast.left_s` when a step was heard last;
- it writes down `kept` (a `Start` with `after`) and `Tenure.due`, `Tenure.loan_of` (from the `Start`) with the job,
  and the ledger by `after`; then it stops and starts.  A job with `kept` starts once its nodes are free, by a
  later decision.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from scheduler.core import ordering, placement
from scheduler.core.contender import HOUR_S, Contender, Grant, Ledger, Loss, Rules, Scene
from scheduler.core.eligible import considered
from scheduler.core.model import Allocation, JobId, NodeId, Reason, Snapshot
from scheduler.core.preemption import Board, Choice, choose, gives_way_s
from scheduler.core.reckoning import Evidence, Reckoning
from scheduler.core.reservations import Room, Runs, runs_until, soonest
from scheduler.core.turns import AT_ONCE, Order, Part, Turn, order
from scheduler.core.wait_reasons import Outcome, WaitReasons

SEARCHES = 32
"""For victims, in one pass; who comes after them has a turn in the next."""
KEPT = 4
"""Places kept at a time: for the due jobs that are first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """A job gets nodes."""

    allocation: Allocation
    after: tuple[JobId, ...] = ()
    """Those who are preempted for it, or whose room it shares with another for whom they are: it starts when they are
    gone, and the nodes are kept for it until then."""
    due: bool = False
    """It gets them because it was due."""
    loan_of: JobId | None = None
    """They are kept for this one, who may have them back at any time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The outcome of one pass; every job that waits is in exactly one of `starts` and `reasons`."""

    starts: Mapping[JobId, Start]
    stops: Mapping[JobId, Reckoning]
    """Whom to preempt; each stands in the `after` of the start for which it is."""
    reasons: Mapping[JobId, Reason]
    """In the order of the turns; each sentence is made when it is asked for."""
    turns: Order | None = None
    """By which it was decided, with what each project is entitled to; None: the policy knows no shares."""


def decide(scene: Scene, rules: Rules) -> Decision:
    """One pass."""
    ready, resting = considered(scene.waiting, scene.running)  # 1. who may be considered at all
    turns = order(ready, scene, rules)  # 2. what everybody is entitled to, and so: 3. one order for all
    tick = _Pass(scene, rules, turns, Room(scene, rules))  # 4. what is free, and kept for nobody
    for turn in turns.waiting:
        if why := tick.shut(turn) or tick.barred(turn):  # 5. within limit and quota
            tick.waits[turn.job.id] = why
        elif not (
            tick.start(turn)  # 6. free room,
            or tick.lend(turn)  #    or a loan of what is kept for another,
            or tick.preempt(turn)  #    or the room of those who lose least,
        ):
            tick.wait(turn)  #    or, for who is due, a place of its own
    reasons = WaitReasons(scene, rules, turns, resting, tick.waits, tick.room)
    # 7. and a reason for everyone
    return Decision(starts=tick.starts, stops=tick.stops, reasons=reasons, turns=turns)


def fifo(queue: ordering.QueueOrder, snapshot: Snapshot) -> Decision:
    """The policy `fifo`: priority, then first in, first out, with a place kept for all who wait."""
    plan = placement.plan(queue.ready, snapshot)
    starts = {job_id: Start(allocation=allocation) for job_id, allocation in plan.start.items()}
    return Decision(starts=starts, stops={}, reasons={**queue.paused, **plan.blocked})


def after(
    decision: Decision, ledger: Ledger, sizes: Mapping[JobId, float], rules: Rules, now_s: float
) -> Ledger:
    """The ledger, with what *decision* spends; *sizes* of those who start, 0 of those for whom nodes were kept."""
    kept = ledger.since(now_s)
    losses = [
        Loss(at_s=now_s, job_id=job_id, price=reckoning.price_of(job_id))
        for job_id, reckoning in decision.stops.items()
    ]
    grants = [
        Grant(at_s=now_s, gpu_s=sizes[job_id] * rules.due_for_s)
        for job_id, start in decision.starts.items()
        if start.due
    ]
    return Ledger(losses=(*kept.losses, *losses), grants=(*kept.grants, *grants))


class _Pass:
    """What one pass has come to so far."""

    def __init__(self, scene: Scene, rules: Rules, turns: Order, room: Room) -> None:
        self.scene, self.rules, self.turns, self.room = scene, rules, turns, room
        self.starts: dict[JobId, Start] = {}
        self.stops: dict[JobId, Reckoning] = {}
        self.waits: dict[JobId, Outcome] = {}
        self._cleared: dict[NodeId, list[JobId]] = {}
        self._held = {project: part.held for project, part in turns.parts.items()}
        self._assured: dict[str, float] | None = None
        self._board: Board | None = None
        self._evidence: Evidence | None = None
        self._budget = rules.lost_share * scene.cluster.size * HOUR_S
        self._spent = scene.ledger.lost(scene.now_s)
        self._runs: Runs | None = None
        self._searches = 0
        self._limited = {name for name, share in scene.shares.items() if share.limit is not None}
        self._shut: dict[object, tuple[float, Outcome]] = {}
        self._vain: dict[object, tuple[float, Outcome]] = {}
        """Shapes for which nobody is stopped, how much that one has left, and why; who comes later has no better claim."""

    def shut(self, turn: Turn) -> Outcome | None:
        """Whether all was tried in vain for one of the same shape and claim, since anything was freed."""
        job = turn.job
        if turn.due == AT_ONCE or not job.preemptible or job.kept or (job.told and self.room.places):
            return None
        return None if job.project in self._limited else self._refused(self._shut, turn)

    def barred(self, turn: Turn) -> Outcome | None:
        """Whatever is free."""
        job = turn.job
        if job.kept is not None:
            return None if job.id in self.room.cleared else Outcome.STOPPING
        share = self.scene.shares.get(job.project)
        if share and share.limit is not None and self._held[job.project] + job.size > share.limit:
            return Outcome.LIMIT
        if not job.preemptible:
            quota = share.quota if share else 0.0
            if self._held_for_good().get(job.project, 0.0) + job.size > quota:
                return Outcome.QUOTA
        return None

    def start(self, turn: Turn) -> bool:
        job = turn.job
        allocation = job.kept or self.room.place(job)
        if allocation:
            is_there = job.kept is not None or self.room.is_there(job.need, allocation)
            after = () if is_there else self._stopped_on(allocation)
            self._begin(turn, Start(allocation=allocation, after=after, due=turn.due == AT_ONCE))
        return allocation is not None

    def lend(self, turn: Turn) -> bool:
        loan = self.room.lend(turn.job) if self.room.places and turn.job.told else None
        if loan is None:
            return False
        self._begin(turn, Start(allocation=loan[0], loan_of=loan[1]))
        return True

    def preempt(self, turn: Turn) -> bool:
        turn = turn.by_itself
        job, scene = turn.job, self.scene
        key = self._kind(turn)
        if self.rules.preempt == "never" or not scene.running:
            return False
        refused = self._refused(self._vain, turn)
        if refused or self._searches >= SEARCHES:
            self.waits[job.id] = refused or Outcome.WAITS
            return False
        if self._board is None:
            rest = [other for other in self.turns.waiting if other.job.id not in self.starts]
            self._board = Board(scene, self.turns, self.rules, rest)
        on_one, free = self.room.alone(job.need), self.room.space.free
        part = Part(self.turns.parts[job.project].entitled, self._held[job.project])
        choice = choose(turn, self._board, free, part, self.rules, on_one=on_one)
        self._searches += 1
        if choice is None or self._spent >= self._budget:
            self.waits[job.id] = why = Outcome.BRAKE if choice else Outcome.WAITS
            self._vain[key] = turn.left, why
            return False
        self._evidence = self._evidence or Evidence(scene, self.turns, self.rules)
        reckoning = self._evidence.reckon(
            turn, choice, self._board, part, free=free, on_one=on_one, spent=self._spent
        )
        self._clear(choice, reckoning)
        self.room.take(job.need, choice.allocation)
        self._begin(
            turn, Start(allocation=choice.allocation, after=reckoning.chosen, due=turn.due == AT_ONCE)
        )
        return True

    def _kind(self, turn: Turn) -> object:
        """Equal for those who have the same chances: where one was refused, so are all who come later."""
        return turn.job.need, turn[:3], turn.job.project, turn.user_over

    def _refused(self, before: Mapping[object, tuple[float, Outcome]], turn: Turn) -> Outcome | None:
        """Not for who has less left than those *before* it had: a longer one was put in front of it."""
        has, why = before.get(self._kind(turn), (0.0, None))
        return why if turn.due == AT_ONCE or turn.left >= has else None

    def wait(self, turn: Turn) -> None:
        job = turn.job
        if turn.due != AT_ONCE:
            self._shut[self._kind(turn)] = turn.left, self.waits.setdefault(job.id, Outcome.WAITS)
            return
        self.waits[job.id] = Outcome.DUE
        if len(self.room.places) < KEPT:
            if self._runs is None:
                self._runs = runs_until(self.scene.running, self._gives_way_s)
            if place := soonest(job, self.room, self._runs):
                self.room.keep(job, place)

    def _begin(self, turn: Turn, start: Start) -> None:
        job = turn.job
        self.starts[job.id] = start
        self._held[job.project] += job.size
        if self._assured is not None and not job.preemptible:
            self._assured[job.project] = self._assured.get(job.project, 0.0) + job.size

    def _stopped_on(self, allocation: Allocation) -> tuple[JobId, ...]:
        """Those whose going makes room there, for whomever they were stopped."""
        found = (victim for node, _ in allocation.ranks for victim in self._cleared.get(node, ()))
        return tuple(dict.fromkeys(found))

    def _clear(self, choice: Choice, reckoning: Reckoning) -> None:
        assert self._board
        self._spent += choice.price
        self._shut.clear()
        for victim in choice.victims:
            job = victim.job
            self._board.gone.add(job.id)
            self.stops[job.id] = reckoning
            self.room.give(job.need, victim.tenure)
            for node, _ in victim.tenure.ranks:
                self._cleared.setdefault(node, []).append(job.id)
            self._held[job.project] -= job.size

    def _held_for_good(self) -> Mapping[str, float]:
        if self._assured is None:
            self._assured = {}
            for job in self.scene.running:
                if not job.preemptible:
                    self._assured[job.project] = self._assured.get(job.project, 0.0) + job.size
        return self._assured

    def _gives_way_s(self, run: Contender) -> float:
        return gives_way_s(run, self.rules, self.scene.now_s)
