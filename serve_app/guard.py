"""Who may ask: the token, and the defences against requests that a web page makes in somebody's browser."""

from __future__ import annotations

import base64
import binascii
import secrets
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from scheduler.errors import SchedulerError, Unauthorized
from scheduler.settings import Settings
from serve_app.problems import answer

_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_READING = ("GET", "HEAD", "OPTIONS")
_SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; connect-src 'self'; style-src 'self'; img-src 'self' data:; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",  # with `no-referrer` browsers send our own forms with `Origin: null`
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Forbidden(SchedulerError):
    """A browser asks on behalf of another site."""

    http_status = 403
    code = "forbidden"


class Guard:
    """ASGI middleware: refuses before anything is read, and adds security headers to every answer."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._token = settings.token.get_secret_value() if settings.token else None
        self._own_url = f"http://127.0.0.1:{settings.port}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        guarded = _with_security_headers(send)
        refusal = self._refusal(scope["method"], scope["path"], Headers(scope=scope))
        return await (refusal or self._app)(scope, receive, guarded)

    def _refusal(self, method: str, path: str, headers: Headers) -> Response | None:
        try:
            if self._token is None:
                self._require_own_host(headers)
            else:
                _require_token(self._token, path, headers)
            if method not in _READING:
                _require_same_site(headers)
            else:
                _require_link(headers)
        except Unauthorized as error:
            return answer(error, {"WWW-Authenticate": _challenge(path)})
        except Forbidden as error:
            return answer(error)
        return None

    def _require_own_host(self, headers: Headers) -> None:
        """Without a token only loopback names count: another name that leads here is DNS rebinding."""
        host = headers.get("host", "")
        if _hostname(f"//{host}") not in _LOOPBACK:
            raise Forbidden(
                f"the host {host[:100]!r} is not this server's; use {self._own_url}, or set SCHEDULER_TOKEN "
                "to serve it under other names"
            )


def _require_token(token: str, path: str, headers: Headers) -> None:
    given = _given_token(path, headers.get("authorization", ""))
    if given is None:
        how = (
            "give it as the password, with your name as the user"
            if _is_page(path)
            else "send `Authorization: Bearer <token>` (clients read SCHEDULER_TOKEN)"
        )
        raise Unauthorized(f"this server wants its token; {how}")
    if not secrets.compare_digest(given.encode(), token.encode()):
        raise Unauthorized("the token is not the one this server was started with; check SCHEDULER_TOKEN")


def _is_page(path: str) -> bool:
    """For people in a browser, which sends a name and a password by itself; the API takes none of these."""
    return path in ("/", "/docs", "/training") or path.startswith(("/training/", "/static/"))


def _given_token(path: str, authorization: str) -> str | None:
    scheme, _, value = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    if scheme.lower() == "basic" and _is_page(path):
        return _password(value)
    return None


def _password(credentials: str) -> str | None:
    """The token as a browser sends it: as the password, under any name."""
    try:
        return base64.b64decode(credentials, validate=True).decode().partition(":")[2]
    except (binascii.Error, UnicodeDecodeError):
        return None


def _challenge(path: str) -> str:
    scheme = "Basic" if _is_page(path) else "Bearer"
    return f'{scheme} realm="training-scheduler"'


def _require_same_site(headers: Headers) -> None:
    site = headers.get("sec-fetch-site", "none")
    origin = headers.get("origin")
    if site not in ("same-origin", "none") or (origin is not None and not _same(origin, headers)):
        raise Forbidden(
            "a page of another site may not change jobs here; use the client, the CLI or this server's page"
        )


def _require_link(headers: Headers) -> None:
    """A page of another site may lead here.  What it loads it cannot read, but streams that it opens are work."""
    is_foreign = headers.get("sec-fetch-site", "none") in ("cross-site", "same-site")
    if is_foreign and headers.get("sec-fetch-mode") != "navigate":
        raise Forbidden("a page of another site may link to this server, and load nothing from it")


def _same(origin: str, headers: Headers) -> bool:
    _, _, authority = origin.partition("://")
    return bool(authority) and authority == headers.get("host")


def _hostname(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


def _with_security_headers(send: Send) -> Send:
    async def guarded(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in _SECURITY_HEADERS.items():
                headers.setdefault(name, value)
        await send(message)

    return guarded
