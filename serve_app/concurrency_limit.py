"""How many requests of one kind may be open at once, in all and for each who asks: the others need room too."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from scheduler.errors import SchedulerError


class LimitReached(SchedulerError):
    """As many are open as may be."""

    http_status = 503
    code = "too_many_open"


class OwnLimitReached(LimitReached):
    """Whoever asks has as many open as one may have."""

    http_status = 429


class ConcurrencyLimit:
    """For one replica."""

    def __init__(self, what: str, most: int, most_each: int, remedy: str) -> None:
        """*what* is open: `live streams`; *remedy*: what to do where there is no more."""
        self._what, self._remedy = what, remedy
        self.most, self.most_each = most, most_each
        self._held: Counter[str] = Counter()

    def __len__(self) -> int:
        """Those that are open."""
        return self._held.total()

    @contextmanager
    def hold(self, who: str, weight: int = 1) -> Iterator[None]:
        """Holds *weight* of them as long as it is entered.  Raises LimitReached."""
        if self._held[who] + weight > self.most_each:
            raise OwnLimitReached(self._full(f" of {who}", self._held[who], self.most_each))
        if len(self) + weight > self.most:
            raise LimitReached(self._full("", len(self), self.most))
        self._held[who] += weight
        try:
            yield
        finally:
            self._held[who] -= weight
            if not self._held[who]:
                del self._held[who]

    def _full(self, whose: str, count: int, most: int) -> str:
        return f"{count} {self._what}{whose} are open here, and {most} may be; {self._remedy}"
