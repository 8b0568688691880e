"""The command line: `scheduler --help`.  Over HTTP, but for `up`, `down` and `doctor`."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from typing import Annotated, Any, Literal

import typer
from rich.console import Console

from scheduler import cli_control, cli_list, cli_repairs, cli_server
from scheduler.cli_options import EPILOG, AsJson, Command, JobId, Timeout, Url, connect, watching
from scheduler.cli_views import (
    health_page,
    log_document,
    print_events,
    print_json,
    print_log,
    print_loops,
    print_page,
    show_job,
)
from scheduler.connection import Where
from scheduler.core.model import Status
from scheduler.errors import InvalidRequest, InvalidSpec, WaitTimedOut
from scheduler.follow import follow as follow_job
from scheduler.handles import JobHandle
from scheduler.spec_file import SpecFile, parse_value, read_spec_file

app = typer.Typer(
    name="scheduler",
    help="Submit training jobs, and see how they really stand.",
    epilog=EPILOG,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
Follow = Annotated[bool, typer.Option("--follow", "-f", help="Show its progress until it has ended.")]


def command(name: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    return app.command(name, cls=Command, epilog="Exit codes: see `scheduler --help`.")


command("up")(cli_server.up)
command("down")(cli_server.down)
command("doctor")(cli_server.doctor)
command("list")(cli_list.list_jobs)
command("pause")(cli_control.pause)
command("resume")(cli_control.resume)
command("restart")(cli_control.restart)
command("preempt")(cli_control.preempt)
command("attempts")(cli_control.attempts)
command("checkpoints")(cli_control.checkpoints)
command("reconcile")(cli_repairs.reconcile)
command("repairs")(cli_repairs.repairs)


@command("submit")
def submit(
    file: Annotated[
        str | None, typer.Argument(metavar="FILE", help="A spec in YAML or JSON; `-` reads stdin.")
    ] = None,
    loop: Annotated[str | None, typer.Option(help="`sft`, `torch_ddp`, or `module:function`.")] = None,
    name: Annotated[str | None, typer.Option(help="For people; need not be unique.")] = None,
    values: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="A field, as resources.num_ranks=2; other keys go to config."
        ),
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Return when the job has ended; 0 only if it completed.")
    ] = False,
    follow: Follow = False,
    timeout_s: Timeout = None,
    key: Annotated[
        str | None,
        typer.Option("--idempotency-key", help="A submit repeated with the same key returns the first job."),
    ] = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Submit a job, from a file or from options; options win over the file."""
    source = _source(file, {"loop": loop, "name": name}, values or [])
    try:
        handle = connect(url).submit(source.spec(), idempotency_key=key)
    except InvalidSpec as error:
        raise source.placed(error) from None
    if wait or follow:
        if not as_json:
            print(f"job {handle.id} submitted", file=sys.stderr)
        _see_to_its_end(handle, follow, timeout_s, as_json)
    else:
        show_job(handle.last, as_json)


@command("wait")
def wait(
    job_id: JobId, follow: Follow = False, timeout_s: Timeout = None, url: Url = None, as_json: AsJson = False
) -> None:
    """Wait for a job's end; exit code 0 only if it completed."""
    _see_to_its_end(connect(url).get(job_id), follow, timeout_s, as_json)


@command("status")
def status(job_id: JobId, url: Url = None, as_json: AsJson = False) -> None:
    """How a job stands, why, what proves it, and what to do next."""
    show_job(connect(url).status(job_id), as_json)


@command("logs")
def logs(
    job_id: JobId,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the job has ended, retries included.")
    ] = False,
    rank: Annotated[str, typer.Option(metavar="N|all", help="Which process of the gang.")] = "0",
    attempt: Annotated[
        int | None, typer.Option(min=1, help="Which run of the job.  Default: the newest.")
    ] = None,
    tail_bytes: Annotated[int | None, typer.Option(min=1, help="Begin so many bytes before the end.")] = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """The log of one rank, or of all, each line with its rank then; what else happens is told on stderr."""
    where: Where = {"rank": _rank(rank), "attempt": attempt, "tail_bytes": tail_bytes}
    client = connect(url)
    events = client.log_events(job_id, **where) if follow else client.log_chunks(job_id, **where)
    with watching(job_id):
        if as_json:
            print_json(log_document(job_id, where["rank"], events))
        else:
            print_log(events, with_ranks=where["rank"] == "all")


@command("cancel")
def cancel(job_id: JobId, url: Url = None, as_json: AsJson = False) -> None:
    """Cancel a job; a running one is `cancelled` once its processes are gone."""
    show_job(connect(url).cancel(job_id), as_json)


@command("force-start")
def force_start(job_id: JobId, url: Url = None, as_json: AsJson = False) -> None:
    """Queue a job that is pending, queued, failed or cancelled, from the beginning."""
    answer = connect(url).force_start(job_id)
    if as_json:
        print_json(answer)
    else:
        print(f"{answer.message}; it was {answer.previous_status}")


@command("fail")
def fail(job_id: JobId, url: Url = None, as_json: AsJson = False) -> None:
    """Mark a job as failed that is pending or queued; it can be force-started later."""
    show_job(connect(url).mark_failed(job_id), as_json)


@command("events")
def events(job_id: JobId, url: Url = None, as_json: AsJson = False) -> None:
    """A job's history, oldest first: every move, who asked for it, and why."""
    page = connect(url).events(job_id)
    if as_json:
        print_json(page)
    else:
        print_events(page)


@command("loops")
def loops(url: Url = None, as_json: AsJson = False) -> None:
    """The loops that can be run, and what their `config` takes."""
    found = connect(url).loops()
    if as_json:
        print_json(found)
    else:
        print_loops(found)


@command("health")
def health(url: Url = None, as_json: AsJson = False) -> None:
    """How the scheduler is; exit code 1 when it is not well, 4 when its registry does not answer."""
    found = connect(url).health()
    if as_json:
        print_json(found)
    else:
        print_page(health_page(found))
    if found.status != "healthy":
        raise typer.Exit(1 if found.registry else 4)


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        from scheduler import __version__

        print(__version__)
        raise typer.Exit


def main() -> None:
    """The console script `scheduler`."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a name in Greek must not end a C-locale script
    app(prog_name="scheduler")


def _source(file: str | None, options: dict[str, str | None], values: list[str]) -> SpecFile:
    changes: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    for value in values:
        key, is_pair, text = value.partition("=")
        if not is_pair or not key:
            raise InvalidRequest(
                f"--set {value}: write it as KEY=VALUE, for example --set learning_rate=1e-4"
            )
        changes[key] = parse_value(text, f"--set {value}")
    if file is None and "loop" not in changes:
        raise InvalidRequest(
            "nothing to submit: give a FILE with a spec, or --loop; `scheduler loops` lists them"
        )
    return (read_spec_file(file) if file is not None else SpecFile("the command line")).with_values(changes)


def _rank(text: str) -> int | Literal["all"]:
    if text == "all":
        return "all"
    if not text.isdecimal():
        raise InvalidRequest(f"--rank {text}: give the number of a rank, or `all`")
    return int(text)


def _see_to_its_end(handle: JobHandle, follow: bool, timeout_s: float | None, as_json: bool) -> None:
    """Show the job when it has ended; 0 is for completed alone."""
    try:
        with watching(handle.id):
            if follow and not as_json:
                job = follow_job(handle, Console(stderr=True), timeout_s=timeout_s)
            else:
                job = handle.wait(timeout_s)
    except WaitTimedOut:
        show_job(handle.last, as_json)
        raise
    show_job(job, as_json)
    if job.status is not Status.COMPLETED:
        raise typer.Exit(1)


if __name__ == "__main__":
    main()
