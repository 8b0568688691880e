"""`scheduler queue`: what projects are entitled to and hold, and whose turn it is."""

from __future__ import annotations

import sys

from rich.table import Table
from rich.text import Text

from scheduler.api.queue import ProjectInQueue, QueueDocument, WaitingJob
from scheduler.cli.columns import one_line
from scheduler.cli.follow import printable
from scheduler.cli.options import AsJson, Url, connect
from scheduler.cli.views import SHORT_ID, console, print_json
from scheduler.core.durations import span

_UNNAMED = "(no project)"
_NUMBERS = ("HELD", "ENTITLED", "ON LOAN", "QUOTA", "LIMIT", "HOURS", "RUNNING", "QUEUED")


def queue(url: Url = None, as_json: AsJson = False) -> None:
    """The queue: what projects hold and are entitled to, who starts next, when, and why the others wait."""
    found = connect(url).queue()
    if as_json:
        print_json(found)
        return
    _print(found)


def _print(found: QueueDocument) -> None:
    """Two tables on a terminal; elsewhere two blocks of lines with tabs between columns, nothing shortened."""
    screen = console()
    if screen.is_terminal:
        screen.print(_projects(found))
        screen.print()
        screen.print(_waiting(found))
    else:
        for one in found.projects:
            print("\t".join(_project(one)))
        print()
        for job in found.waiting:
            print("\t".join(_job(job)))
    for line in _notes(found):
        print(line, file=sys.stderr)


def _notes(found: QueueDocument) -> list[str]:
    """What is not in the tables."""
    if not found.num_waiting:
        return ["no job waits"]
    rest = found.num_waiting - len(found.waiting)
    return [f"{rest:,} more wait behind these"] if rest > 0 else []


def _projects(found: QueueDocument) -> Table:
    drawn = Table(box=None, pad_edge=False, header_style="bold")
    drawn.add_column("PROJECT", no_wrap=True, overflow="ellipsis")
    for title in _NUMBERS:
        words = f"{found.unit}S HELD" if title == "HELD" else title
        drawn.add_column(words, no_wrap=True, justify="right")
    for one in found.projects:
        drawn.add_row(*map(Text, _project(one)))
    return drawn


def _project(one: ProjectInQueue) -> list[str]:
    return [
        printable(one.name) or _UNNAMED,
        *map(_number, (one.held, one.entitled, one.lent, one.quota)),
        "none" if one.limit is None else f"{one.limit:g}",
        "-" if one.usage_h is None else f"{one.usage_h:.1f}",
        f"{one.running}",
        f"{one.queued}",
    ]


def _waiting(found: QueueDocument) -> Table:
    drawn = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("POS", "JOB", "NAME", "PROJECT"):
        right = "right" if title == "POS" else "left"
        drawn.add_column(title, no_wrap=True, overflow="ellipsis", justify=right, max_width=24)
    drawn.add_column(f"{found.unit}S", no_wrap=True, justify="right")
    drawn.add_column("STARTS", no_wrap=True)
    drawn.add_column(one_line("REASON"))
    for job in found.waiting:
        position, job_id, *words, reason = _job(job)
        drawn.add_row(Text(position), Text(job_id[:SHORT_ID]), *map(Text, words), one_line(reason))
    return drawn


def _job(job: WaitingJob) -> list[str]:
    return [
        f"{job.position or '-'}",
        job.job_id,
        printable(job.name),
        printable(job.project) or _UNNAMED,
        _number(job.size),
        _start(job),
        printable(job.reason.message),
    ]


def _start(job: WaitingJob) -> str:
    if job.starts_in_s is not None:
        return "now" if job.starts_in_s < 1 else f"in {span(job.starts_in_s)}"
    return "-" if job.starts_after_s is None else f"after {span(job.starts_after_s)}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"
