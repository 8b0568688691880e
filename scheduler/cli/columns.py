"""The columns of `scheduler list`: what each shows of a job, and which are left out where room is short."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from rich.table import Table
from rich.text import Text

from scheduler.api.jobs import JobDocument
from scheduler.cli.follow import measures, printable
from scheduler.cli.views import COLOUR, SHORT_ID
from scheduler.client.job_view import number
from scheduler.core.durations import exact_span
from scheduler.core.model import Status
from scheduler.errors import InvalidRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    title: str
    text: Callable[[JobDocument, datetime], str]
    max_width: int | None = None
    """Longer texts are cut on a terminal; None: at the edge of the screen."""
    is_long: bool = False
    """It is shortened first: what does not fit is cut."""
    from_width: int = 0
    """On a narrower terminal it is left out, unless it was asked for."""
    options: dict[str, Any] = field(default_factory=dict[str, Any])


def _progress_or_reason(job: JobDocument, now: datetime) -> str:
    progress = " · ".join(measures(job.progress)) if job.status is Status.RUNNING else ""
    words = progress or job.reason.message
    return f"{job.doubt} · {words}" if job.doubt else words


def _since(then: datetime | None, now: datetime) -> str:
    return exact_span((now - then).total_seconds()) if then else "-"


def _waited(job: JobDocument, now: datetime) -> str:
    return _since(job.created_at, job.started_at or job.finished_at or now)


def _number(name: str) -> Callable[[JobDocument, datetime], str]:
    def text(job: JobDocument, now: datetime) -> str:
        value = number(job.progress, name)
        return "-" if value is None else f"{value:.6g}"

    return text


def _gpus(job: JobDocument, now: datetime) -> str:
    return f"{job.spec.resources.num_ranks * job.spec.resources.gpus_per_rank:g}"


RIGHT = {"justify": "right"}
COLUMNS: dict[str, Column] = {
    "id": Column(title="JOB", text=lambda job, now: job.job_id),
    "name": Column(title="NAME", text=lambda job, now: job.name, max_width=24),
    "status": Column(title="STATUS", text=lambda job, now: job.status.value),
    "age": Column(title="AGE", text=lambda job, now: _since(job.created_at, now), from_width=70),
    "user": Column(title="USER", text=lambda job, now: job.spec.user or "-", max_width=12, from_width=80),
    "progress": Column(title="PROGRESS OR REASON", text=_progress_or_reason, is_long=True),
    "project": Column(title="PROJECT", text=lambda job, now: job.spec.project or "-", max_width=20),
    "loop": Column(title="LOOP", text=lambda job, now: job.spec.loop, max_width=24),
    "phase": Column(title="PHASE", text=lambda job, now: job.phase or "-"),
    "position": Column(title="POS", text=lambda job, now: f"{job.queue_position or '-'}", options=RIGHT),
    "priority": Column(title="PRIO", text=lambda job, now: f"{job.spec.priority}", options=RIGHT),
    "ranks": Column(title="RANKS", text=lambda job, now: f"{job.spec.resources.num_ranks}", options=RIGHT),
    "gpus": Column(title="GPUS", text=_gpus, options=RIGHT),
    "attempt": Column(title="TRY", text=lambda job, now: f"{job.attempt}", options=RIGHT),
    "step": Column(title="STEP", text=_number("step"), options=RIGHT),
    "loss": Column(title="LOSS", text=_number("loss"), options=RIGHT),
    "speed": Column(title="TOKENS/S", text=_number("tokens_per_s"), options=RIGHT),
    "waited": Column(title="WAITED", text=_waited),
    "ran": Column(title="RAN", text=lambda job, now: _since(job.started_at, job.finished_at or now)),
    "submitted": Column(title="SUBMITTED", text=lambda job, now: f"{job.created_at:%Y-%m-%d %H:%M:%S}"),
    "checked": Column(title="CHECKED", text=lambda job, now: _since(job.verified_at, now)),
    "saved": Column(
        title="SAVED", text=lambda job, now: job.last_checkpoint.checkpoint if job.last_checkpoint else "-"
    ),
    "reason": Column(title="REASON", text=lambda job, now: job.reason.message, is_long=True),
}
_ROOM_FOR_WHOLE_IDS = 110
DEFAULT = ("id", "name", "status", "age", "user", "progress")


def chosen(given: Sequence[str], *, width: int | None = None) -> list[str]:
    """The columns to show: those that were *given*, or the usual ones that there is room for in *width*."""
    names = [name.strip().lower() for text in given for name in text.split(",") if name.strip()]
    if unknown := [name for name in names if name not in COLUMNS]:
        raise InvalidRequest(f"--columns {unknown[0]}: the columns are {', '.join(COLUMNS)}")
    return names or [name for name in DEFAULT if width is None or COLUMNS[name].from_width <= width]


def row(job: JobDocument, names: Sequence[str], now: datetime) -> list[str]:
    """Nothing is shortened."""
    return [printable(COLUMNS[name].text(job, now)) for name in names]


def table(jobs: Sequence[JobDocument], names: Sequence[str], *, width: int) -> Table:
    """For a terminal of *width* letters: ids are cut where room is short, and still name one job each."""
    now = datetime.now(UTC)
    drawn = Table(box=None, pad_edge=False, header_style="bold")
    for name in names:
        column = COLUMNS[name]
        fixed: dict[str, Any] = {} if column.is_long else {"no_wrap": True, "overflow": "ellipsis"}
        drawn.add_column(one_line(column.title), max_width=column.max_width, **fixed, **column.options)
    letters = 36 if width >= _ROOM_FOR_WHOLE_IDS else short_ids(jobs)
    for job in jobs:
        drawn.add_row(*(_cell(name, job, now, letters) for name in names))
    return drawn


def short_ids(jobs: Sequence[JobDocument]) -> int:
    """How many letters distinguish these jobs."""
    ids = {job.job_id for job in jobs}
    return next((n for n in range(SHORT_ID, 36) if len({one[:n] for one in ids}) == len(ids)), 36)


def _cell(name: str, job: JobDocument, now: datetime, id_letters: int) -> Text:
    text = printable(COLUMNS[name].text(job, now))
    if name == "id":
        return Text(text[:id_letters])
    if name == "status":
        return Text(text, style=COLOUR[job.status]).append(" !" if job.doubt else "", style="bold red")
    return one_line(text) if COLUMNS[name].is_long else Text(text)


def one_line(text: str, style: str = "") -> Text:
    """In a column that may wrap, so that the table takes room from it first; cut all the same."""
    return Text(text, style=style, no_wrap=True, overflow="ellipsis")
