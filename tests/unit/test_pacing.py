"""When a loop runs its next pass, seen on a clock that jumps from one timer to the next."""

from __future__ import annotations

import asyncio
import logging
import selectors
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from scheduler.engine.periodic import Backoff, PeriodicTask, all_of
from scheduler.errors import MirrorUnavailable, Superseded
from scheduler.testing.clock import NOON

AWAY = MirrorUnavailable("Supabase does not answer")


class _Jump(selectors.SelectSelector):
    """Where a loop would wait for its next timer, the time is that of the timer at once."""

    now_s = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        self.now_s += timeout or 0.0
        return super().select(0)


class JumpingLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._jump = _Jump()
        super().__init__(self._jump)

    def time(self) -> float:
        return self._jump.now_s


class LoopClock:
    """A `scheduler.ports.Clock` that says noon plus the time of the event loop."""

    def now(self) -> datetime:
        return NOON + timedelta(seconds=asyncio.get_running_loop().time())

    def monotonic_s(self) -> float:
        return asyncio.get_running_loop().time()


class Passes:
    """One outcome for each pass; the last one ends the loop, as only Superseded does."""

    def __init__(self, *outcomes: Exception | None) -> None:
        self._outcomes = [*outcomes, Superseded("that is all")]
        self.began_s: list[float] = []
        self.during: Callable[[int], None] = lambda number: None

    async def __call__(self) -> None:
        self.began_s.append(asyncio.get_running_loop().time())
        self.during(len(self.began_s))
        if error := self._outcomes[len(self.began_s) - 1]:
            raise error


def a_loop(once: Callable[[], Awaitable[object]], *, every_s: float = 10.0, **backoff: Any) -> PeriodicTask:
    pauses = Backoff(**{"first_s": 1.0, "max_s": 300.0, "chance": lambda: 1.0} | backoff)
    return PeriodicTask("relay", every_s, once, LoopClock(), backoff=pauses)


def run(loop: PeriodicTask) -> None:
    async def until_superseded() -> None:
        with pytest.raises(Superseded):
            await loop.run_forever()

    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        runner.run(until_superseded())


def gaps(times_s: Sequence[float]) -> list[float]:
    return [round(after - before, 6) for before, after in pairwise(times_s)]


# Backoff


def test_pauses_double_up_to_the_longest() -> None:
    """R6: from 1 s up to 5 min."""
    backoff = Backoff(first_s=1.0, max_s=300.0, chance=lambda: 1.0)
    assert [backoff.pause_s(failures) for failures in range(1, 12)] == [
        *(1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0),
        *(300.0, 300.0),
    ]


@pytest.mark.parametrize(("chance", "share"), [(0.0, 0.5), (0.5, 0.75), (0.999, 0.9995)])
def test_half_of_a_pause_is_certain_and_half_is_chance(chance: float, share: float) -> None:
    """R6: without chance all who lost one server come back in the same instant; without a floor, at once."""
    backoff = Backoff(first_s=1.0, max_s=300.0, chance=lambda: chance)
    assert [backoff.pause_s(failures) for failures in (1, 3, 20)] == pytest.approx(
        [share, 4 * share, 300 * share]
    )


def test_a_loop_that_fails_for_months_still_has_a_pause() -> None:
    """An overflow here would end the loop, and with it every write that waits."""
    assert Backoff(first_s=1.0, max_s=300.0, chance=lambda: 1.0).pause_s(100_000) == 300.0


# Loop


def test_without_failures_a_loop_keeps_its_pace() -> None:
    """A backoff that was never needed changes nothing."""
    passes = Passes(None, None, None)
    run(a_loop(passes))
    assert passes.began_s == [0.0, 10.0, 20.0, 30.0]


def test_after_failures_the_next_pass_comes_after_pauses_that_grow() -> None:
    """R6: sooner than the usual pace at first, and later than it in the end."""
    passes = Passes(*[AWAY] * 6)
    run(a_loop(passes))
    assert gaps(passes.began_s) == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0]


def test_a_success_ends_the_pauses_and_the_next_failure_begins_anew() -> None:
    """R6: an outage of an hour must not slow down the day after."""
    passes = Passes(AWAY, AWAY, AWAY, None, AWAY, AWAY)
    run(a_loop(passes))
    assert gaps(passes.began_s) == [1.0, 2.0, 4.0, 10.0, 1.0, 2.0]


def test_a_wake_does_not_shorten_a_pause_after_a_failure() -> None:
    """R6: every commit wakes the relay; a busy scheduler would hammer a database that is down."""
    passes = Passes(AWAY, AWAY)
    loop = a_loop(passes, first_s=8.0)

    def wake_in_the_pause(number: int) -> None:
        for after_s in (0.0, 1.0, 7.0):
            asyncio.get_running_loop().call_later(after_s, loop.wake)

    passes.during = wake_in_the_pause
    run(loop)
    assert passes.began_s == [0.0, 8.0, 24.0]


def test_a_wake_brings_the_next_pass_at_once_when_all_is_well() -> None:
    """A change is mirrored now, not at the end of the period; also when it came in the middle of a pass."""
    passes = Passes(None, None, None)
    loop = a_loop(passes)
    wakes = {1: 0.0, 2: 3.0}

    def wake(number: int) -> None:
        if number in wakes:
            asyncio.get_running_loop().call_later(wakes[number], loop.wake)

    passes.during = wake
    run(loop)
    assert passes.began_s == [0.0, 0.0, 3.0, 13.0]


def test_without_backoff_a_failing_loop_keeps_its_pace_and_can_be_woken() -> None:
    """R3: a pass that fails is followed by the next one all the same."""
    passes = Passes(AWAY, AWAY, AWAY)
    loop = PeriodicTask("tick", 10.0, passes, LoopClock())
    passes.during = lambda number: loop.wake() if number == 2 else None
    run(loop)
    assert passes.began_s == [0.0, 10.0, 10.0, 20.0]


@pytest.mark.parametrize(
    ("outcomes", "next_in_s"), [([None], 10.0), ([AWAY], 1.0), ([AWAY] * 4, 8.0), ([AWAY, None], 10.0)]
)
def test_health_shows_when_the_next_pass_really_comes(
    outcomes: list[Exception | None], next_in_s: float
) -> None:
    """L9: in an outage people want to know when it is tried again."""
    passes = Passes(*outcomes)
    loop = a_loop(passes)
    run(loop)
    shown = loop.health().next_run_at
    assert shown == NOON + timedelta(seconds=passes.began_s[-1])
    assert gaps(passes.began_s)[-1] == next_in_s


def test_health_counts_passes_and_failures_and_a_success_clears_the_problem() -> None:
    """L9, R3: logged, counted, shown."""
    problems: list[str | None] = []
    passes = Passes(AWAY, AWAY, None)
    loop = a_loop(passes)
    passes.during = lambda number: problems.append(loop.problem())
    run(loop)
    words = "the relay loop fails: MirrorUnavailable: Supabase does not answer (seen {} times)"
    assert problems == [None, words.format(1), words.format(2), None]
    health = loop.health()
    assert (health.passes, health.errors) == (3, 2)
    assert health.last_error_at == NOON + timedelta(seconds=1)
    assert health.last_success_at == NOON + timedelta(seconds=3)


def test_the_same_failure_is_logged_once_in_a_row(caplog: pytest.LogCaptureFixture) -> None:
    """A log of an outage that repeats itself hides what else happens; a new failure, or a new outage, is news."""
    passes = Passes(AWAY, AWAY, ValueError("a bug"), None, ValueError("a bug"))
    with caplog.at_level(logging.ERROR, "scheduler"):
        run(a_loop(passes))
    seen = [str(record.exc_info[1]) for record in caplog.records if record.exc_info]
    assert seen == ["Supabase does not answer", "a bug", "a bug"]


async def test_a_pass_ends_when_all_of_its_parts_have() -> None:
    """One that failed ended the pass while others went on, and the next one planned beside them: a node was given away
    twice."""
    done: list[str] = []

    async def slow() -> str:
        await asyncio.sleep(0.02)
        done.append("slow")
        return "slow"

    async def broken() -> str:
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="the disk is full"):
        await all_of([broken(), slow()])
    assert done == ["slow"]
    assert await all_of([slow(), slow()]) == ["slow", "slow"]
