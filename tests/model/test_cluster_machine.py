"""Is there any order of submits, ticks, ends and losses on a small cluster that breaks a rule?"""

from __future__ import annotations

import math
import os
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from fractions import Fraction

from hypothesis import HealthCheck, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from scheduler.core import lifecycle, ordering, placement
from scheduler.core.invariants import violations
from scheduler.core.lifecycle import (
    Admit,
    AskStop,
    Event,
    ForceStart,
    GiveUp,
    Restart,
    Resume,
    RunEnded,
    StartRun,
    record,
)
from scheduler.core.model import (
    Attempt,
    Cause,
    CheckpointId,
    Ending,
    Fence,
    Gang,
    Job,
    JobId,
    JobSpec,
    Node,
    NodeId,
    Outcome,
    Reason,
    Resumption,
    Saved,
    Snapshot,
    Status,
    StopKind,
)
from scheduler.core.retry import RetryPolicy
from scheduler.errors import NotAllowed
from scheduler.testing.clock import NOON

BIG = os.environ.get("HYPOTHESIS_PROFILE") == "big"
POLICY = RetryPolicy(max_losses=1, backoff_s=5.0)

EACH = {
    "cpus_per_rank": st.sampled_from([0.5, 1.0, 2.0]),
    "gpus_per_rank": st.sampled_from([0.0, 0.0, 0.3, 0.5, 0.7, 1.0, 1.0, 2.0]),
}
GANGS = st.builds(Gang, num_ranks=st.integers(1, 4), **EACH) | st.builds(
    Gang, min_ranks=st.integers(1, 2), max_ranks=st.integers(2, 6), **EACH
)
NODES = st.lists(st.tuples(st.integers(1, 8), st.sampled_from([0, 0, 1, 2, 4])), min_size=1, max_size=4)
OUTCOMES = st.builds(
    Outcome,
    ending=st.sampled_from(Ending),
    cause=st.none() | st.sampled_from(Cause),
    reason=st.just(Reason(code="seen", message="it ended")),
    signature=st.none() | st.sampled_from("AB"),
)


def exactly(amount: float) -> Fraction:
    return Fraction(str(amount))


class ClusterMachine(RuleBasedStateMachine):
    """The core under a shell of ten lines; the model is this class's own arithmetic on what it was told."""

    @initialize(sizes=NODES)
    def begin(self, sizes: list[tuple[int, int]]) -> None:
        self.now = NOON
        self.seq = 0
        self.jobs: dict[JobId, Job] = {}
        self.ready: set[JobId] = set()
        self.blocked: dict[JobId, Reason] | None = {}
        self.started: set[tuple[JobId, Fence]] = set()
        self.stale: list[tuple[JobId, Fence]] = []
        nodes = [Node(id=NodeId(f"n{i}"), cpus=cpus, gpus=gpus) for i, (cpus, gpus) in enumerate(sizes)]
        self.alive = {node.id: node for node in nodes}
        self.dead: dict[NodeId, Node] = {}
        self.others: dict[NodeId, tuple[int, int]] = {}
        self.checkpoints: dict[JobId, list[Saved]] = {}
        self.course: dict[JobId, tuple[str | None, int]] = {}
        """What a person asked for last: where to begin, and which attempts were over then."""
        self.attempts: dict[tuple[JobId, Fence], Attempt] = {}

    # The shell

    def advance(self, job: Job, event: Event) -> Job:
        after, actions = lifecycle.apply(job, event, POLICY)
        if after is not job:
            self.jobs[job.id] = after
            self.blocked = None
            if told := record(job, after, event).attempt:
                self.attempts[job.id, told.fence] = told
        for action in actions:
            if isinstance(action, StartRun):
                assert (action.job_id, action.fence) not in self.started, "a fence was handed out twice"
                assert not job.held, "a held job started"
                self.started.add((action.job_id, action.fence))
        return after

    def some(self, data: st.DataObject, *statuses: Status) -> Job | None:
        ids = sorted(job.id for job in self.jobs.values() if job.status in statuses)
        return self.jobs[data.draw(st.sampled_from(ids))] if ids else None

    def running(self) -> list[Job]:
        return [job for job in self.jobs.values() if job.status is Status.RUNNING]

    # What can happen

    @rule(gang=GANGS, priority=st.sampled_from([0, 0, 0, 5]), budget=st.integers(0, 2))
    def submit(self, gang: Gang, priority: int, budget: int) -> None:
        self.seq += 1
        job_id = JobId(f"j{self.seq:03}")
        spec = JobSpec(loop="torch_ddp", resources=gang, priority=priority, max_failures=budget)
        self.jobs[job_id] = lifecycle.accept(job_id, spec, at=self.now, queue_seq=self.seq)
        self.blocked = None

    @rule(seconds=st.sampled_from([0, 1, 10]))
    def tick(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)
        line = ordering.order(self.jobs.values(), now=self.now)
        free = {node: self.free_on(node) for node in self.alive}
        plan = placement.plan(line.ready, self.snapshot())
        note(f"tick: starts {plan.start}, blocked {plan.blocked}")
        self.check_plan(plan, {job.id for job in line.ready}, free)
        for job_id, allocation in plan.start.items():
            self.advance(self.jobs[job_id], Admit(at=self.now, by="scheduler", allocation=allocation))
        self.blocked = {**line.paused, **plan.blocked}

    @precondition(lambda self: self.running())
    @rule(data=st.data(), outcome=OUTCOMES)
    def a_run_ends(self, data: st.DataObject, outcome: Outcome) -> None:
        job = self.some(data, Status.RUNNING)
        assert job is not None
        self.stale.append((job.id, job.fence))
        mine = [saved for saved in self.checkpoints.get(job.id, []) if attempt_of(saved) == job.fence]
        began_at = self.newest(job, before=job.fence)
        outcome = replace(
            outcome,
            saved=mine[-1] if mine else None,
            resumed=Resumption(checkpoint=began_at.checkpoint, step=began_at.step) if began_at else None,
        )
        self.advance(job, self.ended(job.fence, outcome))

    @precondition(lambda self: self.running())
    @rule(data=st.data())
    def a_run_saves(self, data: st.DataObject) -> None:
        job = self.some(data, Status.RUNNING)
        assert job is not None
        there = self.checkpoints.setdefault(job.id, [])
        number = 1 + sum(attempt_of(saved) == job.fence for saved in there)
        name = CheckpointId(f"{job.fence}.{number}")
        there.append(Saved(checkpoint=name, step=10 * len(there), at=self.now))

    def newest(self, job: Job, before: float = math.inf) -> Saved | None:
        """Where an attempt goes on, by what people have asked for and by what was saved since."""
        chosen, over = self.course.get(job.id, (None, 0))
        there = [saved for saved in self.checkpoints.get(job.id, []) if attempt_of(saved) < before]
        since = [saved for saved in there if attempt_of(saved) > over]
        asked_for = [saved for saved in there if saved.checkpoint == chosen]
        return (asked_for + since)[-1] if asked_for + since else None

    @precondition(lambda self: self.stale)
    @rule(data=st.data(), outcome=OUTCOMES)
    def a_run_that_was_over_speaks_again(self, data: st.DataObject, outcome: Outcome) -> None:
        job_id, fence = data.draw(st.sampled_from(self.stale))
        before = self.jobs[job_id]
        assert self.advance(before, self.ended(fence, outcome)) is before

    @rule(data=st.data(), kind=st.sampled_from(StopKind))
    def ask_stop(self, data: st.DataObject, kind: StopKind) -> None:
        job = self.some(data, *Status)
        if job:
            self.try_by_hand(job, AskStop(at=self.now, by="ann", kind=kind))

    @rule(data=st.data(), how=st.sampled_from([ForceStart, Resume, Restart]))
    def start_by_hand(self, data: st.DataObject, how: type[ForceStart | Resume | Restart]) -> None:
        job = self.some(data, *Status)
        if job:
            self.seq += 1
            done = self.try_by_hand(job, how(at=self.now, by="ann", queue_seq=self.seq))
            if done and (how is Restart or (how is ForceStart and job.status is not Status.QUEUED)):
                self.course[job.id] = (None, job.fence)

    @precondition(lambda self: self.checkpoints)
    @rule(data=st.data())
    def resume_from_a_choice(self, data: st.DataObject) -> None:
        job = self.jobs[data.draw(st.sampled_from(sorted(self.checkpoints)))]
        self.seq += 1
        chosen = data.draw(st.sampled_from(self.checkpoints[job.id]))
        if self.try_by_hand(job, Resume(at=self.now, by="ann", queue_seq=self.seq, checkpoint=chosen)):
            self.course[job.id] = (chosen.checkpoint, job.fence)

    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        job = self.some(data, *Status)
        if job:
            reason = Reason(code="given_up", message="marked as failed by ann")
            self.try_by_hand(job, GiveUp(at=self.now, by="ann", reason=reason))

    @precondition(lambda self: self.alive)
    @rule(data=st.data())
    def a_node_dies(self, data: st.DataObject) -> None:
        """Its runs end later, when somebody notices."""
        node = data.draw(st.sampled_from(sorted(self.alive)))
        self.dead[node] = self.alive.pop(node)
        self.blocked = None

    @precondition(lambda self: self.dead)
    @rule(data=st.data())
    def a_node_comes_back(self, data: st.DataObject) -> None:
        node = data.draw(st.sampled_from(sorted(self.dead)))
        self.alive[node] = self.dead.pop(node)
        self.blocked = None

    @rule(data=st.data(), cpus=st.integers(0, 4), gpus=st.integers(0, 2))
    def others_use_the_cluster_too(self, data: st.DataObject, cpus: int, gpus: int) -> None:
        node = data.draw(st.sampled_from(sorted([*self.alive, *self.dead])))
        self.others[node] = (cpus, gpus)
        self.blocked = None

    def try_by_hand(self, job: Job, event: Event) -> bool:
        """Whatever a person asks is done, or refused without a trace."""
        try:
            self.advance(job, event)
        except NotAllowed as error:
            note(f"refused: {error}")
            assert self.jobs[job.id] is job
            return False
        return True

    def ended(self, fence: Fence, outcome: Outcome) -> RunEnded:
        return RunEnded(at=self.now, by="scheduler", fence=fence, outcome=outcome)

    # The model: exact fractions, and the runs as they were started

    def ranks_on(self, node: NodeId) -> list[Gang]:
        """The gang of each rank that runs on *node*, one entry for each rank."""
        return [
            job.spec.resources
            for job in self.running()
            if job.allocation
            for name in job.allocation.node_of_each_rank
            if name == node
        ]

    def free_on(self, node: NodeId) -> tuple[Fraction, Fraction]:
        """CPUs and GPUs that neither we nor others hold; none when more is held than there is."""
        ranks, (cpus, gpus) = self.ranks_on(node), self.others.get(node, (0, 0))
        free_cpus = exactly(self.alive[node].cpus) - cpus - sum(exactly(rank.cpus_per_rank) for rank in ranks)
        free_gpus = exactly(self.alive[node].gpus) - gpus - sum(exactly(rank.gpus_per_rank) for rank in ranks)
        return max(Fraction(0), free_cpus), max(Fraction(0), free_gpus)

    def snapshot(self) -> Snapshot:
        nodes: list[Node] = []
        for node in self.alive.values():
            if node.id in self.others:
                cpus, gpus = self.free_on(node.id)
                node = replace(node, available_cpus=float(cpus), available_gpus=float(gpus))
            nodes.append(node)
        held = tuple((job.spec.resources, job.allocation) for job in self.running() if job.allocation)
        return Snapshot(nodes=tuple(nodes), running=held)

    def check_plan(
        self, plan: placement.Plan, ready: set[JobId], free: dict[NodeId, tuple[Fraction, Fraction]]
    ) -> None:
        assert set(plan.start) | set(plan.blocked) == ready
        assert not set(plan.start) & set(plan.blocked)
        taken: Counter[tuple[NodeId, str]] = Counter()
        for job_id, allocation in plan.start.items():
            gang = self.jobs[job_id].spec.resources
            assert gang.fewest <= len(allocation.node_of_each_rank) <= gang.most, "a gang is whole or absent"
            assert len({node for node, _ in allocation.ranks}) == len(allocation.ranks), "a node twice"
            for node in allocation.node_of_each_rank:
                taken[node, "cpus"] += exactly(gang.cpus_per_rank)  # type: ignore[assignment]
                taken[node, "gpus"] += exactly(gang.gpus_per_rank)  # type: ignore[assignment]
        for node, (cpus, gpus) in free.items():
            assert taken[node, "cpus"] <= cpus
            assert taken[node, "gpus"] <= gpus
        self.check_order(plan)
        self.check_first(plan, ready, free)

    def check_order(self, plan: placement.Plan) -> None:
        """Nobody starts before an equal who came earlier."""
        for early in (self.jobs[job_id] for job_id in plan.blocked):
            for late in (self.jobs[job_id] for job_id in plan.start):
                equal = early.spec.resources == late.spec.resources
                ahead = (-early.spec.priority, early.queue_seq) < (-late.spec.priority, late.queue_seq)
                assert not (equal and ahead), f"{late.id} started before {early.id}"

    def check_first(
        self, plan: placement.Plan, ready: set[JobId], free: dict[NodeId, tuple[Fraction, Fraction]]
    ) -> None:
        """Who is first and has room starts: resources do not idle.  Whole GPUs only: fractions hide where."""
        if not ready or any(0 < rank.gpus_per_rank < 1 for node in free for rank in self.ranks_on(node)):
            return
        first = min(
            (self.jobs[job_id] for job_id in ready), key=lambda job: (-job.spec.priority, job.queue_seq)
        )
        gang = first.spec.resources
        if not 0 < gang.gpus_per_rank < 1:
            room = sum(self.ranks_that_fit(gang, *left) for left in free.values())
            assert (first.id in plan.start) == (room >= gang.fewest), f"{room} ranks of {first.id} fit"
            if first.id in plan.start:
                num_ranks = len(plan.start[first.id].node_of_each_rank)
                assert num_ranks == min(room, gang.most), f"{num_ranks} ranks of {first.id} start"

    def ranks_that_fit(self, gang: Gang, cpus: Fraction, gpus: Fraction) -> int:
        by_cpus = int(cpus // exactly(gang.cpus_per_rank))
        return min(by_cpus, int(gpus // exactly(gang.gpus_per_rank))) if gang.gpus_per_rank else by_cpus

    # What must always hold

    @invariant()
    def nothing_is_violated(self) -> None:
        assert violations(self.jobs.values(), self.alive.values()) == []

    @invariant()
    def a_job_that_does_not_run_says_where_it_goes_on(self) -> None:
        """And no past that a person left comes back."""
        for job in self.jobs.values():
            if job.status is not Status.RUNNING:
                assert job.saved == self.newest(job), f"{job.id} would go on from {job.saved}"

    @invariant()
    def every_attempt_has_ended_or_is_the_running_one(self) -> None:
        open_ones = {run for run, attempt in self.attempts.items() if attempt.ended_at is None}
        assert open_ones == {(job.id, job.fence) for job in self.running()}
        for job in self.jobs.values():
            fences = sorted(fence for job_id, fence in self.attempts if job_id == job.id)
            assert fences == list(range(1, job.fence + 1))
            ends = [self.attempts[job.id, Fence(fence)].ended_at for fence in fences[:-1]]
            starts = [self.attempts[job.id, Fence(fence)].started_at for fence in fences[1:]]
            overlap = [end for end, start in zip(ends, starts, strict=True) if end is None or end > start]
            assert not overlap, f"attempts of {job.id} overlap"

    @invariant()
    def the_ranks_on_a_node_can_lie_on_its_gpus(self) -> None:
        for node in self.alive.values():
            shares = sorted((exactly(rank.gpus_per_rank) for rank in self.ranks_on(node.id)), reverse=True)
            whole = sum(share for share in shares if share >= 1)
            devices = [Fraction(1)] * int(exactly(node.gpus) - whole)
            assert can_lie([share for share in shares if 0 < share < 1], devices), f"{node.id}: {shares}"

    @invariant()
    def after_a_tick_every_queued_job_has_a_reason(self) -> None:
        if self.blocked is not None:
            queued = {job.id for job in self.jobs.values() if job.status is Status.QUEUED}
            assert set(self.blocked) == queued
            assert all(reason.code and reason.message for reason in self.blocked.values())

    def teardown(self) -> None:
        """No more faults, no new work, every run completes: everything comes to rest."""
        if not hasattr(self, "jobs"):
            return
        self.others = {}
        for _ in range(len(self.jobs) + 1):
            self.tick(3600)
            for job in self.running():
                done = Outcome(ending=Ending.COMPLETED, reason=Reason(code="completed", message="done"))
                self.advance(job, self.ended(job.fence, done))
        for job in self.jobs.values():
            if not (job.status.is_terminal or job.status is Status.PAUSED or job.held):
                assert self.can_never_fit(job.spec.resources), f"{job.id} still waits: {self.blocked}"

    def can_never_fit(self, gang: Gang) -> bool:
        ranks = 0
        for node in self.alive.values():
            by_cpus = int(exactly(node.cpus) // exactly(gang.cpus_per_rank))
            share = exactly(gang.gpus_per_rank)
            by_gpus = (
                int(node.gpus * (1 // share) if 0 < share < 1 else node.gpus // share) if share else by_cpus
            )
            ranks += min(by_cpus, by_gpus)
        return ranks < gang.fewest


def attempt_of(saved: Saved) -> int:
    return int(saved.checkpoint.split(".")[0])


def can_lie(shares: list[Fraction], devices: list[Fraction]) -> bool:
    """Whether there is any way to lay the shares, none of them split, on the devices."""
    if not shares:
        return True
    for room in {left for left in devices if left >= shares[0]}:
        rest = list(devices)
        rest[rest.index(room)] -= shares[0]
        if can_lie(shares[1:], rest):
            return True
    return False


TestClusterMachine = ClusterMachine.TestCase
TestClusterMachine.settings = settings(
    max_examples=5000 if BIG else 150,
    stateful_step_count=60 if BIG else 30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
