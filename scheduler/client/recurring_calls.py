"""The calls about recurring jobs, as those of `calls`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from scheduler.api.recurring import (
    NAME,
    NAME_IN_WORDS,
    RecurringForgotten,
    RecurringJobDocument,
    RecurringJobList,
)
from scheduler.client.calls import API, Call
from scheduler.client.specs import to_wire
from scheduler.core.model import JobSpec
from scheduler.errors import InvalidRequest, Problem

_PATH = f"{API}/recurring"


def recurring_jobs() -> Call[RecurringJobList]:
    return Call(method="GET", path=_PATH, read=RecurringJobList.model_validate_json)


def recurring_job(name: str) -> Call[RecurringJobDocument]:
    return Call(method="GET", path=_path(name), read=RecurringJobDocument.model_validate_json)


def set_recurring_job(
    name: str, spec: JobSpec | None, moments: Mapping[str, Any]
) -> Call[RecurringJobDocument]:
    """Raises InvalidSpec naming each value of *spec* that JSON cannot carry."""
    body = dict(moments) | ({"spec": to_wire(spec, "spec.")} if spec else {})
    return Call(method="PUT", path=_path(name), json=body, read=RecurringJobDocument.model_validate_json)


def forget_recurring_job(name: str) -> Call[RecurringForgotten]:
    return Call(method="DELETE", path=_path(name), read=RecurringForgotten.model_validate_json)


def _path(name: str) -> str:
    if not re.fullmatch(NAME, name):
        raise InvalidRequest(
            f"the name of a recurring job {NAME_IN_WORDS}", (Problem("name", NAME_IN_WORDS),)
        )
    return f"{_PATH}/{name}"
