"""What loops have shown of themselves: how long they take to start, and whether they stop when they are asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from pydantic import TypeAdapter

from scheduler.core.attempts import step_of
from scheduler.core.events import Event, RunEnded
from scheduler.core.model import Ending, Job, Json, Phase, StopKind
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
HABITS: TypeAdapter[dict[str, Habit]] = TypeAdapter(dict[str, Habit])


class LoopHabits:
    """By the name of the loop.  What comes with the scheduler is known to stop and to save."""

    def __init__(self) -> None:
        self._known = {loop: Habit(stops=True, saves=True) for loop in BUILT_IN}

    def of(self, loop: str) -> Habit:
        return self._known.get(loop, UNKNOWN)

    def remembered(self, doc: Json) -> None:
        """Begin with what an earlier life saw."""
        self._known |= HABITS.validate_python(doc)

    def to_remember(self) -> Mapping[str, object]:
        return HABITS.dump_python(self._known, mode="json")

    def look(self, job: Job, said: Observation) -> None:
        """A run makes steps: it has started."""
        began_s = said.phases.get(Phase.TRAINING)
        if began_s is not None and job.admitted_at is not None:
            start_s = max(0.0, began_s - job.admitted_at.timestamp())
            self._known[job.spec.loop] = replace(self.of(job.spec.loop), start_s=start_s)

    def committed(self, before: Job | None, after: Job, event: Event | None) -> None:
        """A run that was asked to stop has ended."""
        stop = before.stop if before else None
        if not isinstance(event, RunEnded) or stop is None or stop.kind not in ASKED or stop.is_operators:
            return
        loop, outcome = after.spec.loop, event.outcome
        if outcome.ending is Ending.STOPPED:
            save_s = max(0.0, (event.at - stop.at).total_seconds())
            step, saved = step_of(outcome.progress), outcome.saved
            saves = step is not None and saved is not None and saved.step == step
            self._known[loop] = replace(self.of(loop), save_s=save_s, stops=True, saves=saves)
        elif outcome.ending is Ending.LOST:  # it had to be killed
            self._known[loop] = replace(self.of(loop), stops=False, saves=False)
