"""The help and the page of the command line: complete, and not ahead of the program."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from scheduler.cli import COMMANDS, GROUPS, app
from scheduler.cli.errors import EXIT_CODES

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "cli.md").read_text()
OTHERS = [(ROOT / name).read_text() for name in ("README.md", "docs/control.md", "docs/operations.md")]
NAMES = [name for names in COMMANDS.values() for name in names]
WHOLE = [name for name, group in GROUPS.items() if group.alone]
"""Commands that others may follow as a second word."""
RECURRING = [f"recurring {second}" for second in ("pause", "resume", "forget")]
EXAMPLES = [
    line.split(" > ")[0].split(" | ")[0].split("  #")[0].strip()
    for page in (PAGE, *OTHERS)
    for block in re.findall(r"```sh\n(.*?)```", page, re.DOTALL)
    for line in block.splitlines()
    if line.startswith("scheduler ")
]


def help_of(*args: str, columns: int = 100) -> str:
    done = CliRunner().invoke(app, [*args, "--help"], prog_name="scheduler", terminal_width=columns)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_the_page_tells_of_every_command_and_of_no_other() -> None:
    assert sorted(re.findall(r"^\| `scheduler ([a-z-]+)` \|", PAGE, re.MULTILINE)) == sorted(NAMES + WHOLE)


@pytest.mark.parametrize("line", EXAMPLES)
def test_every_example_is_understood(line: str) -> None:
    """Parsed by the real program; nothing of it is carried out."""
    program, *args = shlex.split(line)
    assert program == "scheduler"
    root: Any = typer.main.get_command(app)
    if args[0].startswith("-"):
        assert args[0] in {name for option in root.params for name in option.opts}
        return
    command, name, *rest = root.commands[args[0]], *args
    if name in GROUPS and rest and not rest[0].startswith("-"):
        command, name, *rest = command.commands[rest[0]], *rest
    with command.make_context(name, rest) as ctx:
        assert ctx.params


def test_the_page_has_the_exit_codes_of_the_help() -> None:
    told = re.findall(r"^ +(\d+) +(.+)$", EXIT_CODES, re.MULTILINE)
    assert re.findall(r"^\| (\d+) \| (.+) \|$", PAGE, re.MULTILINE) == told


def test_the_page_tells_of_every_command_of_two_words() -> None:
    told = re.findall(r"^\| `scheduler ([a-z]+ [a-z][a-z-]*)` \|", PAGE, re.MULTILINE)
    assert sorted(told) == sorted(
        f"{first} {one}" for first, group in GROUPS.items() for one in group.seconds
    )


@pytest.mark.parametrize("name", [*NAMES, *WHOLE, "projects set", "projects forget", *RECURRING])
def test_every_command_tells_its_exit_codes_and_speaks_json(name: str) -> None:
    """Scripts are written from the help."""
    page = help_of(*name.split())
    assert "124  the wait timed out; the job goes on" in page
    assert "--json" in page
    assert not re.search(r"\bNone\b|_s\b", page.split("Exit codes")[0])


def test_the_help_lists_each_command_once_under_a_heading() -> None:
    page = help_of()
    for heading, names in COMMANDS.items():
        section = page.split(f"\n{heading}:\n")[1].split("\n\n")[0]
        assert re.findall(r"^  ([a-z-]+)  +\S", section, re.MULTILINE) == list(names)
        assert "..." not in section


def test_the_help_of_a_narrow_terminal_stays_within_it() -> None:
    for name in NAMES:
        page = help_of(name, columns=60).split("Exit codes")[0]
        assert max(map(len, page.splitlines())) <= 60
