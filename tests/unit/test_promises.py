"""docs/promises.md lists every promise, and every proof that it cites exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
COUNTS = {"P": 7, "L": 10, "R": 10, "U": 5, "D": 6, "S": 12, "B": 4}
IDS = [f"{letter}{number}" for letter, count in COUNTS.items() for number in range(1, count + 1)]
STANDS = re.compile(r"works|partly: .+|not yet(: .+)?")
CITATION = re.compile(r"`([^`]+?)::([^`]+)`")


class Row(NamedTuple):
    id: str
    promise: str
    stands: str
    proof: str


def rows() -> list[Row]:
    text = (ROOT / "docs" / "promises.md").read_text(encoding="utf-8")
    cells = (
        [cell.strip() for cell in line.strip("|\n ").split("|")]
        for line in text.splitlines()
        if line[:1] == "|"
    )
    return [Row(*row) for row in cells if re.fullmatch(r"[A-Z]\d+", row[0])]


def citations() -> list[tuple[str, str, str]]:
    return [(row.id, path, name) for row in rows() for path, name in CITATION.findall(row.proof)]


def names_in(path: Path) -> set[str]:
    """`test_x` and `TestClass::test_x` as pytest would name them; read, not imported."""
    body = ast.parse(path.read_text(encoding="utf-8")).body
    classes = [node for node in body if isinstance(node, ast.ClassDef)]
    return _functions(body) | {f"{c.name}::{name}" for c in classes for name in _functions(c.body)}


def _functions(body: list[ast.stmt]) -> set[str]:
    return {node.name for node in body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_every_promise_has_exactly_one_row() -> None:
    """A promise that is left out is one that nobody keeps."""
    assert [row.id for row in rows()] == IDS


@pytest.mark.parametrize("row", rows(), ids=lambda row: row.id)
def test_each_row_says_where_the_promise_stands_and_what_proves_it(row: Row) -> None:
    """'partly' without a word on what is there would promise anything."""
    assert row.promise.endswith("."), row.promise
    assert STANDS.fullmatch(row.stands), row.stands
    rest = CITATION.sub("", row.proof).replace("<br>", "").strip(" ,")
    assert rest in ("", "-"), f"{row.proof!r} is not a list of `path::test` and not -"
    assert bool(CITATION.search(row.proof)) != (row.proof == "-")


@pytest.mark.parametrize(("row_id", "path", "name"), citations())
def test_every_cited_test_exists(row_id: str, path: str, name: str) -> None:
    """A proof that was renamed or removed is no proof."""
    file = ROOT / path
    assert path.startswith("tests/") and file.is_file(), f"{row_id} cites {path}, which is not there"
    assert name in names_in(file), f"{row_id} cites {name}, which is not in {path}"


def test_nothing_that_is_not_there_yet_is_proved() -> None:
    """A test cited for 'not yet' means that the table or the test is out of date."""
    assert [row.id for row in rows() if row.stands.startswith("not yet") and row.proof != "-"] == []
