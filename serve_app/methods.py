"""HEAD and OPTIONS, for whatever can be read here."""

from __future__ import annotations

from starlette.responses import Response
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

IS_HEAD = "scheduler.is_head"
"""In the scope: only the headers are wanted."""
_ALL = ("GET", "POST", "PUT", "PATCH", "DELETE")


class Methods:
    """ASGI middleware: HEAD is GET without its body, and OPTIONS tells what a path takes."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        method = scope.get("method")
        if method == "HEAD":
            as_get = {**scope, "method": "GET", IS_HEAD: True}
            return await self._app(as_get, receive, _headers_only(send))
        if method == "OPTIONS" and (allowed := allow(scope)):
            return await Response(status_code=204, headers={"Allow": allowed})(scope, receive, send)
        return await self._app(scope, receive, send)


def allow(scope: Scope) -> str:
    """The methods that its path takes, as the header `Allow` has them; empty where there is no such path."""
    found = [one for one in _ALL if _is_taken(scope, one)]
    if "GET" in found:
        found.insert(1, "HEAD")
    return ", ".join([*found, "OPTIONS"] if found else [])


def _is_taken(scope: Scope, method: str) -> bool:
    asked = {**scope, "method": method}
    return any(route.matches(asked)[0] is Match.FULL for route in scope["app"].routes)


def _headers_only(send: Send) -> Send:
    async def without_body(message: Message) -> None:
        if message["type"] == "http.response.body":
            message = {**message, "body": b""}
        await send(message)

    return without_body
