"""What a loop says of itself, read as it comes: progress, phases, pace."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from scheduler.core.finite import finite, seconds
from scheduler.core.hangs import Pace
from scheduler.core.model import Json, Phase
from scheduler.core.plain_values import RESULT, plain_dict

PIECE_BYTES = 2**20
MOST_NAMES = 1_000
_PHASES = frozenset(phase.value for phase in Phase)


class ProgressReader:
    """Follows a progress file.  Each `said()` reads what is new and merges it: keys persist."""

    def __init__(self, path: Path) -> None:
        self._path, self._offset = path, 0
        self._merged: Json = {}
        self._said: Json = {}
        self._skips_to_the_end_of_a_line = False
        self._step: float | None = None
        self._typical_s: deque[float] = deque(maxlen=50)
        self._timed, self._longest_s = 0.0, 0.0
        self.phase: str | None = None
        self.phases: dict[str, float] = {}
        """Seconds since the epoch at which each phase was first entered."""
        self.stepped_at_s: float | None = None
        """When the newest step of this run was done, in seconds since the epoch.  A line without one moves nothing."""

    def reported(self) -> Json | None:
        """What the loop has said so far, newest values, as plain JSON; None before it said anything."""
        is_new = False
        for line in self._new_lines():
            self._take(line)
            is_new = True
        if is_new:
            self._said = plain_dict(self._merged, RESULT)[0]
        return dict(self._said) or None

    @property
    def pace(self) -> Pace | None:
        """None until the time between two steps of this run was seen."""
        if not self._typical_s:
            return None
        return Pace(steps=int(self._timed), typical_s=median(self._typical_s), longest_s=self._longest_s)

    def _new_lines(self) -> Iterator[bytes]:
        """The whole lines that are new, read in pieces; a line longer than a piece is passed over."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                while data := file.read(PIECE_BYTES):
                    end = data.rfind(b"\n") + 1
                    if not end and len(data) < PIECE_BYTES:
                        return  # not written to its end yet
                    self._offset += end or len(data)
                    file.seek(self._offset)
                    lines = data[:end].splitlines()
                    yield from lines[1:] if self._skips_to_the_end_of_a_line and end else lines
                    self._skips_to_the_end_of_a_line = not end
        except FileNotFoundError:
            return

    def _take(self, line: bytes) -> None:
        row = row_of(line)
        if row is None:
            return  # cut off by a kill; the next one is whole
        at_s = seconds(row.pop("time", None))
        at_s = time.time() if at_s is None else at_s
        phase = row.pop("phase", None)
        if isinstance(phase, str) and phase in _PHASES:
            self.phase = phase
            self.phases.setdefault(phase, at_s)
        is_reported = row.pop("reported", False)
        step = finite(row.get("step"))
        if step is not None:
            if is_reported and self._step is None:
                self._begin_with_the_loop()
            self._count(step, at_s, is_made=phase != "loading")
        if isinstance(row.get("samples"), list):
            del row["samples"]  # long texts, which the history of the job has
        self._merged |= row
        while len(self._merged) > MOST_NAMES:  # a loop may make up new ones for ever: the newest count
            self._merged.pop(next(iter(self._merged)))

    def _begin_with_the_loop(self) -> None:
        """A loop that reports to Ray Train alone says nothing before its first report, which may come after hours.
        That silence is work: unless it counts, as long a one after the first report would be taken for a hang."""
        self._step, self.stepped_at_s = -1.0, self.phases.get("loading")

    def _count(self, step: float, at_s: float, *, is_made: bool) -> None:
        """A step said while loading is where the run goes on, not one it made; the first one made has no gap before it.

        Lines may stand for many steps.  A count that falls back begins anew (a loop that counts within an epoch).
        """
        before, self._step = self._step, step
        if not is_made or (before is not None and step <= before):
            return
        if self.stepped_at_s is not None and before is not None:
            gap_s = max(0.0, at_s - self.stepped_at_s)
            self._typical_s.append(gap_s / (step - before))
            self._timed += step - before
            self._longest_s = max(self._longest_s, gap_s)
        self.stepped_at_s = at_s


def row_of(line: bytes) -> Json | None:
    """A line of JSON; None for what is no object, as one that a kill cut off."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None
