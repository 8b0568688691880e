"""Kinds of nodes, nodes that are set aside, and a job that keeps off one: on a real Ray with nodes of its own (S6)."""

from __future__ import annotations

import os
import signal

import pytest

from tests.conftest import Cluster, wait_until
from tests.nodes import cluster_with_nodes

pytestmark = [pytest.mark.ray, pytest.mark.long, pytest.mark.timeout(600)]

LOOP = "tests.loops:until"
WITHIN_S = 150.0


def where(cluster: Cluster, job_id: str, attempt: int) -> str | None:
    """The node of that run, once it is there."""
    runs = [one for one in cluster.client.get(job_id).attempts().attempts if one.attempt == attempt]
    return runs[0].nodes[0] if runs and runs[0].nodes else None


def test_runs_go_where_they_may_and_nowhere_else(tmp_path_factory: pytest.TempPathFactory) -> None:
    """S6: Ray's own labels decide; what a person sets aside gets nothing; what was lost goes on elsewhere."""
    enough = tmp_path_factory.mktemp("kinds") / "enough"
    loops = {"allowed_loops": ("tests.loops:*",)}
    with cluster_with_nodes("kinds", (1,), **loops) as (cluster, nodes):
        plain, zoned = nodes.here[0], nodes.add(1, {"zone": "b"})
        wait_until(
            lambda: (
                {node.node_id: node.labels.get("zone") for node in cluster.client.nodes().nodes}.get(zoned.id)
                == "b"
            ),
            within_s=WITHIN_S,
            what="the scheduler sees the label",
        )

        def submit(**resources: object) -> str:
            return cluster.client.submit(loop=LOOP, config={"until": str(enough)}, resources=resources).id

        def started(job_id: str, attempt: int = 1) -> str:
            found = wait_until(
                lambda: where(cluster, job_id, attempt), within_s=WITHIN_S, what=f"run {attempt}"
            )
            assert found
            return found

        first, second = submit(on={"zone": "b"}), submit(on={"zone": "b"})
        assert started(first) == zoned.id
        assert cluster.status(second).status == "queued", "the other node is free, and of another kind"
        cluster.client.get(second).cancel()
        cluster.client.set_node_aside(plain.name, "a fan is loud")
        third = submit()
        wait_until(
            lambda: cluster.status(third).reason.code == "set_aside",
            within_s=WITHIN_S,
            what="it waits for the node that is set aside",
        )
        cluster.client.allow_node(plain.id)
        assert started(third) == plain.id
        cluster.client.get(first).cancel()
        wait_until(
            lambda: cluster.status(first).status == "cancelled", within_s=WITHIN_S, what="room elsewhere"
        )
        wait_until(
            lambda: cluster.status(third).phase == "training", within_s=WITHIN_S, what="its first steps"
        )
        pid = cluster.run_actor_pid(third)
        os.kill(pid, signal.SIGKILL)
        assert started(third, 2) == zoned.id
        enough.touch()
        wait_until(lambda: cluster.status(third).status == "completed", within_s=WITHIN_S, what="its end")
