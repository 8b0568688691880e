"""The documents name only what is there, in the words of the glossary."""

from __future__ import annotations

import ast
import asyncio
import importlib.util
import re
from pathlib import Path

import pytest

from scheduler.cli import COMMANDS, GROUPS
from scheduler.settings import ClientSettings, Settings
from serve_app.app import create_app
from tests.paths import PAGE, paths, section

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "deploy/README.md", "benchmarks/README.md")),
    ROOT / "examples" / "data" / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
FOLDERS = "scheduler|serve_app|train_loops|tests|docs|deploy|benchmarks|examples|supabase"
FILE = re.compile(rf"(?<![\w./-])(?:{FOLDERS})(?:/[\w.-]+)*/[\w-]+\.(?:py|sql|md|yml|yaml|json|jsonl|ts)\b")
FOLDER = re.compile(rf"`((?:{FOLDERS})(?:/[\w-]+)*)/?`")
MODULE = re.compile(r"(?<![\w./-])(?:scheduler|serve_app|train_loops)(?:\.[a-zA-Z_]\w*)+")
LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(#[^)\s]*)?\)")
CODE = re.compile(r"^```.*?\n(.*?)^```|`([^`\n]+)`", re.DOTALL | re.MULTILINE)
COMMAND = re.compile(r"(?:^|[(|]) *(scheduler|make) ([a-z][a-z-]*)", re.MULTILINE)
API = re.compile(r"/api/training[\w/{}-]*|/health\b(?![.\w])")
UNUSUAL = {
    r"\bcertificates? (of|says|reports)\b|\bthe certificate\b": "resume report",
    r"\btorn\b": "incomplete or corrupt",
    r"\bmend(s|ed|ing)?\b|\bput(s|ting)? right\b": "repair",
    r"\bvouch(es|ed|ing)?\b": "heartbeat",
    r"\b(in|into|of|enters?|entering) the line\b|\bend of the line\b|\bline of jobs\b": "queue",
    r"\bgiv(e|es|ing|en) way\b|\bgave way\b": "preempted",
    r"\bthe door\b": "validation",
    r"\bevidence of\b": "post-mortem",
    r"\bkeeper\b": "driver",
    r"\btold\b": "reported, shown",
}
"""A word that only this project would use, and the one that everybody in this field knows."""


def prose(page: Path) -> str:
    """Without code: names in the API, in settings and in files stay as they are.  Metrics are described in the code."""
    text = re.sub(
        r"^```.*?^```|^\| `scheduler_\w+`.*?$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE
    )
    return re.sub(r"`[^`\n]*`|\]\([^)]*\)", "", text)


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_file_that_a_page_names_exists(page: Path) -> None:
    """Somebody new opens it at once."""
    text = page.read_text()
    named = {*FILE.findall(text), *FOLDER.findall(text)}
    assert sorted(one for one in named if not (ROOT / one).exists()) == []


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_module_that_a_page_names_exists(page: Path) -> None:
    named = set(MODULE.findall(page.read_text()))
    assert sorted(one for one in named if not _is_there(one)) == []


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_link_leads_to_a_file(page: Path) -> None:
    targets = {target for target, _ in LINK.findall(page.read_text()) if target}
    assert sorted(one for one in targets if not (page.parent / one).exists()) == []


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_setting_that_a_page_names_exists(page: Path) -> None:
    named = set(re.findall(r"\bSCHEDULER_([A-Z_]+)\b", page.read_text()))
    fields = {field.upper() for field in (*Settings.model_fields, *ClientSettings.model_fields)}
    assert named - fields == set()


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_command_that_a_page_names_exists(page: Path) -> None:
    """What a newcomer types; the options are tried by test_cli_page."""
    commands = {one for names in COMMANDS.values() for one in names} | GROUPS.keys()
    there = {"scheduler": commands, "make": _targets()}
    code = [block or span for block, span in CODE.findall(page.read_text())]
    named = {pair for text in code for pair in COMMAND.findall(text)}
    assert [pair for pair in sorted(named) if pair[1] not in there[pair[0]]] == []


def test_every_path_of_the_api_that_a_page_names_exists() -> None:
    class Nobody:
        """No path is called."""

    paths = {_shape(path) for path in create_app(Nobody(), Settings()).openapi()["paths"]}  # type: ignore[arg-type]
    named = {path for page in PAGES for path in API.findall(page.read_text())}
    assert len(named) > 8
    assert sorted(path for path in named if _shape(path) not in paths) == []


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_pages_use_the_words_of_the_field(page: Path) -> None:
    """Whoever searches a page for `queue` finds it."""
    found = [
        f"{one.group()!r}: say {better}"
        for word, better in UNUSUAL.items()
        for one in re.finditer(word, prose(page))
    ]
    assert found == []


def test_the_path_of_a_job_is_that_of_the_code() -> None:
    """After a change: python -m tests.paths --write"""
    assert section(asyncio.run(paths())) in PAGE.read_text()


def test_the_problems_that_the_guide_explains_are_those_of_health() -> None:
    """Whoever searches the guide for the sentence on the screen finds it."""
    guide = (
        (ROOT / "docs" / "operations.md")
        .read_text()
        .partition("## What its problems mean")[2]
        .partition("\n## ")[0]
    )
    quoted = re.findall(r"^\| \*(.+?)\* \|", guide, re.MULTILINE)
    messages = [text for file in (ROOT / "scheduler").rglob("*.py") for text in _messages(file)]
    assert len(quoted) > 4
    for sentence in quoted:
        parts = [part.strip() for part in re.split(r"\.\.\.|\bN\b", sentence) if part.strip(" ,")]
        assert any(all(part in text for part in parts) for text in messages), sentence


def _messages(file: Path) -> list[str]:
    """Its texts; what is filled in is left out."""
    nodes = [*ast.walk(ast.parse(file.read_text()))]
    filled = [
        "".join(str(part.value) for part in node.values if isinstance(part, ast.Constant))
        for node in nodes
        if isinstance(node, ast.JoinedStr)
    ]
    return [
        *filled,
        *(node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)),
    ]


def _targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))


def _shape(path: str) -> str:
    return re.sub(r"\{\w+\}|JOB_ID", "{}", path.rstrip("/"))


def _is_there(dotted: str) -> bool:
    """A module, or a name in one."""
    module, _, attribute = dotted.rpartition(".")
    try:
        if importlib.util.find_spec(dotted):
            return True
    except ModuleNotFoundError:
        pass
    return _has(module, attribute)


def _has(module: str, attribute: str) -> bool:
    try:
        return hasattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError:
        return False


def test_each_word_of_the_glossary_is_there_once_and_stands_where_it_says() -> None:
    rows = [line for line in (ROOT / "docs" / "glossary.md").read_text().splitlines() if line[:4] == "| **"]
    words = [word for row in rows for word in re.findall(r"\*\*(.+?)\*\*", row.split("|")[1])]
    assert len(words) == len(set(words)) > 60
    for row in rows:
        where = row.split("|")[-2]
        *_, names = where.partition(": ")
        files = [ROOT / file for file in FILE.findall(where)]
        assert files, row
        text = files[0].read_text()
        for one in re.findall(r"`(\w+)`", names):
            assert re.search(rf"^(class |def |async def )?{one}\b", text, re.MULTILINE), row
