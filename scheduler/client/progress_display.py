"""A bar for whoever waits: in a terminal, or below the cell of a notebook."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from scheduler.api.jobs import JobDocument
from scheduler.client.connection import Watch
from scheduler.client.job_view import as_html, in_words, step_of
from scheduler.core.visible import visible

Show = Callable[[JobDocument], None]


@contextmanager
def showing(progress: bool, watch: Watch, url_of: Callable[[str], str]) -> Generator[Watch]:
    """*watch* with a display that follows each update, if *progress*; it is closed at the end."""
    if not progress:
        yield watch
        return
    on_update = watch.get("on_update")
    with _in_notebook(url_of) if is_notebook() else _in_terminal() as show:

        def update(job: JobDocument) -> None:
            show(job)
            if on_update:
                on_update(job)

        yield {**watch, "on_update": update}


def is_notebook() -> bool:
    """Whether this process is the kernel of a notebook.  Imports nothing: a kernel has IPython loaded."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return hasattr(shell, "kernel")


@contextmanager
def _in_notebook(url_of: Callable[[str], str]) -> Generator[Show]:
    shell: Any = import_module("IPython.display")  # its types are not complete
    cell = shell.display(shell.HTML(""), display_id=True)
    yield lambda job: cell.update(shell.HTML(as_html(job, url_of(job.job_id), "seen")))


@contextmanager
def _in_terminal() -> Generator[Show]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    bar = Progress(
        TextColumn("{task.fields[name]}", markup=False),
        BarColumn(),
        TextColumn("{task.description}", markup=False),
        TimeElapsedColumn(),
        console=Console(stderr=True),
    )
    with bar:
        task = bar.add_task("", total=None, name="")

        def show(job: JobDocument) -> None:
            step, total = _extent(job)
            bar.update(
                task,
                description=_line(job),
                completed=step,
                total=total,
                name=visible(job.name),
                refresh=True,
            )

        yield show


def _line(job: JobDocument) -> str:
    return in_words(job) if job.status.is_terminal or job.phase else f"{in_words(job)}: {job.reason.message}"


def _extent(job: JobDocument) -> tuple[float, float | None]:
    """Without a known total the bar moves to and fro."""
    step, total = step_of(job)
    if job.status.is_terminal and not total:
        return 1, 1
    return step or 0, total
