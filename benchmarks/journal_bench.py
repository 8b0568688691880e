"""Durable commits of many clients against those of one on a slow disk; memory of a queued job."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import pickle
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from scheduler.adapters.journal import SqliteJournal  # noqa: E402
from scheduler.core.lifecycle import accept  # noqa: E402 - run as a file too
from scheduler.core.model import SPEC, Job, JobId, JobSpec  # noqa: E402
from scheduler.engine.registry import Registry  # noqa: E402
from scheduler.testing import a_change  # noqa: E402
from scheduler.testing.disk_shim import build  # noqa: E402

PAIRS = 5
SECONDS = 2.0
CLIENTS = 64
FSYNC_MS = 5.0
FEW, MANY = 1_000, 100_000
TARGETS = {"speedup": 20.0, "bytes_per_queued_job": 3 * 1024}


def main() -> dict[str, Any]:
    """Measure, write benchmarks/results/journal.json, and return what is in it."""
    with tempfile.TemporaryDirectory() as folder:
        result = {"commits": _commits(Path(folder)), "memory": _memory(Path(folder)), "targets": TARGETS}
    target = ROOT / "benchmarks" / "results" / "journal.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(result, indent=2) + "\n", "utf-8")
    print(json.dumps(result, indent=2))
    return result


def _commits(folder: Path) -> dict[str, Any]:
    shim = build(folder)
    if shim is None:
        raise SystemExit("the benchmark needs a C compiler (cc) to slow the disk down")
    slow = {"LD_PRELOAD": str(shim), "DISK_SHIM_DELAY_US": str(int(FSYNC_MS * 1000))}
    pairs = []
    for number in range(PAIRS):
        one, many = (
            _child("commit", str(folder / f"{number}-{clients}.db"), str(clients), extra=slow)
            for clients in (1, CLIENTS)
        )
        pairs.append({"one_client_per_s": one, "many_clients_per_s": many, "speedup": many / one})
    return {
        "clients": CLIENTS,
        "fsync_ms": FSYNC_MS,
        "speedup": statistics.median(pair["speedup"] for pair in pairs),
        "one_client_per_s": statistics.median(pair["one_client_per_s"] for pair in pairs),
        "many_clients_per_s": statistics.median(pair["many_clients_per_s"] for pair in pairs),
        "pairs": pairs,
    }


def _memory(folder: Path) -> dict[str, Any]:
    sizes = {}
    for how in ("accepted", "reloaded"):
        few, many = (_child(how, str(folder / f"{how}-{count}.db"), str(count)) for count in (FEW, MANY))
        sizes[how] = (many - few) / (MANY - FEW)
    return {"between_jobs": [FEW, MANY], "bytes_per_queued_job": sizes}


def _child(*arguments: str, extra: dict[str, str] | None = None) -> float:
    command = [sys.executable, __file__, *arguments]
    return float(
        subprocess.run(command, env=os.environ | (extra or {}), check=True, stdout=subprocess.PIPE).stdout
    )


async def commit_rate(path: Path, clients: int) -> float:
    """Commits per second of clients that each send the next submit when the last is acknowledged."""
    journal = await SqliteJournal.open(path)
    changes = [a_change(_a_queued_job(number)) for number in range(int(SECONDS * 20_000))]
    until_s = (began_s := time.perf_counter()) + SECONDS

    async def client() -> int:
        done = 0
        while time.perf_counter() < until_s:
            await journal.commit([changes.pop()])
            done += 1
        return done

    done = sum(await asyncio.gather(*(client() for _ in range(clients))))
    rate = done / (time.perf_counter() - began_s)
    await journal.close()
    return rate


def memory_of_accepted_jobs(count: int) -> float:
    """Resident bytes of a process whose registry holds *count* jobs that came through Ray one by one."""
    registry = Registry(0)
    for number in range(count):
        registry.put(_a_queued_job(number))
    return _resident_bytes()


async def memory_of_reloaded_jobs(path: Path, count: int) -> float:
    """Resident bytes of a process that was restarted with *count* jobs in its journal."""
    fill = [sys.executable, __file__, "fill", str(path), str(count)]
    subprocess.run(fill, check=True)
    journal, registry = await SqliteJournal.open(path), Registry(0)
    for job in await journal.active():
        registry.put(job)
    resident = _resident_bytes()
    await journal.close()
    return resident


async def fill(path: Path, count: int) -> None:
    journal = await SqliteJournal.open(path)
    for start in range(0, count, 1000):
        await journal.commit([a_change(_a_queued_job(number)) for number in range(start, start + 1000)])
    await journal.close()


def _a_queued_job(number: int) -> Job:
    return accept(
        JobId(str(uuid4())), _a_spec(number), at=datetime.now(UTC), queue_seq=number, idempotency_key=None
    )


def _a_spec(number: int) -> JobSpec:
    """As the scheduler gets it: parsed from JSON by the API, pickled by Ray; nothing shared by accident."""
    config = {
        "model": f"/data/models/smollm2-{number % 997}",
        "dataset": f"/data/sets/team-{number}/train.jsonl",
        "eval_dataset": f"/data/sets/team-{number}/eval.jsonl",
        "method": "lora",
        "lora": {"r": 8, "alpha": 16, "dropout": 0.05, "target_modules": ["q_proj", "v_proj"]},
        "max_steps": 1000 + number,
        "batch_size": 4,
        "gradient_accumulation_steps": 2,
        "max_length": 512,
        "learning_rate": 1e-4 + number * 1e-12,
        "lr_schedule": "cosine",
        "warmup_steps": 10,
        "seed": 100_000 + number,
        "checkpoint_every_steps": 500,
    }
    spec = {
        "loop": "sft",
        "name": f"fine-tuning {number}",
        "config": config,
        "resources": {"num_ranks": 2, "cpus_per_rank": 4, "gpus_per_rank": 1},
        "user": f"user{number % 211}",
        "project": f"project{number % 53}",
        "labels": {"team": f"team{number % 17}"},
    }
    return pickle.loads(pickle.dumps(SPEC.validate_json(json.dumps(spec))))


def _resident_bytes() -> float:
    gc.collect()
    status = Path("/proc/self/status").read_text("utf-8")
    (line,) = (line for line in status.splitlines() if line.startswith("VmRSS:"))
    return float(line.split()[1]) * 1024


def _run_child(what: str, path: Path, number: int) -> None:
    match what:
        case "commit":
            print(asyncio.run(commit_rate(path, number)))
        case "accepted":
            print(memory_of_accepted_jobs(number))
        case "reloaded":
            print(asyncio.run(memory_of_reloaded_jobs(path, number)))
        case "fill":
            asyncio.run(fill(path, number))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        _run_child(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
    else:
        main()
