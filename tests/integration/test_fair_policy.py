"""The policy `fair` on a real Ray, with real checkpoints: one project's long job gives way to another's short one."""

from __future__ import annotations

import pytest
import torch

from scheduler.core.reckoning import read
from scheduler.testing.reckonings import faults
from tests.conftest import Cluster

pytestmark = pytest.mark.ray

DDP = {"steps": 300, "checkpoint_every_steps": 20, "features": 4, "hidden": 8, "seed": 5}
WHOLE_NODE = {"num_ranks": 2, "cpus_per_rank": 2}


def weights(cluster: Cluster, job_id: str) -> dict[str, torch.Tensor]:
    return torch.load(f"{cluster.status(job_id).result.output_dir}/model.pt", weights_only=True)


def test_a_long_job_is_preempted_for_another_projects_and_ends_with_the_same_weights(
    cluster: Cluster,
) -> None:
    """S1, S3, N7: at a checkpoint, without a lost step; and its record is enough to make the choice again."""
    twin = cluster.submit("torch_ddp", DDP, name="twin", resources=WHOLE_NODE)
    cluster.wait_for(twin, "completed")
    slow = DDP | {"step_time_s": 0.05}
    long = cluster.submit("torch_ddp", slow, name="long", project="vision", resources=WHOLE_NODE)
    cluster.wait_for_step(long, 25)
    three = {
        "cpus_per_rank": 3
    }  # of four: more than half of the other gang is over the share of its project then
    short = cluster.submit("quick", {"steps": 1}, name="short", project="speech", resources=three)
    cluster.wait_for(short, "completed")
    first = cluster.client.attempts(long).attempts[0]
    assert (first.ending, first.cause, first.steps_lost) == ("stopped", "preemption", 0)
    assert first.reason.code == "preempted_for"
    assert first.reason.message.startswith(f"preempted for short ({short})")
    told = read(first.evidence["reckoning"])
    assert (told.newcomer, told.claim, told.chosen) == (short, "share", (long,))
    assert faults(told, long) == []
    assert "Keep" in [event.kind for event in cluster.client.events(short).events]
    done = cluster.wait_for(long, "completed")
    assert done.resumed.step == first.last_step
    both = weights(cluster, long), weights(cluster, twin)
    assert both[0].keys() == both[1].keys()
    assert all(torch.equal(both[0][name], both[1][name]) for name in both[0])
