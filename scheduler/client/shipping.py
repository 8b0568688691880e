"""From a train function to the fields of a spec: by its name where it has one, else the function itself."""

from __future__ import annotations

import base64
import inspect
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import Any

from scheduler.core.model import MAX_CODE_CHARS, SHIPPED, SOURCE, ShippedCode
from scheduler.errors import InvalidSpec, NotReady, Problem

_REMEDY = "put it into a module that the cluster can import, and submit that function"


def fields_of(function: Callable[..., Any]) -> dict[str, Any]:
    """`loop` and `name`, and `code` when *function* cannot be imported by name.

    Raises InvalidSpec when it cannot be sent, NotReady when cloudpickle is missing.
    """
    name = _name(function)
    if path := import_path(function):
        return {"loop": path, "name": name}
    return {"loop": f"{SHIPPED}{name}", "name": name, "code": _packed(function, name)}


def import_path(function: Callable[..., Any]) -> str | None:
    """`module:function` when whoever imports that gets *function*; never for a script or a notebook."""
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    if not module or not name or module == "__main__":
        return None
    return f"{module}:{name}" if getattr(sys.modules.get(module), name, None) is function else None


def _name(function: Callable[..., Any]) -> str:
    name = getattr(function, "__name__", type(function).__name__)
    return name if name.isidentifier() else "function"


def _packed(function: Callable[..., Any], name: str) -> ShippedCode:
    try:
        cloudpickle = import_module("cloudpickle")
    except ImportError:
        raise NotReady(
            f"{name} is a function of a script, a notebook or another function, which is sent itself; that needs "
            f"cloudpickle: `pip install 'training-scheduler[functions]'`, or {_REMEDY}"
        ) from None
    try:
        with _with_its_source(function):
            code = base64.b64encode(cloudpickle.dumps(function)).decode()
    except Exception as error:  # whatever the values it captured raise when they are pickled
        raise _refused(f"{name} cannot be sent: {type(error).__name__}: {error}; {_REMEDY}") from error
    if len(code) > MAX_CODE_CHARS:
        raise _refused(
            f"{name} is {len(code):,} characters with all it refers to, at most {MAX_CODE_CHARS:,} are taken; "
            "read data inside the function, by a path in `config`"
        )
    return ShippedCode(pickle=code, python=running_python())


@contextmanager
def _with_its_source(function: Callable[..., Any]) -> Generator[None]:
    """The lines of *function* go with it, at the numbers they have in their file: a traceback of the cluster shows them.

    What cannot be read, or carries no attribute, goes without.
    """
    with suppress(OSError, TypeError, AttributeError):
        lines, first = inspect.getsourcelines(function)
        vars(function)[SOURCE] = "\n" * (first - 1) + "".join(lines)
    try:
        yield
    finally:
        with suppress(TypeError):
            vars(function).pop(SOURCE, None)


def running_python() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def _refused(words: str) -> InvalidSpec:
    return InvalidSpec.of(Problem("code", words))
