"""Who asks, by which name this server was asked, and below which path: as a proxy before it says, where it is trusted."""

from __future__ import annotations

import base64
import binascii
import contextlib

from fastapi import Request
from fastapi.responses import RedirectResponse
from starlette.datastructures import Headers
from starlette.types import Scope

BASE, HOST, ADDRESS = "scheduler.base", "scheduler.host", "scheduler.address"
"""In the scope, put there by `forwarding`."""


def base_of(scope: Scope) -> str:
    """What stands before each of our paths as the browser, or a client, has it: empty, or as `/trainer`."""
    return scope.get(BASE, "")


def host_of(scope: Scope) -> str:
    """The name, and the port if any, by which this server was asked."""
    return scope.get(HOST) or Headers(scope=scope).get("host", "")


def redirect(request: Request, path: str, status: int = 303) -> RedirectResponse:
    """To one of our paths."""
    return RedirectResponse(base_of(request.scope) + path, status)


def who_asks(scope: Scope) -> str:
    """For counting: the name that is given, and the address.  A name is a claim, and proves nothing."""
    headers = Headers(scope=scope)
    address = scope.get(ADDRESS) or peer_of(scope)
    name = headers.get("x-user", "") or basic_user(headers.get("authorization", ""))
    return f"{name[:100]} at {address}" if name else address


def basic_user(authorization: str) -> str:
    """The name beside the password, where a browser asked for both."""
    scheme, _, value = authorization.partition(" ")
    with contextlib.suppress(binascii.Error, UnicodeDecodeError):
        if scheme.lower() == "basic":
            return base64.b64decode(value, validate=True).decode().partition(":")[0]
    return ""


def peer_of(scope: Scope) -> str:
    client = scope.get("client")
    return client[0] if client else "an unknown address"
