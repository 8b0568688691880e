"""The hub: one question to the registry for everybody who looks, and nobody is told less than what changed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.api.jobs import Changes
from scheduler.core.model import JobId, Status
from scheduler.engine.change_feed import ChangeFeed
from scheduler.errors import InvalidRequest, RegistryUnavailable
from serve_app.change_hub import ChangeBatch, ChangePosition, Doubt, Hub, HubTiming
from tests.unit.recording_registry import a_document

AWAY = RegistryUnavailable("the actor is restarting")
QUIET = HubTiming(heartbeat_s=60.0, rest_per_listener_s=0.0, shortest_s=0.0, longest_s=0.0)


class Changing:
    """A registry of which only the changes are asked."""

    def __init__(self) -> None:
        self.life, self.feed = 1, ChangeFeed(told_at_once=4)
        self.versions: dict[str, int] = {}
        self.away: Exception | None = None
        self.polls, self.calls = 0, 0
        self._moved = asyncio.Event()

    def change(self, job_id: str) -> None:
        self.versions[job_id] = self.versions.get(job_id, 0) + 1
        self.feed.tell([JobId(job_id)])
        self._moved.set()

    def restart(self) -> None:
        self.life, self.feed = self.life + 1, ChangeFeed(told_at_once=4)
        self._moved.set()

    def leave(self) -> None:
        self.away = AWAY
        self._moved.set()

    async def changes(self, after: int, life: int, wait_s: float) -> Changes:
        self.calls += 1
        self.polls += wait_s > 0
        while wait_s and not self.away and (after, life) == (self.feed.since(0).seq, self.life):
            self._moved.clear()
            await self._moved.wait()
        if self.away:
            raise self.away
        news = self.feed.since(after if life == self.life else -1)
        jobs = [a_document(job_id, version=self.versions[job_id]) for job_id in news.job_ids or []]
        counts = {Status.QUEUED: len(self.versions)}
        return Changes(life=self.life, seq=news.seq, jobs=jobs, counts=counts, missed=news.job_ids is None)


class Listener:
    """Somebody who listens, and takes what is there when told to."""

    def __init__(self, hub: Hub, position: ChangePosition | None = None) -> None:
        self._listening = hub.listen(position)
        self._next: asyncio.Task[Any] | None = None

    async def heard(self) -> list[Any]:
        """All that can be heard now."""
        found: list[Any] = []
        while True:
            self._next = self._next or asyncio.ensure_future(anext(self._listening))
            await settle()
            if not self._next.done():
                return found
            found.append(self._next.result())
            self._next = None

    async def close(self) -> None:
        if self._next:
            self._next.cancel()
            await settle()
        await self._listening.aclose()


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


@asynccontextmanager
async def listening(
    registry: Any, count: int = 1, position: ChangePosition | None = None, pace: HubTiming = QUIET
) -> AsyncIterator[list[Listener]]:
    hub = Hub(registry, pace)
    listeners = [Listener(hub, position) for _ in range(count)]
    try:
        yield listeners
    finally:
        for listener in listeners:
            await listener.close()
        await settle()
        assert not [task for task in asyncio.all_tasks() if task.get_name() == "live"]


def versions(news: ChangeBatch) -> dict[str, int]:
    return {said.document.job_id: said.document.version for said in news.jobs}


async def test_however_many_listen_the_registry_is_asked_once() -> None:
    """L6: 200 open pages must cost the scheduler what one costs."""
    registry = Changing()
    async with listening(registry, 50) as listeners:
        for listener in listeners:
            [first] = await listener.heard()
            assert (first.position, first.jobs, first.missed) == (ChangePosition(1, 0), (), False)
        registry.change("a")
        for listener in listeners:
            [news] = await listener.heard()
            assert versions(news) == {"a": 1}
            assert news.counts == {Status.QUEUED: 1}
        assert registry.calls == registry.polls == 3


async def test_nobody_is_asked_while_nobody_listens() -> None:
    registry = Changing()
    async with listening(registry) as [listener]:
        assert registry.calls == 0
        await listener.heard()
    asked = registry.calls
    registry.change("a")
    await settle()
    assert registry.calls == asked


async def test_what_is_made_of_news_is_made_once_for_all() -> None:
    """A row is rendered once, not once for each open page."""
    registry, made = Changing(), []
    async with listening(registry, 3) as listeners:
        for listener in listeners:
            await listener.heard()
        registry.change("a")
        heard = [(await listener.heard())[0] for listener in listeners]
    assert heard[0] is heard[1] is heard[2]
    for news in heard:
        assert news.once("event", lambda: made.append("event") or "e") == "e"
        assert news.jobs[0].once("row", lambda: made.append("row") or "r") == "r"
    assert made == ["event", "row"]


async def test_a_slow_listener_hears_each_job_once_as_it_is_now() -> None:
    """L6: what waits for it must not grow with the number of changes."""
    registry = Changing()
    async with listening(registry, 2) as [quick, slow]:
        await quick.heard()
        await slow.heard()
        for name in "aababb":
            registry.change(name)
            last = (await quick.heard())[-1]
        first, merged = await slow.heard()
        assert (versions(first), versions(merged)) == ({"a": 1}, {"a": 3, "b": 3})
        assert merged.position == last.position
        assert last.jobs[0] in merged.jobs


async def test_who_is_too_far_behind_is_told_to_load_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serve_app.change_hub.MOST_JOBS", 2)
    registry = Changing()
    async with listening(registry, 2) as [quick, slow]:
        await quick.heard()
        await slow.heard()
        for name in "abcd":
            registry.change(name)
            assert (await quick.heard())[-1].missed is False
        _, news = await slow.heard()
        assert (news.missed, news.jobs) == (True, ())


async def test_who_comes_back_hears_what_changed_meanwhile() -> None:
    """A page was rendered, then the browser connected: in between something may have happened."""
    registry = Changing()
    registry.change("a")
    position = await Hub(registry).position()  # type: ignore[arg-type]
    registry.change("b")
    async with listening(registry, 1, position) as [listener]:
        [news] = await listener.heard()
        assert versions(news) == {"b": 1}
        registry.change("a")
        assert [versions(news) for news in await listener.heard()] == [{"a": 2}]


def test_of_news_only_what_is_newer_than_a_position_is_told() -> None:
    """Who came back has asked for itself what it missed: news that were under way then must not undo that."""
    old, new = (
        ChangeBatch.of(Changes(life=2, seq=seq, jobs=[a_document(job_id)], counts={}, missed=False))
        for seq, job_id in ((5, "a"), (7, "b"))
    )
    both = old.then(new)
    assert versions(both) == {"a": 1, "b": 1}
    at_6 = both.after(ChangePosition(2, 6))
    assert at_6 is not None
    assert versions(at_6) == {"b": 1}
    assert [
        both.after(ChangePosition(2, 7)),
        old.after(ChangePosition(2, 6)),
        both.after(ChangePosition(3, 0)),
    ] == [None] * 3
    assert both.after(ChangePosition(1, 99)) is both


async def test_who_comes_back_in_another_life_has_missed_it() -> None:
    registry = Changing()
    registry.restart()
    async with listening(registry, 1, ChangePosition(1, 0)) as [listener]:
        [news] = await listener.heard()
        assert (news.missed, news.life) == (True, 2)


async def test_while_the_registry_is_away_everybody_is_told_once_and_it_goes_on_by_itself() -> None:
    """P2: a page that shows an old state must say so; nobody has to reload it afterwards."""
    registry = Changing()
    async with listening(registry, 2) as [one, other]:
        await one.heard()
        await other.heard()
        registry.leave()
        assert await one.heard() == [Doubt(AWAY.message)]
        assert await other.heard() == [Doubt(AWAY.message)]
        registry.change("a")
        registry.away = None
        back, news = await one.heard()
        assert (back, versions(news)) == (Doubt(None), {"a": 1})


async def test_who_comes_while_the_registry_is_away_begins_when_it_is_back() -> None:
    registry = Changing()
    registry.leave()
    async with listening(registry, 2) as listeners:
        for listener in listeners:
            assert await listener.heard() == [Doubt(AWAY.message)]
        registry.away = None
        for listener in listeners:
            back, first = await listener.heard()
            assert (back, first.position) == (Doubt(None), ChangePosition(1, 0))


async def test_after_a_restart_of_the_scheduler_everything_is_loaded_anew() -> None:
    registry = Changing()
    async with listening(registry) as [listener]:
        await listener.heard()
        registry.change("a")
        await listener.heard()
        registry.restart()
        [news] = await listener.heard()
        assert (news.missed, news.life, news.jobs) == (True, 2, ())


async def test_a_mishap_is_told_and_does_not_end_the_stream(caplog: pytest.LogCaptureFixture) -> None:
    registry = Changing()
    async with listening(registry) as [listener]:
        await listener.heard()
        registry.leave()
        registry.away = ZeroDivisionError("a bug")
        [doubt] = await listener.heard()
        assert "ZeroDivisionError" in doubt.message
        registry.away = None
        assert await listener.heard() == [Doubt(None)]
    assert "could not be asked" in caplog.text


async def test_a_listener_without_news_is_called_now_and_then() -> None:
    """Else a proxy takes the connection for dead."""
    async with listening(Changing(), pace=HubTiming(heartbeat_s=0.001)) as [listener]:
        await anext(listener._listening)
        assert await anext(listener._listening) is None


@pytest.mark.parametrize("text", ["", "1", "1.", "1.2.3", "-1.2", "1.2 ", "a.b", "9" * 20 + ".1"])
def test_a_position_that_is_none_is_refused_in_words(text: str) -> None:
    with pytest.raises(InvalidRequest, match="send the id of an event"):
        ChangePosition.of(text)


def test_a_position_is_read_as_it_was_written() -> None:
    assert ChangePosition.of(str(ChangePosition(12, 345))) == ChangePosition(12, 345)


_STEPS = st.one_of(
    st.tuples(st.just("change"), st.sampled_from("abcdef")),
    st.tuples(st.just("hear"), st.integers(0, 2)),
    st.tuples(st.sampled_from(["leave", "back", "restart", "reconnect"]), st.just(0)),
)


@given(st.lists(_STEPS, max_size=30))
@settings(max_examples=100, deadline=None)
def test_everybody_knows_in_the_end_how_each_job_is(steps: list[tuple[str, Any]]) -> None:
    """L6: through outages, restarts, lost connections and slowness, a page shows what is or loads it anew."""
    asyncio.run(_play(steps))


async def _play(steps: list[tuple[str, Any]]) -> None:
    registry = Changing()
    hub = Hub(registry, QUIET)  # type: ignore[arg-type]
    pages = [_Page(registry, hub) for _ in range(3)]
    for page in pages:
        await page.hear()
    for what, which in steps:
        match what:
            case "change":
                registry.change(which)
            case "hear":
                await pages[which].hear()
            case "leave":
                registry.leave()
            case "back":
                registry.away = None
            case "restart":
                registry.restart()
            case _:
                await pages[0].reconnect()
    registry.away = None
    for page in pages:
        await page.hear()
        assert page.shows == registry.versions
        assert page.doubt is None
        await page.listener.close()


class _Page:
    """Shows versions of jobs, as a browser shows rows."""

    def __init__(self, registry: Changing, hub: Hub) -> None:
        self._registry, self._hub = registry, hub
        self.listener, self.position = Listener(hub), None
        self.shows: dict[str, int] = {}
        self.doubt: str | None = None

    async def reconnect(self) -> None:
        await self.listener.close()
        self.listener, self.doubt = Listener(self._hub, self.position), None

    async def hear(self) -> None:
        for heard in await self.listener.heard():
            if isinstance(heard, Doubt):
                self.doubt = heard.message
                continue
            self.position = heard.position
            for job_id, version in versions(heard).items():
                assert version >= self.shows.get(job_id, 0)
                self.shows[job_id] = version
            if heard.missed:
                self.shows = dict(self._registry.versions)
