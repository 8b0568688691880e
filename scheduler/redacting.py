"""Documents without secrets: every text in one, however deep it stands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel

from scheduler.core.redaction import Redactor

D = TypeVar("D", bound=BaseModel)


def redacted(document: D, redactor: Redactor) -> D:
    """*document* itself where there is nothing to cover.  A spec in it is left: `Redactor.spec` knows its names."""
    changed = {name: now for name, value in document if (now := _of(value, redactor)) is not value}
    return document.model_copy(update=changed) if changed else document


def _of(value: Any, redactor: Redactor) -> Any:
    """*value* itself where nothing in it changes."""
    match value:
        case str():
            return redactor.text(value) if type(value) is str else value
        case BaseModel():
            return redacted(value, redactor)
        case list():
            items = [_of(one, redactor) for one in value]
            return items if any(now is not one for now, one in zip(items, value, strict=True)) else value
        case Mapping():
            found = {key: _of(one, redactor) for key, one in value.items()}
            return found if any(found[key] is not one for key, one in value.items()) else value
        case _:
            return value
