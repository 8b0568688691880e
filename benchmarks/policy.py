"""What the policy gives to people, and what it costs: replays through the production `decide`, and the time of a pass.

`python -m benchmarks.policy` plays traces that it makes up; `--philly FILE` and `--openb FILE` add two public ones
(Microsoft Philly, November 2017, as cleaned by the authors of Pollux; Alibaba's pods of 2023).  `--only NAME` runs
one of jct, fairness, projects, pass.  Writes benchmarks/results/policy.json and exits with 1 when something is out of
its range (benchmarks/ranges.toml).
"""

from __future__ import annotations

import argparse
import csv
import random
import statistics
import sys
import time
import tomllib
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks.record import kept, write
from benchmarks.srtf import completion_times
from scheduler.core.bin_packing import free_now
from scheduler.core.contender import Contender, Ledger, Rules, Scene, Share, Tenure, Told
from scheduler.core.model import Allocation, Gang, JobId, Node, NodeId, Snapshot
from scheduler.core.needs import Outline, shape
from scheduler.core.policy import decide
from scheduler.core.replay import Entry, Replay, World
from scheduler.core.replay_report import Report, report
from scheduler.testing.contenders import carried_out
from scheduler.testing.traces import KINDS, trace

DAY_S = 86_400.0
WORLDS = {
    "told": World(),
    "blind": World(tells=0.0),
    "mixed": World(tells=0.7, early=0.3, error=0.3),
}
Trace = tuple[list[Entry], list[int], str]
"""Jobs, the GPUs of each node, and which of the ranges holds for it."""


def gpu_jobs(gpus: int) -> Gang:
    return Gang(num_ranks=gpus, gpus_per_rank=1.0)


def philly(path: Path) -> Trace:
    rows = list(csv.DictReader(path.open()))
    at_s = [datetime.fromisoformat(row["timestamp"]).timestamp() for row in rows]
    jobs = [
        Entry(
            submit_s=submit_s - min(at_s),
            duration_s=float(row["duration"]),
            gang=gpu_jobs(int(row["num_gpus"])),
            project=row["cluster"],
        )
        for submit_s, row in zip(at_s, rows, strict=True)
    ]
    return jobs, [8] * 48 + [6], "philly"


def openb(path: Path) -> Trace:
    rows = [
        row
        for row in csv.DictReader(path.open())
        if int(row["num_gpu"]) >= 1 and row["scheduled_time"] and float(row["creation_time"]) >= 115 * DAY_S
    ]
    first_s = min(float(row["creation_time"]) for row in rows)
    jobs = [
        Entry(
            submit_s=float(row["creation_time"]) - first_s,
            duration_s=float(row["deletion_time"]) - float(row["scheduled_time"]),
            gang=gpu_jobs(int(row["num_gpu"])),
        )
        for row in rows
    ]
    return jobs, [8, 8, 4, 2, 2], "openb"


def made_up() -> Iterator[tuple[str, Trace]]:
    nodes = [8] * 24
    for name, kind in KINDS.items():
        yield name, (trace(kind, gpus=sum(nodes), days=14, jobs=3000, seed=1), nodes, "unseen")


def outline(nodes: Sequence[int]) -> Outline:
    return Outline(
        tuple(Node(id=NodeId(f"n{n:03}"), cpus=12.0 * gpus, gpus=float(gpus)) for n, gpus in enumerate(nodes))
    )


def without_projects(jobs: Sequence[Entry]) -> list[Entry]:
    return [
        Entry(submit_s=job.submit_s, duration_s=job.duration_s, gang=job.gang)
        for job in sorted(jobs, key=lambda job: job.submit_s)
    ]


def played(
    jobs: Sequence[Entry], nodes: Sequence[int], rules: Rules | None, world: World, **more: Any
) -> tuple[Report, Replay, float]:
    """What it came to, and the CPU seconds that it took."""
    cluster, began = outline(nodes), time.process_time()
    replay = Replay(jobs, cluster, rules, world, clock=time.process_time, **more).play()
    return report(replay.entries, replay.log, cluster), replay, time.process_time() - began


def ratios(told: Report, replay: Replay, cpu_s: float, oracle_s: Sequence[float]) -> dict[str, float]:
    ordered = sorted(oracle_s)
    rounds = replay.settled
    return {
        "avg_ratio": round(told.avg_jct_s / statistics.fmean(ordered), 3),
        "p99_ratio": round(told.p99_s / ordered[int(0.99 * len(ordered))], 3),
        "longest_wait_h": round(told.longest_wait_s / 3600, 1),
        "lost_share": round(told.lost_share, 4),
        "most_lost_in_an_hour": round(told.most_lost_in_an_hour, 4),
        "preemptions": told.preemptions,
        "max_preemptions_of_one_job": told.max_preemptions_of_one_job,
        "settled_at_once": round(sum(one == 1 for one in rounds) / max(1, len(rounds)), 3),
        "pass_p99_ms": round(1000 * statistics.quantiles(replay.pass_s, n=100)[98], 2),
        "cpu_s": round(cpu_s, 1),
    }


def completion(traces: dict[str, Trace]) -> dict[str, Any]:
    """Average completion time against the clairvoyant, when steps are told, when none are, and in between."""
    results: dict[str, Any] = {}
    for name, (jobs, nodes, group) in traces.items():
        jobs = without_projects(jobs)
        oracle_s = completion_times(jobs, nodes)
        results[name] = {
            "jobs": len(jobs),
            "group": group,
            "oracle_avg_s": round(statistics.fmean(oracle_s)),
            "worlds": {
                world: ratios(*played(jobs, nodes, Rules(), WORLDS[world]), oracle_s) for world in WORLDS
            },
        }
        print(f"  {name}: {results[name]['worlds']}", flush=True)
    return results


def fairness(seeds: int = 10, days: int = 7, warm_up_days: int = 2) -> dict[str, Any]:
    """Four projects that always want more, with weights 1:1:2:4: what each got of what it was entitled to, by day."""
    weights = {"a": 1.0, "b": 1.0, "c": 2.0, "d": 4.0}
    shares = {name: Share(weight=weight) for name, weight in weights.items()}
    nodes, whole = [8] * 4, sum(weights.values())
    jain: list[float] = []
    shortfalls: list[float] = []
    for seed in range(seeds):
        told, _, _ = played(
            _greedy(list(weights), sum(nodes), days, seed), nodes, Rules(), World(), shares=shares
        )
        for day in range(warm_up_days, days - 1):
            got = {name: told.projects[name].gpu_s_by_day[day] / (sum(nodes) * DAY_S) for name in weights}
            parts = [got[name] / (weights[name] / whole) for name in weights]
            jain.append(sum(parts) ** 2 / (len(parts) * sum(part * part for part in parts)))
            shortfalls.append(max(0.0, *(weights[name] / whole - got[name] for name in weights)))
    cuts = statistics.quantiles(shortfalls, n=20)
    return {
        "daily_jain": round(statistics.fmean(jain), 3),
        "worst_daily_jain": round(min(jain), 3),
        "worst_shortfall_median": round(statistics.median(shortfalls), 3),
        "worst_shortfall_p95": round(cuts[18], 3),
    }


def _greedy(projects: Sequence[str], gpus: int, days: int, seed: int) -> list[Entry]:
    """Each asks for more than the whole cluster, all the time."""
    rng = random.Random(seed)
    jobs: list[Entry] = []
    for project in projects:
        asked = 0.0
        while asked < 1.2 * gpus * days * DAY_S:
            ranks, length_s = (
                rng.choice([1, 1, 1, 2, 4, 8]),
                min(2 * DAY_S, 3600 * rng.lognormvariate(1.0, 1.2)),
            )
            at_s = 0.0 if asked < gpus * DAY_S else rng.random() * days * DAY_S
            jobs.append(Entry(submit_s=at_s, duration_s=length_s, gang=gpu_jobs(ranks), project=project))
            asked += ranks * length_s
    return jobs


def projects(traces: dict[str, Trace]) -> dict[str, Any]:
    """The same jobs as of many equal projects, where the trace names them: what being fair costs."""
    results: dict[str, Any] = {}
    for name, (jobs, nodes, _) in traces.items():
        if len({job.project for job in jobs}) > 1:
            jobs = sorted(jobs, key=lambda job: job.submit_s)
            oracle_s = completion_times(jobs, nodes)
            results[name] = ratios(*played(jobs, nodes, Rules(), World()), oracle_s)
    return results


NUM_QUEUED, NUM_RUNNING, NUM_NODES, NUM_PROJECTS = 10_000, 1_000, 1_000, 40


def crowd(rng: random.Random) -> Scene:
    """A full cluster of 8,000 GPUs, a long queue, and jobs of every kind in both."""
    nodes = tuple(Node(id=NodeId(f"{n:056x}"), cpus=96.0, gpus=8.0) for n in range(NUM_NODES))
    now_s, names = 1e9, [f"project-{n}" for n in range(NUM_PROJECTS)]
    gangs = [
        shape(Gang(num_ranks=ranks, gpus_per_rank=1.0, cpus_per_rank=4.0))
        for ranks in (1, 2, 4, 8, 16, 32, 64)
    ]

    def job(number: int, need: Any, tenure: Tenure | None) -> Contender:
        told = Told(left_s=rng.lognormvariate(9, 2), at_s=now_s) if rng.random() < 0.5 else None
        return Contender(
            id=JobId(f"job-{number}"),
            need=need,
            size=float(need.fewest),
            project=rng.choice(names),
            user=f"user-{rng.randrange(5)}",
            seq=number,
            waits_since_s=now_s - rng.random() * 1.1 * DAY_S,
            told=told,
            attained=rng.choice([0.0, rng.lognormvariate(8, 2)]),
            tenure=tenure,
        )

    running = tuple(
        job(
            n,
            gangs[3],
            Tenure(allocation=Allocation(ranks=((node.id, 8),)), since_s=now_s - rng.random() * 9000),
        )
        for n, node in enumerate(nodes[:NUM_RUNNING])
    )
    waiting = tuple(job(NUM_RUNNING + n, rng.choice(gangs), None) for n in range(NUM_QUEUED))
    held = tuple((one.need.gang, one.tenure.allocation) for one in running if one.tenure)
    shares = {
        name: Share(weight=rng.choice([1.0, 2.0, 4.0]), quota=rng.choice([0.0, 50.0])) for name in names
    }
    free = free_now(Snapshot(nodes=nodes, running=held))
    return Scene(
        now_s=now_s,
        cluster=Outline(nodes),
        free=free,
        waiting=waiting,
        running=running,
        shares=shares,
        ledger=Ledger(),
    )


def settled(scene: Scene, rules: Rules) -> Scene:
    """Some minutes later: what could be decided was, so a pass finds little to do, as most passes do."""
    for _ in range(40):
        made = decide(scene, rules)
        if not made.stops:
            break
        scene = carried_out(scene, made, rules)
    return scene


def one_pass(passes: int = 40) -> dict[str, Any]:
    """CPU time of a pass over a long queue, and of the sentences for all who wait; while all moves, and when it rests."""
    rules = Rules()
    result: dict[str, Any] = {
        "queued": NUM_QUEUED,
        "running": NUM_RUNNING,
        "nodes": NUM_NODES,
        "projects": NUM_PROJECTS,
    }
    scene = crowd(random.Random(1))
    for name, one in (("moving", scene), ("at rest", settled(scene, rules))):
        made = decide(one, rules)
        result[name] = {
            "starts": len(made.starts),
            "stops": len(made.stops),
            "cpu_ms": _timed(lambda one=one: decide(one, rules), passes),
            "all_sentences_cpu_ms": _timed(lambda made=made: dict(made.reasons), passes),
        }
    return result


def _timed(what: Callable[[], object], passes: int) -> dict[str, float]:
    took: list[float] = []
    for _ in range(passes):
        began = time.process_time()
        what()
        took.append(1000 * (time.process_time() - began))
    cuts = statistics.quantiles(took, n=100, method="inclusive")
    return {"p50": round(cuts[49], 1), "p99": round(cuts[98], 1)}


def faults(results: dict[str, Any], limits: dict[str, float]) -> list[str]:
    """What is out of its range, in words."""
    found: list[str] = []
    for name, result in results.get("jct", {}).items():
        for world, told in result["worlds"].items():
            limit = limits[f"max_{result['group']}_{world}"]
            if told["avg_ratio"] > limit:
                found.append(f"{name}, {world}: {told['avg_ratio']} of the clairvoyant's, at most {limit}")
    if (fair := results.get("fairness")) and fair["daily_jain"] < limits["min_daily_jain"]:
        found.append(f"daily Jain {fair['daily_jain']}, at least {limits['min_daily_jain']}")
    for name in ("moving", "at rest") if "pass" in results else ():
        took_ms = results["pass"][name]["cpu_ms"]["p99"]
        if took_ms > limits["max_pass_p99_ms"]:
            found.append(f"a pass, {name}: {took_ms} ms, at most {limits['max_pass_p99_ms']}")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--philly", type=Path)
    parser.add_argument("--openb", type=Path)
    parser.add_argument("--only", choices=["jct", "fairness", "projects", "pass"])
    asked = parser.parse_args()
    traces = dict(made_up())
    if asked.philly:
        traces["philly-nov"] = philly(asked.philly)
    if asked.openb:
        traces["openb"] = openb(asked.openb)
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "pass": one_pass,
        "fairness": fairness,
        "jct": lambda: completion(traces),
        "projects": lambda: projects(traces),
    }
    results = kept("policy") if asked.only else {}
    results |= {name: part() for name, part in parts.items() if asked.only in (None, name)}
    limits = tomllib.loads(Path(__file__).with_name("ranges.toml").read_text())["policy"]
    wrong = faults(results, limits)
    write("policy", {**results, "out_of_range": wrong, "within": not wrong})
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
