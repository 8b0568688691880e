"""What may go wrong, and when: drawn from the seed before anything happens, or call by call while it lasts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from random import Random


class Trouble(StrEnum):
    """Each seed has some of these and not others: what is rare beside everything else shows when it is alone."""

    CRASH = "crash"
    FREEZE = "freeze"
    JOURNAL_LOST = "journal lost"
    DISK = "disk"
    DATABASE = "database"
    CLUSTER = "cluster"
    WEBHOOK = "webhook"
    TAMPER = "tamper"
    POISON = "poison"
    SKEW = "skew"
    OPERATOR = "operator"


PORTS: Mapping[Trouble, str] = {
    Trouble.DATABASE: "mirror",
    Trouble.CLUSTER: "runner",
    Trouble.WEBHOOK: "webhook",
    Trouble.DISK: "disk",
}


class Fate(StrEnum):
    """What becomes of one call to another machine."""

    ARRIVES = "arrives"
    UNREACHED = "unreached"
    """It never gets there, and the caller is told so in a way that leaves it unsure."""
    REJECTED = "rejected"
    """The other side says no; nothing is done."""
    UNANSWERED = "unanswered"
    """It is done, and the answer is lost."""
    REPEATED = "repeated"
    """It arrives twice."""


@dataclass(frozen=True, slots=True)
class Trip:
    fate: Fate
    there_s: float
    back_s: float


SMOOTH = Trip(Fate.ARRIVES, 0.0, 0.0)

MOODS: Mapping[str, Mapping[Fate, int]] = {
    "down": {Fate.UNREACHED: 1},
    "refusing": {Fate.REJECTED: 1},
    "deaf": {Fate.UNANSWERED: 2, Fate.ARRIVES: 1},
    "echoing": {Fate.REPEATED: 2, Fate.ARRIVES: 1},
    "slow": {Fate.ARRIVES: 1},
    "mixed": dict.fromkeys(Fate, 1),
}
"""How an outage behaves: the odds of each fate while it lasts."""


@dataclass(frozen=True, slots=True)
class Outage:
    """One machine misbehaves for a while.  Times are seconds of the loop."""

    port: str
    mood: str
    begins_s: float
    ends_s: float
    slowest_s: float

    def covers(self, port: str, now_s: float) -> bool:
        return self.port == port and self.begins_s <= now_s < self.ends_s


@dataclass(frozen=True, slots=True)
class Bomb:
    """Ends a life at its *count*-th call of *method*: before it is made, once it is done, or once it is answered."""

    method: str
    moment: str
    count: int


BEFORE, DONE, ANSWERED = "before", "done", "answered"
TARGETS = (
    "journal.commit", "journal.forget", "journal.vouch", "journal.raise_incarnation", "journal.outbox",
    "journal.forget_notices", "mirror.claim", "mirror.apply", "mirror.vouch", "mirror.inbox", "mirror.answer",
    "mirror.active", "mirror.rows", "runner.start", "runner.stop", "runner.live", "runner.wait", "webhook.send",
)  # fmt: skip


@dataclass
class Weather:
    """What calls meet, as a function of the time; once it `is_calm`, nothing more."""

    rng: Random
    troubles: frozenset[Trouble]
    outages: tuple[Outage, ...]
    hiccups: float
    """How often a call goes wrong outside of any outage."""
    is_calm: bool = False

    def trip(self, port: str, now_s: float) -> Trip:
        """How one call to *port* fares."""
        if self.is_calm:
            return SMOOTH
        for outage in self.outages:
            if outage.covers(port, now_s):
                return self._trip(MOODS[outage.mood], outage.slowest_s)
        if self._troubles(port) and self.rng.random() < self.hiccups:
            return self._trip(MOODS["mixed"], 2.0)
        return Trip(Fate.ARRIVES, self.rng.random() * 0.05, self.rng.random() * 0.05)

    def disk_is_broken(self, now_s: float) -> bool:
        return not self.is_calm and any(outage.covers("disk", now_s) for outage in self.outages)

    def _troubles(self, port: str) -> bool:
        return any(PORTS.get(trouble) == port for trouble in self.troubles)

    def _trip(self, odds: Mapping[Fate, int], slowest_s: float) -> Trip:
        fate = self.rng.choices(list(odds), list(odds.values()))[0]
        return Trip(fate, self.rng.random() * slowest_s, self.rng.random() * slowest_s)


def draw_troubles(rng: Random) -> frozenset[Trouble]:
    return frozenset(trouble for trouble in Trouble if rng.random() < 0.5)


def draw_outages(rng: Random, troubles: frozenset[Trouble], length_s: float) -> tuple[Outage, ...]:
    """A few for each machine that misbehaves, some of them over the whole time."""
    chosen = [port for trouble, port in PORTS.items() if trouble in troubles]
    return tuple(_outage(rng, port, length_s) for port in chosen for _ in range(rng.randint(1, 3)))


def draw_bomb(rng: Random) -> Bomb | None:
    if rng.random() < 0.5:
        return None
    return Bomb(rng.choice(TARGETS), rng.choice((BEFORE, DONE, ANSWERED)), rng.choice((1, 1, 2, 3, 5, 8)))


def _outage(rng: Random, port: str, length_s: float) -> Outage:
    begins_s = rng.random() * length_s
    lasts_s = rng.choice((5.0, 30.0, 120.0, 400.0))
    moods = [mood for mood in MOODS if mood != "refusing" or port == "mirror"]
    # A start is never given up while it may still arrive: Ray answers, or is known not to have been reached.
    slowest_s = rng.choice((0.1, 2.0, 8.0) if port == "runner" else (0.1, 2.0, 8.0, 40.0))
    return Outage(port, rng.choice(moods), begins_s, begins_s + lasts_s, slowest_s)
