"""The calls about nodes, as those of `calls`."""

from __future__ import annotations

from urllib.parse import quote

from scheduler.api.nodes import NodeDocument, NodeList
from scheduler.client.calls import API, Call
from scheduler.client.specs import is_sendable_text
from scheduler.errors import InvalidRequest, Problem

_PATH = f"{API}/nodes"


def nodes() -> Call[NodeList]:
    return Call(method="GET", path=_PATH, read=NodeList.model_validate_json)


def set_node_aside(node: str, why: str) -> Call[NodeDocument]:
    path = f"{_path(node)}/set-aside"
    params = {"why": _text(why, "why", least=0, most=500)} if why else {}
    return Call(method="POST", path=path, params=params, read=NodeDocument.model_validate_json)


def allow_node(node: str) -> Call[NodeDocument]:
    return Call(method="POST", path=f"{_path(node)}/allow", read=NodeDocument.model_validate_json)


def _path(node: str) -> str:
    return f"{_PATH}/{quote(_text(node, 'node', least=1, most=300), safe='').replace('.', '%2E')}"


def _text(text: str, field: str, *, least: int, most: int) -> str:
    if not least <= len(text) <= most or not is_sendable_text(text) or (field == "node" and "/" in text):
        words = f"must be text of {least} to {most} characters" + (", without `/`" if field == "node" else "")
        raise InvalidRequest(f"{field}: {words}", (Problem(field, words),))
    return text
