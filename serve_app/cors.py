"""The API for pages of other origins that were named; ours, with their forms, stay for themselves."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from scheduler.settings import Settings
from serve_app.security import is_page

_METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE")
_ASKED_WITH = ("Authorization", "Content-Type", "Idempotency-Key", "Last-Event-ID", "X-User")
_ANSWERED_WITH = ("Location", "Retry-After", "WWW-Authenticate")


class NamedOrigins:
    """ASGI middleware, before the guard: a refusal has to be readable too, and a preflight brings no token."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app, self._origins = app, frozenset(settings.cors_origins)
        self._shared = CORSMiddleware(
            app,
            allow_origins=settings.cors_origins,
            allow_methods=_METHODS,
            allow_headers=_ASKED_WITH,
            expose_headers=_ANSWERED_WITH,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_named = scope["type"] == "http" and Headers(scope=scope).get("origin") in self._origins
        app = self._shared if is_named and not is_page(scope["path"]) else self._app
        await app(scope, receive, send)
