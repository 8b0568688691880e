"""Two schedulers for one cluster name, each with a journal of its own: a mistake that must not cost anybody a job."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.exceptions import RayTaskError

from scheduler.core.commands import JobAction
from scheduler.core.model import JobSpec
from scheduler.errors import JournalUnwritable, Superseded
from scheduler.server.actor import SchedulerActor
from scheduler.settings import Settings
from tests.conftest import Cluster, in_seconds, wait_until
from tests.stack.stack import Stack

pytestmark = pytest.mark.ray
NAME = "twins"
SPEC = JobSpec(loop="tests.loops:quick", priority=-1)


@pytest.fixture(scope="module")
def connected(cluster: Cluster) -> Iterator[None]:
    ray.init(address=cluster.info.ray_address, namespace=NAME, log_to_driver=False)
    yield
    ray.shutdown()


def a_scheduler(stack: Stack, folder: Path) -> Any:
    settings = Settings(
        cluster=NAME,
        state_dir=folder,
        storage_path=folder / "storage",
        allowed_loops=("tests.loops:*",),
        warm_runs=0,
        **in_seconds(stack),
    )
    actor = ray.remote(SchedulerActor).options(num_cpus=0, max_restarts=0).remote(settings, ())
    ray.get(actor.ready.remote())
    return actor


def submitted_and_cancelled(actor: Any) -> str:
    job_id = str(uuid.uuid4())
    ray.get(actor.call.remote("submit", (job_id, SPEC, None), {}))
    ray.get(actor.call.remote("act", (job_id, JobAction.CANCEL, "test"), {}))
    return job_id


@pytest.mark.usefixtures("connected")
def test_the_older_scheduler_changes_nothing_and_stops_with_a_clear_error(
    cluster_stack: Stack, tmp_path: Path
) -> None:
    """Otherwise both would write states, and the rows would show whichever came last."""
    older = a_scheduler(cluster_stack, tmp_path / "older")
    first = submitted_and_cancelled(older)
    wait_until(lambda: status(cluster_stack, first) == "cancelled", within_s=10, what="it is mirrored")
    newer = a_scheduler(cluster_stack, tmp_path / "newer")
    before = cluster_stack.sql("select * from training_jobs where cluster = %s order by id", NAME)
    late = late_write(older)
    error = wait_until(lambda: why_it_stopped(older), within_s=15, what="the older one has stopped")
    assert "belongs to incarnation" in error.message
    assert "SCHEDULER_CLUSTER" in error.message
    told = ray.get(older.call.remote("health", (), {}))
    assert (told.status, told.problems) == ("degraded", [error.message])

    after = cluster_stack.sql("select * from training_jobs where cluster = %s order by id", NAME)
    assert after == before, f"the older one wrote {late}"
    second = submitted_and_cancelled(newer)
    wait_until(lambda: status(cluster_stack, second) == "cancelled", within_s=10, what="the newer one writes")
    assert ray.get(newer.call.remote("health", (), {})).database.incarnation > 1
    for actor in (older, newer):
        ray.kill(actor)


def late_write(actor: Any) -> str:
    """What the older one still accepts, if it has not heard yet."""
    try:
        return submitted_and_cancelled(actor)
    except RayTaskError as error:
        assert isinstance(error.cause, Superseded | JournalUnwritable)  # as it stops, or just after
        return "nothing"


def why_it_stopped(actor: Any) -> Superseded | None:
    try:
        ray.get(actor.call.remote("loops", (), {}))
    except RayTaskError as error:
        return error.cause if isinstance(error.cause, Superseded) else None
    return None


def status(stack: Stack, job_id: str) -> str | None:
    rows = stack.sql("select status from training_jobs where id = %s", job_id)
    return rows[0]["status"] if rows else None
