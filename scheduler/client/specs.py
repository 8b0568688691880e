"""From what a user has in hand (keywords, a mapping, a `JobSpec`) to a valid spec, and from there to JSON."""

from __future__ import annotations

import difflib
import getpass
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import PurePath
from typing import Any, cast

from pydantic import ValidationError

from scheduler.core.model import SPEC, After, ArrayPlace, CheckpointPolicy, Gang, JobSpec, ShippedCode
from scheduler.errors import InvalidSpec, Problem

SPEC_FIELDS = tuple(field.name for field in fields(JobSpec))
_PARTS = {"resources": Gang, "checkpoints": CheckpointPolicy, "code": ShippedCode, "array": ArrayPlace}
_NEWER: Mapping[str, Any] = {
    "code": None,
    "after": [],
    "start_after": None,
    "preemptible": True,
    "array": None,
    "deadline": None,
}
"""A server of an earlier release does not know these fields: they are sent only where they say something."""
_FIELDS_IN = {
    "": SPEC_FIELDS,
    **{
        name: tuple(field.name for field in fields(kind))
        for name, kind in (_PARTS | {"after": After}).items()
    },
}
_MAX_DEPTH = 100
_UNKNOWN = ("unexpected_keyword_argument", "extra_forbidden")


def to_spec(given: JobSpec | Mapping[str, Any] | None, more: Mapping[str, Any] | None = None) -> JobSpec:
    """A valid spec from *given*, with *more* fields over it.

    Raises InvalidSpec with one problem for each wrong field.  What only the server can know (data that is not
    there, a loop that is not allowed) is checked there.
    """
    base = {name: getattr(given, name) for name in SPEC_FIELDS} if isinstance(given, JobSpec) else given
    if base is not None and not isinstance(base, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]  a user's
        raise InvalidSpec.of(
            Problem("spec", f"is {_kind(base)}; give a JobSpec, a dict, or keyword arguments")
        )
    try:
        return SPEC.validate_python({**(base or {}), **(more or {})})
    except ValidationError as error:
        raise InvalidSpec.of(*map(_problem, error.errors(include_url=False))) from None


def to_wire(spec: JobSpec, prefix: str = "") -> dict[str, Any]:
    """The JSON of *spec*.  Raises InvalidSpec naming each value that JSON cannot carry."""
    parts = {name: getattr(spec, name) for name in SPEC_FIELDS}
    for part in _PARTS:
        if parts[part] is not None:
            parts[part] = {name: getattr(parts[part], name) for name in _FIELDS_IN[part]}
    if not spec.resources.on:  # nor this one
        del parts["resources"]["on"]
    parts["after"] = [{"job": after.job, "on": after.on} for after in spec.after]
    for moment in ("start_after", "deadline"):
        parts[moment] = parts[moment] and parts[moment].isoformat()
    for name in [name for name, default in _NEWER.items() if parts[name] == default]:
        del parts[name]
    return plain(parts, prefix.rstrip("."))


def plain(value: object, path: str) -> Any:
    """*value* as JSON.  Raises InvalidSpec naming each part of it that JSON cannot carry; *path* leads to it."""
    problems: list[Problem] = []
    wire = _plain(value, path, problems)
    if problems:
        raise InvalidSpec.of(*problems)
    return wire


def signed(spec: JobSpec, user: str | None) -> JobSpec:
    """*spec* with who submits it: what it says itself, else *user*, else the login name of this process."""
    return spec if spec.user else replace(spec, user=user or login_name())


def login_name() -> str:
    """Empty where the system knows none, as in a container with a bare user id."""
    try:
        return getpass.getuser()[:200]
    except (OSError, KeyError):
        return ""


def _problem(error: Any) -> Problem:
    path = ".".join(str(part) for part in error["loc"] if part != "[key]")
    if error["loc"] and error["loc"][-1] == "[key]":
        return Problem(path, f"has the key {_short(error['input'])}, which is not text; put it in quotes")
    if error["type"] in _UNKNOWN:
        return Problem(path, _unknown(path))
    if error["type"] == "missing":
        return Problem(path, "is required; add it")
    given = "" if isinstance(error["input"], Mapping) else f" (it is {_short(error['input'])})"
    return Problem(path, error["msg"].removeprefix("Value error, ") + given)


def _unknown(path: str) -> str:
    parent, _, name = path.rpartition(".")
    known = _FIELDS_IN.get(re.sub(r"\.\d+$", "", parent), SPEC_FIELDS)
    meant = difflib.get_close_matches(name, known, n=1)
    guess = f"did you mean `{meant[0]}`? " if meant else ""
    return f"is not a known field; {guess}Known here: {', '.join(known)}"


def _plain(value: object, path: str, problems: list[Problem], depth: int = 0) -> Any:
    if depth > _MAX_DEPTH:
        problems.append(
            Problem(path, f"is nested more than {_MAX_DEPTH} levels deep, or in itself; flatten it")
        )
        return None
    match value:
        case None | bool() | int():
            return value
        case float():
            if not math.isfinite(value):
                problems.append(Problem(path, f"is {value}, not a finite number; give one"))
            return float(value)
        case str() | PurePath():
            return _text(str(value), path, problems)
        case Mapping():
            parts = cast("Mapping[object, object]", value)
            return {
                _key(key, path, problems): _plain(item, _join(path, key), problems, depth + 1)
                for key, item in parts.items()
            }
        case list() | tuple():
            items = cast("Sequence[object]", value)
            return [_plain(item, _join(path, index), problems, depth + 1) for index, item in enumerate(items)]
        case _:
            words = f"is {_kind(value)}, which JSON cannot carry; use text, numbers, lists and mappings"
            problems.append(Problem(path, words))
            return None


def _key(key: Any, path: str, problems: list[Problem]) -> str:
    if not isinstance(key, str):
        problems.append(Problem(path, f"has the key {_short(key)}, which is not text; put it in quotes"))
    return _text(str(key), path, problems)


def _text(text: str, path: str, problems: list[Problem]) -> str:
    if is_sendable_text(text):
        return text
    problems.append(
        Problem(
            path,
            "holds half of a surrogate pair (bytes that are not UTF-8?) or NUL, which is no text; take it out",
        )
    )
    return ""


def is_sendable_text(text: str) -> bool:
    """Whether UTF-8 can carry it, and a database can keep it."""
    try:
        return b"\0" not in text.encode()
    except UnicodeEncodeError:
        return False


def _join(path: str, part: object) -> str:
    return f"{path}.{part}" if path else str(part)


def _kind(value: object) -> str:
    return f"of type {type(value).__name__}"


def _short(value: object, limit: int = 60) -> str:
    text = repr(value)
    return text if len(text) <= limit else f"{text[: limit - 3]}..."
