"""The nodes: which there are, which there were, and who holds what of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from scheduler.core.bad_nodes import name_of
from scheduler.core.model import Job, Node, NodeId, Snapshot
from scheduler.engine.registry import Registry
from scheduler.ports import Runner


class Cluster:
    """What the runner said of the nodes when it was last asked, beside what the registry says of the running jobs."""

    def __init__(self, runner: Runner, registry: Registry) -> None:
        self._runner, self._registry = runner, registry
        self._ever_seen: dict[NodeId, Node] = {}
        self._aside: frozenset[str] = frozenset()
        self.nodes: tuple[Node, ...] = ()

    async def look(self) -> None:
        self.nodes = self._marked(await self._runner.nodes())
        self._ever_seen |= {node.id: node for node in self.nodes}

    def set_aside(self, names: Iterable[str]) -> None:
        """From now on these and no others."""
        self._aside = frozenset(names)
        self.nodes = self._marked(self.nodes)

    def name_of(self, node_id: str) -> str:
        """Of a node that is or was here; of any other what was given."""
        seen = self._ever_seen.get(NodeId(node_id))
        return name_of(seen) if seen else node_id

    def possible_nodes(self) -> list[Node]:
        """A node that is away for now may come back: what it could hold is not refused, it waits."""
        return list(self._ever_seen.values())

    def _marked(self, nodes: tuple[Node, ...]) -> tuple[Node, ...]:
        return tuple(
            node
            if node.set_aside == (is_aside := name_of(node) in self._aside)
            else replace(node, set_aside=is_aside)
            for node in nodes
        )

    def snapshot(self, running: Iterable[Job] | None = None) -> Snapshot:
        """With what *running* jobs hold; without, all that do."""
        running = self._registry.running() if running is None else running
        held = tuple((job.spec.resources, job.allocation) for job in running if job.allocation)
        return Snapshot(nodes=self.nodes, running=held)
