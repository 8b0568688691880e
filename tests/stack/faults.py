"""What can happen between a client and Supabase, and when."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from typing import Literal, get_args

Kind = Literal["refuse", "hang", "500", "429", "slow", "reset", "twice", "lose"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One way in which requests go wrong.

    | kind     | reaches PostgREST | what the client sees                                             |
    | refuse   | no                | connection refused; with a path or a chance: closed at once      |
    | hang     | no                | nothing, until the faults change; then closed                    |
    | 500, 429 | no                | that status, with JSON; 429 with `Retry-After: retry_after_s`    |
    | slow     | after `delay_s`   | the answer, late                                                 |
    | reset    | once              | the first half of the answer, then a reset                       |
    | twice    | twice, in a row   | the second answer                                                |
    | lose     | once              | a reset instead of the answer                                    |
    """

    kind: Kind
    path: str = ""
    """Only requests whose "METHOD /path" has a match of this regular expression."""
    probability: float = 1.0
    times: int | None = None
    """How many requests it hits before it is over; None: no end."""
    delay_s: float = 0.2
    retry_after_s: int = 1

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"no fault is called {self.kind!r}; there are {', '.join(KINDS)}")

    @property
    def total(self) -> bool:
        """Whether it is as if nobody listened at all."""
        return self.kind == "refuse" and not self.path and self.probability >= 1 and self.times is None


class Faults:
    """Which fault, if any, the next request meets.  The same seed and requests give the same faults."""

    def __init__(self, faults: tuple[Fault, ...] = (), seed: int = 0) -> None:
        self.faults = faults
        self._left = [fault.times for fault in faults]
        self._random = random.Random(seed)

    def draw(self, method: str, path: str) -> Fault | None:
        """One draw per request: the probabilities of the faults that fit add up."""
        chance = self._random.random()
        for place, fault in enumerate(self.faults):
            if self._left[place] == 0 or not re.search(fault.path, f"{method} {path}"):
                continue
            if chance < fault.probability:
                self._count_down(place)
                return fault
            chance -= fault.probability
        return None

    def _count_down(self, place: int) -> None:
        left = self._left[place]
        self._left[place] = None if left is None else left - 1
