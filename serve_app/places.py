"""How many requests of one kind may be open at once, in all and for each who asks: the others need room too."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from scheduler.errors import SchedulerError


class NoPlace(SchedulerError):
    """All are taken."""

    http_status = 503
    code = "too_many_open"


class NoPlaceForYou(NoPlace):
    """Whoever asks has taken all that one may have."""

    http_status = 429


class Places:
    """Those of one replica."""

    def __init__(self, what: str, most: int, most_each: int, remedy: str) -> None:
        """*what* is open: `live streams`; *remedy*: what to do where there is no place."""
        self._what, self._remedy = what, remedy
        self.most, self.most_each = most, most_each
        self._taken: Counter[str] = Counter()

    def __len__(self) -> int:
        """Those that are taken."""
        return self._taken.total()

    @contextmanager
    def taken(self, who: str, weight: int = 1) -> Iterator[None]:
        """Takes *weight* places as long as it is entered.  Raises NoPlace."""
        if self._taken[who] + weight > self.most_each:
            raise NoPlaceForYou(self._full(f" of {who}", self._taken[who], self.most_each))
        if len(self) + weight > self.most:
            raise NoPlace(self._full("", len(self), self.most))
        self._taken[who] += weight
        try:
            yield
        finally:
            self._taken[who] -= weight
            if not self._taken[who]:
                del self._taken[who]

    def _full(self, whose: str, count: int, most: int) -> str:
        return f"{count} {self._what}{whose} are open here, and {most} may be; {self._remedy}"
