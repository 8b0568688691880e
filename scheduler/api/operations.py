"""How an operation of the scheduler is called from afar: what `@command` and `@query` say of a method."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])
_MARK = "__operation__"


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    name: str
    signature: inspect.Signature
    changes: bool
    """A command: without an answer it is not known whether it was done.  A query changes nothing."""
    timeout_s: float | None
    """How long an answer is waited for; None: as long as whoever calls is set to wait."""
    is_patient: bool
    """Asked again while the scheduler restarts.  Otherwise whoever asks is told at once that it is away."""

    def within_s(self, usual_s: float, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> float:
        """How long the answer to this call may take: longer by its `wait_s`, where it has one.

        Raises TypeError for arguments that the method does not take.
        """
        given = self.signature.bind(None, *args, **kwargs).arguments
        return (self.timeout_s or usual_s) + given.get("wait_s", 0.0)


def command(*, timeout_s: float | None = None) -> Callable[[F], F]:
    return _marked(changes=True, timeout_s=timeout_s, is_patient=True)


def query(*, timeout_s: float | None = None, is_patient: bool = True) -> Callable[[F], F]:
    return _marked(changes=False, timeout_s=timeout_s, is_patient=is_patient)


def operations_of(protocol: type) -> dict[str, Operation]:
    """By name, in the order of the page.  Raises TypeError for a public method that is neither command nor query."""
    methods = {
        name: one for name, one in vars(protocol).items() if inspect.isfunction(one) and name[0] != "_"
    }
    unmarked = [name for name, method in methods.items() if not hasattr(method, _MARK)]
    if unmarked:
        raise TypeError(f"{protocol.__name__} does not say whether {', '.join(unmarked)} changes anything")
    return {name: getattr(method, _MARK) for name, method in methods.items()}


def _marked(*, changes: bool, timeout_s: float | None, is_patient: bool) -> Callable[[F], F]:
    def mark(method: F) -> F:
        marked = Operation(
            name=method.__name__,
            signature=inspect.signature(method),
            changes=changes,
            timeout_s=timeout_s,
            is_patient=is_patient,
        )
        setattr(method, _MARK, marked)
        return method

    return mark
