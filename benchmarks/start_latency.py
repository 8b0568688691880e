"""Submit to first step, and submit to the end: our scheduler against `ray job submit` of the same TorchTrainer.

Both sides run on the same Ray, alternating, each begun when the machine is idle.  `warm` waits until processes are
prepared; `cold` turns the pool off.  Writes benchmarks/results/start_latency.json.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from benchmarks.cluster import free_port, wait_until
from benchmarks.record import kept, write
from scheduler.client import Client
from scheduler.server import local_cluster
from scheduler.settings import Settings

STEPS = 20
CONFIG = {"steps": STEPS, "checkpoint_every_steps": STEPS}


def quiet() -> None:
    """Return when the cores have been nearly idle for three seconds: nothing of one side may burden the other."""
    idle = 0
    while idle < 3:
        idle = idle + 1 if psutil.cpu_percent(interval=1.0) < 15 else 0


def ours(client: Client) -> dict[str, float]:
    began_s = time.time()
    job = client.submit({"loop": "torch_ddp", "config": CONFIG})
    document = job.wait(timeout_s=120)
    assert document.status == "completed", document
    ended_s = time.time()
    # Where the run itself says it was, not where we happened to look.
    folder = Path(document.result.output_dir).parent
    lines = map(json.loads, (folder / "progress.jsonl").read_text().splitlines())
    first_s = next(row["time"] for row in lines if row.get("phase") == "training")
    return {"first_step_s": first_s - began_s, "done_s": ended_s - began_s}


def rays(info: local_cluster.UpInfo, folder: Path) -> dict[str, float]:
    """`ray job submit --no-wait` is the same as the SDK call; the end is seen by asking, as ours is."""
    progress, done = folder / "progress.jsonl", folder / "done"
    for file in (progress, done):
        file.unlink(missing_ok=True)
    script = Path(__file__).with_name("plain_trainer.py")
    command = [
        str(Path(sys.executable).with_name("ray")), "job", "submit", "--no-wait", "--address", info.dashboard_url,
        "--", sys.executable, str(script), json.dumps(CONFIG), str(folder),
    ]  # fmt: skip
    began_s = time.time()
    subprocess.run(
        command, check=True, capture_output=True, env=os.environ | local_cluster.ray_environment(info)
    )
    wait_until(done.exists, within_s=180, what="Ray's job is done")
    ended_s = time.time()
    lines = map(json.loads, progress.read_text().splitlines())
    first_s = next(row["time"] for row in lines if row.get("phase") == "training")
    return {"first_step_s": first_s - began_s, "done_s": ended_s - began_s}


def measure(mode: str, pairs: int) -> dict[str, object]:
    folder = Path(tempfile.mkdtemp(prefix="bench-"))
    settings = Settings(
        state_dir=folder / "state",
        storage_path=folder / "storage",
        cluster="bench",
        port=free_port(),
        warm_runs=1 if mode == "warm" else 0,
    )
    info = local_cluster.up(settings)
    client = Client(url=info.api_url)
    rows: list[tuple[dict[str, float], dict[str, float]]] = []
    try:
        ours(client)  # Ray Train's once-per-cluster actors belong to neither side
        for _ in range(pairs):
            if mode == "warm":
                wait_until(lambda: client.health().pool.ready >= 1, within_s=120, what="a prepared run")
            quiet()
            mine = ours(client)
            time.sleep(3)  # a pool refills now; that is done before the other side begins
            quiet()
            rows.append((mine, rays(info, folder)))
            print(mode, rows[-1], flush=True)
        pool = client.health().pool
    finally:
        local_cluster.down(settings)
    return {"pairs": rows, "ratios": _ratios(rows), "pool": pool.model_dump() if pool else None}


def _ratios(rows: list[tuple[dict[str, float], dict[str, float]]]) -> dict[str, float]:
    return {
        key: round(statistics.median(mine[key] / theirs[key] for mine, theirs in rows), 3)
        for key in ("first_step_s", "done_s")
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--modes", nargs="+", default=["warm", "cold"])
    arguments = parser.parse_args()
    results = {mode: measure(mode, arguments.pairs) for mode in arguments.modes}
    targets = {"warm": {"first_step_s": 0.1, "done_s": 0.15}, "cold": {"first_step_s": 0.8, "done_s": 0.8}}
    write("start_latency", {"targets_at_most": targets, **kept("start_latency"), **results})


if __name__ == "__main__":
    main()
