"""`scheduler every` and `scheduler recurring`: jobs that are submitted again and again."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from scheduler.api.recurring import RecurringJobDocument, RecurringJobList
from scheduler.cli import completion
from scheduler.cli.columns import one_line
from scheduler.cli.follow import printable
from scheduler.cli.options import AsJson, Url, connect
from scheduler.cli.submit import Loop, SpecPath, Values, spec_given
from scheduler.cli.views import SHORT_ID, console, print_json
from scheduler.core.durations import span
from scheduler.errors import InvalidRequest, InvalidSpec, Problem

Name = Annotated[
    str,
    typer.Argument(
        metavar="NAME",
        help="As `scheduler recurring` lists it.",
        show_default=False,
        autocompletion=completion.recurring_jobs,
    ),
]
_TITLES = ("NAME", "CRON", "TIME ZONE", "NEXT", "LAST JOB", "STATUS", "SKIPPED")


def every(
    cron: Annotated[
        str,
        typer.Argument(
            metavar="CRON",
            help="When: minute, hour, day of month, month, day of week, as '0 3 * * *'.",
            show_default=False,
        ),
    ],
    file: SpecPath = None,
    name: Annotated[
        str | None,
        typer.Option(help="Of the recurring job.  Default: the name in the spec.", show_default=False),
    ] = None,
    timezone: Annotated[
        str, typer.Option(help="Whose clocks are meant, as Europe/Berlin.", show_default=True)
    ] = "UTC",
    loop: Loop = None,
    values: Values = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Submit a job whenever a cron expression says so; never two of them at once."""
    given = spec_given(file, loop, None, values)
    spec = given.spec()
    try:
        made = connect(url).every(cron, spec, name=name or spec.name, timezone=timezone)
    except InvalidSpec as error:
        raise given.placed(_of_the_file(error)) from None
    _show(made, as_json)


def recurring(ctx: typer.Context, url: Url = None, as_json: AsJson = False) -> None:
    """Recurring jobs: when each is next, its last job, and what was skipped last and why."""
    if ctx.invoked_subcommand:
        if url or as_json:
            raise InvalidRequest(f"--url and --json stand after `{ctx.invoked_subcommand}`; put them there")
        return
    found = connect(url).recurring_jobs()
    if as_json:
        print_json(found)
        return
    _print(found)


def pause_recurring_job(name: Name, url: Url = None, as_json: AsJson = False) -> None:
    """Submit nothing until it is resumed; a job of it that runs goes on."""
    _show(connect(url).set_recurring_job(name, paused=True), as_json)


def resume_recurring_job(name: Name, url: Url = None, as_json: AsJson = False) -> None:
    """Submit it again from its next moment on; what fell into the pause is not made up for."""
    _show(connect(url).set_recurring_job(name, paused=False), as_json)


def forget_recurring_job(name: Name, url: Url = None, as_json: AsJson = False) -> None:
    """Submit it no more; its jobs stay as they are."""
    done = connect(url).forget_recurring_job(name)
    if as_json:
        print_json(done)
    else:
        print(f"{done.name}: {'forgotten' if done.existed else 'there was none'}")


def _of_the_file(error: InvalidSpec) -> InvalidSpec:
    """By the fields of the file, which holds a spec alone."""
    problems = (Problem(one.field.removeprefix("spec."), one.message) for one in error.problems)
    return InvalidSpec.of(*problems)


def _show(one: RecurringJobDocument, as_json: bool) -> None:
    if as_json:
        print_json(one)
        return
    print(printable(f"{one.name}: {one.words} ({one.timezone}); {_next(one, 'next ')}"))


def _print(found: RecurringJobList) -> None:
    """A table on a terminal; elsewhere a line for each, with tabs between columns, nothing shortened."""
    screen = console()
    if screen.is_terminal:
        screen.print(_table(found))
    else:
        for one in found.recurring_jobs:
            print("\t".join(_row(one)))
    if not found.recurring_jobs:
        print("there is no recurring job; `scheduler every` makes one", file=sys.stderr)


def _table(found: RecurringJobList) -> Table:
    drawn = Table(box=None, pad_edge=False, header_style="bold")
    *titles, last = _TITLES
    for title in titles:
        drawn.add_column(title, no_wrap=True, overflow="ellipsis", max_width=32)
    drawn.add_column(one_line(last))
    for one in found.recurring_jobs:
        *words, job_id, status, skipped = _row(one)
        drawn.add_row(*map(Text, words), Text(job_id[:SHORT_ID]), Text(status), one_line(skipped))
    return drawn


def _row(one: RecurringJobDocument) -> list[str]:
    last = one.last
    skipped = f"{_clock(one.skipped.at)}: {one.skipped.message}" if one.skipped else "-"
    return [
        one.name,
        printable(one.cron),
        printable(one.timezone),
        _next(one),
        last.job_id if last else "-",
        (last.status or "not known") if last else "-",
        printable(skipped),
    ]


def _next(one: RecurringJobDocument, before: str = "") -> str:
    if one.paused:
        return "paused"
    if one.next_at is None:
        return "never again"
    return f"{before}{_clock(one.next_at)}, in {span((one.next_at - datetime.now(UTC)).total_seconds())}"


def _clock(moment: datetime) -> str:
    """By the clocks of its time zone, as the scheduler told it."""
    return f"{moment:%Y-%m-%d %H:%M:%S}" if moment.second else f"{moment:%Y-%m-%d %H:%M}"
