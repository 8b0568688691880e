"""How long one placement pass takes: 10,000 queued jobs, 1,000 nodes of 8 GPUs, full and empty clusters.

The workloads are seeded, so two runs plan the same passes.  Each pass is timed by the wall clock; the process
time beside it tells a busy machine from slow code.  Writes benchmarks/results/placement.json and exits with 1
when a workload is out of its range (benchmarks/ranges.toml).
"""

from __future__ import annotations

import os
import random
import statistics
import sys
import time
import tomllib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.record import write
from scheduler.core.lifecycle import accept
from scheduler.core.model import Allocation, Gang, Job, JobId, JobSpec, Node, NodeId, Snapshot
from scheduler.core.placement import plan

NUM_JOBS, NUM_NODES, GPUS, CPUS = 10_000, 1_000, 8, 64
SHAPES = 400
PASSES = 100
NOW = datetime(2026, 1, 1, tzinfo=UTC)
NODES = tuple(Node(id=NodeId(f"{number:056x}"), cpus=CPUS, gpus=GPUS) for number in range(NUM_NODES))
Held = tuple[tuple[Gang, Allocation], ...]


def shapes(rng: random.Random) -> list[Gang]:
    """Several hundred gangs that differ, from a quarter of a GPU to 64 whole nodes."""
    found: set[Gang] = set()
    while len(found) < SHAPES:
        ranks = rng.choice([1, 1, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64])
        cpus, gpus = rng.choice([0.5, 1, 2, 3, 4, 6, 8]), rng.choice([0.25, 0.5, 1, 2, 3, 4, 8])
        found.add(Gang(num_ranks=ranks, cpus_per_rank=cpus, gpus_per_rank=gpus))
    return sorted(found, key=str)


def elastic(gangs: Sequence[Gang]) -> list[Gang]:
    """The same, content with a quarter of their ranks."""
    return [
        replace(gang, num_ranks=1, min_ranks=max(1, gang.num_ranks // 4), max_ranks=gang.num_ranks)
        for gang in gangs
    ]


def queue(gangs: Sequence[Gang], rng: random.Random) -> list[Job]:
    specs = [JobSpec(loop="torch_ddp", resources=gang) for gang in gangs]
    return [
        accept(JobId(f"job-{seq}"), rng.choice(specs), at=NOW, queue_seq=seq)
        for seq in range(1, NUM_JOBS + 1)
    ]


def full(cpus_per_rank: float) -> Held:
    """Every GPU is held; CPUs are left when *cpus_per_rank* is below 8."""
    gang = Gang(num_ranks=GPUS, cpus_per_rank=cpus_per_rank, gpus_per_rank=1)
    return tuple((gang, Allocation(ranks=((node.id, GPUS),))) for node in NODES)


def half(rng: random.Random) -> Held:
    """On each node between four and eight single-GPU runs of different CPUs: hundreds of states."""
    gangs = [Gang(cpus_per_rank=cpus, gpus_per_rank=1) for cpus in (1, 2, 3, 5, 7)]
    return tuple(
        (rng.choice(gangs), Allocation(ranks=((node.id, 1),)))
        for node in NODES
        for _ in range(rng.randint(4, GPUS))
    )


def workloads(rng: random.Random) -> Iterator[tuple[str, list[Job], Held]]:
    """One at a time: a heap full of the other queues would slow the collector of this one down."""
    one = [Gang(cpus_per_rank=4, gpus_per_rank=1)]
    no_gpu = [Gang(cpus_per_rank=1), Gang(cpus_per_rank=2)]
    many = shapes(rng)
    small = [gang for gang in many if gang.num_ranks * gang.gpus_per_rank <= GPUS]
    yield "full cluster, one shape", queue(one, rng), full(8)
    yield f"full cluster, {SHAPES} shapes", queue(many, rng), full(8)
    yield "only CPUs free, one shape and every tenth without GPUs", queue(one * 9 + no_gpu[1:], rng), full(1)
    yield (
        f"only CPUs free, {SHAPES} shapes and a tenth without GPUs",
        queue(many * 9 + no_gpu * 200, rng),
        full(1),
    )
    yield "empty cluster, one shape", queue(one, rng), ()
    yield "empty cluster, no GPUs asked for", queue(no_gpu, rng), ()
    yield "empty cluster, small gangs of many shapes", queue(small, rng), ()
    yield f"empty cluster, {SHAPES} shapes", queue(many, rng), ()
    jobs, mixed = queue(many, rng), half(rng)
    yield f"mixed cluster, {SHAPES} shapes", jobs, mixed
    yield f"empty cluster, {SHAPES} elastic shapes", queue(elastic(many), rng), ()
    yield f"mixed cluster, {SHAPES} elastic shapes", queue(elastic(many), rng), mixed


def measure(jobs: list[Job], held: Held, passes: int) -> dict[str, Any]:
    snapshot = Snapshot(nodes=NODES, running=held)
    made = plan(jobs, snapshot)
    wall_ms, cpu_ms = [], []
    for _ in range(passes):
        wall, cpu = time.perf_counter(), time.process_time()
        plan(jobs, snapshot)
        wall_ms.append((time.perf_counter() - wall) * 1000)
        cpu_ms.append((time.process_time() - cpu) * 1000)
    codes = Counter(reason.code for reason in made.blocked.values())
    return {"starts": len(made.start), **codes, "wall_ms": summary(wall_ms), "cpu_ms": summary(cpu_ms)}


def summary(times_ms: list[float]) -> dict[str, float]:
    cuts = statistics.quantiles(times_ms, n=100, method="inclusive")
    values = {"p50": cuts[49], "p99": cuts[98], "max": max(times_ms)}
    return {name: round(value, 1) for name, value in values.items()}


def main(passes: int = PASSES, seed: int = 1) -> int:
    limit_ms = tomllib.loads(Path(__file__).with_name("ranges.toml").read_text())["placement"]["max_p99_ms"]
    load_before = os.getloadavg()[0]
    results = {name: measure(*work, passes) for name, *work in workloads(random.Random(seed))}
    worst = {
        clock: max(result[clock]["p99"] for result in results.values()) for clock in ("wall_ms", "cpu_ms")
    }
    within = worst["wall_ms"] <= limit_ms
    write(
        "placement",
        {
            "jobs": NUM_JOBS,
            "nodes": NUM_NODES,
            "gpus_per_node": GPUS,
            "seed": seed,
            "passes": passes,
            "load_average_before": round(load_before, 1),
            "limit_p99_ms": limit_ms,
            "worst_p99_wall_ms": worst["wall_ms"],
            "worst_p99_cpu_ms": worst["cpu_ms"],
            "within": within,
            "workloads": results,
        },
    )
    return 0 if within else 1


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
