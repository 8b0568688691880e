"""`scheduler nodes`, `nodes set-aside` and `nodes allow`: which nodes lose runs, and where nothing new starts."""

from __future__ import annotations

from typing import Annotated

import typer

from scheduler.api.nodes import NodeDocument, NodeLossDocument
from scheduler.cli import completion
from scheduler.cli.follow import printable
from scheduler.cli.options import AsJson, Url, connect
from scheduler.cli.views import print_json
from scheduler.core.node_labels import ACCELERATOR_TYPE
from scheduler.errors import InvalidRequest

Node = Annotated[
    str,
    typer.Argument(
        metavar="NODE", help="Its name or id.", show_default=False, autocompletion=completion.nodes
    ),
]


def nodes(ctx: typer.Context, url: Url = None, as_json: AsJson = False) -> None:
    """Nodes: what each has, what was lost on it within the last hour, and whether it is set aside."""
    if ctx.invoked_subcommand:
        if url or as_json:
            raise InvalidRequest(f"--url and --json stand after `{ctx.invoked_subcommand}`; put them there")
        return
    found = connect(url).nodes()
    if as_json:
        print_json(found)
        return
    for node in found.nodes:
        _print(node)


def set_node_aside(
    node: Node,
    why: Annotated[str, typer.Option(help="For whoever looks at it later.", show_default=False)] = "",
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Nothing new starts on a node until it is let back; what runs there goes on."""
    _show(connect(url).set_node_aside(node, why), as_json)


def allow_node(node: Node, url: Url = None, as_json: AsJson = False) -> None:
    """Let a node back: jobs may start on it again."""
    _show(connect(url).allow_node(node), as_json)


def _show(node: NodeDocument, as_json: bool) -> None:
    if as_json:
        print_json(node)
    else:
        _print(node)


def _print(node: NodeDocument) -> None:
    kind = f" {node.labels[ACCELERATOR_TYPE]}" if ACCELERATOR_TYPE in node.labels else ""
    has = f"{node.cpus:g} CPUs, {node.gpus:g}{kind} GPUs" if node.node_id else "away"
    print(printable(f"{node.name}: {has}" + (", draining" if node.draining else "")))
    if aside := node.set_aside:
        print(printable(f"  set aside by {aside.by}, {aside.at:%Y-%m-%d %H:%M}: {aside.why}"))
    for loss in node.set_aside.losses if node.set_aside else node.lost:
        print(printable(f"  {_lost(loss)}"))


def _lost(loss: NodeLossDocument) -> str:
    return f"lost {loss.job} ({loss.job_id}), {loss.at:%Y-%m-%d %H:%M}: {loss.why}"
