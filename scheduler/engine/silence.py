"""How long each run has not answered, counted only while somebody was there to listen."""

from __future__ import annotations

from collections.abc import Collection

from scheduler.ports import Run


class UnreachableTimer:
    """Adds up the time between passes.  A pass that comes late counts as one in time: a scheduler that was frozen,
    or a machine that slept, has heard nothing of anybody, and that is no sign against a run."""

    def __init__(self, at_s: float, longest_pass_s: float) -> None:
        """*at_s* is monotonic, here and below."""
        self._listened_at_s, self._longest_pass_s = at_s, longest_pass_s
        self._silent_s: dict[Run, float] = {}

    def listen(self, runs: Collection[Run], at_s: float) -> float:
        """A pass over these *runs* begins; others are forgotten.  Returns the seconds that it stands for."""
        since_s, self._listened_at_s = at_s - self._listened_at_s, at_s
        self._silent_s = {run: silent_s for run, silent_s in self._silent_s.items() if run in runs}
        return min(max(since_s, 0.0), self._longest_pass_s)

    def unheard(self, run: Run, for_s: float) -> float:
        """It did not answer in this pass.  Returns how long it has been silent in all, in seconds."""
        self._silent_s[run] = self._silent_s.get(run, 0.0) + for_s
        return self._silent_s[run]

    def heard(self, run: Run) -> None:
        self._silent_s.pop(run, None)
