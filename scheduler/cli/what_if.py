"""`scheduler what-if`: who would start sooner or later, and whose run would be preempted, if one thing were changed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from scheduler.api.forecasts import WhatIfDocument
from scheduler.cli.follow import printable
from scheduler.cli.options import AsJson, JobId, Url, connect
from scheduler.cli.views import console, print_json
from scheduler.errors import InvalidRequest


def what_if(
    job_id: JobId,
    priority: Annotated[
        int | None, typer.Option(metavar="N", help="If it had this priority.", show_default=False)
    ] = None,
    front: Annotated[
        bool, typer.Option("--front", help="If it were at the front of its project's part of the queue.")
    ] = False,
    preempt: Annotated[bool, typer.Option("--preempt", help="If other runs were preempted for it.")] = False,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Who would start sooner or later, and whose run would be preempted at what price.  Nothing is done."""
    if [priority is not None, front, preempt].count(True) != 1:
        raise InvalidRequest("give exactly one of --priority, --front and --preempt")
    found = connect(url).what_if(job_id, priority=priority, front=front, preempt=preempt)
    if as_json:
        print_json(found)
        return
    print(printable(found.message))
    rows = [tuple(map(printable, row)) for row in _rows(found)]
    screen = console()
    if screen.is_terminal and rows:
        screen.print(_table(rows))
    else:
        print(*("\t".join(row) for row in rows), sep="\n", end="\n" if rows else "")


def _table(rows: list[tuple[str, ...]]) -> Table:
    drawn = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("JOB", "AS THINGS STAND", "THEN"):
        drawn.add_column(title, overflow="fold")
    for row in rows:
        drawn.add_row(*map(Text, row))
    return drawn


def _rows(found: WhatIfDocument) -> Iterator[tuple[str, str, str]]:
    for row in found.moved:
        yield row.name, row.before.message, row.after.message
    if found.num_more:
        yield f"{found.num_more:,} more", "", "move by less"
    for run in found.preempted:
        yield run.name, "runs", run.message
