"""`scheduler status`, `events`, `loops`, `health` and `open`: how things stand."""

from __future__ import annotations

import os
import sys
import webbrowser
from typing import Annotated
from urllib.parse import urlencode

import typer

from scheduler.api.forecasts import Explanation
from scheduler.cli import completion
from scheduler.cli.follow import printable
from scheduler.cli.options import AsJson, JobId, Url, connect
from scheduler.cli.views import health_page, print_events, print_json, print_loops, print_page, show_job
from scheduler.client import Client
from scheduler.errors import SchedulerError


def status(job_id: JobId, url: Url = None, as_json: AsJson = False) -> None:
    """How a job stands, why, what proves it, and what to do next."""
    client = connect(url)
    job = client.status(job_id)
    show_job(job, as_json, None if as_json else _explained(client, job_id))


def events(job_id: JobId, url: Url = None, as_json: AsJson = False) -> None:
    """A job's history, oldest first: every move, who asked for it, and why."""
    page = connect(url).events(job_id)
    if as_json:
        print_json(page)
    else:
        print_events(page)


def loops(url: Url = None, as_json: AsJson = False) -> None:
    """The loops that can be run, and what their `config` takes."""
    found = connect(url).loops()
    if as_json:
        print_json(found)
    else:
        print_loops(found)


def health(url: Url = None, as_json: AsJson = False) -> None:
    """How the scheduler is; exit code 1 when it is not well, 4 when its registry does not answer."""
    found = connect(url).health()
    if as_json:
        print_json(found)
    else:
        print_page(health_page(found))
    if found.status != "healthy":
        raise typer.Exit(1 if found.registry else 4)


def open_page(
    job_id: Annotated[
        str | None,
        typer.Argument(
            metavar="[JOB]",
            help="Its id, the beginning of it, or its name.  Default: the list of all jobs.",
            show_default=False,
            autocompletion=completion.jobs(),
        ),
    ] = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Open the monitor page in the browser, of one job or of all; prints its address."""
    base = f"{connect(url).url}/training"
    page = f"{base}/monitor?{urlencode({'jobId': job_id})}" if job_id else base
    is_open = _has_browser() and webbrowser.open(page)
    if as_json:
        print_json({"url": page, "opened": is_open})
        return
    print(page)
    if not is_open:
        print("no browser was found here; open the address above in one", file=sys.stderr)


def _explained(client: Client, job_id: str) -> Explanation | None:
    try:
        return client.explain(job_id)
    except SchedulerError as error:
        print(f"note: not explained: {printable(error.message)}", file=sys.stderr)
        return None


def _has_browser() -> bool:
    """On Linux without a screen the browsers that are left would take over the terminal."""
    has_screen = any(os.environ.get(name) for name in ("BROWSER", "DISPLAY", "WAYLAND_DISPLAY"))
    return has_screen or not sys.platform.startswith("linux")
