"""The main job on a real Ray: submit, run, fail, retry, cancel."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import httpx
import pytest

from tests.conftest import Cluster, is_gone, wait_until

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def mixed_jobs(cluster: Cluster) -> Iterator[dict[str, str]]:
    """Several jobs submitted together, so that the tests below share their waiting."""
    ddp = {"steps": 20, "checkpoint_every_steps": 10}
    yield {
        "one_rank": cluster.submit("torch_ddp", ddp, name="one rank"),
        "two_ranks": cluster.submit("torch_ddp", ddp, name="two ranks", resources={"num_ranks": 2}),
        "crashing": cluster.submit("crash", {"at": 2}, name="crashing"),
        "crashing_once": cluster.submit(
            "crash_once", {"marker": str(cluster.settings.storage_path / "mark")}, max_failures=1
        ),
        "noisy": cluster.submit("noisy", {}),
    }


def test_a_job_completes_on_one_rank(cluster: Cluster, mixed_jobs: dict[str, str]) -> None:
    """D2, L5: otherwise nothing else matters."""
    job = cluster.wait_for(mixed_jobs["one_rank"], "completed", "failed")
    assert job.status == "completed", job.reason
    assert job.progress["step"] == 20
    assert list(job.result.metrics)
    assert [event.to_status for event in cluster.events(job.job_id)] == ["queued", "running", "completed"]
    assert all(is_gone(pid) for pid in cluster.rank_pids(job.job_id))


def test_a_job_completes_on_two_ranks(cluster: Cluster, mixed_jobs: dict[str, str]) -> None:
    job = cluster.wait_for(mixed_jobs["two_ranks"], "completed", "failed")
    assert job.status == "completed", job.reason
    assert len(cluster.folder(job.job_id).ranks()) == 2


def test_an_exception_in_the_loop_is_failed_soon_with_its_traceback(
    cluster: Cluster, mixed_jobs: dict[str, str]
) -> None:
    """R5: a dying run surfaces by itself; the user sees what his code raised."""
    job = cluster.wait_for(mixed_jobs["crashing"], "failed", "completed")
    assert job.status == "failed"
    assert "ValueError: boom at step 2" in job.reason.message
    assert "Traceback" in job.reason.detail
    assert "tests/loops.py" in job.reason.detail
    raised = cluster.folder(job.job_id).errors()[0]
    assert job.finished_at.timestamp() - raised["at"] < 5.0


def test_a_failure_within_the_budget_is_tried_again(cluster: Cluster, mixed_jobs: dict[str, str]) -> None:
    """R5, and the budget of the user's own failures."""
    job = cluster.wait_for(mixed_jobs["crashing_once"], "completed", "failed")
    assert (job.status, job.attempt) == ("completed", 2), job.reason
    kinds = [(event.kind, event.to_status) for event in cluster.events(job.job_id)]
    assert kinds[2] == ("RunEnded", "queued")


def test_the_log_keeps_what_python_and_c_printed(cluster: Cluster, mixed_jobs: dict[str, str]) -> None:
    job = cluster.wait_for(mixed_jobs["noisy"], "completed", "failed")
    text = "".join(cluster.client.logs(job.job_id))
    printed = cluster.folder(job.job_id).log_file(0).read_text()
    assert text == printed
    for word in ("print to stdout", "print to stderr", "descriptor 1", "descriptor 2", "child of"):
        assert word in text


def test_the_ray_dashboard_shows_the_run_by_name(cluster: Cluster, mixed_jobs: dict[str, str]) -> None:
    """D5: whoever looks there finds the job."""
    job = cluster.wait_for(mixed_jobs["one_rank"], "completed")
    runs = httpx.get(f"{cluster.info.dashboard_url}/api/train/v2/runs/v1", timeout=30).json()
    named = [run for run in runs["train_runs"] if run["name"] == f"train-{job.job_id[:8]}-1"]
    assert [run["status"] for run in named] == ["FINISHED"]


def test_the_client_needs_no_ray(cluster: Cluster) -> None:
    """D5: from a machine where Ray cannot even be imported."""
    script = (
        "import sys; sys.modules['ray'] = None; sys.modules['torch'] = None\n"
        "import scheduler\n"
        "job = scheduler.submit(loop='tests.loops:quick', config={'steps': 1})\n"
        "print(job.wait(timeout_s=90).status, job.result().metrics['steps'])"
    )
    environment = os.environ | {"SCHEDULER_URL": cluster.info.api_url}
    ran = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=120
    )
    assert ran.stdout.split() == ["completed", "1"], ran.stderr


def test_cancel_ends_every_process_of_the_run(cluster: Cluster) -> None:
    """L7: `cancelled` is shown only when the processes are gone."""
    job_id = cluster.submit("ignores_stop", {}, resources={"num_ranks": 2})
    cluster.wait_for_step(job_id, 1)
    pids = [*cluster.rank_pids(job_id), cluster.run_actor_pid(job_id)]
    assert len(pids) == 3
    cluster.client.cancel(job_id)
    job = cluster.wait_for(job_id, "cancelled", within_s=20)
    assert [pid for pid in pids if not is_gone(pid)] == []
    assert job.reason.code == "cancelled"
    assert cluster.client.cancel(job_id).status == "cancelled", "a second cancel is no error"


def test_a_queued_job_says_why_it_waits_and_force_start_keeps_its_place(cluster: Cluster) -> None:
    """L2, L3, L5: first in, first out, and whoever waits has a reason with numbers."""
    holder = cluster.submit("quick", {"steps": 200, "step_time_s": 0.1}, resources={"num_ranks": 4})
    cluster.wait_for(holder, "running")
    first = cluster.submit("quick", {"steps": 1}, resources={"num_ranks": 4}, name="first")
    second = cluster.submit("quick", {"steps": 1}, resources={"num_ranks": 4}, name="second")
    waiting = wait_until(
        lambda: job if (job := cluster.status(first)).reason.code == "waiting_for_resources" else None,
        within_s=10,
        what="the first job says that it waits for resources",
    )
    assert waiting.queue_position == 1
    assert "4 ranks" in waiting.reason.message
    answer = cluster.client.force_start(second)
    assert (answer.previous_status, answer.new_status, answer.queue_position) == ("queued", "queued", 2)
    assert answer.message == "Job queued successfully (position 2)"
    for job_id in (first, second, holder):
        cluster.client.cancel(job_id)
    cluster.wait_for(holder, "cancelled", within_s=20)


def test_a_killed_rank_is_retried_from_its_checkpoint_and_then_fails_with_what_was_seen(
    cluster: Cluster,
) -> None:
    """R5: lost, requeued, resumed; when the budget is spent, failed in words."""
    job_id = cluster.submit("quick", {"steps": 400, "step_time_s": 0.1, "checkpoint_every_steps": 5})
    cluster.wait_for_step(job_id, 7)
    os.kill(cluster.rank_pids(job_id)[0], signal.SIGKILL)
    cluster.wait_for(job_id, "queued", "running")
    wait_until(lambda: cluster.status(job_id).attempt == 2, within_s=30, what="a second attempt")
    cluster.wait_for_step(job_id, 6, attempt=2)
    assert first_step(cluster, job_id, 2) > 5, "the second attempt goes on from a checkpoint"
    os.kill(cluster.rank_pids(job_id, 2)[0], signal.SIGKILL)
    killed_at = time.time()
    failed = cluster.wait_for(job_id, "failed", within_s=30)
    assert "rank 0 died" in failed.reason.message
    assert failed.finished_at.timestamp() - killed_at < 10


def first_step(cluster: Cluster, job_id: str, attempt: int) -> int:
    lines = cluster.folder(job_id, attempt).progress_file.read_text().splitlines()
    return next(row["step"] for row in map(json.loads, lines) if "step" in row)


def test_a_killed_run_actor_is_retried(cluster: Cluster) -> None:
    """R5: nothing of the old run is left when the new one starts."""
    job_id = cluster.submit("quick", {"steps": 60, "step_time_s": 0.1, "checkpoint_every_steps": 5})
    cluster.wait_for_step(job_id, 7)
    old = cluster.rank_pids(job_id)
    os.kill(cluster.run_actor_pid(job_id), signal.SIGKILL)
    wait_until(lambda: cluster.status(job_id).attempt == 2, within_s=30, what="a second attempt")
    assert all(is_gone(pid) for pid in old)
    job = cluster.wait_for(job_id, "completed", "failed")
    assert job.status == "completed", job.reason
    assert job.result.metrics["started_from"] >= 5
