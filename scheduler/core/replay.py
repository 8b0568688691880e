"""A trace, played through the policy: what people would have waited, and what it would have cost.

The policy is never shown how long a job takes: only what it has had, and, of those that tell, what their steps
tell once a part of them is done.  Whatever is drawn is drawn from the seed and the number of the job, so two
policies meet the same jobs.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Literal

from scheduler.core.bin_packing import Free, Need, take
from scheduler.core.contender import Contender, Ledger, Rules, Scene, Share, Tenure, Told, preempted
from scheduler.core.entitlements import decayed
from scheduler.core.model import Allocation, Gang, Job, JobId, JobSpec, NodeId, Reason, Snapshot, Status
from scheduler.core.needs import Outline
from scheduler.core.ordering import QueueOrder, turn
from scheduler.core.policy import Decision, Start, after, decide, fifo
from scheduler.core.reckoning import Reckoning

SOONEST_TELL_S = 60.0
ROUNDS = 3
"""Decisions in a row, while one still preempts somebody."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One job of a trace."""

    submit_s: float
    duration_s: float
    gang: Gang
    project: str = ""
    user: str = ""
    priority: int = 0
    preemptible: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """How the jobs of a trace behave."""

    restart_s: float = 60.0
    """What a preempted run costs: it holds its nodes for so long without getting on."""
    tells: float = 1.0
    """Part of the jobs that tell their steps."""
    after: float = 0.05
    """Part of a job after which its steps tell something, but not before a minute."""
    error: float = 0.1
    """By how much they are wrong at most, of what is left."""
    early: float = 0.0
    """Part of the jobs that end before their last step."""
    tick_s: float = 60.0
    """How often the scheduler looks when nothing happens; up to four times seldomer while nothing moves."""
    seed: int = 0


PLAIN = World()


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of the log, from which everything else can be counted."""

    at_s: float
    what: Literal["start", "stop", "end"]
    number: int
    """Of the job: its place in the trace, by time of submission."""
    allocation: Allocation
    reckoning: Reckoning | None = None
    """Of a stop."""


def chance(seed: int, number: int, what: int) -> float:
    """A number from 0 to 1 that belongs to these three: the order in which it is asked for does not matter."""
    mask = 2**64 - 1
    mixed = (seed * 0x9E3779B97F4A7C15 + number * 0xBF58476D1CE4E5B9 + what * 0x94D049BB133111EB + 1) & mask
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = ((mixed ^ (mixed >> shift)) * factor) & mask
    return ((mixed ^ (mixed >> 31)) >> 11) / 2**53


_ERROR, _EARLY, _HOW_EARLY, _TELLS = range(4)
_SUBMIT, _END, _TELL, _TICK = range(4)


class Player:
    """One job of the trace on its way."""

    __slots__ = ("began_s", "contender", "done_s", "entry", "number", "run", "tells", "total_s", "wrong")

    def __init__(self, number: int, entry: Entry, cluster: Outline, world: World) -> None:
        self.number, self.entry = number, entry
        self.run, self.done_s, self.began_s = 0, 0.0, 0.0
        self.tells = chance(world.seed, number, _TELLS) < world.tells
        self.wrong = 1 + world.error * (2 * chance(world.seed, number, _ERROR) - 1)
        early = chance(world.seed, number, _EARLY) < world.early
        part = max(0.1, chance(world.seed, number, _HOW_EARLY)) if early else 1.0
        self.total_s = entry.duration_s / part
        """What it would take if it did not end early."""
        self.contender = Contender(
            id=JobId(f"{number:06d}"),
            need=cluster.need_of(entry.gang),
            size=cluster.size_of(entry.gang, entry.gang.fewest),
            priority=entry.priority,
            project=entry.project,
            user=entry.user,
            seq=number,
            waits_since_s=entry.submit_s,
            preemptible=entry.preemptible,
            save_s=0.0,
            start_s=world.restart_s,
        )

    def done_at(self, now_s: float) -> float:
        return self.done_s + max(0.0, now_s - self.began_s)

    def hears(self, now_s: float) -> None:
        """Its steps tell what is left."""
        told = Told(left_s=(self.total_s - self.done_at(now_s)) * self.wrong, at_s=now_s)
        self.contender = replace(self.contender, told=told)

    def starts(self, start: Start, now_s: float, restart_s: float) -> None:
        job = self.contender
        self.began_s = now_s + (restart_s if job.preemptions else 0.0)
        tenure = Tenure(allocation=start.allocation, since_s=now_s, due=start.due, loan_of=start.loan_of)
        told = job.told and replace(job.told, at_s=self.began_s)
        self.contender = replace(job, tenure=tenure, told=told)

    def stops(self, now_s: float) -> None:
        self.done_s, self.run = self.done_at(now_s), self.run + 1
        self.contender = preempted(self.contender, now_s)


class Replay:
    """Plays a trace from its first submission to its last end; `log`, and how long the passes took, are the outcome."""

    def __init__(
        self,
        entries: Sequence[Entry],
        cluster: Outline,
        rules: Rules | None,
        world: World = PLAIN,
        *,
        shares: Mapping[str, Share] | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        """*rules*: None for `fifo`.  *clock*: tells seconds; passes are timed by it."""
        self.rules, self.world, self.cluster = rules or Rules(), world, cluster
        self.entries = sorted(entries, key=lambda entry: entry.submit_s)
        self.log: list[Line] = []
        self.pass_s: list[float] = []
        self.settled: list[int] = []
        """How many decisions each event took, until one preempted nobody."""
        self._decide = self._fair if rules else _Fifo(self.entries, cluster)
        self._clock, self._shares = clock, dict(shares or {})
        self._players = [Player(number, entry, cluster, world) for number, entry in enumerate(self.entries)]
        self._coming = [(entry.submit_s, _SUBMIT, number, 0) for number, entry in enumerate(self.entries)]
        self._waiting: dict[JobId, Contender] = {}
        self._running: dict[JobId, Contender] = {}
        self._on_node: dict[NodeId, dict[JobId, tuple[Need, int]]] = {node: {} for node in cluster.totals}
        self._free: dict[NodeId, Free] = dict(cluster.totals)
        self._ledger = Ledger()
        self._usage: dict[tuple[str, str], tuple[float, float, float]] = {}
        self._now_s = self._next_tick_s = 0.0
        self._tick_s = world.tick_s

    def play(self) -> Replay:
        coming = self._coming
        heapq.heapify(coming)
        while coming:
            self._now_s = coming[0][0]
            changed = False
            while coming and coming[0][0] <= self._now_s:
                _, kind, number, run = heapq.heappop(coming)
                changed |= self._happens(kind, number, run)
            if changed and self._waiting:
                self._settle()
        return self

    def _happens(self, kind: int, number: int, run: int) -> bool:
        """Whether there is something to decide."""
        if kind == _TICK:
            return True
        player = self._players[number]
        if kind == _SUBMIT:
            self._waiting[player.contender.id] = player.contender
            return True
        if player.run != run:  # of a run that was preempted
            return False
        if kind == _TELL:
            player.hears(self._now_s)
            self._running[player.contender.id] = player.contender
            self._tells_again(player)
            return False
        self._leaves(player, "end")
        player.run += 1
        return True

    def _settle(self) -> None:
        rounds, moved = 0, False
        while rounds < ROUNDS:
            rounds += 1
            scene = self._scene()
            began = self._clock() if self._clock else 0.0
            decision = self._decide(scene)
            if self._clock:
                self.pass_s.append(self._clock() - began)
            self._carry_out(decision)
            moved |= bool(decision.starts)
            if not decision.stops or not self._waiting:
                break
        self.settled.append(rounds)
        self._tick_s = self.world.tick_s if moved else min(2 * self._tick_s, 4 * self.world.tick_s)
        if self._waiting and self._running and self._next_tick_s <= self._now_s:
            self._next_tick_s = self._now_s + self._tick_s
            heapq.heappush(self._coming, (self._next_tick_s, _TICK, 0, 0))

    def _fair(self, scene: Scene) -> Decision:
        return decide(scene, self.rules)

    def _scene(self) -> Scene:
        half_life_s, now_s = self.rules.half_life_s, self._now_s
        return Scene(
            now_s=now_s,
            cluster=self.cluster,
            free=self._free,
            waiting=tuple(self._waiting.values()),
            running=tuple(self._running.values()),
            shares=self._shares,
            usage={
                who: decayed(gpu_s, held, now_s - at_s, half_life_s)
                for who, (gpu_s, at_s, held) in self._usage.items()
            },
            ledger=self._ledger,
        )

    def _carry_out(self, decision: Decision) -> None:
        sizes = {job_id: self._waiting[job_id].size for job_id in decision.starts}
        self._ledger = after(decision, self._ledger, sizes, self.rules, self._now_s)
        for job_id, reckoning in decision.stops.items():
            player = self._players[int(job_id)]
            self._leaves(player, "stop", reckoning)
            player.stops(self._now_s)
            self._waiting[job_id] = player.contender
        for job_id, start in decision.starts.items():
            del self._waiting[job_id]
            self._enters(self._players[int(job_id)], start)

    def _enters(self, player: Player, start: Start) -> None:
        player.starts(start, self._now_s, self.world.restart_s)
        job = self._running[player.contender.id] = player.contender
        take(self._free, job.need, start.allocation)
        for node, ranks in start.allocation.ranks:
            self._on_node[node][job.id] = job.need, ranks
        self._uses(job, job.size)
        self.log.append(
            Line(at_s=self._now_s, what="start", number=player.number, allocation=start.allocation)
        )
        ends_s = player.began_s + player.entry.duration_s - player.done_s
        heapq.heappush(self._coming, (ends_s, _END, player.number, player.run))
        if job.told is not None:
            self._tells_again(player)
        elif player.tells:
            at_s = player.began_s + max(SOONEST_TELL_S, self.world.after * player.total_s) - player.done_s
            if at_s < ends_s:
                heapq.heappush(self._coming, (at_s, _TELL, player.number, player.run))

    def _tells_again(self, player: Player) -> None:
        """Steps go on telling; here they are listened to each time half of the rest is done."""
        from_s = max(self._now_s, player.began_s)
        half_s = (player.total_s - player.done_at(self._now_s)) / 2
        if half_s > SOONEST_TELL_S / 2:
            heapq.heappush(self._coming, (from_s + half_s, _TELL, player.number, player.run))

    def _leaves(
        self, player: Player, what: Literal["stop", "end"], reckoning: Reckoning | None = None
    ) -> None:
        job = self._running.pop(player.contender.id)
        assert job.tenure
        held = job.tenure.allocation
        for node, _ in held.ranks:
            del self._on_node[node][job.id]
            free = {node: self.cluster.totals[node]}
            for need, ranks in self._on_node[node].values():
                take(free, need, Allocation(ranks=((node, ranks),)))
            self._free[node] = free[node]
        self._uses(job, -job.size)
        self.log.append(
            Line(at_s=self._now_s, what=what, number=player.number, allocation=held, reckoning=reckoning)
        )

    def _uses(self, job: Contender, more: float) -> None:
        who = job.project, job.user
        gpu_s, at_s, held = self._usage.get(who, (0.0, self._now_s, 0.0))
        gpu_s = decayed(gpu_s, held, self._now_s - at_s, self.rules.half_life_s)
        self._usage[who] = gpu_s, self._now_s, held + more


class _Fifo:
    """Today's policy, which looks at jobs and allocations."""

    def __init__(self, entries: Sequence[Entry], cluster: Outline) -> None:
        at = datetime(2026, 1, 1, tzinfo=UTC)
        self._nodes = cluster.nodes
        self._jobs = [
            Job(
                id=JobId(f"{number:06d}"),
                spec=JobSpec(loop="trace", resources=entry.gang, priority=entry.priority),
                status=Status.QUEUED,
                reason=Reason(code="queued", message="from a trace"),
                created_at=at,
                updated_at=at,
                queue_seq=number,
            )
            for number, entry in enumerate(entries)
        ]

    def __call__(self, scene: Scene) -> Decision:
        ready = sorted((self._jobs[int(job.id)] for job in scene.waiting), key=turn)
        running = tuple((job.need.gang, job.tenure.allocation) for job in scene.running if job.tenure)
        return fifo(QueueOrder(ready=ready, paused={}), Snapshot(nodes=self._nodes, running=running))
