"""The calls about job arrays, as those of `calls`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from scheduler.api.arrays import ArrayDocument
from scheduler.client.calls import API, Call, keyed
from scheduler.client.specs import plain, to_wire
from scheduler.core import arrays
from scheduler.core.model import JobSpec
from scheduler.errors import InvalidRequest, InvalidSpec, Problem

_PATH = f"{API}/arrays"


def submit_array(
    spec: JobSpec,
    parameters: Mapping[str, Sequence[Any]],
    *,
    at_most: int | None,
    metric: str,
    metric_is: str,
    idempotency_key: str,
) -> Call[ArrayDocument]:
    """Raises InvalidSpec naming each parameter that cannot be one."""
    if problems := _no_lists(parameters) or arrays.problems(spec, parameters, at_most):
        raise InvalidSpec.of(*problems)
    body = {
        "spec": to_wire(spec, "spec."),
        "parameters": plain({name: list(values) for name, values in parameters.items()}, "parameters"),
        "at_most": at_most,
        "metric": metric,
        "metric_is": metric_is,
    }
    return Call(
        method="POST",
        path=_PATH,
        json=body,
        headers=keyed(idempotency_key),
        read=ArrayDocument.model_validate_json,
    )


def array(array_id: str) -> Call[ArrayDocument]:
    return Call(method="GET", path=_path(array_id), read=ArrayDocument.model_validate_json)


def cancel_array(array_id: str) -> Call[ArrayDocument]:
    path = f"{_path(array_id)}/cancel"
    return Call(method="POST", path=path, read=ArrayDocument.model_validate_json, timeout_s=_CANCEL_S)


_CANCEL_S = 70.0
"""A little longer than the server waits for it."""


def _path(array_id: str) -> str:
    try:
        return f"{_PATH}/{UUID(array_id)}"
    except ValueError:
        words = f"{array_id[:60]!r} is no id of an array; it is a UUID, as the submit of the array said it"
        raise InvalidRequest(words) from None


def _no_lists(parameters: Mapping[Any, Any]) -> list[Problem]:
    """A user may give anything; text is a sequence, too, and never meant as one here."""
    return [
        Problem(f"parameters.{str(name)[:60]}", "must be a key of config with a list of values")
        for name, values in parameters.items()
        if not isinstance(name, str) or isinstance(values, str | bytes) or not isinstance(values, Sequence)
    ]
