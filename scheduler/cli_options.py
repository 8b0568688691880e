"""What the commands share: options, and errors in words with exit codes that scripts can use."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from scheduler.cli_views import exit_code, print_error
from scheduler.client import Client
from scheduler.errors import SchedulerError

JobId = Annotated[
    str, typer.Argument(metavar="JOB_ID", help="As `scheduler list` shows it.", show_default=False)
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

EPILOG = """\b
Exit codes:
  0    ok; for `wait` and `submit --wait`: the job completed
  1    the job, or the request, failed
  2    wrong usage, or the spec is not valid
  3    no such job
  4    no scheduler answers, or it is not ready
  5    the job's status does not allow it
  124  the wait timed out; the job goes on
  130  interrupted; the job goes on
"""


class Command(TyperCommand):
    """Turns what was refused into words on stderr and an exit code; a traceback stays for real bugs."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except SchedulerError as error:
            print_error(error, as_json=bool(ctx.params.get("as_json")))
            raise typer.Exit(exit_code(error)) from None
        except KeyboardInterrupt:
            raise typer.Exit(130) from None


def connect(url: str | None) -> Client:
    return Client(url)


@contextmanager
def watching(job_id: str) -> Iterator[None]:
    """Ctrl-C ends the watching, not the job; say so."""
    try:
        yield
    except KeyboardInterrupt:
        print(
            f"\njob {job_id} goes on; `scheduler status {job_id}`, `scheduler cancel {job_id}`",
            file=sys.stderr,
        )
        raise
