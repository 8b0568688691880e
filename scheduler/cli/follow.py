"""A job as it goes: a progress bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

from datetime import datetime
from time import monotonic
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn
from rich.table import Column

from scheduler.api.jobs import JobDocument
from scheduler.client import JobHandle
from scheduler.client.job_view import number
from scheduler.core.durations import exact_span
from scheduler.core.model import Phase, Status
from scheduler.core.visible import visible

POLL_S = 0.5
PLAIN_LINE_EVERY_S = 10.0


def follow(
    handle: JobHandle,
    console: Console | None = None,
    *,
    timeout_s: float | None = None,
    poll_s: float = POLL_S,
) -> JobDocument:
    """Show the job on *console* until it has ended, and return its last document.

    Raises as `JobHandle.wait` does; leaving early (Ctrl-C) does nothing to the job.
    """
    console = console or Console()
    view: _View = _Bar(console) if console.is_terminal and not console.is_dumb_terminal else _Lines(console)
    try:
        return handle.wait(timeout_s, poll_s=poll_s, on_update=view.show)
    finally:
        view.close()


def measures(progress: dict[str, Any] | None) -> list[str]:
    """The numbers of a job's progress in words: `step 12/60`, `loss 2.310`, `140 tokens/s`."""
    step, total = number(progress, "step"), number(progress, "total_steps")
    loss, speed = number(progress, "loss"), number(progress, "tokens_per_s")
    return [
        *([f"step {step:.0f}" + (f"/{total:.0f}" if total else "")] if step is not None else []),
        *([f"loss {loss:.4g}"] if loss is not None else []),
        *([f"{speed:.0f} tokens/s"] if speed is not None else []),
    ]


def size(num_bytes: int) -> str:
    """Two or three digits, in the units of disks."""
    amount, unit = float(num_bytes), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if amount < 1000:
            break
        amount, unit = amount / 1000, larger
    return f"{amount:.3g} {unit}"


def printable(text: str) -> str:
    """*text* on one line, with what could steer a terminal or deceive an eye shown as what it is."""
    return visible(" ".join(text.splitlines()).replace("\t", " "))


class _View(Protocol):
    def show(self, job: JobDocument) -> None: ...

    def close(self) -> None: ...


class _Moments:
    """Each change of state, once."""

    def __init__(self) -> None:
        self._last: tuple[Any, ...] | None = None

    def news(self, job: JobDocument) -> str | None:
        # While it runs, the reason has the step: that is the progress line's business.
        why = job.reason.code if job.status is Status.RUNNING else job.reason.message
        moment = (job.status, job.phase, job.attempt, job.queue_position, why, job.verified)
        if moment == self._last:
            return None
        self._last = moment
        return f"{datetime.now():%H:%M:%S}  {_headline(job)}"


class _Pace:
    """How long the rest will take, from the steps seen so far in this attempt."""

    def __init__(self) -> None:
        self._first: tuple[int, float, float] | None = None

    def eta_s(self, job: JobDocument) -> float | None:
        step, total = number(job.progress, "step"), number(job.progress, "total_steps")
        if step is None or total is None:
            return None
        now_s = monotonic()
        if self._first is None or self._first[0] != job.attempt or step < self._first[1]:
            self._first = (job.attempt, step, now_s)
        done = step - self._first[1]
        return (now_s - self._first[2]) / done * (total - step) if done > 0 else None


class _Lines:
    """For pipes and files: state changes, and the progress now and then."""

    def __init__(self, console: Console) -> None:
        self._console, self._moments, self._pace = console, _Moments(), _Pace()
        self._quiet_until_s = 0.0
        self._last: dict[str, Any] | None = None

    def show(self, job: JobDocument) -> None:
        if news := self._moments.news(job):
            self._print(news)
        line = _progress_line(job, self._pace.eta_s(job))
        is_new = bool(line) and job.progress != self._last
        if job.status is Status.RUNNING and is_new and monotonic() >= self._quiet_until_s:
            self._last = job.progress
            self._quiet_until_s = monotonic() + PLAIN_LINE_EVERY_S
            self._print(f"          {line}")

    def close(self) -> None:
        pass

    def _print(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


class _Bar:
    """For a terminal: state changes scroll by above one live line."""

    def __init__(self, console: Console) -> None:
        self._moments, self._pace = _Moments(), _Pace()
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=30),
            # The numbers stay on one line: where room is short, it is the bar that shrinks.
            TextColumn(
                "{task.fields[measures]}",
                markup=False,
                table_column=Column(no_wrap=True, overflow="ellipsis"),
            ),
            console=console,
            transient=True,
        )
        self._last = ""
        self._task = self._bar.add_task("", total=None, measures="")
        self._bar.start()

    def show(self, job: JobDocument) -> None:
        if news := self._moments.news(job):
            self._bar.console.print(news, markup=False, highlight=False, soft_wrap=True)
        step, total = number(job.progress, "step"), number(job.progress, "total_steps")
        self._last = " · ".join(measures(job.progress)) or self._last
        self._bar.update(
            self._task,
            description=job.phase or job.status.value,
            total=total,
            completed=step or 0,
            measures=_progress_line(job, self._pace.eta_s(job)),
        )

    def close(self) -> None:
        """The bar goes; the lines above it and the last numbers stay."""
        self._bar.stop()
        if self._last:
            self._bar.console.print(f"          {self._last}", markup=False, highlight=False, soft_wrap=True)


def _headline(job: JobDocument) -> str:
    where = {
        Status.QUEUED: f" (position {job.queue_position})" if job.queue_position else "",
        Status.RUNNING: f" ({job.phase or Phase.RESERVING}, attempt {job.attempt})",
    }.get(job.status, "")
    doubt = "" if job.verified else " (not verified: the registry does not answer)"
    return printable(f"{job.status}{where}{doubt}: {job.reason.message}")


def _progress_line(job: JobDocument, eta_s: float | None) -> str:
    is_moving = eta_s is not None and job.status is Status.RUNNING and job.phase is Phase.TRAINING
    return " · ".join([*measures(job.progress), *([f"ETA {exact_span(eta_s or 0)}"] if is_moving else [])])
