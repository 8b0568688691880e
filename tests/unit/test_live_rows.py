"""The live list: drawn once, whatever the number of those who look."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from typing import Any

import httpx
import pytest
from httpx_sse import EventSource

from scheduler.api.jobs import Changes
from scheduler.core.model import Status
from scheduler.errors import RegistryUnavailable
from serve_app.change_hub import ChangePosition, Hub, HubTiming
from serve_app.pages import calls
from serve_app.pages.live_rows import PROOF_EVERY_S, LiveRows, Proofs
from serve_app.pages.rendering import Renderer
from tests.unit.recording_registry import JOB_ID, RecordingRegistry, a_document

HERE = ChangePosition(1, 1)


class CountingRenderer(Renderer):
    def __init__(self) -> None:
        super().__init__()
        self.drawn: list[str] = []

    def text(self, name: str, base: str, **values: Any) -> str:
        self.drawn.append(name)
        return super().text(name, base, **values)


class ChangingRegistry(RecordingRegistry):
    """Tells at once what is put into `news`; an empty queue waits."""

    def __init__(self) -> None:
        super().__init__()
        self.news: asyncio.Queue[Changes] = asyncio.Queue()
        self.newest = Changes(life=1, seq=1, jobs=[], counts={})

    async def changes(self, after: int, life: int, wait_s: float) -> Changes:
        if (life, after) == (self.newest.life, self.newest.seq) and wait_s:
            self.newest = await self.news.get()
        return self.newest


def of_events(told: bytes) -> list[tuple[str, Any]]:
    answer = httpx.Response(200, headers={"content-type": "text/event-stream"}, content=told)
    return [(event.event, json.loads(event.data)) for event in EventSource(answer).iter_sse()]


async def test_a_change_is_drawn_once_for_all_who_listen() -> None:
    """200 open pages would otherwise draw each row 200 times."""
    registry, renderer = ChangingRegistry(), CountingRenderer()
    rows = LiveRows(Hub(registry), registry, renderer)
    listening = [rows.events(HERE, "") for _ in range(20)]
    first = await asyncio.gather(*(anext(one) for one in listening))
    assert {name for told in first for name, _ in of_events(told)} == {"counts"}
    renderer.drawn.clear()
    waiting = [asyncio.ensure_future(anext(one)) for one in listening]
    registry.news.put_nowait(
        Changes(life=1, seq=2, jobs=[a_document(status=Status.FAILED)], counts={Status.FAILED: 1})
    )
    told = await asyncio.gather(*waiting)
    assert renderer.drawn == ["alone.html"]
    assert len({id(one) for one in told}) == 1
    [(row, drawn), (counts, numbers)] = of_events(told[0])
    assert (row, drawn["job"], counts, numbers) == ("row", JOB_ID, "counts", {"failed": 1})
    assert 'class="status failed"' in drawn["html"]
    for one in listening:
        await one.aclose()


async def test_a_list_that_was_never_read_is_told_to_load_first() -> None:
    """It was opened while the registry was away: rows alone would not make it whole."""
    registry = ChangingRegistry()
    async with aclosing(LiveRows(Hub(registry), registry, Renderer()).events(None, "")) as told:
        assert of_events(await anext(told)) == [("anew", {})]


async def test_whoever_missed_too_much_is_told_to_load_anew() -> None:
    registry = ChangingRegistry()
    registry.newest = Changes(life=2, seq=9, jobs=[], counts={Status.QUEUED: 3}, missed=True)
    async with aclosing(LiveRows(Hub(registry), registry, Renderer()).events(HERE, "")) as told:
        assert of_events(await anext(told)) == [("anew", {}), ("counts", {"queued": 3})]


async def test_silence_is_told_as_a_beat_and_a_registry_that_is_away_as_doubt() -> None:
    """Without a beat a page cannot tell a calm scheduler from a lost connection."""
    registry = ChangingRegistry()
    hub = Hub(registry, HubTiming(heartbeat_s=0.01, shortest_s=0.001))
    async with aclosing(LiveRows(hub, registry, Renderer()).events(HERE, "")) as told:
        await anext(told)
        assert of_events(await anext(told)) == [("beat", {})]
        registry.refuses = RegistryUnavailable("the actor is away")
        registry.news.put_nowait(Changes(life=1, seq=2, jobs=[], counts={}))
        async for one in told:
            if (heard := of_events(one)[0])[0] == "doubt":
                break
        assert heard == ("doubt", {"message": "the actor is away"})


async def test_proofs_are_read_once_in_a_while_for_all_who_look() -> None:
    registry, now_s = RecordingRegistry(), 100.0
    registry.known[JOB_ID] = a_document(status=Status.RUNNING)
    proofs = Proofs(registry, Renderer(), lambda: now_s)
    told = await asyncio.gather(*(proofs.newest() for _ in range(20)))
    [(name, cells)] = of_events(told[0])
    assert (name, list(cells)) == ("proofs", [JOB_ID])
    assert [call[0] for call in registry.calls] == ["jobs"]
    now_s += PROOF_EVERY_S
    await proofs.newest()
    assert len(registry.calls) == 2


async def test_proofs_that_cannot_be_had_are_left_out() -> None:
    """The hub tells that the registry is away; an old proof must not look new."""
    registry = RecordingRegistry()
    registry.refuses = RegistryUnavailable("the actor is away")
    assert await Proofs(registry, Renderer(), lambda: 0.0).newest() == b""


async def test_a_registry_that_hangs_does_not_keep_proofs_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everybody who looks waits for them, and hears nothing else meanwhile."""
    monkeypatch.setattr(calls, "PATIENCE_S", 0.01)
    registry = RecordingRegistry()
    registry.hangs = {"jobs"}
    assert await Proofs(registry, Renderer(), lambda: 0.0).newest() == b""
