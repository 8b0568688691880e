"""Who looks at a page, and the proof that a form comes from one of our pages."""

from __future__ import annotations

import base64
import binascii
import contextlib
import secrets
from dataclasses import dataclass
from urllib.parse import parse_qsl, quote, unquote

from fastapi import Request, Response

from scheduler.errors import SchedulerError
from serve_app import limits

ME = "scheduler_me"
CSRF = "scheduler_csrf"
MAX_FORM_BYTES = 400_000
_YEAR_S = 365 * 24 * 3600


class OldForm(SchedulerError):
    http_status = 403
    code = "csrf"

    def __init__(self) -> None:
        super().__init__(
            "this form does not come from a page of this server, or the page is old; load it again"
        )


@dataclass(frozen=True, slots=True)
class Visitor:
    name: str
    """Empty: they did not say who they are."""
    csrf: str
    """Goes into every form, and must come back equal to the cookie: another site can send the cookie, not read it."""
    is_new: bool
    here: str
    """The page they look at, to come back to."""

    @classmethod
    def of(cls, request: Request) -> Visitor:
        known = request.cookies.get(CSRF, "")
        name = unquote(request.cookies.get(ME, "")) or _basic_user(request)
        here = f"{request.url.path}?{request.url.query}" if request.method == "GET" else "/training"
        return cls(name=name[:200], csrf=known or secrets.token_urlsafe(24), is_new=not known, here=here)

    @property
    def by(self) -> str:
        """For a job's history."""
        return self.name or "page"

    def greet(self, response: Response) -> None:
        if self.is_new:
            response.set_cookie(CSRF, self.csrf, max_age=_YEAR_S, httponly=True, samesite="strict")


def remember(response: Response, name: str) -> None:
    response.set_cookie(ME, quote(name.strip()[:200]), max_age=_YEAR_S, httponly=True, samesite="strict")


async def form_of(request: Request) -> dict[str, list[str]]:
    """The fields of a form that one of our pages sent, each with its values; raises OldForm for any other."""
    body = await limits.body(request, MAX_FORM_BYTES)
    fields: dict[str, list[str]] = {}
    for name, value in parse_qsl(
        body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=2000
    ):
        fields.setdefault(name, []).append(value)
    given, known = "".join(fields.pop("csrf", [])), request.cookies.get(CSRF, "")
    if not known or not secrets.compare_digest(given.encode(), known.encode()):
        raise OldForm
    return fields


def _basic_user(request: Request) -> str:
    """The name beside the token, where the browser asked for both."""
    scheme, _, value = request.headers.get("authorization", "").partition(" ")
    with contextlib.suppress(binascii.Error, UnicodeDecodeError):
        if scheme.lower() == "basic":
            return base64.b64decode(value, validate=True).decode().partition(":")[0]
    return ""
