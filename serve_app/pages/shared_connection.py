"""Several streams of our pages over one connection: a browser has six to a server, for all of its tabs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, MutableMapping
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import httpx
from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import Response, StreamingResponse
from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event
from httpx_sse import EventSource

from serve_app.problems import invalid, shown

router = APIRouter(include_in_schema=False)
MOST = 24
"""Streams in one connection: so many paths fit into an address that proxies let through."""
_HEARTBEAT_S = 10.0
_MOST_WAITING = 64
_MOST_REFUSAL_BYTES = 20_000
_KEPT = ("type", "asgi", "http_version", "method", "scheme", "server", "client", "root_path")
_EVENTS = {"content-type": "text/event-stream"}
_LEFT_OUT = (b"last-event-id", b"hx-request")


@router.get("/training/streams")
async def streams(request: Request) -> Response:
    """Those whose paths `of` has, one a line; see `_Part` for what is said of each."""
    paths = request.query_params.get("of", "").split("\n")
    if len(paths) > MOST:
        raise invalid("of", f"names {len(paths)} streams; at most {MOST} are sent together")
    for path in paths:
        if not path.startswith("/training/") or path.startswith("/training/streams"):
            raise invalid("of", f"{shown(path)} is no stream of a page")
    # Each of the streams has a place of its own; together they need no other.
    headers = {"X-Accel-Buffering": "no"}
    return StreamingResponse(_together(request.app, request, paths), 200, headers, "text/event-stream")


async def _together(app: FastAPI, request: Request, paths: list[str]) -> AsyncIterator[bytes]:
    events_out: asyncio.Queue[bytes] = asyncio.Queue(_MOST_WAITING)
    parts = [
        asyncio.create_task(_Part(number, events_out).play(app, _asking_for(path, request)))
        for number, path in enumerate(paths)
    ]
    try:
        while not (events_out.empty() and all(part.done() for part in parts)):
            try:
                yield await asyncio.wait_for(events_out.get(), _HEARTBEAT_S)
            except TimeoutError:
                yield KEEPALIVE_COMMENT
    finally:
        for part in parts:
            part.cancel()


def _asking_for(path: str, request: Request) -> dict[str, Any]:
    """The same request, for another path: it is guarded, counted and refused like any other."""
    parts = urlsplit(path)
    kept = {name: request.scope[name] for name in _KEPT if name in request.scope}
    return kept | {
        "path": parts.path,
        "raw_path": parts.path.encode(),
        "query_string": parts.query.encode(),
        "headers": [one for one in request.scope["headers"] if one[0] not in _LEFT_OUT],
    }


class _Part:
    """One of the streams.  Each event of it is sent as `{of, kind, data, id}`; `of` is its number.

    Of the stream itself say the kinds `open` and, with its status and what it was refused with, `closed`.
    """

    def __init__(self, number: int, events_out: asyncio.Queue[bytes]) -> None:
        self._number, self._events_out = number, events_out
        self._body: asyncio.Queue[bytes | None] = asyncio.Queue(1)
        self._status, self._refusal, self._is_asked = 0, b"", False

    async def play(self, app: FastAPI, scope: dict[str, Any]) -> None:
        asked = asyncio.create_task(self._ask(app, scope))
        try:
            body = httpx.Response(200, headers=_EVENTS, content=self._pieces())
            async for event in EventSource(body).aiter_sse():
                if event.data:  # a heartbeat has none
                    await self._tell(event.event, data=event.data, id=event.id)
        finally:
            asked.cancel()
        await self._tell("closed", status=self._status, data=self._why())

    async def _ask(self, app: FastAPI, scope: dict[str, Any]) -> None:
        with suppress(Exception):  # a mishap is in the log already, and its answer was 500
            await app(scope, self._receive, self._send)
        await self._body.put(None)

    async def _pieces(self) -> AsyncIterator[bytes]:
        while (piece := await self._body.get()) is not None:
            yield piece

    async def _receive(self) -> MutableMapping[str, Any]:
        """A request without a body, and nothing after it: who leaves, leaves all of the streams."""
        if not self._is_asked:
            self._is_asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        return await asyncio.get_running_loop().create_future()

    async def _send(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            if self._status == 200:
                await self._tell("open")
        elif self._status != 200:
            self._refusal += message.get("body", b"")[: _MOST_REFUSAL_BYTES - len(self._refusal)]
        else:
            await self._body.put(message.get("body", b""))

    async def _tell(self, kind: str, **more: Any) -> None:
        words = json.dumps({"of": self._number, "kind": kind, **more})
        await self._events_out.put(format_sse_event(data_str=words))

    def _why(self) -> str:
        try:
            return str(json.loads(self._refusal)["detail"])
        except (ValueError, KeyError, TypeError):
            return ""
