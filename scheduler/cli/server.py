"""`scheduler up`, `down` and `doctor`: the commands that need the server's packages on this machine."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from pydantic_settings import SettingsError
from rich.text import Text

from scheduler.cli.options import AsJson
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
Replace = Annotated[
    bool,
    typer.Option(
        "--replace",
        help="End the scheduler that is up, once its runs have saved, and start it with these settings.",
    ),
]
Pause = Annotated[
    bool | None,
    typer.Option(
        "--pause/--now",
        help="Let each run save first (the default), or end it at once.  Either way it goes on at the next `up`.",
        show_default=False,
    ),
]


def up(
    port: Port = None,
    host: Host = None,
    cluster: Cluster = None,
    replace: Replace = False,
    block: Block = False,
    as_json: AsJson = False,
) -> None:
    """Start Ray, the scheduler and its API on this machine; a second call finds them.  What lives is left alone."""
    settings = read_settings(port=port, host=host, cluster=cluster)
    with server_parts("up"):
        from scheduler.server.local_cluster import up as start
        from scheduler.server.local_cluster import wait_for_end
    info = start(settings, replace=replace, say=_print)
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
        wait_for_end(info)


def down(cluster: Cluster = None, pause: Pause = None, as_json: AsJson = False) -> None:
    """Stop what `up` started.  Jobs that wait stay on disk; each that runs saves first and is preempted, unless you
    give `--now`.  All go on at the next `up`, in their old places; no stop counts as a failure or a loss."""
    settings = read_settings(cluster=cluster)
    with server_parts("down"):
        from scheduler.server.local_shutdown import down as stop
    ask = pause is None and not as_json and sys.stdin.isatty()
    stopped = stop(settings, save=_wants_to_save if ask else pause is not False, say=_print)
    if as_json:
        print_json(
            {"was_up": stopped is not None, **(asdict(stopped) if stopped else {"running": 0, "unsaved": 0})}
        )
    elif stopped is None:
        print(f"nothing of cluster {settings.cluster!r} was up")
    else:
        print(_stopped(stopped.running, stopped.unsaved))


def _print(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


def _wants_to_save(running: int) -> bool:
    jobs = "1 job runs. Let it save" if running == 1 else f"{running} jobs run. Let each save"
    return typer.confirm(f"{jobs} first? (no: end at once)", default=True, err=True)


def _stopped(running: int | None, unsaved: int) -> str:
    if running is None:
        return "stopped; how many jobs were running is not known: the journal cannot be read"
    if not running:
        return "stopped"
    jobs = "1 running job" if running == 1 else f"{running} running jobs"
    saved = "all saved first" if not unsaved else f"{unsaved} of them without saving"
    return f"stopped, and {jobs} with it, {saved}; `scheduler up` lets each go on from there, and none counts as lost"


def doctor(port: Port = None, host: Host = None, cluster: Cluster = None, as_json: AsJson = False) -> None:
    """Check everything a scheduler needs on this machine; what is missing is named with its remedy."""
    settings = read_settings(port=port, host=host, cluster=cluster)
    with server_parts("doctor"):
        from scheduler.server import preflight
    found = preflight.run(settings, ours_is_up=_ours_is_up(settings))
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
        raise InvalidRequest(
            "the settings are not valid; correct them in the environment", problems
        ) from None
    except SettingsError as error:  # a value that is to be JSON, and is none
        words = f"the settings cannot be read: {error}; SCHEDULER_NODE_TYPES and its like take JSON"
        raise InvalidRequest(words) from None


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
        from scheduler.server.api_probe import api_url, probe
        from scheduler.server.local_cluster import read_info

        info = read_info(settings)
        url = api_url(settings.host, settings.port)
        return (
            info is not None
            and info.api_url == url
            and probe(url, settings).health.get("cluster") == settings.cluster
        )
    return False


def _problem(error: Any) -> Problem:
    name = f"SCHEDULER_{str(error['loc'][0]).upper()}" if error["loc"] else "settings"
    return Problem(name, error["msg"].removeprefix("Value error, "))
