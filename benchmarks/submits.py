"""Durable submits over HTTP against Ray Jobs' own submit call, on the same Ray, alternating.

One client, one submit at a time (p50 against p50), and a batch of 1,000 against Ray Jobs' submits per second.
Writes benchmarks/results/submits.json.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.cluster import free_port
from benchmarks.record import write
from scheduler.client import Client
from scheduler.server import local_cluster
from scheduler.settings import Settings

PAIRS = 7
SINGLE = 20
RAY_JOBS = 3
BATCH = 1000
SPEC = {"loop": "torch_ddp", "config": {"steps": 1}, "resources": {"cpus_per_rank": 2}, "priority": -1}


def timed(call: Callable[[], object]) -> float:
    began_s = time.perf_counter()
    call()
    return time.perf_counter() - began_s


def main() -> None:
    folder = Path(tempfile.mkdtemp(prefix="bench-"))
    settings = Settings(
        state_dir=folder / "state",
        storage_path=folder / "storage",
        cluster="bench",
        port=free_port(),
        warm_runs=0,
    )
    info = local_cluster.up(settings)
    os.environ |= local_cluster.ray_environment(info)
    from ray.job_submission import JobSubmissionClient

    ours, rays = Client(url=info.api_url), JobSubmissionClient(info.dashboard_url)
    pairs: list[dict[str, float]] = []
    try:
        # A job that holds the node, so that what is measured is the submit and not a start on the same cores.
        holder = ours.submit(
            {
                "loop": "torch_ddp",
                "config": {"steps": 100_000, "step_time_s": 1.0},
                "resources": {"cpus_per_rank": 2},
            }
        )
        while ours.status(holder.id).phase != "training":
            time.sleep(0.5)
        rays.submit_job(entrypoint="true")
        time.sleep(10)
        for _ in range(PAIRS):
            single = statistics.median(timed(lambda: ours.submit(SPEC)) for _ in range(SINGLE))
            batch = timed(lambda: ours.submit_batch([SPEC] * BATCH))
            theirs = statistics.median(
                timed(lambda: rays.submit_job(entrypoint="true")) for _ in range(RAY_JOBS)
            )
            pairs.append({"submit_s": single, "batch_per_s": BATCH / batch, "ray_submit_s": theirs})
            print(pairs[-1], flush=True)
            time.sleep(5)
    finally:
        local_cluster.down(settings)
    write(
        "submits",
        {
            "targets": {"single_p50_ratio_at_most": 0.5, "batch_ratio_at_least": 100},
            "single_p50_ratio": statistics.median(p["submit_s"] / p["ray_submit_s"] for p in pairs),
            "batch_ratio": statistics.median(p["batch_per_s"] * p["ray_submit_s"] for p in pairs),
            "pairs": pairs,
        },
    )


if __name__ == "__main__":
    main()
