"""The policy that is in charge, with what it needs to know and must not forget."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol

from pydantic import TypeAdapter

from scheduler.core import arrays, ordering, policy
from scheduler.core.bin_packing import free_now
from scheduler.core.contender import Ledger, Rules, Scene
from scheduler.core.dependencies import Parents
from scheduler.core.events import Event
from scheduler.core.model import Job, Json
from scheduler.core.policy import Decision
from scheduler.core.policy_choice import PolicyChoice
from scheduler.engine.cluster import Cluster
from scheduler.engine.contenders import Contenders
from scheduler.engine.gpu_usage import GpuUsage
from scheduler.engine.loop_habits import LoopHabits
from scheduler.engine.projects import Projects
from scheduler.engine.registry import Registry
from scheduler.ports import Clock, Journal
from scheduler.settings import Settings

log = logging.getLogger(__name__)

NOTE = "policy"
"""Under this name the journal keeps what `Fair` must not forget."""
REMEMBER_EVERY_S = 60.0
LEDGER: TypeAdapter[Ledger] = TypeAdapter(Ledger)


class PolicyInCharge(Protocol):
    ranks: bool
    """Whether the order in which jobs wait is that of its decisions; else that of the queue."""

    async def recall(self) -> None:
        """Before the first decision of a life."""
        ...

    def decide(self, waiting: Sequence[Job], parents: Parents, now: datetime) -> Decision:
        """One pass over the jobs that wait, in the order of the queue.  Changes nothing."""
        ...

    async def spend(self, decision: Decision, now: datetime) -> None:
        """*decision* is about to be carried out: write down what it costs."""
        ...

    def committed(self, before: Job | None, after: Job, event: Event | None) -> None:
        """Called after each commit."""
        ...


def policy_in_charge(
    cluster: Cluster,
    registry: Registry,
    projects: Projects,
    journal: Journal,
    clock: Clock,
    settings: Settings,
) -> Fifo | Fair:
    """As `settings.policy` has it."""
    choice = PolicyChoice(name=settings.policy, rules=settings.policy_rules)
    return policy_of(choice, cluster, registry, projects, journal, clock)


def policy_of(
    choice: PolicyChoice,
    cluster: Cluster,
    registry: Registry,
    projects: Projects,
    journal: Journal,
    clock: Clock,
) -> Fifo | Fair:
    """With all that it measures and remembers for itself."""
    if choice.name == "fifo":
        return Fifo(cluster, registry)
    habits = LoopHabits()
    contenders = Contenders(registry, habits)
    usage = GpuUsage(contenders.size_of, choice.rules.half_life_s, clock)
    return Fair(cluster, registry, contenders, usage, habits, projects, journal, choice.rules)


class Fifo:
    """Priority, then first in, first out; a place is kept for whoever waits.  Remembers nothing."""

    ranks = False

    def __init__(self, cluster: Cluster, registry: Registry) -> None:
        self._cluster, self._registry = cluster, registry

    async def recall(self) -> None:
        pass

    def decide(self, waiting: Sequence[Job], parents: Parents, now: datetime) -> Decision:
        running = self._registry.running()
        queue = arrays.limited(ordering.order(waiting, now=now, parents=parents), running)
        return policy.fifo(queue, self._cluster.snapshot(running))

    async def spend(self, decision: Decision, now: datetime) -> None:
        pass

    def committed(self, before: Job | None, after: Job, event: Event | None) -> None:
        pass


class Fair:
    """Shares, least left first, preemption at checkpoints: see `core/policy.py`."""

    ranks = True

    def __init__(
        self,
        cluster: Cluster,
        registry: Registry,
        contenders: Contenders,
        usage: GpuUsage,
        habits: LoopHabits,
        projects: Projects,
        journal: Journal,
        rules: Rules,
    ) -> None:
        self._cluster, self._registry, self._contenders = cluster, registry, contenders
        self._usage, self._habits, self._projects = usage, habits, projects
        self._journal, self.rules = journal, rules
        self.ledger = Ledger()
        self._noted_at_s: float | None = None

    async def recall(self) -> None:
        """What an earlier life spent, measured and saw.  A note that cannot be read is as none: shares begin anew."""
        self._contenders.outline(self._cluster.nodes)
        self._usage.begin(self._registry.running())
        noted = await self._journal.noted(NOTE)
        if noted is None:
            return
        try:
            self.ledger = LEDGER.validate_python(noted["ledger"])
            self._usage.remembered(noted["usage"], float(noted["at_s"]))
            self._habits.remembered(noted["habits"])
        except (KeyError, TypeError, ValueError) as error:
            log.error("what the policy knew of usage and budgets cannot be read, and begins anew: %s", error)

    def scene(
        self, waiting: Sequence[Job], parents: Parents, now: datetime, running: Sequence[Job] | None = None
    ) -> Scene:
        """Everything that a decision depends on, at this moment.  *running*: these and no others hold nodes."""
        running = self._registry.running() if running is None else running
        return Scene(
            now_s=now.timestamp(),
            cluster=self._contenders.outline(self._cluster.nodes),
            free=free_now(self._cluster.snapshot(running)),
            waiting=self._contenders.waiting(waiting, now, parents),
            running=self._contenders.running(running, now),
            shares=self._projects.shares,
            usage=self._usage.now(),
            ledger=self.ledger,
        )

    def decide(self, waiting: Sequence[Job], parents: Parents, now: datetime) -> Decision:
        return policy.decide(self.scene(waiting, parents, now), self.rules)

    def used(self) -> Mapping[tuple[str, str], float]:
        """Decayed GPU seconds by project and user."""
        return self._usage.now()

    async def spend(self, decision: Decision, now: datetime) -> None:
        """Before anybody is stopped: a crash must not give the budget back."""
        now_s = now.timestamp()
        sizes = {job_id: self._contenders.owes(job_id) for job_id in decision.starts}
        after = policy.after(decision, self.ledger, sizes, self.rules, now_s)
        if decision.stops or any(start.due for start in decision.starts.values()) or self._is_time(now_s):
            await self._journal.note(NOTE, self._to_remember(after, now_s))
            self._noted_at_s = now_s
        self.ledger = after  # where it cannot be written, nobody is stopped, and nothing was spent

    def committed(self, before: Job | None, after: Job, event: Event | None) -> None:
        self._usage.committed(before, after, event)
        self._habits.committed(before, after, event)

    def _is_time(self, now_s: float) -> bool:
        return self._noted_at_s is None or abs(now_s - self._noted_at_s) >= REMEMBER_EVERY_S

    def _to_remember(self, ledger: Ledger, now_s: float) -> Json:
        return {
            "at_s": now_s,
            "ledger": LEDGER.dump_python(ledger, mode="json"),
            "usage": self._usage.to_remember(),
            "habits": self._habits.to_remember(),
        }
