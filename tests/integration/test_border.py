"""B1, B2: whatever a loop returns, reports, prints or raises on a real Ray, its job ends truly and disturbs no other."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.conftest import Cluster, is_gone, wait_until

pytestmark = pytest.mark.ray
LOOPS: dict[str, dict[str, Any]] = {
    "unknown_label": {"resources": {"num_ranks": 2, "cpus_per_rank": 0.5}},
    "cannot_be_told": {},
    "long_error": {},
    "exits": {"config": {"code": 3}, "max_failures": 0},
    "returns_oddities": {},
    "says_nothing": {},
}


@pytest.fixture(scope="module")
def ended(cluster: Cluster) -> Iterator[dict[str, Any]]:
    """All of them at once, each seen to its end."""
    small = {"resources": {"cpus_per_rank": 0.5}}
    jobs = {
        name: cluster.submit(f"tests.odd_loops:{name}", name=name, **(small | fields))
        for name, fields in LOOPS.items()
    }
    yield {
        name: cluster.wait_for(job_id, "completed", "failed", "cancelled") for name, job_id in jobs.items()
    }


def test_an_error_that_cannot_be_printed_is_no_completed_job(cluster: Cluster, ended: dict[str, Any]) -> None:
    """It was `completed`, four times of four: its traceback was printed before it was recorded, and the rank died there."""
    job = ended["unknown_label"]
    assert (job.status, job.attempt) == ("failed", 1), job.reason
    assert "ValueError: unknown label \\ud83d" in job.reason.message
    assert "odd_loops.py" in job.reason.detail
    assert "unknown label \\ud83d" in "".join(cluster.client.logs(job.job_id)), "and the log has it too"


def test_an_error_that_no_other_process_can_make_again_is_told(ended: dict[str, Any]) -> None:
    job = ended["cannot_be_told"]
    assert (job.status, job.attempt, job.reason.code) == ("failed", 1, "loop_failed"), job.reason
    for words in ("tests.odd_loops.Closed", "its text cannot be had", "error 7"):
        assert words in job.reason.message


def test_a_long_error_is_cut(ended: dict[str, Any]) -> None:
    job = ended["long_error"]
    assert (job.status, job.attempt) == ("failed", 1)
    assert len(job.reason.message) + len(job.reason.detail) <= 64_000
    assert "the end" in job.reason.detail


def test_an_exit_code_is_the_users_failure(ended: dict[str, Any]) -> None:
    """R5: it was retried as the infrastructure's fault until that limit was used up."""
    job = ended["exits"]
    assert (job.status, job.attempt, job.reason.code) == ("failed", 1, "exited"), job.reason
    assert "exit code 3" in job.reason.message


def test_what_a_loop_returns_and_reports_is_kept_as_far_as_it_can_be(
    cluster: Cluster, ended: dict[str, Any]
) -> None:
    """A complete training was repeated four times and then failed, because its accuracy was a numpy number."""
    job = ended["returns_oddities"]
    assert (job.status, job.attempt) == ("completed", 1), job.reason
    metrics = job.result.metrics
    assert (metrics["accuracy"], metrics["confusion"], metrics["1"]) == (0.75, [[1, 0], [0, 1]], 0.5)
    assert metrics["weights"] == "ndarray of shape [100, 100], float64"
    assert metrics["label"] == "caf\\udce9 \\x00"
    assert "log" in metrics and len(json.dumps(metrics)) <= 64_400
    assert any("`raw` is of type bytes" in note for note in job.result.notes), job.result.notes
    assert (job.progress["step"], job.progress["grad"]) == (3, 0.5)
    assert job.progress["loss"] == pytest.approx(1 / 3)
    assert [one.step for one in cluster.client.checkpoints(job.job_id).checkpoints] == [3, 2, 1]
    log = "".join(cluster.client.logs(job.job_id))
    assert log.count("`lock` is of type lock, and only its text was kept") == 2, (
        "once reported, once returned"
    )


def test_a_rank_that_ends_without_a_word_is_no_completed_job(ended: dict[str, Any]) -> None:
    """Ray Train calls it finished: "no error from `fit()`" is no proof."""
    job = ended["says_nothing"]
    assert job.status == "failed", job.reason
    assert "rank 0 died without a word" in job.reason.message


def test_lists_and_pages_go_on_and_nothing_is_held(cluster: Cluster, ended: dict[str, Any]) -> None:
    """B2: one odd key made list, page and command line answer 500 for everybody until a restart."""
    listed = httpx.get(f"{cluster.info.api_url}/api/training/jobs", params={"limit": 100}, timeout=30)
    assert listed.status_code == 200
    there = {job["job_id"] for job in json.loads(listed.text, parse_constant=pytest.fail)["jobs"]}
    assert {job.job_id for job in ended.values()} <= there
    assert len(listed.content) < 2_000_000
    for path in ("/training", *(f"/training/monitor?jobId={job.job_id}" for job in ended.values())):
        assert httpx.get(cluster.info.api_url + path, timeout=30).status_code == 200, path
    assert all(is_gone(pid) for job in ended.values() for pid in cluster.rank_pids(job.job_id))

    def mirrored() -> bool:
        return httpx.get(f"{cluster.info.api_url}/health", timeout=30).json()["unmirrored_writes"] == 0

    wait_until(mirrored, within_s=60, what="the database has taken every one of them")
