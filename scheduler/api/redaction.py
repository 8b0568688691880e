"""Documents with each of their texts replaced, however deep it stands: without secrets, or with what hides in it shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

from pydantic import BaseModel

from scheduler.core.redaction import Redactor

D = TypeVar("D", bound=BaseModel)


def redacted(document: D, redactor: Redactor) -> D:
    """*document* itself where there is nothing to cover.  A spec in it is left: `Redactor.spec` knows its names."""
    return retold(document, redactor.text)


def retold(document: D, change: Callable[[str], str]) -> D:
    """*document* with what *change* makes of each text; itself where that changes nothing."""
    changed = {name: now for name, value in document if (now := _of(value, change)) is not value}
    return document.model_copy(update=changed) if changed else document


def _of(value: Any, change: Callable[[str], str]) -> Any:
    """*value* itself where nothing in it changes."""
    match value:
        case str():
            return change(value) if type(value) is str else value
        case BaseModel():
            return retold(value, change)
        case list():
            items = cast("list[Any]", value)
            now = [_of(one, change) for one in items]
            return now if any(a is not b for a, b in zip(now, items, strict=True)) else items
        case Mapping():
            parts = cast("Mapping[str, Any]", value)
            found = {key: _of(one, change) for key, one in parts.items()}
            return found if any(found[key] is not one for key, one in parts.items()) else parts
        case _:
            return value
