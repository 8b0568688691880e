"""A proxy before this server: the path below which it serves us, and what it says of who asks."""

from __future__ import annotations

import re

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from scheduler.errors import InvalidRequest
from scheduler.settings import Settings
from serve_app.caller import ADDRESS, BASE, HOST, peer_of
from serve_app.problems import answer, shown

_PREFIX = r"(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)*"


class Forwarded:
    """ASGI middleware, the outermost: within it paths are ours alone, and `base_of` is what to write before them."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app, self._root, self._is_trusted = app, settings.root_path, settings.trust_proxy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        headers = Headers(scope=scope)
        prefix = _said(headers, "x-forwarded-prefix").rstrip("/") if self._is_trusted else ""
        if not re.fullmatch(_PREFIX, prefix):
            refusal = InvalidRequest(
                f"the proxy says X-Forwarded-Prefix: {shown(prefix)}, which is no path; let it send one as /trainer"
            )
            return await answer(refusal)(scope, receive, send)
        within = {
            **scope,
            "path": _without(self._root, scope["path"]),
            BASE: prefix or self._root,
            HOST: (self._is_trusted and _said(headers, "x-forwarded-host")) or headers.get("host", ""),
            ADDRESS: (self._is_trusted and _said(headers, "x-forwarded-for")) or peer_of(scope),
        }
        return await self._app(within, receive, send)


def _said(headers: Headers, name: str) -> str:
    """The last of several: what the proxy that is trusted wrote itself, after what it was sent."""
    return headers.get(name, "").rpartition(",")[2].strip()


def _without(root: str, path: str) -> str:
    if root and (path == root or path.startswith(f"{root}/")):
        return path[len(root) :] or "/"
    return path
