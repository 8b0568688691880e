"""Time that passes only when a test says so."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


class ManualClock:
    """A `scheduler.ports.Clock` that stands still until `advance`."""

    def __init__(self, start: datetime = NOON) -> None:
        self._now = start
        self._monotonic_s = 0.0

    def now(self) -> datetime:
        return self._now

    def advance(self, seconds: float) -> datetime:
        """Let *seconds* pass and return the new time.  Time does not go back: ValueError."""
        if seconds < 0:
            raise ValueError(f"advance({seconds}): time does not go back")
        self._now += timedelta(seconds=seconds)
        self._monotonic_s += seconds
        return self._now

    def monotonic_s(self) -> float:
        return self._monotonic_s

    def jump(self, seconds: float) -> None:
        """Somebody sets the clock, forwards or back, and no time passes."""
        self._now += timedelta(seconds=seconds)
