"""Time that passes only when a test says so."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


class ManualClock:
    """A `scheduler.ports.Clock` that stands still until `advance`."""

    def __init__(self, start: datetime = NOON) -> None:
        self._now = start

    def now(self) -> datetime:
        return self._now

    def advance(self, seconds: float) -> datetime:
        """Let *seconds* pass and return the new time.  Time does not go back: ValueError."""
        if seconds < 0:
            raise ValueError(f"advance({seconds}): time does not go back")
        self._now += timedelta(seconds=seconds)
        return self._now
