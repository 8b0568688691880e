"""What `scheduler top` shows: nodes and who holds them, running jobs, and the queue, as one long page."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.segment import Segment, Segments
from rich.table import Table
from rich.text import Text

from scheduler.api.health import Health, NodeHealth
from scheduler.api.jobs import JobDocument
from scheduler.cli.columns import one_line, short_ids
from scheduler.cli.follow import measures, printable
from scheduler.cli.listing import in_words
from scheduler.cli.views import COLOUR, holder_words
from scheduler.client.job_view import number
from scheduler.core.durations import exact_span
from scheduler.core.model import Status

Stands = Callable[[JobDocument, datetime], tuple[float, Text]]
"""For how many seconds the job has stood so, and where."""
KEYS = "q quit   p pause   up/down scroll"
_BAR = 10
_NARROW = 100


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything at about one moment."""

    health: Health
    running: list[JobDocument]
    waiting: list[JobDocument]
    """Next first; those that have no place in the queue come last."""
    counts: Mapping[Status, int] | None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One screenful: the page from line *top* on, between a head and a foot that stay."""

    snapshot: Snapshot
    top: int = 0
    age_s: float = 0.0
    trouble: str | None = None
    """Why there is no newer answer."""
    is_paused: bool = False

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterable[RenderableType]:
        lines = page_lines(console, self.snapshot, options.max_width)
        head = _head(self)
        room = max(1, console.height - len(head) - 1)
        top = min(self.top, max(0, len(lines) - room))
        yield from head
        for line in lines[top : top + room]:
            yield Segments([*line, Segment.line()])
        for _ in range(room - len(lines[top : top + room])):
            yield Text("")
        end = min(len(lines), top + room)
        yield _line(f"{KEYS}   lines {top + 1}-{end} of {len(lines)}", "reverse")


def page_lines(console: Console, snapshot: Snapshot, width: int) -> list[list[Segment]]:
    options = console.options.update(width=width, height=None)
    return console.render_lines(page(snapshot, width), options, pad=False)


def plain_lines(console: Console, snapshot: Snapshot, width: int) -> list[str]:
    return ["".join(part.text for part in line).rstrip() for line in page_lines(console, snapshot, width)]


def page(snapshot: Snapshot, width: int) -> Group:
    """All of it, as long as it is."""
    return Group(
        _nodes(snapshot.health.nodes, width),
        Text(""),
        _jobs("RUNNING", snapshot.running, width, _running),
        Text(""),
        _jobs("WAITING", snapshot.waiting, width, _waiting),
        *(_line(f"note: {note}", "yellow") for note in snapshot.notes),
    )


def summary(snapshot: Snapshot) -> str:
    health = snapshot.health
    cluster = f" {health.cluster}" if health.cluster else ""
    counts = in_words(snapshot.counts) if snapshot.counts is not None else "counts not known"
    return f"scheduler{cluster}: {health.status}, {counts}"


def _head(frame: Frame) -> list[Text]:
    health = frame.snapshot.health
    colour = "green" if health.status == "healthy" else "red"
    age = f"{frame.age_s:.0f} s ago" if frame.age_s >= 1 else "now"
    lines = [
        _line(f"{summary(frame.snapshot)}, updated {age}{', PAUSED' * frame.is_paused}", f"bold {colour}")
    ]
    lines += [_line(problem, "red") for problem in health.problems[:3]]
    return [*lines, *([_line(f"no answer: {frame.trouble}", "bold yellow")] if frame.trouble else [])]


def _line(text: str, style: str) -> Text:
    return Text(printable(text), style=style, no_wrap=True, overflow="ellipsis")


def _nodes(nodes: Sequence[NodeHealth], width: int) -> Table:
    table = _table("NODE", "CPUS", "GPUS", "HELD BY")
    for node in nodes:
        state = " (draining)" if node.draining else " (set aside)" if node.set_aside else ""
        name = f"{node.name}{state}"
        used = (
            _used(node.cpus - node.free_cpus, node.cpus, width),
            _used(node.gpus - node.free_gpus, node.gpus, width),
        )
        held = ", ".join(holder_words(holder) for holder in node.held_by)
        table.add_row(Text(printable(name)), *used, one_line(printable(held)))
    if not nodes:
        table.add_row("none is known", "", "", "")
    return table


def _used(used: float, of: float, width: int) -> Text:
    if of <= 0:
        return Text("-")
    full = round(_BAR * max(0.0, min(1.0, used / of)))
    bar = "" if width < _NARROW else f" {'#' * full}{'.' * (_BAR - full)}"
    return Text(f"{used:g}/{of:g}{bar}", style="red" if used >= of else "")


def _jobs(title: str, jobs: Sequence[JobDocument], width: int, stands: Stands) -> Table:
    table = _table(title, "NAME", "USER", "FOR", "WHERE IT STANDS")
    now, letters = datetime.now(UTC), short_ids(jobs)
    for job in jobs:
        for_s, where = stands(job, now)
        name = Text(printable(job.name)[:24])
        who = Text(printable(job.spec.user or "-")[:12])
        table.add_row(Text(job.job_id[:letters]), name, who, exact_span(for_s), where)
    if not jobs:
        table.add_row("none", "", "", "", "")
    return table


def _running(job: JobDocument, now: datetime) -> tuple[float, Text]:
    step, total = number(job.progress, "step"), number(job.progress, "total_steps")
    share = [f"{min(1.0, step / total):.0%}"] if step is not None and total else []
    now_at = " · ".join([*([str(job.phase)] if job.phase else []), *share, *measures(job.progress)])
    where = one_line(printable(now_at or job.reason.message), COLOUR[job.status])
    if job.stop:
        where.append(f" · {job.stop.kind} asked for by {printable(job.stop.by)}", style="yellow")
    if job.doubt:
        where.append(f" ! {job.doubt}", style="bold red")
    return (now - (job.started_at or job.created_at)).total_seconds(), where


def _waiting(job: JobDocument, now: datetime) -> tuple[float, Text]:
    place = f"{job.queue_position}. " if job.queue_position else f"{job.status}: "
    where = one_line(printable(place + job.reason.message), COLOUR[job.status])
    return (now - (job.queued_at or job.created_at)).total_seconds(), where


def _table(*titles: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in titles[:-1]:
        table.add_column(title, no_wrap=True)
    table.add_column(one_line(titles[-1]))
    return table
