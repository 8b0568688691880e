"""What the commands share: options, and how a command is called."""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from scheduler.cli import completion
from scheduler.cli.errors import exit_code, print_error
from scheduler.cli.naming import job_id_of
from scheduler.client import Client
from scheduler.errors import SchedulerError

_WHICH = "Its id, the beginning of it, or its name."
JobId = Annotated[
    str,
    typer.Argument(metavar="JOB", help=_WHICH, show_default=False, autocompletion=completion.jobs()),
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on stdout, and nothing else there.")]
Url = Annotated[
    str | None,
    typer.Option("--url", help="Where the scheduler is.  Default: SCHEDULER_URL, or http://127.0.0.1:8000."),
]
Timeout = Annotated[
    float | None,
    typer.Option("--timeout", min=0, help="Seconds to wait at most; exit code 124 when they are over."),
]


class Command(TyperCommand):
    """Finds the jobs that are meant, and turns what was refused into words on stderr and an exit code.

    A traceback stays for real bugs.
    """

    def invoke(self, ctx: Any) -> Any:
        with _in_words(ctx):
            _name_jobs(ctx.params)
            return super().invoke(ctx)


class CommandOrGroup(TyperGroup):
    """A command that others may follow as a second word; refuses as `Command` does."""

    def invoke(self, ctx: Any) -> Any:
        with _in_words(ctx):
            return super().invoke(ctx)


def connect(url: str | None) -> Client:
    return Client(url)


@contextmanager
def watching(job_id: str) -> Generator[None]:
    """Ctrl-C ends the watching, not the job; the last line on stderr has that."""
    try:
        yield
    except KeyboardInterrupt:
        print(
            f"\njob {job_id} goes on; `scheduler status {job_id}`, `scheduler cancel {job_id}`",
            file=sys.stderr,
        )
        raise


@contextmanager
def _in_words(ctx: Any) -> Generator[None]:
    try:
        yield
    except SchedulerError as error:
        print_error(error, as_json=bool(ctx.params.get("as_json")))
        raise typer.Exit(exit_code(error)) from None
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def _name_jobs(params: dict[str, Any]) -> None:
    """Every command gets whole ids, and none begins before all of its jobs are known."""
    named = {name: params[name] for name in ("job_id", "job_ids") if params.get(name) is not None}
    if named:
        client = connect(params["url"])
        for name, value in named.items():
            ids = [job_id_of(client, one) for one in ([value] if isinstance(value, str) else value)]
            params[name] = ids[0] if isinstance(value, str) else list(dict.fromkeys(ids))
