"""Nodes that are set aside: by themselves, when they lose runs, and by people; kept in the journal."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

from scheduler.api.nodes import NodeDocument, NodeList, NodeLossDocument, SetAsideDocument
from scheduler.core.bad_nodes import (
    ASIDE,
    BY_ITSELF,
    LOSSES,
    NodeLoss,
    SetAside,
    blamed,
    lately,
    name_of,
    suspects,
    to_set_aside,
)
from scheduler.core.events import Event, RunEnded
from scheduler.core.model import Job, Node
from scheduler.engine.cluster import Cluster
from scheduler.errors import JournalUnwritable, NodeNotFound
from scheduler.ports import Clock, Journal

log = logging.getLogger(__name__)

NOTE = "bad_nodes"
"""Under this name the journal keeps what was lost where, and what is set aside."""


class BadNodes:
    """Says which nodes are set aside; the cluster marks them."""

    def __init__(self, journal: Journal, cluster: Cluster, clock: Clock, share: float) -> None:
        self._journal, self._cluster, self._clock, self._share = journal, cluster, clock, share
        self._changing = asyncio.Lock()
        self._losses: tuple[NodeLoss, ...] = ()
        self._is_news = False
        """A loss is not written down yet."""
        self.aside: Mapping[str, SetAside] = {}
        """By the name of the node; replaced as a whole when one changes."""

    async def load(self) -> None:
        """Begin with what the journal has.  A note that cannot be read is as none: no node is set aside."""
        noted = await self._journal.noted(NOTE)
        try:
            if noted is not None:
                self._losses = LOSSES.validate_python(noted["losses"])
                self._apply(ASIDE.validate_python(noted["aside"]))
        except (KeyError, TypeError, ValueError) as error:
            log.error("which nodes were set aside cannot be read, and none is: %s", error)

    def committed(self, before: Job | None, after: Job, event: Event | None) -> None:
        """Called after each commit."""
        if before is None or not isinstance(event, RunEnded) or after.allocation is not None:
            return
        nodes = blamed(before, event.outcome)
        self._losses += tuple(
            NodeLoss(
                node=self._cluster.name_of(node),
                job_id=before.id,
                job=before.spec.name,
                at_s=event.at.timestamp(),
                why=event.outcome.reason.message,
            )
            for node in nodes
        )
        self._is_news |= bool(nodes)

    async def once(self) -> None:
        """Set aside what has lost too much.  Where that cannot be written down, it is tried again with the next pass."""
        if not self._losses:
            return
        async with self._changing:
            now_s = self._clock.now().timestamp()
            losses = lately(self._losses, now_s)
            more = to_set_aside(losses, self.aside, self._cluster.nodes, self._share, now_s)
            if not more and not self._is_news:
                return
            try:
                await self._write(losses, (*self.aside.values(), *more))
            except JournalUnwritable as error:
                log.error("no node is set aside: %s", error)
                return
            for one in more:
                log.warning("node %s is set aside: %s", one.node, one.why)

    def problems(self) -> list[str]:
        """In words: what the scheduler did by itself wants a person's eye.  Of an only node there is no choice to make."""
        now_s = self._clock.now().timestamp()
        here = {name_of(node) for node in self._cluster.nodes}
        aside = [
            f"node {one.node} is set aside: {one.why}; `scheduler nodes allow {one.node}` lets it back"
            for one in self.aside.values()
            if one.by == BY_ITSELF and one.node in here
        ]
        others = [
            f"node {name} lost runs of several jobs within an hour, and is not set aside: enough are, or it is the last"
            for name in suspects(self._losses, self.aside, now_s)
            if name in here and self._share and len(here) > 1
        ]
        return [*aside, *others]

    # As the API asks

    async def nodes(self) -> NodeList:
        """Live nodes, and those that are set aside, by name."""
        live = sorted(self._cluster.nodes, key=lambda node: (name_of(node), node.id))
        here = {name_of(node) for node in live}
        away = [self._away(name) for name in sorted(self.aside) if name not in here]
        return NodeList(nodes=[*map(self.document, live), *away])

    async def set_node_aside(self, node: str, why: str, by: str) -> NodeDocument:
        """The node as it is then, once that is on disk.  One that is set aside already stays as it was."""
        return await asyncio.shield(asyncio.create_task(self._set(self._name(node), why, by)))

    async def allow_node(self, node: str, by: str) -> NodeDocument:
        """The node as it is then: what was lost on it counts no more.  Fine for one that is not set aside."""
        return await asyncio.shield(asyncio.create_task(self._allow(self._name(node), by)))

    def document(self, node: Node) -> NodeDocument:
        name, now_s = name_of(node), self._clock.now().timestamp()
        return NodeDocument(
            node_id=node.id,
            name=name,
            cpus=node.cpus,
            gpus=node.gpus,
            labels=dict(node.labels),
            draining=node.draining,
            set_aside=set_aside_document(self.aside.get(name)),
            lost=_documents(loss for loss in lately(self._losses, now_s) if loss.node == name),
        )

    async def _set(self, name: str, why: str, by: str) -> NodeDocument:
        async with self._changing:
            if name not in self.aside:
                now_s = self._clock.now().timestamp()
                against = tuple(loss for loss in lately(self._losses, now_s) if loss.node == name)
                one = SetAside(node=name, at_s=now_s, by=by, why=why or f"{by} asked for it", losses=against)
                await self._write(self._losses, (*self.aside.values(), one))
                log.info("node %s is set aside, as %s asked", name, by)
            return self._named(name)

    async def _allow(self, name: str, by: str) -> NodeDocument:
        async with self._changing:
            losses = tuple(loss for loss in self._losses if loss.node != name)
            if name in self.aside or losses != self._losses:
                await self._write(losses, [one for one in self.aside.values() if one.node != name])
                log.info("node %s is let back, as %s asked", name, by)
            return self._named(name)

    async def _write(self, losses: tuple[NodeLoss, ...], aside: Iterable[SetAside]) -> None:
        """Nothing is true before the journal has it.  What is lost meanwhile is not forgotten."""
        aside, before = tuple(aside), self._losses
        doc = {
            "losses": LOSSES.dump_python(losses, mode="json"),
            "aside": ASIDE.dump_python(aside, mode="json"),
        }
        await self._journal.note(NOTE, doc)
        self._losses = losses + self._losses[len(before) :]
        self._is_news = len(self._losses) > len(losses)
        self._apply(aside)

    def _apply(self, aside: Iterable[SetAside]) -> None:
        self.aside = {one.node: one for one in aside}
        self._cluster.set_aside(self.aside.keys())

    def _name(self, node: str) -> str:
        """Of the node with this id or name.  Raises NodeNotFound."""
        names = {name_of(one) for one in self._cluster.possible_nodes()}
        name = self._cluster.name_of(node)
        if name in names or name in self.aside:
            return name
        raise NodeNotFound.of(node)

    def _named(self, name: str) -> NodeDocument:
        here = next((node for node in self._cluster.nodes if name_of(node) == name), None)
        return self.document(here) if here else self._away(name)

    def _away(self, name: str) -> NodeDocument:
        known = [node for node in self._cluster.possible_nodes() if name_of(node) == name]
        seen = self.document(known[-1]).model_dump() if known else {"cpus": 0.0, "gpus": 0.0, "labels": {}}
        aside = set_aside_document(self.aside.get(name))
        values = {"name": name, "lost": []} | seen | {"node_id": "", "draining": False, "set_aside": aside}
        return NodeDocument.model_validate(values)


def set_aside_document(one: SetAside | None) -> SetAsideDocument | None:
    if one is None:
        return None
    return SetAsideDocument(at=_at(one.at_s), by=one.by, why=one.why, losses=_documents(one.losses))


def _documents(losses: Iterable[NodeLoss]) -> list[NodeLossDocument]:
    return [
        NodeLossDocument(job_id=loss.job_id, job=loss.job, at=_at(loss.at_s), why=loss.why) for loss in losses
    ]


def _at(at_s: float) -> datetime:
    return datetime.fromtimestamp(at_s, UTC)
