"""What a live run says of itself, and when it was heard: the proof behind `running`."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime

from scheduler.core.hangs import Pace
from scheduler.core.model import Fence, Json, Phase, Resumption, Saved


@dataclass(frozen=True, slots=True, kw_only=True)
class RankProcess:
    """One process of a gang, named so that it can be told from a later one with the same pid."""

    rank: int
    node_id: str
    pid: int
    created_at_s: float
    scratch: str = ""
    """Its temporary folder on that node; removed when the process is gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What a live run says of itself: the proof behind `running`."""

    phase: Phase
    phases: dict[str, float] = field(default_factory=dict[str, float])
    """Seconds since the epoch at which each phase began, by the clock of the node; and moments of that clock
    (see run_times.py), which are taken out before anybody sees them."""
    progress: Json | None = None
    ranks: tuple[RankProcess, ...] = ()
    resumed: Resumption | None = None
    saved: Saved | None = None
    """The newest checkpoint that this run completed."""
    stop_seen_at: datetime | None = None
    """When the loop saw that it should stop."""
    pace: Pace | None = None
    stepped_at: datetime | None = None
    """When the newest step was done; None before the first."""


@dataclass(frozen=True, slots=True)
class Sighting:
    """The last a run said of itself, and when: the proof behind `running`."""

    fence: Fence
    observation: Observation
    at: datetime
    moved_s: float = 0.0
    """When something new was last seen of it, by the scheduler's monotonic clock."""


NOW, BEGAN, MOVED = "clock.now", "clock.began", "clock.moved"
"""What a run's actor adds to `Observation.phases`, all of them moments of its own wall clock: now, and when the run
began and made its newest step, counted back from now by its monotonic clock.

They are no fields of `Observation`: a frozen class with slots unpickles by position, so that a new field breaks the
answers of every actor that was alive before an upgrade.  Where they are missing, an older actor answered.
"""


def moments(now_s: float, up_s: float, quiet_s: float | None) -> dict[str, float]:
    """For the `phases` of an observation: the wall clock of the node, and seconds since the run began and moved."""
    told = {NOW: now_s, BEGAN: now_s - up_s}
    return told if quiet_s is None else told | {MOVED: now_s - quiet_s}


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportedTimes:
    """What an observation says of time beside what is shown."""

    now_s: float | None = None
    """The wall clock of the node."""
    up_s: float | None = None
    """How long the actor of the run has been there."""
    quiet_s: float | None = None
    """How long ago it saw the newest step; None before the first."""


def take_moments(observation: Observation) -> tuple[Observation, ReportedTimes]:
    """Split an answer into what is shown, and what it tells of time."""
    phases = dict(observation.phases)
    now, began, moved = (phases.pop(name, None) for name in (NOW, BEGAN, MOVED))
    told = ReportedTimes(
        now_s=now,
        up_s=None if now is None or began is None else now - began,
        quiet_s=None if now is None or moved is None else now - moved,
    )
    return replace(observation, phases=phases), told
