"""How long a run goes on, and how long it has made no step, whatever the clocks of the machines say.

Clocks of machines are set, jump and disagree; what is judged is counted by clocks that nobody can set.  Within one life
of the scheduler that is its own monotonic clock.  What was before that life is carried over from the monotonic clock
of the run's actor.  What people see is put into the scheduler's time by the skew that was measured.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from scheduler.core.model import Job, NodeId, Phase
from scheduler.core.observation import Observation, ReportedTimes
from scheduler.ports import Clock, Run


def in_our_time(observation: Observation, ahead_s: float) -> Observation:
    """*observation* of a node whose clock is *ahead_s* ahead, as this machine would have dated it."""
    if not ahead_s:
        return observation
    saved = observation.saved
    return replace(
        observation,
        phases={
            # The first was written down by the scheduler itself.
            name: at if name == Phase.RESERVING else at - ahead_s
            for name, at in observation.phases.items()
        },
        stepped_at=_earlier(observation.stepped_at, ahead_s),
        stop_seen_at=_earlier(observation.stop_seen_at, ahead_s),
        saved=replace(saved, at=saved.at - timedelta(seconds=ahead_s)) if saved else None,
    )


def _earlier(at: datetime | None, seconds: float) -> datetime | None:
    return at - timedelta(seconds=seconds) if at else None


class RunTimes:
    """Of the runs of this life.  All in seconds of the scheduler's monotonic clock."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._since_s: dict[Run, float] = {}
        self._moves: dict[Run, tuple[datetime | None, float]] = {}

    def begins(self, run: Run) -> None:
        """It got its nodes just now."""
        self._since_s[run] = self._clock.monotonic_s()

    def keep(self, runs: Collection[Run]) -> None:
        """These go on now; the others are forgotten."""
        self._since_s = {run: since_s for run, since_s in self._since_s.items() if run in runs}
        self._moves = {run: moved for run, moved in self._moves.items() if run in runs}

    def moved_s(self, run: Run, observation: Observation, told: ReportedTimes, asked_s: float) -> float:
        """When something new was last seen of this run; *observation* is as it came, in the time of its node."""
        before = self._moves.get(run)
        if before and before[0] == observation.stepped_at:
            return before[1]
        # New in this life: it may have been so for long.  New since the last look: it moved just now.
        quiet_s = 0.0 if before else max(0.0, _first(told.quiet_s, told.up_s, 0.0))
        self._moves[run] = observation.stepped_at, asked_s - quiet_s
        return asked_s - quiet_s

    def going_s(self, job: Job, told: ReportedTimes) -> float:
        """How long the run of *job* has been going on.  One that began before this life says it itself; of an older
        actor, which does not, only the wall clock can tell."""
        run = (job.id, job.fence)
        if run not in self._since_s:
            gone_s = _first(told.up_s, _by_the_wall_s(job, self._clock.now()))
            self._since_s[run] = self._clock.monotonic_s() - gone_s
        return self._clock.monotonic_s() - self._since_s[run]


def _by_the_wall_s(job: Job, now: datetime) -> float:
    return max(0.0, (now - job.admitted_at).total_seconds()) if job.admitted_at else 0.0


def _first(*values: float | None) -> float:
    return next(value for value in values if value is not None)


@dataclass(frozen=True, slots=True)
class Skew:
    """How far a clock is ahead, give or take *error_s*, and when that was measured (monotonic)."""

    ahead_s: float
    error_s: float
    at_s: float

    @property
    def surely_s(self) -> float:
        """The smallest that it can be, without its sign."""
        return max(0.0, abs(self.ahead_s) - self.error_s)

    def agrees(self, other: Skew) -> bool:
        return abs(self.ahead_s - other.ahead_s) <= self.error_s + other.error_s


class NodeClocks:
    """The clocks of the nodes against ours, measured by the answers of runs: a round trip bounds the error, as in NTP
    (RFC 5905)."""

    IGNORED_S = 1.0
    """Less than this is not worth moving times that people see."""
    KEPT_S = 60.0
    """The best measurement counts for so long."""
    FORGOTTEN_S = 600.0

    def __init__(self, clock: Clock, limit_s: float) -> None:
        self._clock, self._limit_s = clock, limit_s
        self._skews: dict[NodeId, Skew] = {}
        self._seen_s: dict[NodeId, float] = {}

    def measure(self, node: NodeId, now_s: float | None, asked_at: datetime, took_s: float) -> float:
        """An answer that says *now_s* came *took_s* after it was asked for.  Returns by how much times of this node are
        to be corrected: how far its clock is ahead, or 0 where that is not worth it."""
        if now_s is not None:
            error_s = took_s / 2
            ahead_s = now_s - (asked_at.timestamp() + error_s)
            self._take(node, Skew(ahead_s, error_s, self._clock.monotonic_s()))
        kept = self._skews.get(node)
        return kept.ahead_s if kept and kept.surely_s > self.IGNORED_S else 0.0

    def problems(self, names: Mapping[NodeId, str]) -> list[str]:
        """Of the nodes that were heard of lately."""
        now_s = self._clock.monotonic_s()
        wrong = {
            node: skew
            for node, skew in self._skews.items()
            if skew.surely_s > self._limit_s and now_s - self._seen_s[node] < self.FORGOTTEN_S
        }
        return [self._in_words(names.get(node) or node, skew) for node, skew in sorted(wrong.items())]

    def _take(self, node: NodeId, new: Skew) -> None:
        self._seen_s[node] = new.at_s
        kept = self._skews.get(node)
        is_as_good = kept is None or new.error_s <= kept.error_s or new.at_s - kept.at_s > self.KEPT_S
        if is_as_good or (kept and not kept.agrees(new)):
            self._skews[node] = new

    def _in_words(self, name: str, skew: Skew) -> str:
        side = "ahead of" if skew.ahead_s > 0 else "behind"
        return (
            f"the clock of node {name} is {abs(skew.ahead_s):.0f} s {side} that of the scheduler's node (more than "
            f"SCHEDULER_MAX_CLOCK_SKEW_S={self._limit_s:g}). No run is stopped because of it, and what its runs tell is "
            "shown in the scheduler's time, but times in their logs and checkpoints are off: keep both clocks right by "
            "NTP (`chronyc tracking` shows which one is wrong, `chronyc makestep` sets it)"
        )
