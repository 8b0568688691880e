"""`scheduler list`: a table on a terminal, lines in a pipe, and a mark on every state that is in doubt."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from scheduler.api.jobs import JobDocument
from scheduler.cli import completion
from scheduler.cli.columns import COLUMNS, chosen, row, table
from scheduler.cli.follow import printable
from scheduler.cli.options import AsJson, Url, connect
from scheduler.cli.views import console, print_json
from scheduler.client import Client
from scheduler.core.model import Status
from scheduler.errors import InvalidRequest, RegistryUnavailable, SchedulerError, ServerUnreachable
from scheduler.ports import Sort

WATCH_EVERY_S = 2.0
AWAY = (ServerUnreachable, RegistryUnavailable)
Statuses = Annotated[
    list[str] | None,
    typer.Option(
        "--status",
        help=f"Only these, repeated or with commas: {', '.join(Status)}.",
        autocompletion=completion.one_of_many(Status),
    ),
]
SortBy = Annotated[
    str | None,
    typer.Option(
        help=f"One of {', '.join(Sort)}; `-` begins at the other end.", autocompletion=completion.one_of(Sort)
    ),
]
Columns = Annotated[
    list[str] | None,
    typer.Option(
        help=f"Which, and in which order, with commas: {', '.join(COLUMNS)}.",
        autocompletion=completion.one_of_many(COLUMNS),
    ),
]


@dataclass(frozen=True, slots=True)
class Listing:
    """All pages that were asked for, as one."""

    jobs: list[JobDocument]
    verified: bool
    notes: tuple[str, ...]
    """What could not be verified or compared, and what is not shown, in words."""
    counts: Mapping[Status, int] | None
    """Jobs in each status that match; None when it is not known."""
    has_more: bool
    """More jobs match than were asked for."""


def list_jobs(
    statuses: Statuses = None,
    user: Annotated[str | None, typer.Option(help="Only this user's.")] = None,
    mine: Annotated[bool, typer.Option("--mine", help="Only your own.")] = False,
    project: Annotated[str | None, typer.Option(help="Only this project's.")] = None,
    search: Annotated[
        str | None, typer.Option(help="A part of the name, or the beginning of the id.")
    ] = None,
    sort: SortBy = None,
    columns: Columns = None,
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
    if user and mine:
        raise InvalidRequest("--user and --mine do not go together: choose one")
    chosen(columns or [])
    client = Client(url, retry_s=0) if watch else connect(url)
    filters = {
        "status": ",".join(statuses or []),
        "user": client.user if mine else user,
        "project": project,
        "search": search,
        "sort": sort,
        "limit": limit,
    }
    if watch:
        _watch(client, filters, columns or [])
        return
    found = fetch(client, filters)
    if as_json:
        print_json(
            {
                "jobs": found.jobs,
                "verified": found.verified,
                "notes": found.notes,
                "counts": found.counts,
                "has_more": found.has_more,
            }
        )
    else:
        _print(found, columns or [])


def fetch(client: Client, filters: Mapping[str, Any]) -> Listing:
    given: Any = {name: value for name, value in filters.items() if value is not None}
    pages = list(client.job_pages(**given))
    return Listing(
        jobs=[job for page in pages for job in page.jobs],
        verified=all(page.verified for page in pages),
        notes=tuple(dict.fromkeys(page.note for page in pages if page.note)),
        counts=pages[0].counts if pages else None,
        has_more=bool(pages) and pages[-1].next_cursor is not None,
    )


def in_words(counts: Mapping[Status, int]) -> str:
    """`3 running, 12 queued`; the statuses in the order of a job's life."""
    return ", ".join(f"{counts[status]:,} {status}" for status in Status if counts.get(status)) or "no jobs"


def _watch(client: Client, filters: Mapping[str, Any], columns: list[str]) -> None:
    screen = console()
    if not screen.is_terminal:
        while True:
            _print(fetch(client, filters), columns)
            print(flush=True)
            time.sleep(WATCH_EVERY_S)
    with suppress(KeyboardInterrupt), Live(console=screen, auto_refresh=False) as live:
        found, last_s = fetch(client, filters), time.monotonic()
        while True:
            live.update(_screenful(screen, found, columns), refresh=True)
            time.sleep(WATCH_EVERY_S)
            try:
                found, last_s = fetch(client, filters), time.monotonic()
            except AWAY as error:
                found = _in_doubt(found, error, time.monotonic() - last_s)


def _in_doubt(found: Listing, error: SchedulerError, age_s: float) -> Listing:
    """The last answer, marked as old."""
    note = f"as it was {age_s:.0f} s ago, because there is no answer now: {error.message}"
    return Listing(found.jobs, verified=False, notes=(note,), counts=found.counts, has_more=found.has_more)


def _screenful(screen: Console, found: Listing, columns: list[str]) -> Group:
    """What the screen has room for: a list that is longer would scroll at each look."""
    names = chosen(columns, width=screen.width)
    room = max(1, screen.height - 4 - len(_notes(found)))
    shown = found.jobs[:room]
    foot = [*_notes(found), *_summary(found, len(shown))]
    return Group(
        table(shown, names, width=screen.width),
        *(Text(line, style="dim" if line not in _notes(found) else "yellow") for line in foot),
    )


def _print(found: Listing, columns: list[str]) -> None:
    """A table on a terminal; elsewhere a line for each job, with tabs between columns, nothing shortened."""
    screen = console()
    if screen.is_terminal:
        names = chosen(columns, width=screen.width)
        screen.print(table(found.jobs, names, width=screen.width))
    else:
        now, names = datetime.now(UTC), chosen(columns)
        for job in found.jobs:
            print("\t".join(row(job, names, now)))
    for line in _summary(found, len(found.jobs)) if screen.is_terminal or found.has_more else []:
        print(line, file=sys.stderr)
    if not found.jobs:
        print("no jobs match", file=sys.stderr)
    for note in _notes(found):
        print(note, file=sys.stderr)


def _summary(found: Listing, shown: int) -> list[str]:
    """How many there are, and how to see the rest."""
    is_all = shown == len(found.jobs) and not found.has_more
    some = [] if is_all else [f"{shown} are shown, more match; --limit, --status or --search shows others"]
    return [*some, *([f"in all: {in_words(found.counts)}"] if found.counts and found.jobs else [])]


def _notes(found: Listing) -> list[str]:
    return [f"note: {printable(note)}" for note in found.notes]
