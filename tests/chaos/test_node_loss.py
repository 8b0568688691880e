"""Nodes go away under one training job, again and again: it goes on elsewhere, and ends as if nothing had happened.

The tests are the stations of that job, in their order.  Each hurts its newest attempt.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from tests.conftest import Cluster, is_gone, wait_until
from tests.history.checker import Line, broken_promises
from tests.history.recording import History, story
from tests.nodes import Nodes, WorkerNode, cluster_with_nodes
from tests.witness import digest, undisturbed

pytestmark = [pytest.mark.ray, pytest.mark.long, pytest.mark.timeout(600)]

LOOP = "tests.witness:walk"
CONFIG = {"steps": 100_000, "seed": 5, "checkpoint_every_steps": 5, "step_time_s": 0.1}
STEPS_BEFORE = 12
"""An attempt makes so many before it is hurt: more than one checkpoint's worth."""
STARTED_WITHIN_S = 150.0


@dataclass
class Scene:
    """The job on two of three nodes with one CPU each; the third is where it goes next."""

    cluster: Cluster
    nodes: Nodes
    history: History
    enough: Path
    """Once it is there, the job comes to its end."""
    job_id: str

    def under_way(self, attempt: int) -> tuple[WorkerNode, WorkerNode]:
        """The nodes of rank 0, where the run's actor is too, and of rank 1, once *attempt* has made some steps."""

        def ranks() -> dict[int, Line] | None:
            job = self.cluster.status(self.job_id)
            assert job.status in ("queued", "running") and job.attempt <= attempt, self.attempts()
            told = [line for line in self.history.told_by(self.job_id) if line["attempt"] == attempt]
            steps = [line["step"] for line in told if line["did"] == "stepped"]
            return {line["rank"]: line for line in told} if len(steps) >= 2 * STEPS_BEFORE else None

        told = wait_until(ranks, within_s=STARTED_WITHIN_S, what=f"attempt {attempt} is under way")
        assert told is not None
        first, second = self.nodes.of(told[0]["node"]), self.nodes.of(told[1]["node"])
        assert self.cluster.run_actor_pid(self.job_id, attempt) in first.pids(), (
            "the run's actor is elsewhere"
        )
        return first, second

    def attempts(self) -> list[dict[str, Any]]:
        url = f"{self.cluster.info.api_url}/api/training/{self.job_id}/attempts"
        return httpx.get(url, timeout=30).raise_for_status().json()["attempts"]

    def pids(self, attempt: int) -> set[int]:
        return {line["pid"] for line in self.history.told_by(self.job_id) if line["attempt"] == attempt}

    def last_step(self, attempt: int) -> int:
        return max(self.steps(attempt))

    def steps(self, attempt: int) -> list[int]:
        told = self.history.told_by(self.job_id)
        return [line["step"] for line in told if line["did"] == "stepped" and line["attempt"] == attempt]

    def ended(self, attempt: int) -> dict[str, Any]:
        """The row of *attempt* once it has ended; its processes are gone by then."""

        def row() -> dict[str, Any] | None:
            found = [one for one in self.attempts() if one["attempt"] == attempt and one["ended_at"]]
            return found[0] if found else None

        found = wait_until(row, within_s=60, what=f"attempt {attempt} ends: {self.attempts()}")
        assert found is not None
        left = [pid for pid in self.pids(attempt) if not is_gone(pid)]
        assert left == [], f"processes of attempt {attempt} are left: {left}"
        return found

    def resumed(self, attempt: int) -> dict[str, Any]:
        """The certificate of *attempt*, once it says where it went on; it runs."""

        def certificate() -> dict[str, Any] | None:
            job = self.cluster.status(self.job_id)
            return job.resumed.model_dump() if job.attempt == attempt and job.resumed else None

        found = wait_until(
            certificate, within_s=STARTED_WITHIN_S, what=f"attempt {attempt} says where it went on"
        )
        assert found is not None
        return found


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    torch.set_num_threads(1)
    with (
        tempfile.TemporaryDirectory() as folder,
        cluster_with_nodes("loss", (1, 1, 1, 1), max_losses=2) as (cluster, nodes),
    ):
        history = History(Path(folder))
        for node in nodes.here:
            history.write("joined", node=node.id, cpus=1)
        enough = Path(folder, "enough")
        config = {"loop": LOOP, "config": {**CONFIG, "until": str(enough)}, "trace": str(history.trace)}
        job_id = cluster.submit("tests.witness:witnessed", config, resources={"num_ranks": 2}, name="walk")
        history.write(
            "called",
            what="submit",
            job=job_id,
            name="walk",
            saves_every=CONFIG["checkpoint_every_steps"],
            outcome="ok",
            status="queued",
        )
        yield Scene(cluster, nodes, history, enough, job_id)


def lose(scene: Scene, node: WorkerNode) -> None:
    """Kill *node*; one that is as big joins, so that the job can go on at its full size."""
    scene.history.write("hurt", what="kill_node", victim=node.id)
    scene.nodes.kill(node)
    join(scene)


def join(scene: Scene) -> None:
    scene.history.write("joined", node=scene.nodes.add(1).id, cpus=1)


def test_the_loss_of_a_node_that_holds_nothing_changes_nothing(scene: Scene) -> None:
    status = scene.cluster.wait_for(scene.job_id, "running")
    held = set(scene.attempts()[0]["nodes"])
    spare = next(node for node in scene.nodes.here if node.id not in held and node.name not in held)
    before = status.version
    scene.nodes.kill(spare)
    wait_until(lambda: not scene.nodes.is_known(spare), within_s=15, what="Ray sees it")
    scene.under_way(attempt=1)
    job = scene.cluster.status(scene.job_id)
    assert (job.status, job.attempt, job.version) == ("running", 1, before)


def test_a_job_goes_on_elsewhere_when_the_node_of_a_rank_is_lost(scene: Scene) -> None:
    _, victim = scene.under_way(attempt=1)
    lose(scene, victim)
    check_loss(scene, 1, victim)


def test_a_job_goes_on_elsewhere_when_the_node_of_its_run_actor_is_lost(scene: Scene) -> None:
    victim, _ = scene.under_way(attempt=2)
    lose(scene, victim)
    check_loss(scene, 2, victim)


def check_loss(scene: Scene, attempt: int, victim: WorkerNode) -> None:
    """The attempt says which node was lost, and the next one goes on from its last complete checkpoint."""
    row = scene.ended(attempt)
    assert (row["ending"], row["cause"], row["reason"]["code"]) == ("lost", "infrastructure", "node_lost"), (
        row
    )
    assert victim.name in row["reason"]["message"], row["reason"]
    certificate = scene.resumed(attempt + 1)
    assert certificate["differs"] == [], certificate
    assert (certificate["checkpoint"], certificate["step"]) == (
        row["saved"]["checkpoint"],
        row["saved"]["step"],
    )
    assert row["last_step"] - row["saved"]["step"] == row["steps_lost"]
    assert row["steps_lost"] <= scene.last_step(attempt) - row["saved"]["step"]
    assert row["saved"]["step"] > scene.last_step(attempt) - 3 * CONFIG["checkpoint_every_steps"]
    scene.under_way(attempt + 1)
    assert scene.steps(attempt + 1)[0] == certificate["step"] + 1
    now = scene.attempts()[attempt]
    assert victim.id not in now["nodes"]
    assert victim.name not in now["nodes"]


def test_a_job_leaves_a_node_that_is_drained_and_loses_no_step(scene: Scene) -> None:
    _, victim = scene.under_way(attempt=3)
    scene.nodes.drain(victim, deadline_s=60)
    row = scene.ended(3)
    assert (row["ending"], row["cause"], row["reason"]["code"]) == (
        "stopped",
        "preemption",
        "node_drained",
    ), row
    assert victim.name in row["reason"]["message"], row["reason"]
    assert row["steps_lost"] == 0
    assert row["saved"]["step"] == scene.last_step(3)
    scene.nodes.kill(victim)  # as announced; nothing of the job is there any more
    certificate = scene.resumed(4)
    assert (certificate["step"], certificate["differs"]) == (row["saved"]["step"], [])


def test_it_ends_with_the_weights_of_a_run_that_nobody_disturbed(scene: Scene) -> None:
    """And, by the word of its own processes: no two attempts at once, no step left out, no process left behind."""
    scene.under_way(attempt=4)
    scene.enough.touch()
    job = scene.cluster.wait_for(scene.job_id, "completed", "failed", "cancelled", within_s=STARTED_WITHIN_S)
    assert (job.status, job.attempt) == ("completed", 4), job.reason
    weights = torch.load(Path(job.result.output_dir, "model.pt"), weights_only=True)
    scene.history.write(
        "ended",
        job=scene.job_id,
        name="walk",
        status=job.status,
        may_end=["completed"],
        reason=job.reason.model_dump(),
        weights=digest(weights),
        undisturbed=digest(undisturbed(LOOP, {**CONFIG, "steps": job.result.metrics["steps"]}, 2)),
    )
    certificates = [row["resumed"] and row["resumed"]["step"] for row in scene.attempts()]
    assert certificates == [None, *(scene.steps(attempt)[0] - 1 for attempt in (2, 3, 4))]
    history = scene.history.lines()
    assert broken_promises(history) == [], story(history)
