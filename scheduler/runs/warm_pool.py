"""Processes prepared before they are needed.  A hit starts a run in about a second; a miss costs a cold start."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter
from collections.abc import Iterable, Mapping

import ray

from scheduler.api.health import PoolHealth
from scheduler.core.model import Node, NodeId

log = logging.getLogger("scheduler.runs.warm_pool")

CHILDREN = 4
"""Ray Train's own processes of a run with one rank: controller, dataset manager, synchronizer, rank."""
KEEP_S = 7 * 24 * 3600


class WarmPool:
    """Keeps `size` runs' worth of prepared processes on each node that has room for another run.

    Ray has no public call for this: the request goes to each node's raylet (`PrestartWorkers`), and a process is
    taken only when its environment is equal, letter for letter, to the one asked for.  Everything that can go
    wrong here is logged and shown, and costs a cold start, nothing else.
    """

    def __init__(self, size: int, env_vars: Mapping[str, str]) -> None:
        self._size = size
        # The run's own actor carries the environment as Python writes it, what that actor starts as Ray's core does.
        environment = {"env_vars": dict(env_vars)}
        self._own = json.dumps(environment, sort_keys=True)
        self._children = json.dumps(environment, sort_keys=True, separators=(",", ":"))
        self._stock: Counter[NodeId] = Counter()
        self._hits = self._misses = 0
        self._note = ""

    def health(self) -> PoolHealth:
        return PoolHealth(
            size=self._size, ready=self._stock.total(), hits=self._hits, misses=self._misses, note=self._note
        )

    def took(self, node: NodeId, *, warm: bool) -> None:
        """A run started on *node*.  After a miss the stock is taken to be gone, so that it is made anew."""
        self._hits += warm
        self._misses += not warm
        self._stock[node] = max(0, self._stock[node] - 1) if warm else 0

    async def refill_once(self, nodes: Iterable[Node], busy: frozenset[NodeId]) -> None:
        """Prepare processes on nodes with a free core, but for the *busy* ones."""
        for node in nodes:
            has_room = (node.available_cpus or 0) >= 1
            if self._stock[node.id] < self._size and has_room and node.id not in busy:
                await self._prepare(node.id)

    async def _prepare(self, node: NodeId) -> None:
        try:
            await asyncio.to_thread(_prestart, node, self._own, 1)
            await asyncio.to_thread(_prestart, node, self._children, CHILDREN)
        except Exception as error:
            self._note = f"processes cannot be prepared: {type(error).__name__}: {error}"
            log.warning(self._note, exc_info=True)
            self._size = 0
        else:
            self._stock[node] += 1


def _prestart(node_id: str, env: str, count: int) -> None:
    from ray._private.grpc_utils import init_grpc_channel
    from ray.core.generated import (
        common_pb2,
        node_manager_pb2,
        node_manager_pb2_grpc,
        runtime_environment_pb2,
    )

    node = next(node for node in ray.nodes() if node["NodeID"] == node_id)
    info = runtime_environment_pb2.RuntimeEnvInfo(
        serialized_runtime_env=env,
        runtime_env_config=runtime_environment_pb2.RuntimeEnvConfig(setup_timeout_seconds=600),
    )
    request = node_manager_pb2.PrestartWorkersRequest(
        language=common_pb2.PYTHON,
        job_id=bytes.fromhex(ray.get_runtime_context().get_job_id()),
        runtime_env_info=info,
        keep_alive_duration_secs=KEEP_S,
        num_workers=count,
    )
    channel = init_grpc_channel(f"{node['NodeManagerAddress']}:{node['NodeManagerPort']}")
    try:
        node_manager_pb2_grpc.NodeManagerServiceStub(channel).PrestartWorkers(request, timeout=10)
    finally:
        channel.close()
