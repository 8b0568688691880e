"""`scheduler metrics`: what a job measured, as a chart in letters, a table, or CSV."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from scheduler.api.metrics import LOSSES, MetricsDocument
from scheduler.cli.follow import printable
from scheduler.cli.options import AsJson, JobId, Url, connect
from scheduler.cli.views import console, print_json
from scheduler.errors import InvalidRequest

_ROWS = 10
_WIDEST = 100
_AXIS = 11


def metrics(
    job_id: JobId,
    series: Annotated[
        str | None, typer.Option(help="Which one to draw.  Default: loss, or the first there is.")
    ] = None,
    points: Annotated[int, typer.Option(min=2, help="At most so many, thinned out evenly.")] = 1000,
    as_csv: Annotated[bool, typer.Option("--csv", help="All of them, a line for each step.")] = False,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """What the loop measured, through all attempts: one series as a chart, and the range of each."""
    if as_csv and as_json:
        raise InvalidRequest("--csv and --json do not go together: choose one")
    found = connect(url).metrics(job_id, points)
    if as_json:
        print_json(found)
    elif as_csv:
        _write_csv(found)
    elif not found.step:
        print(f"job {job_id} has not measured anything yet; `scheduler status {job_id}`", file=sys.stderr)
    else:
        _show(found, _chosen(found, series))


def chart(steps: list[float], values: list[float], *, width: int, rows: int = _ROWS) -> list[str]:
    """*values* over *steps* as lines of text: the mean of what falls into a column, and both axes."""
    columns = _columns(steps, values, max(8, width - _AXIS))
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    heights = [None if mean is None else round((mean - low) / span * (rows - 1)) for mean in columns]
    lines = ["".join("*" if height == row else " " for height in heights) for row in reversed(range(rows))]
    labels = [f"{high:.4g}", *[""] * (rows - 2), f"{low:.4g}"]
    drawn = [f"{label:>{_AXIS - 2}} |{line}".rstrip() for label, line in zip(labels, lines, strict=True)]
    first, last = f"step {steps[0]:.15g}", f"{max(steps):.15g}"
    return [*drawn, " " * _AXIS + first + last.rjust(max(len(last) + 1, len(columns) - len(first)))]


def _columns(steps: list[float], values: list[float], width: int) -> list[float | None]:
    first, last = min(steps), max(steps)
    span = (last - first) or 1.0
    cells: list[list[float]] = [[] for _ in range(width)]
    for step, value in zip(steps, values, strict=True):
        cells[round((step - first) / span * (width - 1))].append(value)
    return [sum(cell) / len(cell) if cell else None for cell in cells]


def _chosen(found: MetricsDocument, series: str | None) -> str:
    if series is None:
        return next((name for name in (*LOSSES, *found.series) if name in found.series), "")
    if series not in found.series:
        raise InvalidRequest(f"--series {series}: the job measured {', '.join(found.series) or 'nothing'}")
    return series


def _show(found: MetricsDocument, series: str) -> None:
    screen = console()
    points = [(step, value) for step, value in zip(found.step, found.series.get(series, []), strict=False)]
    drawn = [(step, value) for step, value in points if value is not None]
    if drawn:
        print(printable(series))
        for line in chart(*map(list, zip(*drawn, strict=True)), width=min(screen.width, _WIDEST)):
            print(line)
    screen.print(_ranges(found))
    for mark in found.resumptions:
        where = "the beginning" if mark.step is None else f"step {mark.step}"
        print(f"attempt {mark.attempt} went on from {where}")
    if len(found.step) < found.total_points:
        print(f"{len(found.step):,} of {found.total_points:,} points; --points N takes more", file=sys.stderr)


def _ranges(found: MetricsDocument) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("SERIES", "FIRST", "LAST", "LEAST", "MOST"):
        table.add_column(name, no_wrap=True, justify="left" if name == "SERIES" else "right")
    for name, column in found.series.items():
        values = [value for value in column if value is not None]
        ends = (values[0], values[-1], min(values), max(values)) if values else ()
        table.add_row(Text(printable(name)), *(f"{value:.6g}" for value in ends))
    return table


def _write_csv(found: MetricsDocument) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["attempt", "step", "at", *found.series])
    writer.writerows(_rows(found))


def _rows(found: MetricsDocument) -> Iterator[list[float | None]]:
    """A line of the file for each point; what was not reported then is an empty cell."""
    for attempt, step, at, *values in zip(
        found.attempt, found.step, found.at, *found.series.values(), strict=True
    ):
        yield [attempt, int(step) if step.is_integer() else step, at, *values]
