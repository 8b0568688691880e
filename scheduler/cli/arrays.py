"""`scheduler submit --array` and `scheduler array`: one spec over a grid of values, and how its jobs stand."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from typing import Annotated, Any, cast

import typer
from rich.table import Table
from rich.text import Text

from scheduler.api.arrays import ArrayDocument, ArrayJob
from scheduler.cli.acting import Yes, agreed
from scheduler.cli.follow import printable
from scheduler.cli.naming import job_id_of
from scheduler.cli.options import AsJson, Url, connect
from scheduler.cli.views import COLOUR, console, print_json
from scheduler.client import Client
from scheduler.client.spec_file import SpecFile, parse_value
from scheduler.core.model import Status
from scheduler.core.spec import MAX_CHILDREN
from scheduler.errors import ArrayNotFound, InvalidRequest, InvalidSpec, JobNotFound, Problem

Parameters = Annotated[
    list[str] | None,
    typer.Option(
        "--array",
        metavar="KEY=VALUES",
        help="A job for each value of this key of config, as lr=1e-4,3e-4 or seed=1..8. May be given again: a grid.",
    ),
]
AtMost = Annotated[
    int | None, typer.Option("--at-most", min=1, help="With --array: so many of its jobs run at once.")
]
Metric = Annotated[
    str | None,
    typer.Option(
        metavar="NAME[:max]", help="With --array: the best job has the least, or most, of it.  Default: loss."
    ),
]
_RANGE = re.compile(r"(-?\d{1,15})\.\.(-?\d{1,15})")
_BEST = "*"


def array(
    array_id: Annotated[
        str,
        typer.Argument(
            metavar="ARRAY", help="Its id; or the id or name of one of its jobs.", show_default=False
        ),
    ],
    cancel: Annotated[
        bool, typer.Option("--cancel", help="Cancel all of its jobs that have not ended.")
    ] = False,
    yes: Yes = False,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """An array of jobs: how each stands, its values, and which is best."""
    client = connect(url)
    found = array_of(client, array_id)
    if cancel and not found.has_ended:
        if not (yes or as_json):
            _ask_first(found)
        found = client.cancel_array(found.array_id)
    show(found, as_json)


def submit_array(
    client: Client,
    given: SpecFile,
    parameters: Sequence[str],
    *,
    at_most: int | None,
    metric: str | None,
    key: str | None,
) -> ArrayDocument:
    """Raises InvalidSpec, each problem with its line in the file."""
    name, _, which = (metric or "loss").partition(":")
    if not name or which not in ("", "min", "max"):
        raise InvalidRequest(f"--metric {metric}: write it as NAME, NAME:min or NAME:max, as accuracy:max")
    pairs = [_values(one) for one in parameters]
    if len(dict(pairs)) < len(pairs):
        raise InvalidRequest("--array: one key is given twice; give all of its values at once, as seed=1,2,3")
    is_max = which == "max"
    try:
        return client.submit_array(
            dict(pairs),
            given.spec(),
            at_most=at_most,
            metric=name,
            metric_is="max" if is_max else "min",
            idempotency_key=key,
        )
    except InvalidSpec as error:
        raise given.placed(_of_file(error)) from None


def array_of(client: Client, text: str) -> ArrayDocument:
    """The array that *text* names, or of which it names a job.  Raises ArrayNotFound, or as `job_id_of`."""
    try:
        return client.array(text)
    except ArrayNotFound as error:
        missing: ArrayNotFound | None = error
    except InvalidRequest:
        missing = None
    try:
        job = client.status(job_id_of(client, text))
    except JobNotFound:
        if missing:
            raise missing from None
        raise
    if job.spec.array is None:
        raise ArrayNotFound(f"job {job.job_id} is of no array; `scheduler status {job.job_id}` shows it")
    return client.array(job.spec.array.id)


def show(found: ArrayDocument, as_json: bool) -> None:
    """A table on a terminal; elsewhere a line for each job, with tabs between columns, nothing shortened."""
    if as_json:
        print_json(found)
        return
    screen = console()
    print(
        printable(f"array {found.array_id}  {found.name}: {found.message}"),
        file=sys.stderr if not screen.is_terminal else sys.stdout,
    )
    if screen.is_terminal:
        screen.print(_table(found))
    else:
        for job in found.jobs:
            print("\t".join(_row(found, job)))


def _table(found: ArrayDocument) -> Table:
    drawn = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("", "NO", "JOB", "STATUS", "VALUES", found.metric.upper(), "WHY"):
        drawn.add_column(title, no_wrap=True, overflow="ellipsis")
    for job in found.jobs:
        mark, number, job_id, status, values, metric, why = _row(found, job)
        style = COLOUR.get(job.status, "")
        drawn.add_row(mark, number, job_id, Text(status, style), Text(values), metric, Text(why))
    return drawn


def _row(found: ArrayDocument, job: ArrayJob) -> list[str]:
    values = ", ".join(f"{name}={value}" for name, value in job.values.items())
    return [
        _BEST if job.index == found.best else "",
        str(job.index),
        job.job_id,
        job.status,
        printable(values),
        "-" if job.metric is None else f"{job.metric:.6g}",
        printable(job.reason),
    ]


def _ask_first(found: ArrayDocument) -> None:
    """Nobody is asked where nobody could answer: without a terminal."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return
    ended = sum(found.counts.get(status, 0) for status in Status if status.is_terminal)
    print(printable(f"{found.name}: {found.message}"), file=sys.stderr)
    if not agreed(f"cancel {len(found.jobs) - ended} jobs?"):
        print("nothing was done", file=sys.stderr)
        raise typer.Exit(1)


def _values(text: str) -> tuple[str, list[Any]]:
    """The key and its values: `lr=1e-4,3e-4`, each as YAML reads it, and `seed=1..8` for whole numbers."""
    key, is_pair, listed = text.partition("=")
    if not (is_pair and key and listed.strip()):
        raise InvalidRequest(
            f"--array {text}: write it as KEY=VALUES, as seed=1..8 or learning_rate=1e-4,3e-4"
        )
    parsed = cast("list[Any]", parse_value(f"[{listed}]", f"--array {text}"))
    return key, [value for one in parsed for value in _ranged(one, text)]


def _ranged(value: Any, text: str) -> Sequence[Any]:
    found = _RANGE.fullmatch(value) if isinstance(value, str) else None
    if not found:
        return [value]
    first, last = int(found[1]), int(found[2])
    if not 0 <= last - first < MAX_CHILDREN:
        words = f"{value} is a range of {max(0, last - first + 1):,} numbers; give 1 to {MAX_CHILDREN:,}, the least first"
        raise InvalidRequest(f"--array {text}: {words}", (Problem("--array", words),))
    return range(first, last + 1)


def _of_file(error: InvalidSpec) -> InvalidSpec:
    """Fields as the file has them: without the `spec.` of the body that was sent."""
    return InvalidSpec.of(*(Problem(one.field.removeprefix("spec."), one.message) for one in error.problems))
