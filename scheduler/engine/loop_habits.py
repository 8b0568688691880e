"""What loops have shown of themselves: how long they take to start, and whether they stop when they are asked."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

from pydantic import TypeAdapter

from scheduler.core.attempts import step_of
from scheduler.core.events import Event, RunEnded
from scheduler.core.model import Ending, Job, JobSpec, Json, Phase, StopKind
from scheduler.core.observation import Observation
from scheduler.engine.spec_validation import BUILT_IN

ASKED = (StopKind.PAUSE, StopKind.PREEMPT, StopKind.TIMEOUT)
"""Stops that let a loop save first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Habit:
    """Of one loop, as it was when it was last seen."""

    start_s: float = 50.0
    """From its nodes to its first step."""
    save_s: float = 10.0
    """From the moment when it was asked to stop until it was gone."""
    stops: bool = False
    """It stopped by itself when it was last asked."""
    saves: bool = False
    """And no step was lost by that."""


UNKNOWN: Final = Habit()
OURS: Final = Habit(stops=True, saves=True)
HABITS: TypeAdapter[dict[str, Habit]] = TypeAdapter(dict[str, Habit])


REMEMBERED = 200
"""Loops; those that were seen last."""


class LoopHabits:
    """By loop; functions that were sent along are told apart by their code.  What comes with the scheduler is known to
    stop and to save."""

    def __init__(self) -> None:
        self._known: dict[str, Habit] = {}

    def of(self, spec: JobSpec) -> Habit:
        return self._known.get(key := _key(spec)) or (OURS if key in BUILT_IN else UNKNOWN)

    def remembered(self, doc: Json) -> None:
        """Begin with what an earlier life saw."""
        self._known |= HABITS.validate_python(doc)

    def to_remember(self) -> Mapping[str, object]:
        return HABITS.dump_python(self._known, mode="json")

    def look(self, job: Job, said: Observation) -> None:
        """A run makes steps: it has started."""
        began_s = said.phases.get(Phase.TRAINING)
        if began_s is not None and job.admitted_at is not None:
            self._learn(job.spec, start_s=max(0.0, began_s - job.admitted_at.timestamp()))

    def committed(self, before: Job | None, after: Job, event: Event | None) -> None:
        """A run that was asked to stop has ended."""
        stop = before.stop if before else None
        if not isinstance(event, RunEnded) or stop is None or stop.kind not in ASKED or stop.is_operators:
            return
        outcome = event.outcome
        if outcome.ending is Ending.STOPPED:
            step, saved = step_of(outcome.progress), outcome.saved
            saves = step is not None and saved is not None and saved.step == step
            save_s = max(0.0, (event.at - stop.at).total_seconds())
            self._learn(after.spec, save_s=save_s, stops=True, saves=saves)
        elif outcome.ending is Ending.LOST:  # it had to be killed
            self._learn(after.spec, stops=False, saves=False)

    def _learn(self, spec: JobSpec, **seen: float | bool) -> None:
        learnt = replace(self.of(spec), **seen)
        self._known.pop(key := _key(spec), None)
        self._known[key] = learnt
        while len(self._known) > REMEMBERED:
            del self._known[next(iter(self._known))]


def _key(spec: JobSpec) -> str:
    return spec.loop if spec.code is None else f"{spec.loop} {_digest(spec.code.pickle)}"


@lru_cache(maxsize=REMEMBERED)
def _digest(code: str) -> str:
    return hashlib.sha256(code.encode()).hexdigest()[:16]
