"""What a pause and a kill cost: three claims about a `torch_ddp` run on one rank, each next to its own yardstick.

- `pause_s`: from the request until the job is `paused` (its processes are gone, its CPU is free), next to the time its
  own last checkpoint took.
- `seen_s`: from SIGKILL of the rank until the status is right.
- `lost_s`: from the last step that was done before a SIGKILL until the same step is done again, next to the steps since
  the checkpoint plus a warm start of the same loop, measured just before.

Writes benchmarks/results/control.json.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.cluster import Cluster, free_port, wait_until
from benchmarks.record import write
from benchmarks.start_latency import quiet
from scheduler.client import Client
from scheduler.core.model import Fence, JobId
from scheduler.runs.run_dir import RunDir
from scheduler.server import local_cluster
from scheduler.settings import Settings

STEP_S = 0.1
EVERY = 20
CONFIG = {
    "steps": 100_000,
    "step_time_s": STEP_S,
    "checkpoint_every_steps": EVERY,
    "features": 512,
    "hidden": 1024,
}


def lines(folder: RunDir) -> list[dict[str, Any]]:
    return [json.loads(line) for line in folder.progress_file.read_text().splitlines()]


def pause(cluster: Cluster, job_id: str) -> dict[str, float]:
    attempt = cluster.status(job_id).attempt
    began_s = time.time()
    cluster.client.pause(job_id)
    until_s = began_s + 60
    while (job := cluster.client.status(job_id)).status != "paused":
        assert time.time() < until_s, job
        time.sleep(0.01)
    ended_s = time.time()
    saving_s = max(
        row["time"] for row in lines(cluster.folder(job_id, attempt)) if row.get("phase") == "saving"
    )
    return {"pause_s": ended_s - began_s, "checkpoint_s": job.last_checkpoint.at.timestamp() - saving_s}


def kill(cluster: Cluster, job_id: str) -> dict[str, float]:
    """SIGKILL the rank somewhere between two checkpoints; wait until it has done its last step again."""
    attempt = cluster.status(job_id).attempt
    folder = cluster.folder(job_id, attempt)
    (rank,) = folder.ranks()
    saved = folder.saved()
    wait_until(
        lambda: step_of(folder) % EVERY == EVERY // 2, within_s=60, what="half way between two checkpoints"
    )
    killed_s = time.time()
    os.kill(rank.pid, signal.SIGKILL)
    while True:
        job = cluster.client.status(job_id)
        if job.status != "running" or job.attempt > attempt or job.reason.code != "running":
            break
        time.sleep(0.01)
    seen_s = time.time() - killed_s
    done = lines(folder)
    last, last_at_s = max((row["step"], row["time"]) for row in done if "step" in row)
    saved = folder.saved()
    after = cluster.folder(job_id, attempt + 1)
    wait_until(
        lambda: after.progress_file.exists() and step_of(after) >= last, within_s=120, what="the step again"
    )
    again_s = min(
        row["time"] for row in lines(after) if row.get("step", 0) >= last and row.get("phase") == "training"
    )
    since = last - (saved.step if saved and saved.step else 0)
    return {"seen_s": seen_s, "lost_s": again_s - last_at_s, "since_checkpoint_s": since * STEP_S}


def step_of(folder: RunDir) -> int:
    return max((row.get("step", 0) for row in lines(folder)), default=0)


def warm_start(cluster: Cluster) -> float:
    """Submit to first step of the same loop."""
    began_s = time.time()
    job_id = cluster.client.submit({"loop": "torch_ddp", "config": CONFIG}).id
    folder = RunDir.of(cluster.settings.storage_path, JobId(job_id), Fence(1))
    wait_until(
        lambda: folder.progress_file.exists() and step_of(folder) >= 1, within_s=120, what="a first step"
    )
    first_s = min(row["time"] for row in lines(folder) if row.get("step", 0) >= 1)
    cluster.client.cancel(job_id)
    wait_until(lambda: cluster.client.status(job_id).status == "cancelled", within_s=60, what="cancelled")
    return first_s - began_s - STEP_S


def ready(cluster: Cluster) -> None:
    def prepared() -> bool:
        pool = cluster.client.health().pool
        return pool is not None and pool.ready >= 1

    wait_until(prepared, within_s=240, what="a prepared run")
    quiet()  # asked for is not there yet: they import for a while


def running(cluster: Cluster, job_id: str) -> None:
    cluster.wait_for_step(job_id, 1, within_s=120)
    attempt = cluster.status(job_id).attempt
    folder = cluster.folder(job_id, attempt)
    wait_until(lambda: folder.saved() is not None, within_s=60, what="a checkpoint")


def measure(pauses: int, kills: int, warm_kills: int) -> dict[str, Any]:
    root = Path(tempfile.mkdtemp(prefix="bench-"))
    settings = Settings(
        state_dir=root / "state",
        storage_path=root / "storage",
        cluster="bench",
        port=free_port(),
        max_losses=10_000,
        retry_backoff_max_s=0.1,
    )
    info = local_cluster.up(settings, num_cpus=2)
    cluster = Cluster(Client(url=info.api_url), settings)
    try:
        job_id = cluster.client.submit({"loop": "torch_ddp", "config": CONFIG}).id
        running(cluster, job_id)
        paused = []
        for _ in range(pauses):
            paused.append(pause(cluster, job_id))
            print("pause", paused[-1], flush=True)
            cluster.client.resume(job_id)
            running(cluster, job_id)
        warm = []
        for _ in range(warm_kills):
            ready(cluster)
            start_s = warm_start(cluster)
            ready(cluster)
            warm.append(kill(cluster, job_id) | {"warm_start_s": start_s})
            print("warm kill", warm[-1], flush=True)
            running(cluster, job_id)
        cold = []
        for _ in range(kills):
            cold.append(kill(cluster, job_id))
            print("kill", cold[-1], flush=True)
            running(cluster, job_id)
    finally:
        local_cluster.down(settings)
    seen = sorted(row["seen_s"] for row in warm + cold)
    return {
        "pauses": paused,
        "warm_kills": warm,
        "kills": cold,
        "pause_beyond_checkpoint_s": {
            "median": statistics.median(row["pause_s"] - row["checkpoint_s"] for row in paused),
            "worst": max(row["pause_s"] - row["checkpoint_s"] for row in paused),
        },
        "seen_s": {
            "num": len(seen),
            "p50": statistics.median(seen),
            "p99": seen[min(len(seen) - 1, round(0.99 * (len(seen) - 1)))],
        },
        "lost_ratio": statistics.median(
            row["lost_s"] / (row["since_checkpoint_s"] + row["warm_start_s"]) for row in warm
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pauses", type=int, default=10)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--warm-kills", type=int, default=5)
    arguments = parser.parse_args()
    quiet()
    targets = {"pause_beyond_checkpoint_s": 1.0, "seen_s": {"p50": 2.0, "p99": 5.0}, "lost_ratio": 1.2}
    results = measure(arguments.pauses, arguments.kills, arguments.warm_kills)
    write("control", {"targets_at_most": targets, **results})


if __name__ == "__main__":
    main()
