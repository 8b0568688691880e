"""The command line: `scheduler --help`.  Over HTTP, but for `up`, `down` and `doctor`."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from scheduler.cli import (
    arrays,
    control,
    explain,
    listing,
    logs,
    look,
    metrics,
    nodes,
    policy,
    projects,
    queue,
    recurring,
    repairs,
    server,
    shadow,
    submit,
    top,
    usage,
    what_if,
)
from scheduler.cli.actions import command_of
from scheduler.cli.errors import EXIT_CODES
from scheduler.cli.options import Command, CommandOrGroup
from scheduler.core.commands import ACTIONS


@dataclass(frozen=True, slots=True)
class Group:
    """Commands of two words."""

    words: str
    """What the first one is about."""
    seconds: Mapping[str, Callable[..., None]]
    alone: Callable[..., None] | None = None
    """What the first one does without a second."""


COMMANDS: dict[str, dict[str, Callable[..., None]]] = {
    "Submit": {
        "submit": submit.submit,
        "plan": explain.plan,
        "every": recurring.every,
        "wait": submit.wait,
        "loops": look.loops,
    },
    "Look": {
        "list": listing.list_jobs,
        "status": look.status,
        "array": arrays.array,
        "explain": explain.explain,
        "what-if": what_if.what_if,
        "logs": logs.logs,
        "metrics": metrics.metrics,
        "events": look.events,
        "attempts": control.attempts,
        "checkpoints": control.checkpoints,
        "queue": queue.queue,
        "usage": usage.usage,
        "top": top.top,
        "open": look.open_page,
    },
    "Act on jobs": {action.value: command_of(action) for action in ACTIONS},
    "The scheduler itself": {
        "up": server.up,
        "down": server.down,
        "doctor": server.doctor,
        "health": look.health,
        "reconcile": repairs.reconcile,
        "repairs": repairs.repairs,
    },
}
"""Every command, under the heading that the help shows it below."""
GROUPS: dict[str, Group] = {
    "nodes": Group(
        "Which nodes lose runs; `set-aside` keeps new runs off one, `allow` lets it back.",
        {"set-aside": nodes.set_node_aside, "allow": nodes.allow_node},
        alone=nodes.nodes,
    ),
    "projects": Group(
        "What each project may have, and what it holds; `set` and `forget` change it.",
        {"set": projects.set_project, "forget": projects.forget_project},
        alone=projects.projects,
    ),
    "recurring": Group(
        "Jobs that `every` submits again and again; `pause`, `resume` and `forget` change that.",
        {
            "pause": recurring.pause_recurring_job,
            "resume": recurring.resume_recurring_job,
            "forget": recurring.forget_recurring_job,
        },
        alone=recurring.recurring,
    ),
    "policy": Group(
        "What another policy would have done, or would do.",
        {"try": policy.policy_try, "export": policy.policy_export, "shadow": shadow.policy_shadow},
    ),
}
"""By their first word."""
_WHOLE_SENTENCE = 300


class Headed(TyperGroup):
    """Its help lists the commands under their headings."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        width = max(len(name) for names in COMMANDS.values() for name in names)
        for heading, names in COMMANDS.items():
            rows = [
                (name.ljust(width), self.commands[name].get_short_help_str(_WHOLE_SENTENCE)) for name in names
            ]
            with formatter.section(heading):
                formatter.write_dl(rows)
        with formatter.section("Groups"):
            formatter.write_dl([(name.ljust(width), group.words) for name, group in GROUPS.items()])


app = typer.Typer(
    name="scheduler",
    cls=Headed,
    help="Submit training jobs, and see how they really stand.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
for _commands in COMMANDS.values():
    for _name, _function in _commands.items():
        app.command(_name, cls=Command, epilog=EXIT_CODES)(_function)
for _first, _group in GROUPS.items():
    _sub = typer.Typer(
        cls=CommandOrGroup,
        help=_group.words,
        epilog=EXIT_CODES,
        callback=_group.alone,
        invoke_without_command=_group.alone is not None,
        no_args_is_help=_group.alone is None,
        rich_markup_mode=None,
    )
    for _name, _function in _group.seconds.items():
        _sub.command(_name, cls=Command, epilog=EXIT_CODES)(_function)
    app.add_typer(_sub, name=_first)


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
