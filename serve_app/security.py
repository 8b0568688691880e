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
from serve_app import probes
from serve_app.caller import host_of
from serve_app.problems import answer, shown

_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_READING = ("GET", "HEAD", "OPTIONS")
_SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; worker-src 'self'; connect-src 'self'; style-src 'self'; "
        "img-src 'self' data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",  # with `no-referrer` browsers send our own forms with `Origin: null`
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


_FOREIGN = (
    "a page of another site may not change jobs here ({seen}); use the client, the CLI or this server's page.  If it "
    "is this server's page, a proxy has changed the Host: let it send the Host it was asked for, or name that host in "
    "SCHEDULER_TRUSTED_HOSTS.  Pages of your own may use the API once SCHEDULER_CORS_ORIGINS names their origin"
)


class Forbidden(SchedulerError):
    """A browser asks on behalf of another site."""

    http_status = 403
    code = "forbidden"


class SecurityMiddleware:
    """ASGI middleware: refuses before anything is read, and adds security headers to every answer."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._token = settings.token.get_secret_value() if settings.token else None
        self._own_url = f"http://127.0.0.1:{settings.port}"
        self._trusted = frozenset(one.lower() for one in settings.trusted_hosts)
        self._names = frozenset(map(_hostname, self._trusted)) | frozenset(_LOOPBACK)
        self._cors_origins = frozenset(settings.cors_origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        guarded = _with_security_headers(send)
        refusal = None if scope["path"] in probes.PATHS else self._refusal(scope, Headers(scope=scope))
        return await (refusal or self._app)(scope, receive, guarded)

    def _refusal(self, scope: Scope, headers: Headers) -> Response | None:
        path, host = scope["path"], host_of(scope)
        try:
            if self._token is None:
                self._require_own_host(host)
            else:
                _require_token(self._token, path, headers)
            if is_page(path) or headers.get("origin") not in self._cors_origins:
                self._require_same_site(scope["method"], host, headers)
        except Unauthorized as error:
            return answer(error, {"WWW-Authenticate": _challenge(path)})
        except Forbidden as error:
            return answer(error)
        return None

    def _require_own_host(self, host: str) -> None:
        """Without a token only names that we know count: another one that leads here is DNS rebinding."""
        name = _hostname(host)
        if name not in self._names:
            raise Forbidden(
                f"asked as {host[:100]!r}, which is not known as a name of this server; use {self._own_url}, name the "
                "host in SCHEDULER_TRUSTED_HOSTS, or set SCHEDULER_TOKEN.  If a proxy stands before it, that is the "
                "Host it sends (with SCHEDULER_TRUST_PROXY, its X-Forwarded-Host)"
            )

    def _require_same_site(self, method: str, host: str, headers: Headers) -> None:
        if method not in _READING:
            self._require_own_page(host, headers)
        else:
            _require_link(headers)

    def _require_own_page(self, host: str, headers: Headers) -> None:
        site, origin = headers.get("sec-fetch-site", "none"), headers.get("origin")
        if site not in ("same-origin", "none"):
            raise Forbidden(_FOREIGN.format(seen=f"Sec-Fetch-Site: {shown(site)}"))
        if origin is None or self._is_ours(origin, host):
            return
        raise Forbidden(_FOREIGN.format(seen=f"Origin {shown(origin)}, asked as {shown(host)}"))

    def _is_ours(self, origin: str, host: str) -> bool:
        _, _, authority = origin.lower().partition("://")
        return bool(authority) and (authority == host.lower() or authority in self._trusted)


def _require_token(token: str, path: str, headers: Headers) -> None:
    given = _given_token(path, headers.get("authorization", ""))
    if given is None:
        how = (
            "give it as the password, with your name as the user"
            if is_page(path)
            else "send `Authorization: Bearer <token>` (clients read SCHEDULER_TOKEN)"
        )
        raise Unauthorized(f"this server wants its token; {how}")
    if not secrets.compare_digest(given.encode(), token.encode()):
        raise Unauthorized("the token is not the one this server was started with; check SCHEDULER_TOKEN")


def is_page(path: str) -> bool:
    """For people in a browser, which sends a name and a password by itself; the API takes none of these."""
    return path in ("/", "/docs", "/training") or path.startswith(("/training/", "/static/"))


def _given_token(path: str, authorization: str) -> str | None:
    scheme, _, value = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    if scheme.lower() == "basic" and is_page(path):
        return _password(value)
    return None


def _password(credentials: str) -> str | None:
    """The token as a browser sends it: as the password, under any name."""
    try:
        return base64.b64decode(credentials, validate=True).decode().partition(":")[2]
    except (binascii.Error, UnicodeDecodeError):
        return None


def _challenge(path: str) -> str:
    scheme = "Basic" if is_page(path) else "Bearer"
    return f'{scheme} realm="training-scheduler"'


def _require_link(headers: Headers) -> None:
    """A page of another site may lead here.  What it loads it cannot read, but streams that it opens are work."""
    is_foreign = headers.get("sec-fetch-site", "none") in ("cross-site", "same-site")
    if is_foreign and headers.get("sec-fetch-mode") != "navigate":
        raise Forbidden("a page of another site may link to this server, and load nothing from it")


def _hostname(authority: str) -> str | None:
    try:
        return urlsplit(f"//{authority}").hostname
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
