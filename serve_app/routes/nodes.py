"""Nodes: what was lost on them, and which are set aside."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query

from scheduler.api.nodes import NodeDocument, NodeList
from serve_app import openapi, request_body
from serve_app.parameters import Asker
from serve_app.routes.parts import BASE, Scheduler

router = APIRouter()

Node = Annotated[
    str,
    Path(min_length=1, max_length=300, description="The id or the name of the node.", examples=["10.0.0.7"]),
]
Why = Annotated[str, Query(max_length=500, description="For whoever looks at it later.")]
_ONE = openapi.answer(openapi.NODE_EXAMPLE)


@router.get(
    f"{BASE}/nodes",
    tags=["nodes"],
    summary="Nodes: their labels, what was lost on them, and which are set aside",
    responses={200: openapi.answer(openapi.NODES_EXAMPLE), **openapi.refusals()},
)
async def nodes(scheduler: Scheduler) -> NodeList:
    """Live nodes, and those that are set aside, by name."""
    return await scheduler.nodes()


@router.post(
    f"{BASE}/nodes/{{node}}/set-aside",
    tags=["nodes"],
    summary="Set a node aside: nothing new starts on it",
    responses={200: _ONE, **openapi.refusals(404, 422)},
)
async def set_node_aside(scheduler: Scheduler, node: Node, asker: Asker, why: Why = "") -> NodeDocument:
    """What runs there goes on.  Fine for one that is set aside already.  Answers when it is on disk."""
    request_body.require_storable(node, "node")
    request_body.require_storable(why, "why")
    return await scheduler.set_node_aside(node, why, asker or "api")


@router.post(
    f"{BASE}/nodes/{{node}}/allow",
    tags=["nodes"],
    summary="Let a node back: jobs may start on it again",
    responses={200: _ONE, **openapi.refusals(404, 422)},
)
async def allow_node(scheduler: Scheduler, node: Node, asker: Asker) -> NodeDocument:
    """What was lost on it counts no more.  Fine for one that is not set aside.  Answers when it is on disk."""
    request_body.require_storable(node, "node")
    return await scheduler.allow_node(node, asker or "api")
