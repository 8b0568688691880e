"""Who looks at a page, and the proof that a form comes from one of our pages."""

from __future__ import annotations

import secrets
import unicodedata
from dataclasses import dataclass
from urllib.parse import parse_qsl, quote, unquote

from fastapi import Request, Response

from scheduler.errors import InvalidRequest, SchedulerError
from serve_app import request_body
from serve_app.caller import base_of, basic_user

ME = "scheduler_me"
CSRF = "scheduler_csrf"
MAX_FORM_BYTES = 400_000
MAX_FIELDS = 2000
_MAX_NAME = 200
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
        given = unquote(request.cookies.get(ME, "")), basic_user(request.headers.get("authorization", ""))
        name = next(filter(None, map(_printable, given)), "")
        query = f"?{request.url.query}" if request.url.query else ""
        here = f"{request.url.path}{query}" if request.method == "GET" else "/training"
        return cls(name=name, csrf=known or secrets.token_urlsafe(24), is_new=not known, here=here)

    @property
    def by(self) -> str:
        """For a job's history."""
        return self.name or "page"

    def greet(self, request: Request, response: Response) -> None:
        if self.is_new:
            _keep(request, response, CSRF, self.csrf)


def _printable(name: str) -> str:
    """What can stand in a history, and in a database: no NUL, nothing that moves a cursor or turns text round."""
    kept = (one for one in name if unicodedata.category(one) not in ("Cc", "Cf", "Cs"))
    return "".join(kept).strip()[:_MAX_NAME]


def remember(request: Request, response: Response, name: str) -> None:
    _keep(request, response, ME, quote(_printable(name)))


def _keep(request: Request, response: Response, name: str, value: str) -> None:
    path = base_of(request.scope) or "/"
    response.set_cookie(name, value, max_age=_YEAR_S, path=path, httponly=True, samesite="strict")


async def form_of(request: Request) -> dict[str, list[str]]:
    """The fields of a form that one of our pages sent, each with its values; raises OldForm for any other."""
    body = await request_body.body(request, MAX_FORM_BYTES)
    fields: dict[str, list[str]] = {}
    for name, value in _pairs(body.decode("utf-8", "replace")):
        fields.setdefault(name, []).append(value)
    given, known = "".join(fields.pop("csrf", [])), request.cookies.get(CSRF, "")
    if not known or not secrets.compare_digest(given.encode(), known.encode()):
        raise OldForm
    return fields


def _pairs(text: str) -> list[tuple[str, str]]:
    try:
        return parse_qsl(text, keep_blank_values=True, max_num_fields=MAX_FIELDS)
    except ValueError:
        raise InvalidRequest(f"the form has more than {MAX_FIELDS:,} fields; send fewer") from None
