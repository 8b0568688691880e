"""`scheduler up`, `down` and `doctor`: the commands that need the server's packages on this machine."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from rich.text import Text

from scheduler.cli.options import AsJson, connect
from scheduler.cli.views import print_json, print_page
from scheduler.errors import InvalidRequest, NotReady, Problem, SchedulerError
from scheduler.settings import Settings

Cluster = Annotated[str | None, typer.Option(help="Name of this scheduler; two on one machine need two.")]
Port = Annotated[
    int | None, typer.Option(min=1, max=65535, help="Of the API.  Default: SCHEDULER_PORT, or 8000.")
]
Host = Annotated[
    str | None, typer.Option(help="Address to listen on; beyond loopback SCHEDULER_TOKEN must be set.")
]
Block = Annotated[bool, typer.Option("--block", help="Stay in the foreground until the scheduler ends.")]


def up(
    port: Port = None,
    host: Host = None,
    cluster: Cluster = None,
    block: Block = False,
    as_json: AsJson = False,
) -> None:
    """Start Ray, the scheduler and its API on this machine; a second call finds them."""
    settings = read_settings(port=port, host=host, cluster=cluster)
    with server_parts("up"):
        from scheduler.up import up as start
    if not as_json:
        print(f"starting the scheduler on {settings.host}:{settings.port} ...", file=sys.stderr)
    info = start(settings, block=False)
    if as_json:
        print_json(info)
    else:
        print_page(
            [
                ("API", info.api_url),
                ("monitor", info.monitor_url),
                ("Ray", info.dashboard_url),
                ("metrics", info.metrics_url),
                ("state", str(info.state_dir)),
                ("next", "`scheduler submit FILE` submits a job; `scheduler down` stops everything"),
            ]
        )
    sys.stdout.flush()
    if block:
        start(settings, block=True)


def down(cluster: Cluster = None, as_json: AsJson = False) -> None:
    """Stop what `up` started.  Queued jobs stay on disk and are there again after the next `up`.  Running ones are ended
    without saving, and go on then from their last checkpoints: pause them first to lose nothing."""
    settings = read_settings(cluster=cluster)
    with server_parts("down"):
        from scheduler.up import down as stop
        from scheduler.up import read_info
    info = read_info(settings)
    ended = _running(info.api_url) if info else 0
    was_up = stop(settings)
    if as_json:
        print_json({"was_up": was_up, "ended_runs": ended})
    else:
        print(_stopped(ended) if was_up else f"nothing of cluster {settings.cluster!r} was up")


def _running(url: str) -> int | None:
    """Jobs that run; None when the scheduler does not tell."""
    with suppress(SchedulerError):
        return (connect(url).health().registry.get("jobs") or {}).get("running", 0)
    return None


def _stopped(ended: int | None) -> str:
    if not ended:
        return "stopped" if ended == 0 else "stopped; how many jobs were running is not known"
    jobs = "1 running job was" if ended == 1 else f"{ended} running jobs were"
    return f"stopped; {jobs} ended without saving, and count as lost: `scheduler up` lets them go on from what was saved"


def doctor(port: Port = None, host: Host = None, cluster: Cluster = None, as_json: AsJson = False) -> None:
    """Check everything a scheduler needs on this machine; what is missing is named with its remedy."""
    settings = read_settings(port=port, host=host, cluster=cluster)
    with server_parts("doctor"):
        from scheduler import checks
    found = checks.run(settings, ours_is_up=_ours_is_up(settings))
    if as_json:
        print_json({"ok": all(check.ok for check in found), "checks": found})
    else:
        for check in found:
            mark = ("ok", Text(check.name)) if check.ok else ("MISSING", Text(check.name, style="bold red"))
            remedy = "" if check.ok else f"\n          -> {check.remedy}"
            print_page([(mark[0], mark[1] + Text(f": {check.detail}{remedy}", style="default"))])
    if not all(check.ok for check in found):
        raise typer.Exit(1)


def read_settings(**given: Any) -> Settings:
    """The settings of the environment, with what the command line gave over them."""
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        problems = tuple(map(_problem, error.errors(include_url=False)))
        raise InvalidRequest("the settings are not valid; mend them in the environment", problems) from None


@contextmanager
def server_parts(command: str) -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise NotReady(
            f"`scheduler {command}` needs the server's packages ({error}); "
            "install them: pip install 'training-scheduler[server]'"
        ) from None


def _ours_is_up(settings: Settings) -> bool:
    with suppress(ImportError, SchedulerError):
        from scheduler.up import read_info

        if info := read_info(settings):
            return connect(info.api_url).health().cluster == settings.cluster
    return False


def _problem(error: Any) -> Problem:
    name = f"SCHEDULER_{str(error['loc'][0]).upper()}" if error["loc"] else "settings"
    return Problem(name, error["msg"].removeprefix("Value error, "))
