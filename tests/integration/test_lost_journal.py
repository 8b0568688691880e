"""The journal is lost, or an older backup takes its place, while jobs run, and there is no database to ask."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from scheduler.server import local_cluster
from tests.conftest import ROOT, Cluster, start_cluster, wait_until

pytestmark = pytest.mark.ray
SECRET = "hf-token-of-ann"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """As `scheduler up` starts it, without Supabase."""
    folder = Path(tempfile.mkdtemp(prefix="sched-"))
    os.chdir(ROOT)
    cluster = start_cluster(folder, "lost", num_cpus=2, liveness_every_s=2.0)
    yield cluster
    local_cluster.down(cluster.settings)
    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def scheduler_killed(cluster: Cluster) -> Iterator[None]:
    """SIGKILL; what is done inside happens before the next life reads anything.  Returns when that one serves."""
    pid = wait_until(lambda: cluster.registry().get("pid"), within_s=60, what="the registry answers")
    os.kill(pid, signal.SIGKILL)
    yield
    wait_until(
        lambda: cluster.registry().get("pid") not in (None, pid), within_s=90, what="the scheduler is back"
    )


def health(cluster: Cluster) -> dict[str, Any]:
    return httpx.get(f"{cluster.info.api_url}/health", timeout=30).json()


def journal_files(cluster: Cluster) -> list[Path]:
    return sorted(cluster.settings.state_dir.glob("journal.db*"))


def test_a_run_outlives_its_journal_and_completes(cluster: Cluster) -> None:
    """R1, P1: the same processes before and after; the job is found again from what its run keeps."""
    enough = cluster.settings.state_dir / "enough for the first"
    config = {"until": str(enough)}
    job_id = cluster.submit("until", config, name="precious", labels={"for": SECRET}, max_failures=2)
    before = cluster.wait_for_step(job_id, 3)
    pids = [*cluster.rank_pids(job_id), cluster.run_actor_pid(job_id)]
    started = cluster.folder(job_id).path / "started.json"
    assert SECRET in started.read_text()
    assert started.stat().st_mode & 0o077 == 0, "whatever a spec holds is for its owner alone"

    with scheduler_killed(cluster):
        for file in journal_files(cluster):
            file.unlink()

    seen = cluster.wait_for_step(job_id, before.progress["step"] + 1, within_s=60)
    assert (seen.status, seen.attempt, seen.name) == ("running", 1, "precious")
    assert (seen.spec.max_failures, seen.spec.labels) == (2, {"for": SECRET})
    assert [*cluster.rank_pids(job_id), cluster.run_actor_pid(job_id)] == pids
    assert all(psutil.pid_exists(pid) for pid in pids)
    told = health(cluster)
    assert told["status"] == "degraded"
    assert any("1 run was found that the journal did not know" in words for words in told["problems"])
    repairs = httpx.get(f"{cluster.info.api_url}/api/training/repairs", timeout=30).json()["repairs"]
    assert (repairs[0]["job_id"], repairs[0]["in_database"]) == (job_id, "in the journal: no such job")

    enough.touch()
    done = cluster.wait_for(job_id, "completed", "failed")
    assert (done.status, done.attempt) == ("completed", 1), done.reason
    assert not cluster.folder(job_id, 2).path.exists(), "no second run was started"
    wait_until(lambda: health(cluster)["status"] == "healthy", within_s=30, what="nothing is left to look at")


@pytest.mark.long
def test_an_older_backup_takes_nothing_back_from_a_live_run(cluster: Cluster) -> None:
    """The backup says that two jobs wait.  One runs since, one has completed: neither is ended, or done again."""
    enough = cluster.settings.state_dir / "enough for the second"
    never = {"until": "/never"}
    blocker = cluster.submit("until", never, resources={"num_ranks": 2}, name="blocker")
    cluster.wait_for_step(blocker, 1)
    done = cluster.submit("quick", {"steps": 1}, name="done")
    runs = cluster.submit("until", {"until": str(enough)}, name="runs")
    backup = Path(tempfile.mkdtemp(dir=cluster.settings.state_dir))
    with scheduler_killed(cluster):
        for file in journal_files(cluster):
            shutil.copy(file, backup)
    cluster.client.cancel(blocker)
    cluster.wait_for(done, "completed")
    before = cluster.wait_for_step(runs, 3)
    pids = cluster.rank_pids(runs)

    with scheduler_killed(cluster):
        for file in journal_files(cluster):
            file.unlink()
        for file in backup.iterdir():
            shutil.copy(file, cluster.settings.state_dir)

    seen = cluster.wait_for_step(runs, before.progress["step"] + 1, within_s=60)
    assert (seen.status, seen.attempt, cluster.rank_pids(runs)) == ("running", 1, pids)
    cluster.client.cancel(blocker)  # which the backup does not remember
    assert cluster.wait_for(done, "completed", "failed").attempt == 1
    assert not cluster.folder(done, 2).path.exists(), "what is done is not done again"
    enough.touch()
    end = cluster.wait_for(runs, "completed", "failed")
    assert (end.status, end.attempt) == ("completed", 1), end.reason


def test_a_start_that_failed_is_tried_again_and_says_what_it_waits_for(cluster: Cluster) -> None:
    """R8, L9: a journal that cannot be opened for a moment is no reason to answer 503 until somebody kills the actor."""
    journal = cluster.settings.state_dir / "journal.db"
    aside = journal.with_name("aside")
    pid = wait_until(lambda: cluster.registry().get("pid"), within_s=60, what="the registry answers")
    os.kill(pid, signal.SIGKILL)
    journal.rename(aside)
    journal.write_text("not a journal")

    def told() -> str:
        answer = httpx.get(f"{cluster.info.api_url}/health", timeout=30).json()
        return " ".join(answer.get("problems", []))

    wait_until(lambda: "its start failed" in told(), within_s=90, what="/health says why")
    assert "is damaged" in told()
    refused = httpx.get(f"{cluster.info.api_url}/api/training/jobs", timeout=30)
    assert refused.status_code == 503, refused.text
    assert "is tried again" in refused.json()["detail"]
    journal.unlink()
    aside.rename(journal)
    wait_until(lambda: cluster.registry().get("pid"), within_s=90, what="it serves by itself")
    assert health(cluster)["problems"] == []
