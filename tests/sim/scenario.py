"""What one seed is about: the cluster, its settings, what goes wrong, and for how long."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from random import Random

from scheduler.core.contender import Rules
from scheduler.core.model import After, Gang, JobId, JobSpec, Node, NodeId
from scheduler.core.policy_choice import PolicyChoice
from scheduler.core.reconcile import Policy
from scheduler.settings import Settings
from tests.sim.faults import Outage, Trouble, draw_outages, draw_troubles

LOOP = "sim:train"
NEED_DATABASE = frozenset({Trouble.DATABASE, Trouble.TAMPER, Trouble.POISON})


RULES = (
    Rules(),
    Rules(min_run_s=2.0, lost_share=1.0, due_after_s=60.0, due_for_s=20.0),
    Rules(min_run_s=10.0, lost_share=1.0, due_after_s=120.0, worth=1.0),
    Rules(min_run_s=2.0, lost_share=0.3, preempt="share"),
)
"""What takes a day on a cluster takes minutes here."""
ZONES: tuple[dict[str, str | list[str]], ...] = ({}, {}, {}, {"zone": "a"}, {"zone": ["a", "b"]})
AHEAD_S = (0.0, 0.0, 20.0, -900.0, 900.0, 3600.0)


@dataclass(frozen=True, slots=True)
class Scenario:
    length_s: float
    """How long people act and things go wrong; after that all is calm."""
    nodes: tuple[Node, ...]
    settings: Settings
    troubles: frozenset[Trouble]
    outages: tuple[Outage, ...]
    hiccups: float
    pause_s: float
    """Between two deeds of one person, on average."""
    num_people: int
    num_front_ends: int
    ahead_s: dict[NodeId, float]
    """How far the clock of each node is ahead."""
    has_database: bool
    """Without, the journal is the only store."""

    @classmethod
    def drawn(cls, rng: Random, troubles: frozenset[Trouble] | None = None) -> Scenario:
        """*troubles*: these and no others; without, the seed says which."""
        length_s = rng.choice((200.0, 400.0, 800.0))
        troubles = draw_troubles(rng) if troubles is None else troubles
        has_database = bool(troubles & NEED_DATABASE) or rng.random() < 0.5
        nodes = _nodes(rng)
        return cls(
            length_s=length_s,
            nodes=nodes,
            ahead_s={node.id: rng.choice(AHEAD_S) for node in nodes} if Trouble.SKEW in troubles else {},
            settings=_settings(rng),
            troubles=troubles,
            outages=draw_outages(rng, troubles, length_s),
            hiccups=rng.choice((0.0, 0.01, 0.1)),
            pause_s=_pause_s(rng),
            num_people=rng.randint(1, 3),
            num_front_ends=rng.randint(0, 2) if has_database else 0,
            has_database=has_database,
        )

    @property
    def patience_s(self) -> float:
        """Once all is calm, everything has come to rest within this time."""
        set_ = self.settings
        return 900.0 + set_.stale_after_s + 4 * set_.reconcile_every_s + 2 * set_.lost_after_s


def draw_spec(rng: Random, user: str) -> JobSpec:
    """Mostly small; some are elastic, some need several nodes at once, or are more urgent."""
    cpus = rng.choice((1.0, 1.0, 2.0))
    if rng.random() < 0.2:
        gang = Gang(min_ranks=rng.choice((1, 2)), max_ranks=3, cpus_per_rank=cpus)
    else:
        gang = Gang(num_ranks=rng.choice((1, 1, 2, 3, 3)), cpus_per_rank=cpus)
    gang = replace(gang, on=apart(rng).choice(ZONES))
    return JobSpec(
        loop=LOOP,
        user=user,
        project=apart(rng).choice(("", "", "vision", "speech")),
        resources=gang,
        priority=rng.choice((0, 0, 0, 5)),
        max_failures=rng.choice((0, 1, 2)),
        max_runtime_s=rng.choice((None, None, None, 60.0)),
    )


def draw_waits(rng: Random, spec: JobSpec, others: Sequence[JobId], now: datetime) -> JobSpec:
    """The same; now and then it waits for a moment, or for others, of which some were never accepted."""
    if rng.random() < 0.1:
        spec = replace(spec, start_after=now + timedelta(seconds=rng.choice((-10.0, 20.0, 100.0))))
    if others and rng.random() < 0.2:
        hows = ("completed", "completed", "failed", "ended")
        after = [
            After(job=job, on=rng.choice(hows))
            for job in rng.sample(others, min(len(others), rng.randint(1, 2)))
        ]
        spec = replace(spec, after=after)
    own = apart(rng)
    if own.random() < 0.1:
        spec = replace(spec, deadline=now + timedelta(seconds=own.choice((-10.0, 30.0, 300.0))))
    return spec


def apart(rng: Random) -> Random:
    """Chance of its own, from where *rng* stands: what is drawn from it moves nothing else in the story."""
    return Random(hash(rng.getstate()[1][:8] + rng.getstate()[1][-1:]))


def _pause_s(rng: Random) -> float:
    """Some come in a rush: then there is not room for all, and the policy has to choose."""
    pause_s = rng.choice((10.0, 25.0, 60.0))
    return pause_s / 8 if apart(rng).random() < 0.3 else pause_s


def _nodes(rng: Random) -> tuple[Node, ...]:
    """The first always has room for the largest gang, in the zone that any gang asks for, so that every job can run in
    the end."""
    sizes = rng.choice([(6.0,), (6.0, 2.0), (6.0, 4.0, 4.0)])
    others = [apart(rng).choice("ab"), "b"]
    return tuple(
        Node(id=NodeId(f"node-{i}"), name=f"node-{i}", cpus=cpus, labels={"zone": zone})
        for i, (cpus, zone) in enumerate(zip(sizes, ["a", *others], strict=False))
    )


def _shadow(rng: Random) -> PolicyChoice | None:
    """Half of all schedulers ask another policy as well, which must be noticed nowhere."""
    rng.random()  # the policy in charge was chosen by the first
    choices = (PolicyChoice(name="fifo"), *(PolicyChoice(rules=rules) for rules in RULES))
    return rng.choice((*choices, *(None for _ in choices)))


def _settings(rng: Random) -> Settings:
    return Settings(
        tick_every_s=10.0,
        observe_every_s=10.0,
        liveness_every_s=15.0,
        lost_after_s=60.0,
        reconcile_every_s=rng.choice((20.0, 60.0, 120.0)),
        stale_after_s=rng.choice((45.0, 100.0, 300.0)),
        recover_queued=rng.choice((Policy.START, Policy.START, Policy.START, Policy.HOLD, Policy.FAIL)),
        inbox_every_s=5.0,
        vouch_every_s=15.0,
        relay_batch=rng.choice((1, 2, 5, 1000)),
        relay_backoff_s=1.0,
        relay_backoff_max_s=20.0,
        supabase_timeout_s=5.0,
        stop_grace_s=5.0,
        max_losses=rng.choice((0, 1, 3, 3)),
        retry_backoff_s=rng.choice((0.0, 2.0)),
        policy=apart(rng).choice(("fair", "fair", "fifo")),
        policy_rules=apart(rng).choice(RULES),
        policy_shadow=_shadow(apart(rng)),
        preempted_keep_place=rng.choice((True, True, False)),
        hang_floor_s=90.0,
        on_hang=rng.choice(("retry", "retry", "fail")),
        finished_in_memory=rng.choice((0, 1, 1000)),
    )
