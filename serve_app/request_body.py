"""Reading a body: never more than allowed, and only JSON that every part behind the API can store."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from fastapi import Request
from pydantic import TypeAdapter, ValidationError
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from scheduler.core.redaction import HIDDEN
from scheduler.errors import BodyTooLarge, InvalidRequest, Problem, SchedulerError
from serve_app.caller import who_asks
from serve_app.concurrency_limit import ConcurrencyLimit
from serve_app.problems import invalid, invalid_spec, path_of, shown

T = TypeVar("T")

_MAX_DEPTH = 64
_MAX_INTEGER = 2**63
_MAX_DRAIN_BYTES = 256_000_000
_PARSE_IN_THREAD_BYTES = 64_000
MOST_UNDER_WAY, MOST_UNDER_WAY_EACH = 1000, 200
"""Bodies that may be waited for at once."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a body is to hold, and the refusal of one that does not: from the errors of pydantic and the known fields."""

    what: str
    refuse: Callable[[Sequence[Any], Sequence[str]], SchedulerError]


A_JOB = Wanted('a job spec as JSON, at least {"loop": "torch_ddp"}', invalid_spec)


class SlowBody(SchedulerError):
    http_status = 408
    code = "slow_body"


class Deadline:
    """ASGI middleware: a body that does not come ends its request, so that half a body holds nothing for long."""

    def __init__(self, app: ASGIApp, within_s: float) -> None:
        self._app, self._within_s = app, within_s
        remedy = "send it again when they have come"
        self._under_way = ConcurrencyLimit("bodies", MOST_UNDER_WAY, MOST_UNDER_WAY_EACH, remedy)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_http = scope["type"] == "http"
        await self._app(scope, self._timed(receive, who_asks(scope)) if is_http else receive, send)

    def _timed(self, receive: Receive, who: str) -> Receive:
        until_s = asyncio.get_running_loop().time() + self._within_s
        is_whole = False

        async def timed() -> Message:
            """Raises SlowBody and LimitReached."""
            nonlocal is_whole
            if is_whole:
                return await receive()
            message = await self._next(receive, who, until_s)
            is_whole = message["type"] != "http.request" or not message.get("more_body")
            return message

        return timed

    async def _next(self, receive: Receive, who: str, until_s: float) -> Message:
        try:
            with self._under_way.hold(who):
                async with asyncio.timeout_at(until_s):
                    return await receive()
        except TimeoutError:
            raise SlowBody(
                f"the body had not come whole after {self._within_s:g} s; send it faster or in smaller parts, "
                "or raise SCHEDULER_BODY_TIMEOUT_S"
            ) from None


async def read(request: Request, kind: TypeAdapter[T], max_bytes: int, wanted: Wanted = A_JOB) -> T:
    """The body as *kind*.

    Raises BodyTooLarge, InvalidRequest when it is not JSON that can be stored, and as *wanted* says when it is not
    what *kind* describes.
    """
    raw = await body(request, max_bytes)
    content_type = request.headers.get("content-type", "")
    if len(raw) < _PARSE_IN_THREAD_BYTES:
        return parse(raw, kind, content_type, wanted)
    return await asyncio.to_thread(parse, raw, kind, content_type, wanted)


def parse(
    raw: bytes, kind: TypeAdapter[T], content_type: str = "application/json", wanted: Wanted = A_JOB
) -> T:
    """*raw* as *kind*; a wrong content type matters only where *raw* is not JSON."""
    text = _text(raw, content_type, wanted)
    _refuse_what_cannot_be_stored(_loaded(text, content_type), [])
    try:
        return kind.validate_json(text, strict=True)
    except ValidationError as error:
        raise wanted.refuse(error.errors(include_url=False), _fields_of(kind)) from None


def require_storable(text: str, field: str) -> None:
    """Raises InvalidRequest for text that no database takes."""
    _refuse_text(text, [field])


def _fields_of(kind: TypeAdapter[Any]) -> list[str]:
    return list(kind.json_schema()["properties"])


async def body(request: Request, max_bytes: int) -> bytes:
    """The body as it is; raises BodyTooLarge."""
    kept = bytearray()
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size <= max_bytes:
            kept += chunk
        elif size > _MAX_DRAIN_BYTES:
            break
    # What is too much is read and dropped: a client that still sends would not see the answer.
    if size > max_bytes:
        message = (
            f"is larger than {max_bytes:,} bytes; send fewer jobs at once, or raise SCHEDULER_MAX_BODY_BYTES"
        )
        raise BodyTooLarge(f"the body {message}", (Problem("body", message),))
    return bytes(kept)


def _text(raw: bytes, content_type: str, wanted: Wanted) -> str:
    if not raw.strip():
        raise invalid("body", f"is empty; send {wanted.what}")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _not_json(f"is not UTF-8 text (byte {error.start})", content_type) from None


def _loaded(text: str, content_type: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise _not_json(f"is not JSON ({where}: {error.msg})", content_type) from None
    except RecursionError:
        raise _too_deep("body") from None
    except ValueError as error:  # an integer of more digits than Python converts
        raise invalid("body", f"holds a number that cannot be read: {shown(error)}") from None


def _not_json(what: str, content_type: str) -> InvalidRequest:
    sent = "" if "json" in content_type else f" (and its Content-Type is {shown(content_type)})"
    return invalid("body", f"{what}{sent}; send JSON with Content-Type: application/json")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))
        raise invalid(path_of((twice,)), "is given twice in one object; keep one")
    return found


def _refuse_what_cannot_be_stored(value: Any, path: list[str | int]) -> None:
    if len(path) > _MAX_DEPTH:
        raise _too_deep(path_of(path[:3]))
    if isinstance(value, dict):
        for key, below in value.items():
            path.append(key)
            _refuse_text(key, path)
            _refuse_what_cannot_be_stored(below, path)
            path.pop()
    elif isinstance(value, list):
        for index, below in enumerate(value):
            path.append(index)
            _refuse_what_cannot_be_stored(below, path)
            path.pop()
    elif isinstance(value, str):
        _refuse_text(value, path)
    elif isinstance(value, int | float):
        _refuse_number(value, path)


def _refuse_number(value: float, path: list[str | int]) -> None:
    if isinstance(value, int):
        if not -_MAX_INTEGER <= value < _MAX_INTEGER:
            raise invalid(path_of(path), "is a whole number of more than 64 bits; send it as a string")
    elif not math.isfinite(value):
        raise invalid(path_of(path), "is not a finite number (NaN or infinite); give one that is")


def _refuse_text(text: str, path: list[str | int]) -> None:
    if HIDDEN in text:
        raise invalid(
            path_of(path), "is covered, as secrets are where they are shown; write the value itself"
        )
    if "\x00" in text:
        raise invalid(path_of(path), "holds the character NUL, which a database cannot store; remove it")
    if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
        raise invalid(path_of(path), "holds half of a surrogate pair, which is no character; remove it")


def _too_deep(field: str) -> SchedulerError:
    return invalid(field, f"is nested more than {_MAX_DEPTH} levels deep; flatten it")
