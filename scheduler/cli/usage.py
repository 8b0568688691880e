"""`scheduler usage`: GPU and CPU hours by project, user and day."""

from __future__ import annotations

import sys
from typing import Annotated, cast

import typer
from rich.table import Table
from rich.text import Text

from scheduler.api.usage import UsageDocument, UsageRow, UsedDocument, csv_of
from scheduler.cli.follow import printable
from scheduler.cli.options import AsJson, Url, connect
from scheduler.cli.views import console, print_json
from scheduler.core.usage import GROUPINGS, Grouping
from scheduler.errors import InvalidRequest, Problem

_UNNAMED = {"project": "(no project)", "user": "(no user)"}


def usage(
    first_day: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="DAY",
            help="The first day, as 2026-11-01; 30 days in all if not given.",
            show_default=False,
        ),
    ] = None,
    last_day: Annotated[
        str | None,
        typer.Option(
            "--to", metavar="DAY", help="The last day, counted whole; today if not given.", show_default=False
        ),
    ] = None,
    by: Annotated[
        str, typer.Option(metavar="NAMES", help="Any of project, user and day, separated by commas.")
    ] = "project",
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV, for a spreadsheet.")] = False,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Usage: GPU and CPU hours that runs held, by project, user and day.  Days are those of UTC."""
    if as_csv and as_json:
        raise InvalidRequest("--csv and --json are two forms of one answer; give one of them")
    found = connect(url).usage(first_day, last_day, _groupings(by))
    if as_json:
        print_json(found)
        return
    if as_csv:
        print(csv_of(found).replace("\r\n", "\n"), end="")
    else:
        _print(found)
    for line in _notes(found):
        print(line, file=sys.stderr)


def _groupings(text: str) -> list[Grouping]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names or not set(names) <= set(GROUPINGS):
        words = f"{printable(text[:60])!r} is not any of {', '.join(GROUPINGS)}, separated by commas"
        raise InvalidRequest(f"--by: {words}", (Problem("--by", words),))
    return cast("list[Grouping]", names)


def _print(found: UsageDocument) -> None:
    """A table with a total on a terminal; elsewhere a line for each row, with tabs between columns."""
    screen = console()
    if screen.is_terminal:
        screen.print(_table(found))
    else:
        for row in found.rows:
            print("\t".join([*_key(found, row), *_numbers(row)]))


def _table(found: UsageDocument) -> Table:
    drawn = Table(box=None, pad_edge=False, header_style="bold")
    for name in found.by:
        drawn.add_column(name.upper(), no_wrap=True, overflow="ellipsis")
    for title in ("GPU HOURS", "CPU HOURS", "JOBS"):
        drawn.add_column(title, no_wrap=True, justify="right")
    for row in found.rows:
        drawn.add_row(*map(Text, [*_key(found, row), *_numbers(row)]))
    named = ["all", *("" for _ in found.by[1:])]
    drawn.add_row(*map(Text, [*named, *_numbers(found.total)]), style="bold")
    return drawn


def _key(found: UsageDocument, row: UsageRow) -> list[str]:
    return [printable(str(getattr(row, name))) or _UNNAMED[name] for name in found.by]


def _numbers(used: UsedDocument) -> list[str]:
    return [f"{used.gpu_hours:.2f}", f"{used.cpu_hours:.2f}", f"{used.num_jobs}"]


def _notes(found: UsageDocument) -> list[str]:
    """How far the numbers can be trusted."""
    since, until = found.complete_since, f"{found.counted_until:%Y-%m-%d %H:%M} UTC"
    whole = (
        f"no run is missing since {since:%Y-%m-%d %H:%M} UTC"
        if since
        else "it is not known since when no run is missing"
    )
    notes = [f"{found.first_day} to {found.last_day}; {whole}"]
    if found.num_open:
        runs, are = _counted(found.num_open)
        notes.append(f"{runs} had not ended, and {are} counted until {until}")
    if found.num_left_out:
        runs, are = _counted(found.num_left_out)
        notes.append(f"{runs} {are} not counted: the record cannot be read, or does not tell the end")
    return notes


def _counted(number: int) -> tuple[str, str]:
    return ("1 run", "is") if number == 1 else (f"{number:,} runs", "are")
