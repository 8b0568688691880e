"""The scheduler dies in the middle of everything; nothing acknowledged is lost and nothing runs twice."""

from __future__ import annotations

import os
import signal
import uuid

import httpx
import pytest

from scheduler.client import Client
from tests.conftest import Cluster, is_gone, wait_until

pytestmark = pytest.mark.ray


def kill_scheduler(cluster: Cluster) -> int:
    """SIGKILL the actor's process; return the incarnation that died."""
    registry = cluster.registry()
    os.kill(registry["pid"], signal.SIGKILL)
    return registry["incarnation"]


def wait_for_restart(cluster: Cluster, old: int) -> None:
    wait_until(
        lambda: cluster.registry().get("incarnation", 0) > old, within_s=30, what="the scheduler is back"
    )


def test_a_killed_scheduler_finds_its_runs_and_its_queue_again(cluster: Cluster) -> None:
    """R1, R2: runs go on untouched, no second run starts, the line keeps its order."""
    config = {"steps": 120, "step_time_s": 0.1, "checkpoint_every_steps": 1000}
    running = cluster.submit("quick", config, resources={"num_ranks": 2, "cpus_per_rank": 2}, name="running")
    before = cluster.wait_for_step(running, 3)
    waiting = [
        cluster.submit("quick", {"steps": 1}, resources={"cpus_per_rank": 4}, name=f"waiting {i}")
        for i in range(3)
    ]
    pids = cluster.rank_pids(running)

    wait_for_restart(cluster, kill_scheduler(cluster))

    seen = cluster.wait_for_step(running, before.progress["step"] + 1, within_s=20)
    assert (seen.status, seen.attempt) == ("running", 1)
    assert cluster.rank_pids(running) == pids, "the same processes"
    assert [cluster.status(job_id).queue_position for job_id in waiting] == [1, 2, 3]

    done = cluster.wait_for(running, "completed", "failed")
    assert (done.status, done.attempt) == ("completed", 1), done.reason
    assert not cluster.folder(running, 2).path.exists(), "no second run was started"
    ends = [cluster.wait_for(job_id, "completed", "failed", within_s=120) for job_id in waiting]
    assert [job.status for job in ends] == ["completed"] * 3
    assert [job.started_at for job in ends] == sorted(job.started_at for job in ends)


def test_a_submit_during_the_restart_is_answered_and_made_once(cluster: Cluster) -> None:
    """L1: the caller repeats, the key makes it one job."""
    old = kill_scheduler(cluster)
    key = str(uuid.uuid4())
    patient = Client(url=cluster.info.api_url, timeout_s=60)
    first = patient.submit({"loop": "tests.loops:quick", "config": {"steps": 1}}, idempotency_key=key)
    second = patient.submit({"loop": "tests.loops:quick", "config": {"steps": 1}}, idempotency_key=key)
    assert first.id == second.id
    wait_for_restart(cluster, old)
    assert cluster.status(first.id).job_id == first.id
    cluster.client.cancel(first.id)


@pytest.mark.long
def test_a_cancel_that_was_written_down_survives_the_crash(cluster: Cluster) -> None:
    """An intention in the journal is taken up again by the next life."""
    job_id = cluster.submit("ignores_stop", {})
    cluster.wait_for_step(job_id, 1)
    pids = cluster.rank_pids(job_id)
    httpx.post(f"{cluster.info.api_url}/api/training/{job_id}/cancel", timeout=30).raise_for_status()
    wait_for_restart(cluster, kill_scheduler(cluster))
    job = cluster.wait_for(job_id, "cancelled", within_s=30)
    assert job.attempt == 1, "it was not tried again instead"
    assert [pid for pid in pids if not is_gone(pid)] == []
