"""What the policy sees: jobs that compete for nodes, what projects may have, what was spent, and the rules.

The engine builds a `Contender` from a job and what it knows of its newest run; a replay builds the same from a
line of a trace.  Times are seconds on one clock that everybody shares (a Unix time will do).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from scheduler.core.bin_packing import Free, Need
from scheduler.core.model import Allocation, ArrayPlace, JobId, NodeId, Reason
from scheduler.core.needs import Outline
from scheduler.errors import InvalidRequest

Preempt = Literal["never", "class", "share", "all"]

HOUR_S, DAY_S = 3600.0, 86_400.0
ABOVE_ALL = 1001
"""The priority of a job for which runs are preempted because a person wants it; a spec may say 1000 at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What the steps of a run told of its remaining time.  From then on it is counted down by the clock."""

    left_s: float
    at_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenure:
    """The nodes that a job holds, and since when."""

    allocation: Allocation
    since_s: float
    saved_at_s: float | None = None
    """The newest complete checkpoint of this run."""
    due: bool = False
    """It was given them because it was due: nobody takes them within its first hour."""
    loan_of: JobId | None = None
    """The nodes are kept for this one, who may have them at any time."""
    stopping: bool = False
    """It was told to stop already; its nodes are as good as given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """A job that waits for nodes, or has some."""

    id: JobId
    name: str = ""
    need: Need
    """Its gang and where it may start; equal ones share one (`Outline.need_of`), so that equal shapes are decided
    once."""
    size: float
    """GPUs that it holds, or would at the fewest; what it asks instead of GPUs is priced in them."""
    priority: int = 0
    project: str = ""
    user: str = ""
    seq: int
    """Its place in the queue; smaller is older."""
    first: bool = False
    """A person put it in front of the others of its project, as far as they have the same claim."""
    waits_since_s: float
    """Since when it waits; of a job that runs, since when it had waited."""
    rests: Reason | None = None
    """Why it is not considered at all, see `eligible`."""
    ran_s: float = 0.0
    """How long its earlier runs took together."""
    attained: float = 0.0
    """GPU seconds that its earlier runs had."""
    told: Told | None = None
    tenure: Tenure | None = None
    """Set while it holds nodes."""
    kept: Allocation | None = None
    """Nodes for which others are being stopped already."""
    preemptions: int = 0
    preemptible: bool = True
    """False: never preempted, and started only within its project's quota."""
    stops_when_asked: bool = True
    """It has saved a checkpoint, and was seen to stop when asked; others are not preempted."""
    saves_when_asked: bool = True
    """The loop saves before it stops, so no work is lost; else what came after its last checkpoint is."""
    save_s: float = 10.0
    """How long saving takes, as measured."""
    start_s: float = 50.0
    """From its start to its first new step, as measured."""
    array: ArrayPlace | None = None
    """Its place in an array, of which only so many run at once."""
    deadline_s: float | None = None
    """When it is wanted."""


def preempted(job: Contender, now_s: float) -> Contender:
    """*job* as it waits again, after the run that it has was stopped at *now_s*."""
    assert job.tenure, f"{job.id} holds nothing"
    had_s, told = now_s - job.tenure.since_s, job.told
    left_s = max(0.0, told.left_s - max(0.0, now_s - told.at_s)) if told else 0.0
    return replace(
        job,
        tenure=None,
        told=told and Told(left_s=left_s, at_s=now_s),
        ran_s=job.ran_s + had_s,
        attained=job.attained + job.size * had_s,
        preemptions=job.preemptions + 1,
        waits_since_s=now_s,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What a project may have."""

    weight: float = 1.0
    quota: float = 0.0
    """GPUs that are guaranteed to it; what it does not use is lent."""
    limit: float | None = None
    """GPUs that it never exceeds."""


SHARE: TypeAdapter[Share] = TypeAdapter(Share)


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """A run was preempted."""

    at_s: float
    job_id: JobId
    price: float
    """GPU seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """A due job was given nodes."""

    at_s: float
    gpu_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """What the bounded budgets were spent on: preemptions of the last hour, grants to due jobs of the last day."""

    losses: tuple[Loss, ...] = ()
    grants: tuple[Grant, ...] = ()

    def lost(self, now_s: float) -> float:
        return sum(one.price for one in self.losses if one.at_s > now_s - HOUR_S)

    def granted(self, now_s: float) -> float:
        return sum(one.gpu_s for one in self.grants if one.at_s > now_s - DAY_S)

    def since(self, now_s: float) -> Ledger:
        """Without what counts no more."""
        return Ledger(
            losses=tuple(one for one in self.losses if one.at_s > now_s - HOUR_S),
            grants=tuple(one for one in self.grants if one.at_s > now_s - DAY_S),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The settings of the policy; each default needs no thought."""

    preempt: Preempt = "all"
    """For whom runs are preempted: nobody; a higher priority; also who is within its share; also less left."""
    worth: float = 2.0
    """A victim must have so many times more left than the newcomer and the price together."""
    min_run_s: float = 120.0
    """A run is left alone for so long; doubles with each preemption that it had."""
    max_min_run_s: float = 1800.0
    lost_share: float = 0.02
    """Of the cluster's time in any hour, the most that preemptions may cost."""
    due_after_s: float = DAY_S
    due_for_s: float = HOUR_S
    """Who has waited for `due_after_s` goes next, for at least this long."""
    due_share: float = 0.25
    """Of the cluster's time in a day, the most that is given in this way."""
    half_life_s: float = DAY_S
    """In which usage of the past counts half."""
    one_node: bool = True
    """A gang that fits on one node starts on one node only."""

    def __post_init__(self) -> None:
        for name in ("lost_share", "due_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a part of the cluster: 0 to 1")
        for name in ("min_run_s", "max_min_run_s", "due_after_s", "due_for_s"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} is a number of seconds: 0 or more")
        if not (self.worth >= 1 and self.half_life_s > 0):
            raise ValueError(
                "worth is 1 or more, and half_life_s more than 0: else two jobs take turns for ever"
            )

    @property
    def fingerprint(self) -> str:
        """Equal for equal rules."""
        return _fingerprint(self)

    def __str__(self) -> str:
        """As `rules_of` reads it: what differs from the defaults."""
        mine = {one.name: getattr(self, one.name) for one in fields(self)}
        return ",".join(f"{name}={value}" for name, value in mine.items() if value != getattr(Rules(), name))


RULES: TypeAdapter[Rules] = TypeAdapter(Rules)


def rules_of(changes: Iterable[str]) -> Rules:
    """The defaults, with changes such as `worth=3`.  Raises InvalidRequest naming the rule."""
    given = {name.strip(): value.strip() for name, _, value in (change.partition("=") for change in changes)}
    known = sorted(one.name for one in fields(Rules))
    if unknown := sorted(given.keys() - set(known)):
        raise InvalidRequest(f"{unknown[0]}: there is no such rule; known are {', '.join(known)}")
    try:
        return RULES.validate_python(given)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise InvalidRequest(f"{first['loc'][0]}: {first['msg']}" if first["loc"] else first["msg"]) from None


@lru_cache(maxsize=64)
def _fingerprint(rules: Rules) -> str:
    return hashlib.sha256(repr(rules).encode()).hexdigest()[:12]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """All that a decision depends on."""

    now_s: float
    cluster: Outline
    free: Mapping[NodeId, Free]
    """What is free on each node on which something may start: `bin_packing.free_now` of the snapshot."""
    waiting: tuple[Contender, ...]
    running: tuple[Contender, ...]
    shares: Mapping[str, Share] = field(default_factory=dict[str, Share])
    """By project; one that is not there has a weight of 1 and no quota."""
    usage: Mapping[tuple[str, str], float] = field(default_factory=dict[tuple[str, str], float])
    """Decayed GPU seconds by project and user."""
    ledger: Ledger = Ledger()
