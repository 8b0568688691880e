"""A trace, played through the policy: what people would have waited, and what it would have cost.

The policy is never shown how long a job takes: only what it has had, and, of those that tell, what their steps
tell once a part of them is done.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from scheduler.core.bin_packing import Free, Need, take
from scheduler.core.contender import Contender, Grant, Ledger, Loss, Rules, Scene, Share, Tenure, Told
from scheduler.core.entitlements import decayed
from scheduler.core.model import Allocation, Gang, JobId, NodeId
from scheduler.core.needs import Outline, shape
from scheduler.core.policy import Decision, decide


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One job of a trace."""

    submit_s: float
    duration_s: float
    gang: Gang
    project: str = ""
    user: str = ""
    priority: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """How the jobs of a trace behave."""

    restart_s: float = 60.0
    tells: float = 1.0
    """Share of the jobs that tell their steps."""
    after: float = 0.05
    """Part of a run after which its steps tell something, but not before a minute."""
    error: float = 0.1
    """By how much they are wrong at most."""
    early: float = 0.0
    """Share of the jobs that end before their last step."""
    seed: int = 0
    tick_s: float = 60.0


def chance(seed: int, number: int, what: int) -> float:
    """A number from 0 to 1 that belongs to (seed, number, what): no state, so order does not matter."""
    x = (seed * 0x9E3779B97F4A7C15 + number * 0xBF58476D1CE4E5B9 + what * 0x94D049BB133111EB + 1) & (2**64 - 1)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        x = ((x ^ (x >> shift)) * factor) & (2**64 - 1)
    return ((x ^ (x >> 31)) >> 11) / 2**53


SUBMIT, END, TELL, RETELL, TICK = range(5)


@dataclass(slots=True)
class Play:
    entry: Entry
    contender: Contender
    done_s: float = 0.0
    began_s: float = 0.0
    """When it went on, after the restart."""
    run: int = 0
    ended_s: float = -1.0
    longest_wait_s: float = 0.0
    told: bool = False


@dataclass(slots=True)
class Result:
    jct_s: list[float] = field(default_factory=list[float])
    longest_wait_s: float = 0.0
    lost: float = 0.0
    preemptions: int = 0
    most: int = 0
    passes: int = 0
    settled: list[int] = field(default_factory=list[int])
    lost_each_hour: dict[int, float] = field(default_factory=dict[int, float])


class Replay:
    def __init__(
        self,
        entries: Sequence[Entry],
        cluster: Outline,
        rules: Rules,
        world: World = World(),
        shares: dict[str, Share] | None = None,
    ) -> None:
        self.rules, self.world, self.cluster = rules, world, cluster
        self.shares = shares or {}
        self.entries = sorted(entries, key=lambda entry: entry.submit_s)
        self.now_s = 0.0
        self.heap: list[tuple[float, int, int, int]] = []
        self.waiting: dict[JobId, Contender] = {}
        self.running: dict[JobId, Contender] = {}
        self.on_node: dict[NodeId, dict[JobId, tuple[Need, int]]] = {node: {} for node in cluster.totals}
        self.free: dict[NodeId, Free] = dict(cluster.totals)
        self.ledger = Ledger()
        self.usage: dict[tuple[str, str], tuple[float, float, float]] = {}
        self.result = Result()
        self.plays: list[Play] = []
        self.next_tick = 0.0
        self.tick_s = world.tick_s
        for number, entry in enumerate(self.entries):
            ranks = entry.gang.fewest
            size = cluster.size_of(entry.gang, ranks)
            contender = Contender(
                id=JobId(f"{number:06d}"),
                need=shape(entry.gang),
                size=size,
                priority=entry.priority,
                project=entry.project,
                user=entry.user,
                seq=number,
                waits_since_s=entry.submit_s,
                save_s=0.0,
                start_s=world.restart_s,
            )
            self.plays.append(Play(entry, contender))
            self.heap.append((entry.submit_s, SUBMIT, number, 0))
        heapq.heapify(self.heap)

    def play(self) -> Result:
        heap = self.heap
        while heap:
            self.now_s = heap[0][0]
            changed = False
            while heap and heap[0][0] <= self.now_s:
                _, kind, number, run = heapq.heappop(heap)
                changed |= self.happens(kind, number, run)
            if changed and self.waiting:
                self.settle()
        return self.result

    def happens(self, kind: int, number: int, run: int) -> bool:
        if kind == TICK:
            return True
        play = self.plays[number]
        if kind == SUBMIT:
            self.waiting[play.contender.id] = play.contender
            return True
        if play.run != run or play.ended_s >= 0:
            return False
        if kind == END:
            self.leave(play)
            play.ended_s = self.now_s
            self.result.jct_s.append(self.now_s - play.entry.submit_s)
            return True
        self.tell(number, play)
        return False

    def tell(self, number: int, play: Play) -> None:
        total_s = self.told_total_s(number, play.entry)
        done_s = play.done_s + max(0.0, self.now_s - play.began_s)
        wrong = 1 + self.world.error * (2 * chance(self.world.seed, number, 1) - 1)
        left_s = (total_s - done_s) * wrong
        play.told = True
        play.contender = replace(play.contender, told=Told(left_s=left_s, at_s=self.now_s))
        self.running[play.contender.id] = play.contender
        half_s = (total_s - done_s) / 2
        if half_s > 30:
            heapq.heappush(self.heap, (self.now_s + half_s, RETELL, number, play.run))

    def told_total_s(self, number: int, entry: Entry) -> float:
        if chance(self.world.seed, number, 2) < self.world.early:
            return entry.duration_s / max(0.1, chance(self.world.seed, number, 3))
        return entry.duration_s

    def settle(self) -> None:
        result = self.result
        rounds, started = 0, False
        for rounds in range(1, 4):
            scene = Scene(
                now_s=self.now_s,
                cluster=self.cluster,
                free=self.free,
                waiting=tuple(self.waiting.values()),
                running=tuple(self.running.values()),
                shares=self.shares,
                usage={who: decayed(value, held, self.now_s - at_s, self.rules.half_life_s)
                       for who, (value, at_s, held) in self.usage.items()},
                ledger=self.ledger,
            )
            decision = decide(scene, self.rules)
            result.passes += 1
            started |= bool(decision.starts)
            self.carry_out(decision)
            if not decision.stops or not self.waiting:
                break
        result.settled.append(rounds)
        self.tick_s = self.world.tick_s if rounds > 1 or started else min(2 * self.tick_s, 8 * self.world.tick_s)
        if self.waiting and self.running and self.next_tick <= self.now_s:
            self.next_tick = self.now_s + self.tick_s
            heapq.heappush(self.heap, (self.next_tick, TICK, 0, 0))

    def carry_out(self, decision: Decision) -> None:
        if not decision.starts:
            return
        ledger = self.ledger.since(self.now_s)
        losses, grants = list(ledger.losses), list(ledger.grants)
        for job_id, reckoning in decision.stops.items():
            cost = reckoning.price_of(job_id)
            play = self.plays[int(job_id)]
            losses.append(Loss(at_s=self.now_s, job_id=job_id, price=cost))
            self.result.lost += cost
            hour = int(self.now_s // 3600)
            self.result.lost_each_hour[hour] = self.result.lost_each_hour.get(hour, 0.0) + cost
            self.result.preemptions += 1
            self.leave(play)
            play.run += 1
            done_s = max(0.0, self.now_s - play.began_s)
            play.done_s += done_s
            tenure = play.contender.tenure
            assert tenure
            had_s = self.now_s - tenure.since_s
            told = play.contender.told
            if told:
                told = Told(left_s=max(0.0, told.left_s - max(0.0, self.now_s - told.at_s)), at_s=self.now_s)
            play.contender = replace(
                play.contender,
                tenure=None,
                told=told,
                ran_s=play.contender.ran_s + had_s,
                attained=play.contender.attained + play.contender.size * had_s,
                preemptions=play.contender.preemptions + 1,
                preempted_at_s=self.now_s,
                waits_since_s=self.now_s,
            )
            self.result.most = max(self.result.most, play.contender.preemptions)
            self.waiting[job_id] = play.contender
        for job_id, start in decision.starts.items():
            number = int(job_id)
            play = self.plays[number]
            job = self.waiting.pop(job_id)
            waited = self.now_s - job.waits_since_s
            self.result.longest_wait_s = max(self.result.longest_wait_s, waited)
            resumed_s = self.world.restart_s if play.contender.preemptions else 0.0
            play.began_s = self.now_s + resumed_s
            told = job.told and replace(job.told, at_s=play.began_s)
            tenure = Tenure(allocation=start.allocation, since_s=self.now_s, due=start.due)
            play.contender = replace(job, tenure=tenure, told=told)
            self.enter(play, start.allocation)
            if start.due:
                grants.append(Grant(at_s=self.now_s, gpu_s=job.size * self.rules.due_for_s))
            end_s = play.began_s + play.entry.duration_s - play.done_s
            heapq.heappush(self.heap, (end_s, END, number, play.run))
            if chance(self.world.seed, number, 4) < self.world.tells:
                total_s = self.told_total_s(number, play.entry)
                if play.told:
                    heapq.heappush(self.heap, (play.began_s + (total_s - play.done_s) / 2, RETELL, number, play.run))
                else:
                    at_s = play.began_s + max(60.0, self.world.after * total_s) - play.done_s
                    if at_s < end_s:
                        heapq.heappush(self.heap, (at_s, TELL, number, play.run))
        self.ledger = Ledger(losses=tuple(losses), grants=tuple(grants))

    def enter(self, play: Play, allocation: Allocation) -> None:
        job = play.contender
        self.running[job.id] = job
        take(self.free, job.need, allocation)
        for node, ranks in allocation.ranks:
            self.on_node[node][job.id] = job.need, ranks
        self.uses(job, job.size)

    def leave(self, play: Play) -> None:
        job = self.running.pop(play.contender.id)
        assert job.tenure
        for node, _ in job.tenure.allocation.ranks:
            del self.on_node[node][job.id]
            free = {node: self.cluster.totals[node]}
            for need, ranks in self.on_node[node].values():
                take(free, need, Allocation(ranks=((node, ranks),)))
            self.free[node] = free[node]
        self.uses(job, -job.size)

    def uses(self, job: Contender, more: float) -> None:
        who = job.project, job.user
        value, at_s, held = self.usage.get(who, (0.0, self.now_s, 0.0))
        self.usage[who] = decayed(value, held, self.now_s - at_s, self.rules.half_life_s), self.now_s, held + more


Now = Callable[[], float]
