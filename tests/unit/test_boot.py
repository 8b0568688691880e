"""A start that fails is tried again, and says what it waits for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from scheduler.engine.periodic import BackgroundTasks, Backoff
from scheduler.errors import JournalUnwritable, RegistryUnavailable, Superseded
from scheduler.server.boot import Boot
from scheduler.testing.clock import ManualClock


class Flaky:
    """Fails as often as it is told to."""

    def __init__(self, *errors: Exception) -> None:
        self.errors, self.tries = list(errors), 0

    async def __call__(self) -> str:
        self.tries += 1
        await asyncio.sleep(0)
        if self.errors:
            raise self.errors.pop(0)
        return "service"


def boot(make: Flaky, first_s: float = 0.01) -> Boot[str]:
    backoff = Backoff(first_s=first_s, max_s=60.0, chance=lambda: 0.999)
    return Boot(make, ManualClock(), backoff)


async def refusal(tried: Boot[str]) -> str:
    with pytest.raises(RegistryUnavailable) as refused:
        await tried.made()
    return refused.value.message


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not true():
            await asyncio.sleep(0.001)


async def test_a_failed_start_is_tried_again_until_it_works() -> None:
    """R8: 503 for ever, after one moment of a full disk, is an outage that nobody needed."""
    make = Flaky(JournalUnwritable("the disk is full"), OSError("no route"))
    tried = boot(make)
    assert "the disk is full" in await refusal(tried)
    await until(lambda: make.tries == 3)
    await asyncio.sleep(0.01)
    assert [await tried.made() for _ in range(2)] == ["service"] * 2
    assert make.tries == 3


async def test_whoever_asks_meanwhile_hears_what_it_waits_for_and_when_the_next_try_is() -> None:
    make = Flaky(JournalUnwritable("the disk is full"))
    tried = boot(make, first_s=20.0)
    words = await refusal(tried)
    assert "its start failed once, and is tried again at 12:00:19 UTC" in words
    assert "JournalUnwritable: the disk is full" in words
    assert make.tries == 1, "asking does not try"


async def test_who_asks_while_the_first_try_is_under_way_waits_for_it() -> None:
    make = Flaky()
    tried = boot(make)
    assert await asyncio.gather(*(tried.made() for _ in range(5))) == ["service"] * 5
    assert make.tries == 1


async def test_the_pause_grows_to_a_minute() -> None:
    pauses = [Backoff(first_s=1.0, max_s=60.0, chance=lambda: 1.0).pause_s(n) for n in range(1, 9)]
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]


async def test_a_scheduler_that_was_replaced_does_not_come_back() -> None:
    make = Flaky(Superseded("a newer one owns the journal"))
    tried = boot(make)
    for _ in range(2):
        with pytest.raises(Superseded):
            await tried.made()
    await asyncio.sleep(0.05)
    assert make.tries == 1


async def test_what_a_failed_start_had_begun_is_ended() -> None:
    """Else two watchers of one run would tell its end, one of them to a journal that is closed."""
    background, ended = BackgroundTasks(ManualClock()), asyncio.Event()

    async def watch() -> None:
        try:
            await asyncio.sleep(1000)
        finally:
            ended.set()

    background.spawn(watch())
    await asyncio.sleep(0)
    await background.close()
    assert ended.is_set()
    assert background.problem() is None
