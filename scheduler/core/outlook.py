"""Who starts when, as the policy would have it: `decide`, played forward from this moment on copies.

Nothing here knows the future.  A run ends when its steps say so, or after as long as runs like it took; where
that is not known, the outlook says so instead of guessing.  Nobody submits anything meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace

from scheduler.core.arrays import ARRAY_LIMIT
from scheduler.core.bin_packing import UNIT, Free, free_now, gpu_units, take
from scheduler.core.contender import DAY_S, HOUR_S, Contender, Rules, Scene, Tenure, Told, preempted
from scheduler.core.entitlements import decayed
from scheduler.core.forecast import ELSEWHERE, HORIZON_S, SOONEST_S, Start, why_unknown
from scheduler.core.model import Allocation, JobId, NodeId, Snapshot
from scheduler.core.needs import num_ranks
from scheduler.core.policy import Decision, after, decide
from scheduler.core.preemption import min_run_s, price

MAX_LOOKS = 30_000
"""Jobs that passes look at in one outlook, those that run and those that wait: with a thousand, half a second to one."""
STEP_S = 60.0
"""The policy moves with time, also when nothing happens.  It is asked after so long, then after twice as long, ..."""
TINY_S = 0.001
"""After a moment, so that it is over however the seconds are rounded."""

LengthS = Callable[[Contender], float | None]
"""How many more seconds a job holds its nodes, or will once it has some; None: nobody can tell."""
Parents = Mapping[JobId, frozenset[JobId]]
"""For whose end a job waits.  Those who neither wait nor run have ended already."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preempted:
    """A run that the first pass stops."""

    job_id: JobId
    newcomer: JobId
    """For whom."""
    price: float
    """GPU seconds that it costs."""
    again: Start
    """When it is given nodes again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """What would happen.  The first pass is the one that the scheduler makes now."""

    starts: Mapping[JobId, Start]
    """For each job that waits, when it is given nodes.  0: by the first pass.  If runs are preempted for it, it gets
    them once those have saved."""
    preempted: tuple[Preempted, ...]
    """By the first pass."""
    line: tuple[JobId, ...]
    """All that wait, as the first pass sees their turns: those whom it gives nodes, then the others."""


def play(
    scene: Scene,
    rules: Rules,
    length_s: LengthS,
    *,
    rest_ends_s: Mapping[JobId, float] | None = None,
    parents: Parents | None = None,
    returns: Collection[JobId] = (),
    looks: int = MAX_LOOKS,
    horizon_s: float = HORIZON_S,
) -> Outlook:
    """Play until all who wait now have started; not longer than *horizon_s*, nor than *looks* at jobs.

    *length_s* is asked for jobs whose steps tell nothing.  *rest_ends_s*: until when a job rests, by the clock of
    *scene*.  Who rests and is neither there nor in *parents* never starts.  *returns*: runs that are being stopped and
    wait again then; of the others of these, only those on nodes that are kept for somebody do.
    """
    cluster = _Future(scene, rules, length_s, rest_ends_s or {}, parents or {}, returns)
    first = decision = cluster.decide()
    awaited = {job.id for job in scene.waiting if cluster.may_start(job)} | {*first.stops, *returns}
    looked = 0
    while True:
        looked += len(cluster.waiting) + len(cluster.running) + 1
        cluster.carry_out(decision)
        if awaited <= cluster.began.keys():
            break
        next_s = cluster.next_s()
        if looked > looks or next_s - scene.now_s > horizon_s:
            break
        cluster.go_on(next_s)
        decision = cluster.decide()
    more_than_s = cluster.now_s - scene.now_s if looked > looks else horizon_s if cluster.ends else None
    starts = {
        job_id: cluster.start_of(job_id, decision, more_than_s)
        for job_id in (*(job.id for job in scene.waiting), *first.stops, *returns)
    }
    stopped = tuple(
        Preempted(job_id=job_id, newcomer=why.newcomer, price=why.price_of(job_id), again=starts.pop(job_id))
        for job_id, why in first.stops.items()
    )
    return Outlook(starts=starts, preempted=stopped, line=(*first.starts, *first.reasons))


class _Future:
    """The cluster and the queue at one moment after the other."""

    def __init__(
        self,
        scene: Scene,
        rules: Rules,
        length_s: LengthS,
        rest_ends_s: Mapping[JobId, float],
        parents: Parents,
        returns: Collection[JobId],
    ) -> None:
        self.now_s = scene.now_s
        self.waiting = {job.id: job for job in scene.waiting}
        self.running = {job.id: job for job in scene.running}
        self.began: dict[JobId, float] = {}
        """Seconds from the beginning of the play until each was given nodes first."""
        self.ends: dict[JobId, float] = {}
        """When runs end; those of which nobody can tell are not there."""
        self._scene, self._rules, self._length_s = scene, rules, length_s
        self._rest_ends_s, self._parents = rest_ends_s, parents
        self._resting = {job.id for job in scene.waiting if job.rests}
        self._saved: dict[JobId, float] = {}
        """When runs that are being preempted give their nodes back."""
        self._rest_s: dict[JobId, float | None] = {}
        """How long they will hold nodes when they have some again."""
        self._nodes = _Nodes(scene)
        self._usage, self._ledger = dict(scene.usage), scene.ledger
        self._step_s = STEP_S
        for job in scene.running:
            self._will_end(job, job.told.at_s + job.told.left_s if job.told else self._after(length_s(job)))
            if job.tenure and job.tenure.stopping:
                self._goes(job, job.id in returns)

    def decide(self) -> Decision:
        return decide(self._now(), self._rules)

    def may_start(self, job: Contender) -> bool:
        """Whether it is worth waiting for."""
        fits = self._scene.cluster.in_all(job.need) >= job.need.fewest
        return fits and (job.rests is None or job.id in self._rest_ends_s or job.id in self._parents)

    def carry_out(self, decision: Decision) -> None:
        granted = {job_id for job_id in decision.starts if self.waiting[job_id].kept}
        sizes = {
            job_id: 0.0 if job_id in granted else self.waiting[job_id].size for job_id in decision.starts
        }
        self._ledger = after(decision, self._ledger, sizes, self._rules, self.now_s)
        for job_id in decision.stops:
            self._stop(self.running[job_id])
        for job_id, start in decision.starts.items():
            self.began.setdefault(job_id, self.now_s - self._scene.now_s)
            job = self.waiting[job_id]
            if start.after:
                self.waiting[job_id] = replace(job, kept=start.allocation)
                continue
            tenure = Tenure(
                allocation=start.allocation, since_s=self.now_s, due=start.due, loan_of=start.loan_of
            )
            self._start(replace(job, tenure=tenure, kept=None))
        self._step_s = STEP_S if decision.starts else 2 * self._step_s

    def next_s(self) -> float:
        """The next moment at which the policy may decide otherwise."""
        return min((self.now_s + self._step_s, *self._changes()))

    def go_on(self, to_s: float) -> None:
        self._age(to_s - self.now_s)
        self.now_s = to_s
        for job_id in [job_id for job_id, end_s in self.ends.items() if end_s <= to_s]:
            self._leave(job_id)
        for job_id in [job_id for job_id, saved_s in self._saved.items() if saved_s <= to_s]:
            job = self._leave(job_id)
            size = self._scene.cluster.size_of(job.need.gang, job.need.fewest) if _elastic(job) else job.size
            self.waiting[job_id] = replace(preempted(job, to_s), size=size)
        for job_id in [job_id for job_id in self._resting if (self._rested_s(job_id) or to_s + 1) <= to_s]:
            self._resting.remove(job_id)
            self.waiting[job_id] = replace(self.waiting[job_id], rests=None)

    def start_of(self, job_id: JobId, last: Decision, more_than_s: float | None) -> Start:
        """When it was given nodes, or why that is not known."""
        if job_id in self.began:
            return Start(after_s=self.began[job_id])
        reason = last.reasons.get(job_id)
        if job_id in self._resting and reason:
            known = job_id in self._rest_ends_s or job_id in self._parents
            return Start(why=f"it is not known when: {reason.message}" if known else reason.message)
        if reason and reason.code == ARRAY_LIMIT and self._is_array_endless(job_id):
            return Start(why=f"it is not known when: {reason.message}")
        if reason and reason.code == "does_not_fit_here":
            return Start(why=f"does not fit on this cluster: {reason.message}")
        if more_than_s is not None:
            return Start(more_than_s=more_than_s)
        if reason and reason.code == "quota":
            return Start(why=f"not as things stand: {reason.message}")
        return Start(why=f"it is not known when: {self._why_unknown()}")

    def _now(self) -> Scene:
        return replace(
            self._scene,
            now_s=self.now_s,
            free=dict(self._nodes.free),
            waiting=tuple(self.waiting.values()),
            running=tuple(self.running.values()),
            usage=self._usage,
            ledger=self._ledger,
        )

    def _changes(self) -> Iterator[float]:
        yield from self.ends.values()
        yield from self._saved.values()
        yield from (rested_s for job_id in self._resting if (rested_s := self._rested_s(job_id)))
        yield from (at_s + TINY_S for at_s in self._turns_of_the_clock() if at_s >= self.now_s)

    def _turns_of_the_clock(self) -> Iterator[float]:
        """When a job becomes due, a run has had its minimum, or what was spent counts no more."""
        rules = self._rules
        for job in self.waiting.values():
            yield job.waits_since_s + rules.due_after_s
        for grant in self._ledger.grants:
            yield grant.at_s + DAY_S
        if rules.preempt != "never":
            for job in self.running.values():
                assert job.tenure
                yield job.tenure.since_s + (rules.due_for_s if job.tenure.due else min_run_s(job, rules))
            for loss in self._ledger.losses:
                yield loss.at_s + HOUR_S

    def _start(self, job: Contender) -> None:
        assert job.tenure
        del self.waiting[job.id]
        if _elastic(job):
            ranks = num_ranks(job.tenure.allocation)
            job = replace(job, size=self._scene.cluster.size_of(job.need.gang, ranks))
        if job.id in self._rest_s:
            ends_s = self._after(self._rest_s.pop(job.id))
        elif job.told:
            ends_s = self._after(job.start_s + job.told.left_s)
        else:
            ends_s = self._after(self._length_s(job))
        if job.told and ends_s is not None:  # counted down from its first new step on
            job = replace(job, told=Told(left_s=job.told.left_s, at_s=ends_s - job.told.left_s))
        self.running[job.id] = job
        self._nodes.hold(job)
        self._will_end(job, ends_s)

    def _stop(self, run: Contender, takes_s: float | None = None) -> None:
        """It saves, gives its nodes back and waits again; then it makes good what that costs, as its price says."""
        assert run.tenure
        self.running[run.id] = replace(run, tenure=replace(run.tenure, stopping=True))
        self._saved[run.id] = self.now_s + max(SOONEST_S, run.save_s if takes_s is None else takes_s)
        costs_s = price(replace(run, size=1.0), self.now_s) - run.save_s
        end_s = self.ends.get(run.id)
        self._rest_s[run.id] = None if end_s is None else end_s - self.now_s + costs_s

    def _goes(self, run: Contender, returns: bool) -> None:
        """It was told to stop before: for somebody who waits for its nodes, or for good."""
        assert run.tenure
        nodes = {node for node, _ in run.tenure.allocation.ranks}
        kept = {node for job in self.waiting.values() if job.kept for node, _ in job.kept.ranks}
        takes_s = self._length_s(run)
        if returns or nodes & kept:
            self._stop(run, takes_s)
        else:
            self._will_end(run, self.now_s + (run.save_s if takes_s is None else takes_s))

    def _leave(self, job_id: JobId) -> Contender:
        self.ends.pop(job_id, None)
        self._saved.pop(job_id, None)
        self._nodes.release(job_id)
        self._step_s = STEP_S
        return self.running.pop(job_id)

    def _will_end(self, job: Contender, at_s: float | None) -> None:
        if at_s is not None:
            self.ends[job.id] = max(at_s, self.now_s + SOONEST_S)

    def _after(self, seconds: float | None) -> float | None:
        return None if seconds is None else self.now_s + seconds

    def _rested_s(self, job_id: JobId) -> float | None:
        """When it may start; None: not known, or never."""
        parents = self._parents.get(job_id)
        if (parents is None and job_id not in self._rest_ends_s) or any(map(self._is_there, parents or ())):
            return None
        return max(self._rest_ends_s.get(job_id, 0.0), self._scene.now_s + SOONEST_S)

    def _is_there(self, job_id: JobId) -> bool:
        return job_id in self.running or job_id in self.waiting

    def _age(self, passed_s: float) -> None:
        held = dict.fromkeys(self._usage, 0.0)
        for job in self.running.values():
            who = job.project, job.user
            held[who] = held.get(who, 0.0) + job.size
        self._usage = {
            who: decayed(self._usage.get(who, 0.0), gpus, passed_s, self._rules.half_life_s)
            for who, gpus in held.items()
        }

    def _is_array_endless(self, job_id: JobId) -> bool:
        """Others of its array run, and of none of them it is known when it ends."""
        array = self.waiting[job_id].array
        others = [one for one in self.running.values() if array and one.array and one.array.id == array.id]
        return bool(others) and not any(one.id in self.ends or one.id in self._saved for one in others)

    def _why_unknown(self) -> str:
        endless = [job for job in self.running.values() if job.id not in self.ends]
        if not endless:
            return f"{ELSEWHERE}, or kept for others"
        held_first = {job.id for job in self._scene.running}
        running = [job.name for job in endless if job.id in held_first]
        return why_unknown(running, [job.name for job in endless if job.id not in held_first])


class _Nodes:
    """What is free on each node as runs come and go.  What others than these jobs use of it stays used."""

    def __init__(self, scene: Scene) -> None:
        self.free = dict(scene.free)
        self._plain = {
            node.id: replace(node, available_cpus=None, available_gpus=None) for node in scene.cluster.nodes
        }
        self._held: dict[NodeId, dict[JobId, Contender]] = {node: {} for node in self.free}
        for job in scene.running:
            self._note(job)
        self._others = {
            node: (max(0, cpus - free[0]), max(0, gpu_units(devices) - gpu_units(free[1])))
            for node, free in scene.free.items()
            for cpus, devices in (self._left_by_jobs(node),)
        }
        """CPU units and GPU units."""

    def hold(self, job: Contender) -> None:
        assert job.tenure
        self._note(job)
        take(self.free, job.need, job.tenure.allocation)

    def release(self, job_id: JobId) -> None:
        for node, held in self._held.items():
            if held.pop(job_id, None):
                self.free[node] = self._left_by_all(node)

    def _note(self, job: Contender) -> None:
        assert job.tenure
        for node, _ in job.tenure.allocation.ranks:
            if node in self._held:
                self._held[node][job.id] = job

    def _left_by_all(self, node: NodeId) -> Free:
        cpus, devices = self._left_by_jobs(node)
        other_cpus, other_gpus = self._others[node]
        if not other_cpus and not other_gpus:
            return cpus, devices
        free_cpus = max(0, cpus - other_cpus) / UNIT
        free_gpus = max(0, gpu_units(devices) - other_gpus) / UNIT
        return self._left_by_jobs(node, free_cpus, free_gpus)

    def _left_by_jobs(self, node: NodeId, cpus: float | None = None, gpus: float | None = None) -> Free:
        """At most so many, if that is said."""
        held: list[tuple[Contender, Allocation]] = [
            (job, job.tenure.allocation) for job in self._held[node].values() if job.tenure
        ]
        one = replace(self._plain[node], available_cpus=cpus, available_gpus=gpus)
        running = tuple((job.need.gang, allocation) for job, allocation in held)
        return free_now(Snapshot(nodes=(one,), running=running))[node]


def _elastic(job: Contender) -> bool:
    return job.need.most != job.need.fewest
