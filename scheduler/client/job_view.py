"""How a job looks where it is the last value of a line: in a Python shell, and in a notebook."""

from __future__ import annotations

from datetime import datetime
from html import escape

from scheduler.api.jobs import JobDocument
from scheduler.client.blocking_transport import Transport
from scheduler.client.connection import Connection, Watch
from scheduler.core.finite import finite
from scheduler.core.model import Json
from scheduler.errors import SchedulerError

_COLOR = {"completed": "#1a7f37", "failed": "#cf222e", "running": "#0969da"}
_OTHER_COLOR = "#57606a"


class AsyncView:
    """Knows one job of one client, and shows what was last seen of it: looking anew would have to be awaited."""

    def __init__(self, transport: Connection, job_id: str, last: JobDocument | None = None) -> None:
        self._transport = transport
        self.id = job_id
        self.last = last
        """The newest document this handle has seen; `status()` fetches a newer one."""

    @property
    def url(self) -> str:
        """The page of this job in the web monitor."""
        return self._transport.page_of(self.id)

    def __repr__(self) -> str:
        seen = f", last seen {in_words(self.last)}" if self.last else ""
        return f"{type(self).__name__}({self.id!r}{seen})"

    def _repr_html_(self) -> str:
        return (
            as_html(self.last, self.url, "last seen") if self.last else f"<code>{escape(repr(self))}</code>"
        )

    def _seen(self, job: JobDocument) -> JobDocument:
        self.last = job
        return job

    def _seeing(self, watch: Watch) -> Watch:
        """Keeps `last` the newest even when the wait times out."""
        on_update = watch.get("on_update")

        def see(job: JobDocument) -> None:
            self._seen(job)
            if on_update:
                on_update(job)

        return {**watch, "on_update": see}


class View(AsyncView):
    """Looks anew whenever a notebook shows it."""

    _transport: Transport

    def _repr_html_(self) -> str:
        try:
            job = self._transport.run(self._transport.glance_flow(self.id))
            return as_html(self._seen(job), self.url, "seen")
        except SchedulerError as error:
            return f"{super()._repr_html_()}<p>Not seen now: {escape(error.message)}</p>"


def in_words(job: JobDocument) -> str:
    """`running 40/100, loss 1.23`: short enough for one line."""
    parts = [str(job.status) + (f" {steps}" if (steps := steps_in_words(job)) else "")]
    if (loss := number(job.progress, "loss")) is not None:
        parts.append(f"loss {loss:.4g}")
    if job.doubt:
        parts.append(job.doubt)
    return ", ".join(parts)


def steps_in_words(job: JobDocument) -> str:
    step, total = step_of(job)
    if step is None:
        return ""
    return f"{step:.15g}/{total:.15g}" if total else f"step {step:.15g}"


def step_of(job: JobDocument) -> tuple[float | None, float | None]:
    """The step it is at, and how many there are; None where the loop reported none."""
    return number(job.progress, "step"), number(job.progress, "total_steps")


def as_html(job: JobDocument, url: str, seen: str) -> str:
    """A small card.  Everything in it is escaped: names and reasons are other people's text."""
    status = str(job.status)
    rows = "".join(
        f"<tr><th style='text-align:left'>{name}</th><td style='text-align:left'>{escape(text)}</td></tr>"
        for name, text in _rows(job)
        if text
    )
    return (
        f"<div><strong>{escape(job.name)}</strong> "
        f"<span style='color:{_COLOR.get(status, _OTHER_COLOR)}'>{escape(status)}</span>{_bar(job)}"
        f"<table>{rows}</table>"
        f"<small><a href='{escape(url)}' target='_blank' rel='noopener'>{escape(job.job_id)}</a>, "
        f"{seen} at {datetime.now().astimezone():%H:%M:%S}</small></div>"
    )


def _rows(job: JobDocument) -> list[tuple[str, str]]:
    loss = number(job.progress, "loss")
    return [
        ("phase", job.phase or ""),
        ("position", str(job.queue_position or "")),
        ("progress", steps_in_words(job)),
        ("loss", "" if loss is None else f"{loss:.4g}"),
        ("reason", job.reason.message),
        ("doubt", job.doubt or ""),
        ("output", (job.result and job.result.output_dir) or ""),
    ]


def _bar(job: JobDocument) -> str:
    step, total = step_of(job)
    return f" <progress value='{step:g}' max='{total:g}'></progress>" if step is not None and total else ""


def number(progress: Json | None, name: str) -> float | None:
    """None where the loop reported nothing, or nothing that is a finite number."""
    return finite((progress or {}).get(name))
