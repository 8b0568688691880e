"""The gateway in front of PostgREST: Supabase's paths and key check, faults on command, and a log of requests."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from aiohttp import ClientError, ClientSession, ClientTimeout, UnixConnector, web
from multidict import CIMultiDict
from yarl import URL

from tests.stack.faults import Fault, Faults

REST = "/rest/v1"
OF_ONE_CONNECTION = frozenset(("connection", "keep-alive", "transfer-encoding", "content-length", "host"))
NOT_ADDED = ("User-Agent", "Accept", "Accept-Encoding", "Content-Type")
MOST_REMEMBERED = 200_000
RST_ON_CLOSE = struct.pack("ii", 1, 0)


@dataclass(slots=True, kw_only=True)
class Request:
    """One request as the client sent it."""

    at_s: float
    """When it came, as `time.time()`."""
    method: str
    path: str
    """With `/rest/v1`, without the query."""
    query: str
    sent_bytes: int = 0
    received_bytes: int = 0
    status: int | None = None
    """None while there is no answer, or when a fault took it."""
    fault: str | None = None
    seconds: float | None = None
    """Until the answer was there."""


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: CIMultiDict[str]
    body: bytes


def _said(status: int, message: str, **headers: str) -> Answer:
    kind = CIMultiDict({"Content-Type": "application/json; charset=utf-8"} | headers)
    return Answer(status, kind, b'{"message":"%s"}' % message.encode())


class Gateway:
    """Serves `/rest/v1/...` from the PostgREST on the Unix socket *upstream*; only *keys* open it.

    Those of *exchanged* are no tokens: each comes in the header `apikey` alone, and the gateway puts a token in its
    place.  Sent as a bearer token, too, it goes on to PostgREST as it is, which answers 401.
    """

    def __init__(
        self, upstream: Path, keys: frozenset[str], exchanged: Mapping[str, str], *, port: int = 0
    ) -> None:
        self.requests: deque[Request] = deque(maxlen=MOST_REMEMBERED)
        self.port = port
        self._upstream, self._keys, self._exchanged = upstream, keys | exchanged.keys(), exchanged
        self._faults = Faults()
        self._changed = asyncio.Event()
        self._server = web.Server(self._handle)
        self._runner = web.ServerRunner(self._server, shutdown_timeout=0.5)
        self._site: web.SockSite | None = None
        self._handlers: dict[str, Callable[[web.BaseRequest, bytes, Fault], Awaitable[Answer | None]]] = {
            "refuse": self._refuse,
            "hang": self._hang,
            "500": self._fail,
            "429": self._throttle,
            "slow": self._slow,
            "reset": self._reset,
            "twice": self._twice,
            "lose": self._lose,
        }

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        # Bound but never listening: the port stays ours while connections to it are refused.
        self._keeper = self._bound()
        self.port = self._keeper.getsockname()[1]
        self._session = ClientSession(
            connector=UnixConnector(str(self._upstream), limit=0),
            timeout=ClientTimeout(total=None),
            auto_decompress=False,
            skip_auto_headers=NOT_ADDED,
        )
        await self._runner.setup()
        await self._listen()

    async def stop(self) -> None:
        self._changed.set()
        await self._runner.cleanup()
        await self._session.close()
        self._keeper.close()

    async def set_faults(self, faults: Faults) -> None:
        """From now on these and no others.  Requests that hang are cut."""
        self._faults = faults
        self._changed.set()
        self._changed = asyncio.Event()
        if any(fault.total for fault in faults.faults):
            await self._close()
        else:
            await self._listen()

    def _bound(self) -> socket.socket:
        bound = socket.socket()
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.bind(("127.0.0.1", self.port))
        return bound

    async def _listen(self) -> None:
        if self._site is None:
            self._site = web.SockSite(self._runner, self._bound())
            await self._site.start()

    async def _close(self) -> None:
        if self._site is not None:
            await self._site.stop()
            self._site = None
        for connection in self._server.connections:
            _cut(connection.transport)

    async def _handle(self, request: web.BaseRequest) -> web.Response:
        began_s = time.perf_counter()
        entry = Request(
            at_s=time.time(), method=request.method, path=request.path, query=request.query_string
        )
        self.requests.append(entry)
        body = await request.content.read()
        entry.sent_bytes = len(body)
        answer = await self._answer(request, body, entry)
        if answer is None:
            _cut(request.transport)
            return web.Response()
        entry.status, entry.received_bytes = answer.status, len(answer.body)
        entry.seconds = time.perf_counter() - began_s
        return web.Response(status=answer.status, headers=answer.headers, body=answer.body)

    async def _answer(self, request: web.BaseRequest, body: bytes, entry: Request) -> Answer | None:
        fault = self._faults.draw(request.method, request.path)
        if fault is not None:
            entry.fault = fault.kind
            return await self._handlers[fault.kind](request, body, fault)
        return await self._forward(request, body)

    async def _forward(self, request: web.BaseRequest, body: bytes) -> Answer:
        if refusal := self._refusal(request):
            return refusal
        try:
            return await self._ask(request, body)
        except (ClientError, OSError):
            return _said(503, "name resolution failed")

    def _refusal(self, request: web.BaseRequest) -> Answer | None:
        """What Supabase's gateway itself answers, without asking PostgREST."""
        if request.path != REST and not request.path.startswith(f"{REST}/"):
            return _said(404, "no Route matched with those values")
        if request.method == "OPTIONS":
            return None
        key = request.headers.get("apikey") or request.query.get("apikey")
        if not key:
            return _said(401, "No API key found in request")
        return None if key in self._keys else _said(401, "Invalid API key")

    async def _ask(self, request: web.BaseRequest, body: bytes) -> Answer:
        target = URL("http://postgrest" + (request.raw_path.removeprefix(REST) or "/"), encoded=True)
        headers = _end_to_end(request.headers)
        if token := self._exchanged.get(headers.get("apikey", "")):
            headers.setdefault("Authorization", f"Bearer {token}")
        async with self._session.request(
            request.method, target, headers=headers, data=body or None
        ) as response:
            return Answer(response.status, _end_to_end(response.headers), await response.read())

    async def _refuse(self, request: web.BaseRequest, body: bytes, fault: Fault) -> None:
        return None

    async def _hang(self, request: web.BaseRequest, body: bytes, fault: Fault) -> None:
        await self._changed.wait()

    async def _fail(self, request: web.BaseRequest, body: bytes, fault: Fault) -> Answer:
        return _said(500, "An unexpected error occurred")

    async def _throttle(self, request: web.BaseRequest, body: bytes, fault: Fault) -> Answer:
        return _said(429, "API rate limit exceeded", **{"Retry-After": str(fault.retry_after_s)})

    async def _slow(self, request: web.BaseRequest, body: bytes, fault: Fault) -> Answer:
        await asyncio.sleep(fault.delay_s)
        return await self._forward(request, body)

    async def _reset(self, request: web.BaseRequest, body: bytes, fault: Fault) -> None:
        answer = _raw(await self._forward(request, body))
        assert request.transport is not None
        request.transport.write(answer[: len(answer) // 2])
        await asyncio.sleep(
            0.02
        )  # A reset overtakes what was just written, and the client should see that half.

    async def _twice(self, request: web.BaseRequest, body: bytes, fault: Fault) -> Answer:
        await self._forward(request, body)
        return await self._forward(request, body)

    async def _lose(self, request: web.BaseRequest, body: bytes, fault: Fault) -> None:
        await self._forward(request, body)


def _end_to_end(headers: Mapping[str, str]) -> CIMultiDict[str]:
    """Without what belongs to one of the two connections only."""
    return CIMultiDict(
        (name, value) for name, value in headers.items() if name.lower() not in OF_ONE_CONNECTION
    )


def _raw(answer: Answer) -> bytes:
    headers = "".join(f"{name}: {value}\r\n" for name, value in answer.headers.items())
    return (
        f"HTTP/1.1 {answer.status} -\r\n{headers}Content-Length: {len(answer.body)}\r\n\r\n".encode()
        + answer.body
    )


def _cut(transport: asyncio.Transport | None) -> None:
    """End a connection with a reset instead of a farewell."""
    if transport is not None and (connection := transport.get_extra_info("socket")) is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST_ON_CLOSE)
        transport.abort()
