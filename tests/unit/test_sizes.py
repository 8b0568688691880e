"""What fits on a few screens is read: functions of at most 60 lines, files of at most 400."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROOMS = ("scheduler", "serve_app", "train_loops")
FUNCTION_LINES, FILE_LINES, TABLE_LINES = 60, 400, 500
TABLES = {"scheduler/core/lifecycle.py", "scheduler/core/model.py"}
"""Tables may be longer: they are looked up, and read in one piece."""
STILL_OVER: set[str] = set()
"""Files, and functions as `file:name`, that are longer for now.  Nothing is added here."""


def functions_in(source: str) -> Iterator[tuple[str, int]]:
    """The name of each function, and its lines with decorators and docstring."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = min([node.lineno, *(one.lineno for one in node.decorator_list)])
            yield node.name, (node.end_lineno or first) - first + 1


def over(name: str, source: str) -> Iterator[str]:
    if len(source.splitlines()) > (TABLE_LINES if name in TABLES else FILE_LINES):
        yield name
    for function, lines in functions_in(source):
        if lines > FUNCTION_LINES:
            yield f"{name}:{function}"


def test_no_function_and_no_file_is_longer_than_somebody_reads() -> None:
    """One that grew is to be split along what it does; one that shrank leaves the list."""
    files = [file for room in ROOMS for file in sorted((ROOT / room).rglob("*.py"))]
    found = {
        one for file in files for one in over(file.relative_to(ROOT).as_posix(), file.read_text("utf-8"))
    }
    assert found - STILL_OVER == set(), "too long"
    assert STILL_OVER - found == set(), "no longer over: take it off the list"


def test_what_is_too_long_is_found() -> None:
    """A check that finds nothing would let everything grow."""
    long = "@decorated\ndef f():\n" + "    pass\n" * (FUNCTION_LINES - 1)
    short = "def f():\n" + "    pass\n" * (FUNCTION_LINES - 1)
    assert list(over("a.py", long)) == ["a.py:f"]
    assert list(over("a.py", short)) == []
    assert list(over("a.py", "pass\n" * (FILE_LINES + 1))) == ["a.py"]
    assert list(over("scheduler/core/model.py", "pass\n" * (FILE_LINES + 1))) == []
