"""`scheduler list`: a table on a terminal, lines in a pipe, and a mark on every state that is in doubt."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.live import Live
from rich.table import Table
from rich.text import Text

from scheduler.cli_options import AsJson, Url, connect
from scheduler.cli_views import COLOUR, console, print_json
from scheduler.client import Client
from scheduler.core.model import Status
from scheduler.documents import JobDocument
from scheduler.errors import InvalidRequest
from scheduler.follow import duration, measures, printable

WATCH_EVERY_S = 2.0
_COLUMNS: dict[str, dict[str, Any]] = {
    "JOB": {"no_wrap": True, "min_width": 36},
    "NAME": {"overflow": "ellipsis", "no_wrap": True, "max_width": 24},
    "STATUS": {"no_wrap": True},
    "AGE": {"no_wrap": True},
    "USER": {"overflow": "ellipsis", "no_wrap": True, "max_width": 12},
    "PROGRESS OR REASON": {"overflow": "ellipsis", "no_wrap": True},
}


@dataclass(frozen=True, slots=True)
class Listing:
    """All pages that were asked for, as one."""

    jobs: list[JobDocument]
    verified: bool
    notes: tuple[str, ...]
    """What could not be verified or compared, in words."""


def list_jobs(
    statuses: Annotated[
        list[str] | None,
        typer.Option("--status", help=f"Only these, repeated or with commas: {', '.join(Status)}."),
    ] = None,
    user: Annotated[str | None, typer.Option(help="Only this user's.")] = None,
    project: Annotated[str | None, typer.Option(help="Only this project's.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 50,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Keep the list on the screen up to date.")
    ] = False,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Jobs, newest first.  `stale`: the database says something else; the status shown is the registry's."""
    if watch and as_json:
        raise InvalidRequest("--watch and --json do not go together: --json prints one document")
    filters = {"status": ",".join(statuses or []), "user": user, "project": project, "limit": limit}
    client = connect(url)
    if watch:
        _watch(client, filters)
        return
    found = _fetch(client, filters)
    if as_json:
        print_json({"jobs": found.jobs, "verified": found.verified, "notes": found.notes})
    else:
        _print(found)


def _fetch(client: Client, filters: dict[str, Any]) -> Listing:
    pages = list(client.job_pages(**filters))
    return Listing(
        jobs=[job for page in pages for job in page.jobs],
        verified=all(page.verified for page in pages),
        notes=tuple(dict.fromkeys(page.note for page in pages if page.note)),
    )


def _watch(client: Client, filters: dict[str, Any]) -> None:
    screen = console()
    if not screen.is_terminal:
        while True:
            _print(_fetch(client, filters))
            print(flush=True)
            time.sleep(WATCH_EVERY_S)
    with suppress(KeyboardInterrupt), Live(console=screen, auto_refresh=False) as live:
        while True:
            live.update(_table(_fetch(client, filters)), refresh=True)
            time.sleep(WATCH_EVERY_S)


def _print(found: Listing) -> None:
    """A table on a terminal; elsewhere a line for each job, with tabs between columns, nothing shortened."""
    screen = console()
    if screen.is_terminal:
        screen.print(_table(found, with_notes=False))
    else:
        now = datetime.now(UTC)
        for job in found.jobs:
            print("\t".join(_row(job, now)))
    if not found.jobs:
        print("no jobs match", file=sys.stderr)
    for note in _notes(found):
        print(note, file=sys.stderr)


def _table(found: Listing, *, with_notes: bool = True) -> Table:
    now = datetime.now(UTC)
    caption = Text("\n".join(_notes(found))) if with_notes and found.notes else None
    table = Table(box=None, pad_edge=False, header_style="bold", caption=caption)
    for column, options in _COLUMNS.items():
        table.add_column(column, **options)
    for job in found.jobs:
        table.add_row(*_cells(job, now))
    return table


def _cells(job: JobDocument, now: datetime) -> Iterable[Text]:
    for column, cell in zip(_COLUMNS, _row(job, now), strict=True):
        if column == "STATUS":
            yield Text(cell, style=COLOUR[job.status]).append(" !" if job.doubt else "", style="bold red")
        else:
            yield Text(cell)


def _row(job: JobDocument, now: datetime) -> list[str]:
    said = " · ".join(measures(job.progress)) if job.status is Status.RUNNING else ""
    told = f"{job.doubt} · {said or job.reason.message}" if job.doubt else said or job.reason.message
    age = duration((now - job.created_at).total_seconds())
    return [
        printable(cell) for cell in (job.job_id, job.name, job.status.value, age, job.spec.user or "-", told)
    ]


def _notes(found: Listing) -> list[str]:
    return [f"note: {printable(note)}" for note in found.notes]
