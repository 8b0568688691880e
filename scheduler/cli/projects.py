"""`scheduler projects`, `projects set` and `projects forget`: what each project may have, and what it holds."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from scheduler.api.projects import ProjectDocument, ProjectList, ShareChanges
from scheduler.cli import completion
from scheduler.cli.follow import printable
from scheduler.cli.options import AsJson, Url, connect
from scheduler.cli.views import console, print_json
from scheduler.errors import InvalidRequest, Problem

Name = Annotated[
    str,
    typer.Argument(
        metavar="NAME",
        help="As in the field `project` of its jobs.",
        show_default=False,
        autocompletion=completion.projects,
    ),
]
_NO_LIMIT = "none"
_UNNAMED = "(no project)"


def projects(ctx: typer.Context, url: Url = None, as_json: AsJson = False) -> None:
    """Projects: what each may have, what it holds, and how many of its jobs run and wait."""
    if ctx.invoked_subcommand:
        if url or as_json:
            raise InvalidRequest(f"--url and --json stand after `{ctx.invoked_subcommand}`; put them there")
        return
    found = connect(url).projects()
    if as_json:
        print_json(found)
        return
    _print(found)


def set_project(
    name: Name,
    weight: Annotated[
        float | None,
        typer.Option(help="How much it counts when what no quota guarantees is divided.", show_default=False),
    ] = None,
    quota: Annotated[
        float | None, typer.Option(help="GPUs that are guaranteed to it.", show_default=False)
    ] = None,
    limit: Annotated[
        str | None,
        typer.Option(metavar="GPUS|none", help="GPUs that it never exceeds.", show_default=False),
    ] = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Change what a project may have; what is not given stays as it is."""
    changes = _changes(weight, quota, limit)
    if not changes:
        raise InvalidRequest("nothing is to be changed; give --weight, --quota or --limit")
    _show(connect(url).set_project(name, **changes), as_json)


def forget_project(name: Name, url: Url = None, as_json: AsJson = False) -> None:
    """Give a project the default share again."""
    _show(connect(url).forget_project(name), as_json)


def _changes(weight: float | None, quota: float | None, limit: str | None) -> ShareChanges:
    changes = ShareChanges()
    if weight is not None:
        changes["weight"] = weight
    if quota is not None:
        changes["quota"] = quota
    if limit is not None:
        changes["limit"] = None if limit.strip().lower() == _NO_LIMIT else _number(limit)
    return changes


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        words = f"{printable(text[:60])!r} is no number of GPUs; give one, or `{_NO_LIMIT}`"
        raise InvalidRequest(f"--limit: {words}", (Problem("--limit", words),)) from None


def _show(project: ProjectDocument, as_json: bool) -> None:
    if as_json:
        print_json(project)
        return
    share = f"weight {project.weight:g}, quota {project.quota:g}, limit {_limit(project)}"
    print(printable(f"{project.name}: {share}; holds {project.held:g}"))


def _print(found: ProjectList) -> None:
    """A table on a terminal; elsewhere a line for each project, with tabs between columns, nothing shortened."""
    screen = console()
    if screen.is_terminal:
        screen.print(_table(found))
    else:
        for project in found.projects:
            print("\t".join(_row(project)))
    if not found.projects:
        print("no project was set, and no job that has not ended has one", file=sys.stderr)


def _table(found: ProjectList) -> Table:
    drawn = Table(box=None, pad_edge=False, header_style="bold")
    drawn.add_column("PROJECT", no_wrap=True, overflow="ellipsis")
    for title in ("WEIGHT", "QUOTA", "LIMIT", f"{found.unit}S HELD", "RUNNING", "QUEUED"):
        drawn.add_column(title, no_wrap=True, justify="right")
    for project in found.projects:
        drawn.add_row(*map(Text, _row(project)))
    return drawn


def _row(project: ProjectDocument) -> list[str]:
    return [
        printable(project.name) or _UNNAMED,
        f"{project.weight:g}",
        f"{project.quota:g}",
        _limit(project),
        f"{project.held:g}",
        f"{project.running}",
        f"{project.queued}",
    ]


def _limit(project: ProjectDocument) -> str:
    return _NO_LIMIT if project.limit is None else f"{project.limit:g}"
