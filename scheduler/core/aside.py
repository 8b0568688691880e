"""Whether a gang waits only because nodes are set aside, and what it is told then."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from scheduler.core import node_labels
from scheduler.core.bad_nodes import name_of
from scheduler.core.bin_packing import Free, Need, free_now, total
from scheduler.core.model import Allocation, Gang, Node, Reason, Snapshot

NAMED = 3


class Aside:
    """The nodes that are set aside, with what would be free on them."""

    def __init__(self, nodes: Iterable[Node], running: tuple[tuple[Gang, Allocation], ...]) -> None:
        self._nodes = tuple(
            replace(node, set_aside=False) for node in nodes if node.set_aside and not node.draining
        )
        self._free = free_now(Snapshot(nodes=self._nodes, running=running)) if self._nodes else {}

    def now(self, need: Need, beside: int, *, on_one: bool = False) -> Reason | None:
        """When it could start now on them, beside as many ranks as there is room for elsewhere."""
        return self._reason(need, beside, on_one, [(node, self._free[node.id]) for node in self._nodes])

    def ever(self, need: Need, beside: int) -> Reason | None:
        """When it could start on them once nothing else runs there."""
        return self._reason(need, beside, False, [(node, total(node)) for node in self._nodes])

    def _reason(self, need: Need, beside: int, on_one: bool, nodes: list[tuple[Node, Free]]) -> Reason | None:
        right = [(node, need.on(free)) for node, free in nodes if node_labels.matches(need.gang, node)]
        right = [(name_of(node), ranks) for node, ranks in right if ranks]
        fits = (
            max((ranks for _, ranks in right), default=0)
            if on_one
            else sum(ranks for _, ranks in right) + beside
        )
        if not right or fits < need.fewest:
            return None
        names = [name for name, _ in right]
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        are = "were not set aside; `scheduler nodes` says why, and `scheduler nodes allow` lets it back"
        which = f"node {names[0]}" if len(names) == 1 else f"nodes {', '.join(names[:NAMED])}{more}"
        return Reason(code="set_aside", message=f"needs {need.gang}; there would be room if {which} {are}")
