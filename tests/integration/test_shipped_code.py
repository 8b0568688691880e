"""A train function that no module holds, sent along with its job and run by Ray Train."""

from __future__ import annotations

from typing import Any

import pytest

from scheduler.errors import JobFailed
from tests.conftest import Cluster

pytestmark = pytest.mark.ray


def test_a_closure_runs_on_every_rank_with_what_it_captured(cluster: Cluster) -> None:
    """D5: a function of a notebook is one that no process of the cluster could import."""
    factor = 7

    def train(config: dict[str, Any]) -> dict[str, Any]:
        import ray.train

        context = ray.train.get_context()
        print(f"rank {context.get_world_rank()} of {context.get_world_size()}")
        return {"product": factor * config["by"], "ranks": context.get_world_size()}

    job = cluster.client.submit(train, config={"by": 6}, resources={"num_ranks": 2})
    assert job.last is not None
    assert (job.last.name, job.last.spec.loop) == ("train", "shipped:train")
    assert job.result(240).metrics == {"product": 42, "ranks": 2}
    assert "rank 1 of 2" in "".join(job.logs(rank=1))


@pytest.mark.long
def test_what_a_sent_function_raises_comes_back_with_its_traceback(cluster: Cluster) -> None:
    """D5: the line that failed is on another machine, and must be seen here."""

    def train(config: dict[str, Any]) -> None:
        raise LookupError("no such dataset: qa-7")

    with pytest.raises(JobFailed, match="no such dataset: qa-7") as caught:
        cluster.client.submit(train).result(240)
    assert 'raise LookupError("no such dataset: qa-7")' in (caught.value.remote_traceback or "")
    assert "remote traceback" in "".join(caught.value.__notes__)
