"""Answers that stay open.  Each takes a place, so that there is room for all others."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from serve_app.caller import who_asks
from serve_app.concurrency_limit import ConcurrencyLimit, LimitReached
from serve_app.methods import IS_HEAD
from serve_app.problems import answer


class Stream(StreamingResponse):
    """An answer of unknown length.  It has a place as long as it is open, or is refused before it begins."""

    def __init__(
        self,
        content: AsyncIterator[bytes],
        status_code: int = 200,
        headers: Mapping[str, str] | None = None,
        media_type: str | None = None,
        weight: int = 1,
    ) -> None:
        """*weight*: for so many streams it stands."""
        super().__init__(content, status_code, headers, media_type)
        self._weight = weight

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope.get(IS_HEAD):
            await send(
                {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
            )
            return await send({"type": "http.response.body", "body": b""})
        streams: ConcurrencyLimit = scope["app"].state.streams
        try:
            with streams.hold(who_asks(scope), self._weight):
                return await super().__call__(scope, receive, send)
        except LimitReached as refusal:
            return await answer(refusal)(scope, receive, send)


class EventStream(Stream):
    """Server-sent events.  FastAPI's own kind takes generators alone, and those refuse too late: once it has begun."""

    media_type = "text/event-stream"

    def __init__(self, content: AsyncIterator[bytes], status_code: int = 200, weight: int = 1) -> None:
        """FastAPI takes the status for its description of the API from here."""
        headers = {"X-Accel-Buffering": "no"}  # else nginx collects events
        super().__init__(content, status_code, headers, weight=weight)
