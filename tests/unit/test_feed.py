"""The feed of changed jobs: nothing is told twice, nothing is lost without saying so, and nobody spins."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.core.model import JobId, Reason
from scheduler.engine.change_feed import ChangeFeed, News, QueuePositions


def ids(*names: str) -> list[JobId]:
    return [JobId(name) for name in names]


def test_each_changed_job_is_told_once_with_the_number_to_go_on_from() -> None:
    feed = ChangeFeed()
    feed.tell(ids("a", "b"))
    feed.tell(ids("a"))
    assert feed.since(0) == News(3, ids("b", "a"))
    assert feed.since(2) == News(3, ids("a"))
    assert feed.since(3) == News(3, [])


@given(st.lists(st.sampled_from("abcdef"), max_size=40), st.data())
def test_whoever_asks_now_and_then_hears_of_every_change_or_that_it_was_missed(
    changes: list[str], data: st.DataObject
) -> None:
    """L6: a page that was told less than what changed would show an old state as if it were true."""
    feed, at, unheard = ChangeFeed(remembered=4, told_at_once=3), 0, set[str]()
    for name in changes:
        feed.tell(ids(name))
        unheard.add(name)
        if data.draw(st.booleans()):
            news = feed.since(at)
            assert news.job_ids is None or set(news.job_ids) == unheard
            assert (news.job_ids is None) == (len(unheard) > 3)
            at, unheard = news.seq, set()


def test_what_is_not_remembered_any_more_was_missed() -> None:
    feed = ChangeFeed(remembered=2)
    feed.tell(ids("a", "b", "c"))
    assert feed.since(0) == News(3, None)
    assert feed.since(1) == News(3, ids("b", "c"))


def test_a_number_that_was_never_given_out_has_missed_everything() -> None:
    """A caller that has it from elsewhere must not wait for it."""
    feed = ChangeFeed()
    feed.tell(ids("a"))
    assert feed.since(7) == News(1, None)


async def test_who_waits_is_answered_with_all_that_changes_shortly_after(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A batch of changes is one answer, so that whoever asks again at once does not ask without end."""
    gate = _Gate(monkeypatch)
    feed = ChangeFeed()
    asked = asyncio.create_task(feed.after(0, 60.0))
    await gate.settle()
    feed.tell(ids("a"))
    await gate.settle()
    feed.tell(ids("b"))
    assert not asked.done()
    gate.open.set()
    assert await asked == News(2, ids("a", "b"))


async def test_who_is_behind_is_answered_without_a_change(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = _Gate(monkeypatch)
    gate.open.set()
    feed = ChangeFeed()
    feed.tell(ids("a"))
    assert await feed.after(0, 60.0) == News(1, ids("a"))


async def test_who_would_not_wait_is_answered_at_once() -> None:
    assert await ChangeFeed().after(0, 0.0) == News(0, [])


async def test_a_wait_ends_when_nothing_changes_and_leaves_nothing_behind() -> None:
    feed = ChangeFeed()
    assert await feed.after(0, 0.01) == News(0, [])
    assert not feed._waiting


async def test_everybody_who_waits_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = _Gate(monkeypatch)
    gate.open.set()
    feed = ChangeFeed()
    asked = [asyncio.create_task(feed.after(0, 60.0)) for _ in range(3)]
    await gate.settle()
    feed.tell(ids("a"))
    assert await asyncio.gather(*asked) == [News(1, ids("a"))] * 3


class TestPlaces:
    FULL, LATE = Reason(code="no_room", message="2 are free"), Reason(code="retry", message="in 5 s")

    def test_only_who_moved_or_waits_for_another_reason_is_told(self) -> None:
        """A line that stands still costs nothing, however long it is."""
        places, line = QueuePositions(), ids("a", "b", "c")
        assert places.moved(line, {line[1]: self.FULL}.get) == line
        assert places.moved(line, {line[1]: self.FULL}.get) == []
        assert places.moved(line, {line[1]: self.LATE}.get) == ids("b")
        assert places.moved(line, {}.get) == ids("b")
        assert places.moved(ids("b", "c"), {}.get) == ids("b", "c")
        assert places.moved(ids("b", "d", "c"), {}.get) == ids("d", "c")


class _Gate:
    """Stands in for the pause in which changes are gathered."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open = asyncio.Event()
        self._sleep = asyncio.sleep
        monkeypatch.setattr("scheduler.engine.change_feed.asyncio.sleep", self._pause)

    async def _pause(self, seconds: float) -> Any:
        await self.open.wait()

    async def settle(self) -> None:
        """Let everybody go as far as they come."""
        for _ in range(5):
            await self._sleep(0)
