"""Processes prepared before they are needed.  A hit starts a run in about a second; a miss costs a cold start."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from scheduler.api.health import PoolHealth
from scheduler.core.model import Node, NodeId
from scheduler.runs import ray_internals

log = logging.getLogger(__name__)

CHILDREN = 2
"""Ray Train's own processes of a run with one rank: synchronizer, rank."""
SET = 1 + CHILDREN
"""With the process of the run's own actor."""
KEEP_S = 7 * 24 * 3600
UP_WITHIN_S = 180.0
"""So long a node may take to start a set and to import everything."""
PAUSE_S, LATE_PAUSE_S, MAX_PAUSE_S = 2.0, 600.0, 6 * 3600.0
"""After a request that failed, and after one whose processes did not come up; each time in a row four times as long."""
CHECK_EVERY_S = 30.0
"""Processes that announced themselves may have died since: their nodes are asked."""
FORGOTTEN_AFTER_S = 30.0
"""When nobody has looked for so long, nothing is known of what is ready."""


class WarmPool:
    """Keeps `size` runs' worth of prepared processes on each node that has room for another run.

    Ray has no public call for this: the request goes to each node's raylet (`PrestartWorkers`), and a process is
    taken only when its environment is equal, letter for letter, to the one asked for.  What is ready is what the
    processes say themselves, when they have imported everything (warm_worker.py); a request proves nothing.
    Everything that can go wrong here is logged, shown and tried again, and costs a cold start, nothing else.
    """

    def __init__(
        self, size: int, env_vars: Mapping[str, str], now_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._size, self._now_s = size, now_s
        # The run's own actor carries the environment as Python writes it, what that actor starts as Ray's core does.
        environment = {"env_vars": dict(env_vars)}
        self._own = json.dumps(environment, sort_keys=True)
        self._children = json.dumps(environment, sort_keys=True, separators=(",", ":"))
        self._stocks: defaultdict[NodeId, _Stock] = defaultdict(_Stock)
        self._hits = self._misses = 0
        self._problem = ""
        self._looked_at_s: float | None = None
        self._checked_at_s = float("-inf")

    def health(self) -> PoolHealth:
        is_known = self._looked_at_s is not None and self._now_s() - self._looked_at_s <= FORGOTTEN_AFTER_S
        ready = sum(stock.num_ready for stock in self._stocks.values()) if is_known else 0
        return PoolHealth(
            size=self._size,
            ready=ready,
            hits=self._hits,
            misses=self._misses,
            note=self._note(is_known=is_known),
        )

    def took(self, node: NodeId, *, warm: bool) -> None:
        """A run started on *node*.  After a miss, what is there is taken to be of no use, so that it is made anew."""
        self._hits += warm
        self._misses += not warm
        if not warm:
            self._stocks[node].write_off()

    async def refill_once(self, nodes: Iterable[Node], busy: frozenset[NodeId]) -> None:
        """See what is ready, and prepare more on nodes with a free core, but for the *busy* ones."""
        if not self._size:
            return None
        nodes = tuple(nodes)
        try:
            ready = await asyncio.to_thread(self._look, [node.id for node in nodes])
        except Exception as error:  # noqa: BLE001  whatever Ray says, it costs a cold start and nothing else
            return self._note_problem("what is prepared cannot be seen", error)
        self._looked_at_s = now_s = self._now_s()
        if not any(stock.num_failures for stock in self._stocks.values()):
            self._problem = ""
        for gone in self._stocks.keys() - {node.id for node in nodes}:
            del self._stocks[gone]
        for node in nodes:
            stock = self._stocks[node.id]
            stock.see(ready[node.id], now_s)
            has_room = (node.available_cpus or 0) >= 1
            if has_room and node.id not in busy and stock.wants(self._size, now_s):
                await self._prepare(node.id, stock)
        return None

    def _look(self, nodes: list[NodeId]) -> dict[NodeId, frozenset[int]]:
        """The prepared processes of each node, by their pids."""
        found: dict[NodeId, set[int]] = {node: set() for node in nodes}
        is_due = self._now_s() - self._checked_at_s >= CHECK_EVERY_S
        for node, pid in ray_internals.prepared_processes():
            if node in found:
                found[NodeId(node)].add(pid)
            elif is_due:
                ray_internals.withdraw_prepared(node, pid)
        if is_due:
            self._checked_at_s = self._now_s()
            for node, pids in found.items():
                for dead in pids - ray_internals.pids_on(node) if pids else ():
                    ray_internals.withdraw_prepared(node, dead)
                    pids.discard(dead)
        return {node: frozenset(pids) for node, pids in found.items()}

    async def _prepare(self, node: NodeId, stock: _Stock) -> None:
        try:
            await asyncio.to_thread(ray_internals.prestart_processes, node, self._own, 1, KEEP_S)
            await asyncio.to_thread(ray_internals.prestart_processes, node, self._children, CHILDREN, KEEP_S)
        except Exception as error:  # noqa: BLE001  as above
            stock.request_failed(self._now_s())
            self._note_problem("processes cannot be prepared", error)
        else:
            stock.request_sent(self._now_s())
            self._problem = ""

    def _note_problem(self, what: str, error: Exception) -> None:
        problem = f"{what}: {type(error).__name__}: {error}"
        if problem != self._problem:
            log.warning("%s; it is tried again", problem, exc_info=error)
        self._problem = problem

    def _note(self, *, is_known: bool) -> str:
        if self._problem:
            return self._problem
        if self._looked_at_s is not None and not is_known:
            return "nothing is kept prepared: the process that `scheduler up` leaves behind is gone"
        if pending := sum(stock.is_pending for stock in self._stocks.values()):
            return f"{pending} more {'is' if pending == 1 else 'are'} being prepared"
        if any(stock.num_failures for stock in self._stocks.values()):
            return f"processes that were asked for did not come up within {UP_WITHIN_S:g} s; asked for again later"
        return ""


@dataclass(slots=True)
class _Stock:
    """Of one node.  One set is asked for at a time: a node starts only so many processes at once, and drops the rest."""

    pids: frozenset[int] = frozenset()
    useless: set[int] = field(default_factory=set)
    """Ready, and not taken when a run could have: their environment is not what was asked for."""
    arrived: set[int] = field(default_factory=set)
    """Since the last request."""
    asked_at_s: float | None = None
    num_failures: int = 0
    not_before_s: float = float("-inf")

    @property
    def num_ready(self) -> int:
        """Whole sets: a run that finds only some of its processes starts cold."""
        return len(self.pids - self.useless) // SET

    @property
    def is_pending(self) -> bool:
        return self.asked_at_s is not None

    def wants(self, size: int, now_s: float) -> bool:
        return self.num_ready < size and not self.is_pending and now_s >= self.not_before_s

    def see(self, pids: frozenset[int], now_s: float) -> None:
        self.arrived |= pids - self.pids
        self.pids = pids
        self.useless &= pids
        if self.asked_at_s is None:
            return
        if len(self.arrived) >= SET:
            self.asked_at_s, self.num_failures = None, 0
        elif now_s - self.asked_at_s > UP_WITHIN_S:
            self.asked_at_s = None
            self._pause(LATE_PAUSE_S, now_s)

    def request_sent(self, now_s: float) -> None:
        self.asked_at_s = now_s
        self.arrived.clear()

    def request_failed(self, now_s: float) -> None:
        self._pause(PAUSE_S, now_s)

    def write_off(self) -> None:
        self.useless |= self.pids
        self.num_failures, self.not_before_s = 0, float("-inf")

    def _pause(self, first_s: float, now_s: float) -> None:
        self.not_before_s = now_s + min(first_s * 4**self.num_failures, MAX_PAUSE_S)
        self.num_failures = min(self.num_failures + 1, 20)
