"""A job in its owner's hands, on a real Ray: paused, killed, preempted, resumed, and in the end the same."""

from __future__ import annotations

import itertools
import os
import signal
from typing import Any

import psutil
import pytest
import torch

from scheduler.errors import CheckpointNotFound, NotAllowed
from tests.conftest import Cluster, is_gone, wait_until

pytestmark = pytest.mark.ray

STEPS = 400
DDP = {"steps": STEPS, "checkpoint_every_steps": 20, "features": 4, "hidden": 8, "seed": 3}


def weights(cluster: Cluster, job_id: str) -> dict[str, torch.Tensor]:
    folder = cluster.status(job_id).result.output_dir
    return torch.load(f"{folder}/model.pt", weights_only=True)


def kill_scheduler(cluster: Cluster) -> None:
    pid = cluster.registry()["pid"]
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: is_gone(pid), within_s=10, what="the scheduler is gone")


def all_gone(cluster: Cluster, job_id: str, attempt: int) -> bool:
    pids = [*cluster.rank_pids(job_id, attempt), cluster.run_actor_pid(job_id, attempt)]
    return all(is_gone(pid) for pid in pids)


def free_cpus(cluster: Cluster) -> float:
    return sum(node.free_cpus for node in cluster.client.health().nodes)


@pytest.fixture(scope="module")
def undisturbed(cluster: Cluster) -> str:
    return cluster.submit("torch_ddp", DDP, name="undisturbed", resources={"num_ranks": 2})


@pytest.fixture(scope="module")
def disturbed(cluster: Cluster, undisturbed: str) -> str:
    """The same job, slower, so that there is time to disturb it."""
    slow = DDP | {"step_time_s": 0.05}
    return cluster.submit("torch_ddp", slow, name="disturbed", resources={"num_ranks": 2})


def test_a_pause_asked_just_before_the_scheduler_dies_still_happens(cluster: Cluster, disturbed: str) -> None:
    """L7: the intention is in the journal; `paused` is said when the processes are gone and the CPUs are free."""
    job = cluster.wait_for_step(disturbed, 25)
    assert job.unsaved_s is not None
    asked = cluster.client.pause(disturbed)
    assert (asked.status, asked.stop.kind) == ("running", "pause")
    kill_scheduler(cluster)
    job = cluster.wait_for(disturbed, "paused")
    assert all_gone(cluster, disturbed, 1)
    assert job.last_checkpoint.step == job.progress["step"]
    (attempt,) = cluster.client.attempts(disturbed).attempts
    assert (attempt.ending, attempt.steps_lost, attempt.resumed) == ("stopped", 0, None)
    assert attempt.reason.code == "pause_asked"
    assert cluster.client.pause(disturbed).status == "paused"


def test_checkpoints_are_listed_with_what_they_hold(cluster: Cluster, disturbed: str) -> None:
    saved = cluster.client.checkpoints(disturbed).checkpoints
    assert [one.next for one in saved] == [True] + [False] * (len(saved) - 1)
    assert saved[0].step == cluster.status(disturbed).progress["step"]
    assert all(one.num_bytes > 0 and one.loss is not None and one.attempt == 1 for one in saved)
    assert len(saved) <= 3
    with pytest.raises(CheckpointNotFound, match=r"9\.9.*there is: 1\."):
        cluster.client.resume(disturbed, "9.9")
    assert cluster.status(disturbed).status == "paused"


def test_a_resumed_run_carries_its_certificate(cluster: Cluster, disturbed: str) -> None:
    step = cluster.status(disturbed).progress["step"]
    cluster.client.resume(disturbed)
    job = cluster.wait_for_step(disturbed, step + 5, attempt=2)
    assert (job.resumed.step, job.resumed.differs) == (step, [])
    said = " ".join(job.resumed.checked)
    assert all(word in said for word in ("hashes", "random state", "number of ranks", "config"))


def test_a_killed_rank_costs_the_steps_since_the_checkpoint(cluster: Cluster, disturbed: str) -> None:
    """R5: the run goes on by itself, and says what was lost."""
    step = cluster.status(disturbed).progress["step"]
    cluster.wait_for_step(disturbed, step + 25, attempt=2)
    os.kill(cluster.rank_pids(disturbed, 2)[1], signal.SIGKILL)
    job = cluster.wait_for_step(disturbed, 1, attempt=3)
    second = cluster.client.attempts(disturbed).attempts[1]
    assert (second.ending, second.cause, second.reason.code) == ("lost", "infrastructure", "killed")
    assert second.saved is not None
    assert second.last_step - second.saved.step == second.steps_lost
    assert job.resumed.checkpoint == second.saved.checkpoint
    assert second.evidence["logs"].keys() == {"0", "1"}


def test_a_preempted_job_keeps_its_place_and_goes_on(cluster: Cluster, disturbed: str) -> None:
    behind = cluster.status(cluster.submit("quick", {"steps": 1}, resources={"num_ranks": 4}, priority=-1))
    step = cluster.status(disturbed).progress["step"]
    cluster.wait_for_step(disturbed, step + 3, attempt=3)
    cluster.client.preempt(disturbed)
    cluster.wait_for_step(disturbed, step + 4, attempt=4)
    third = cluster.client.attempts(disturbed).attempts[2]
    assert (third.ending, third.reason.code, third.steps_lost) == ("stopped", "preempt_asked", 0)
    assert cluster.status(behind.job_id).status == "queued", "the preempted one stood before it"
    cluster.client.cancel(behind.job_id)


def test_in_the_end_it_has_the_weights_of_the_undisturbed_one(
    cluster: Cluster, disturbed: str, undisturbed: str
) -> None:
    """Paused, killed, preempted: bit for bit the same."""
    job = cluster.wait_for(disturbed, "completed", "failed")
    assert job.status == "completed", job.reason
    assert cluster.wait_for(undisturbed, "completed", "failed").status == "completed"
    left, right = weights(cluster, disturbed), weights(cluster, undisturbed)
    assert all(torch.equal(left[name], right[name]) for name in right)
    runs = cluster.client.attempts(disturbed).attempts
    assert len(runs) == 4
    assert all(earlier.ended_at <= later.started_at for earlier, later in itertools.pairwise(runs))
    with pytest.raises(NotAllowed):
        cluster.client.resume(disturbed)


@pytest.mark.long
def test_a_chosen_checkpoint_and_a_restart(cluster: Cluster) -> None:
    """L8: from the checkpoint of one's choice, or from the beginning; queued jobs are held and let go."""
    job_id = cluster.submit("quick", {"steps": 1000, "step_time_s": 0.05})
    cluster.wait_for_step(job_id, 8)
    cluster.client.cancel(job_id)
    cluster.wait_for(job_id, "cancelled")
    oldest = cluster.client.checkpoints(job_id).checkpoints[-1]
    cluster.client.resume(job_id, oldest.checkpoint)
    job = cluster.wait_for_step(job_id, 1, attempt=2)
    assert (job.resumed.checkpoint, job.resumed.step) == (oldest.checkpoint, oldest.step)
    assert job.resumed.differs == ["the loop does not say what it restored"]
    cluster.client.pause(job_id)
    cluster.wait_for(job_id, "paused")
    blocker = cluster.submit("quick", {"steps": 1000, "step_time_s": 0.05}, resources={"num_ranks": 4})
    cluster.wait_for_step(blocker, 1)
    assert cluster.client.restart(job_id).status == "queued"
    held = cluster.client.pause(job_id)
    assert (held.status, held.reason.code) == ("queued", "held")
    cluster.client.cancel(blocker)
    cluster.wait_for(blocker, "cancelled")
    assert cluster.status(job_id).status == "queued"
    cluster.client.resume(job_id)
    job = cluster.wait_for_step(job_id, 1, attempt=3)
    assert job.resumed is None, "from the beginning"
    cluster.client.cancel(job_id)


def test_a_pause_before_the_first_step_waits_for_nothing(cluster: Cluster) -> None:
    """A model that takes minutes to load has nothing to save."""
    job_id = cluster.submit("slow_to_load", {"load_s": 600})

    def is_loading() -> bool:
        job = cluster.status(job_id)
        return job.phase == "loading" and "step" in (job.progress or {})

    wait_until(is_loading, within_s=240, what="the loop loads")
    cluster.client.pause(job_id)
    job = cluster.wait_for(job_id, "paused", within_s=cluster.settings.stop_grace_s)
    assert "had not made a step yet" in job.reason.message
    assert all_gone(cluster, job_id, 1)
    assert cluster.client.attempts(job_id).attempts[0].steps_lost == 0
    cluster.client.cancel(job_id)


def test_a_loop_that_does_not_stop_is_ended_at_the_deadline(cluster: Cluster) -> None:
    """L7: a pause is a promise to the next in line; the reason says what it cost."""
    job_id = cluster.submit("ignores_stop", {})
    cluster.wait_for_step(job_id, 1)
    cluster.client.pause(job_id)
    job = cluster.wait_for(job_id, "paused")
    assert all_gone(cluster, job_id, 1)
    assert f"did not save and stop within {cluster.settings.stop_grace_s:g} s" in job.reason.message
    (attempt,) = cluster.client.attempts(job_id).attempts
    assert attempt.steps_lost == attempt.last_step
    cluster.client.cancel(job_id)


def test_a_hanging_run_is_looked_into_ended_and_tried_again(cluster: Cluster) -> None:
    """Rule 13: processes that live and answer, and steps that do not come."""
    job_id = cluster.submit("quick", {"steps": 60, "step_time_s": 0.1}, hang_after_s=4.0)
    cluster.wait_for_step(job_id, 10)
    pid = cluster.rank_pids(job_id)[0]
    os.kill(pid, signal.SIGSTOP)
    try:

        def is_suspect() -> Any:
            job = cluster.status(job_id)
            return job if job.reason.code == "suspect" else None

        job = wait_until(is_suspect, within_s=10, what="the run is suspect")
        assert "no step for" in job.reason.message
        wait_until(lambda: cluster.status(job_id).attempt == 2, within_s=60, what="it is tried again")
    finally:
        if psutil.pid_exists(pid) and not is_gone(pid):
            os.kill(pid, signal.SIGCONT)
    first = cluster.client.attempts(job_id).attempts[0]
    assert (first.reason.code, first.cause) == ("hung", "infrastructure")
    assert first.evidence["stacks"]["0"]
    assert "0" in first.evidence["logs"]
    assert is_gone(pid)
    job = cluster.wait_for(job_id, "completed", "failed")
    assert job.status == "completed", job.reason


def test_a_job_out_of_time_ends_at_a_checkpoint(cluster: Cluster) -> None:
    job_id = cluster.submit(
        "quick", {"steps": 10_000, "step_time_s": 0.05, "checkpoint_every_steps": 10_000}, max_runtime_s=8.0
    )
    job = cluster.wait_for(job_id, "failed", "completed")
    assert (job.status, job.reason.code) == ("failed", "timeout")
    assert job.last_checkpoint is None or job.last_checkpoint.step == job.progress["step"]


@pytest.mark.long
def test_a_run_whose_actor_is_killed_gives_its_resources_back(cluster: Cluster) -> None:
    """Ray keeps the placement group of an actor that died: without anybody to remove it the CPUs were held for ever."""
    job_id = cluster.submit("quick", {"steps": 10_000, "step_time_s": 0.05}, resources={"num_ranks": 4})
    cluster.wait_for_step(job_id, 1)
    os.kill(cluster.run_actor_pid(job_id), signal.SIGKILL)
    again = cluster.wait_for_step(job_id, 1, attempt=2)  # which has the same four CPUs
    assert (again.status, again.attempt) == ("running", 2)
    cluster.client.cancel(job_id)
    cluster.wait_for(job_id, "cancelled")
