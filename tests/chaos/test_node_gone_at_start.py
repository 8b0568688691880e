"""A node goes away between the plan and the first step: the gang cannot come up, and nobody waits a minute for it."""

from __future__ import annotations

import time
from typing import Any

import httpx
import pytest

from tests.conftest import Cluster, wait_until
from tests.nodes import Nodes, cluster_with_nodes

pytestmark = [pytest.mark.ray, pytest.mark.long, pytest.mark.timeout(600)]
NOTICED_WITHIN_S = 10.0
RAY_NOTICES_WITHIN_S = 30.0


def attempts(cluster: Cluster, job_id: str) -> list[dict[str, Any]]:
    url = f"{cluster.info.api_url}/api/training/{job_id}/attempts"
    return httpx.get(url, timeout=30).raise_for_status().json()["attempts"]


def test_a_run_whose_node_vanishes_before_its_ranks_are_up_is_lost_at_once() -> None:
    """R5: with the node as the cause, within seconds of Ray's noticing; and the job goes on elsewhere."""
    loops = {"allowed_loops": ("tests.loops:*",), "max_losses": 2}
    with cluster_with_nodes("gone", (1, 1, 1), **loops) as (cluster, nodes):
        job_id = cluster.submit("quick", {"steps": 2}, resources={"num_ranks": 2}, name="gang")
        run = wait_until(lambda: held(cluster, nodes, job_id), within_s=60, what="the gang has its nodes")
        doomed = nodes.of(run[1])
        assert cluster.folder(job_id).ranks() == (), "its ranks are up already: nothing is shown by this"
        nodes.kill(doomed)
        wait_until(
            lambda: not nodes.is_known(doomed),
            within_s=RAY_NOTICES_WITHIN_S,
            what="Ray knows that the node is gone",
        )
        noticed_s = time.monotonic()

        def ended() -> dict[str, Any] | None:
            first = attempts(cluster, job_id)[0]
            return first if first["ended_at"] else None

        first = wait_until(ended, within_s=60, what="the first attempt has ended")
        took_s = time.monotonic() - noticed_s
        assert first is not None
        assert (first["ending"], first["cause"]) == ("lost", "infrastructure"), first
        assert first["reason"]["code"] == "node_lost", first
        assert took_s < NOTICED_WITHIN_S, f"noticed after {took_s:.1f} s"
        done = cluster.wait_for(job_id, "completed", "failed")
        assert (done.status, done.attempt) == ("completed", 2), done.reason


def held(cluster: Cluster, nodes: Nodes, job_id: str) -> list[str] | None:
    """The ids of the nodes that hold the first run, in the order of its ranks; None before it has any."""
    found = cluster.client.health().nodes
    mine = [node.node_id for node in found if any(holder.job_id == job_id for holder in node.held_by)]
    if len(mine) < 2:
        return None
    job = cluster.folder(job_id).job()
    return [*job.allocation.node_of_each_rank] if job and job.allocation else None
