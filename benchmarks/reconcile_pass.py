"""A reconcile pass beside a long history against one without; and how long others wait for an answer meanwhile.

The passes: two schedulers on one real PostgreSQL, each with 1,000 active jobs, one of them with 100,000 finished ones
besides, alternating.  The waiting: the whole system over HTTP, status calls while passes run one after the other
against status calls while none does, alternating.  Writes benchmarks/results/reconcile_pass.json.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path

import httpx
from pydantic import SecretStr

from benchmarks.cluster import free_port
from benchmarks.journal_bench import _a_queued_job as a_queued_job
from benchmarks.record import write
from scheduler.adapters.journal.sqlite import SqliteJournal
from scheduler.adapters.supabase.mirror import SupabaseMirror
from scheduler.core.model import Job, Reason, Status
from scheduler.engine.periodic import SystemClock
from scheduler.engine.service import Engine
from scheduler.engine.spec_validation import SpecValidator
from scheduler.server import local_cluster
from scheduler.settings import Settings
from scheduler.testing.builders import a_change
from scheduler.testing.fake_runner import FakeRunner
from tests.stack.stack import Stack

PAIRS = 5
ACTIVE, FINISHED = 1_000, 100_000
CALLS = 300


async def main() -> None:
    with Stack.start() as stack, tempfile.TemporaryDirectory() as folder:
        alone = await _service(stack, Path(folder) / "alone", "alone", finished=0)
        beside = await _service(stack, Path(folder) / "beside" / "state", "beside", finished=FINISHED)
        pairs = [
            {"alone_s": await _pass_s(alone), "beside_history_s": await _pass_s(beside)} for _ in range(PAIRS)
        ]
        for service in (alone, beside):
            await service.journal.close()  # type: ignore[attr-defined]
        waits = await asyncio.to_thread(_waits, stack, Path(folder) / "beside")
    write(
        "reconcile_pass",
        {
            "targets": {"pass_ratio_at_most": 3.0, "status_p99_ratio_at_most": 2.0},
            "pass_ratio": statistics.median(pair["beside_history_s"] / pair["alone_s"] for pair in pairs),
            "status_p99_ratio": statistics.median(p["during_p99_s"] / p["idle_p99_s"] for p in waits),
            "passes": pairs,
            "status_calls": waits,
        },
    )


async def _service(stack: Stack, folder: Path, cluster: str, finished: int) -> Engine:
    """A scheduler whose jobs are all mirrored, and wait because there is no node."""
    journal = await SqliteJournal.open(folder / "journal.db")
    service = Engine(
        journal=journal,
        runner=FakeRunner(nodes_now=()),
        clock=SystemClock(),
        settings=Settings(state_dir=folder, storage_path=folder, cluster=cluster),
        validator=SpecValidator([], [folder]),
        mirror=SupabaseMirror(stack.url, stack.service_key, cluster, 60.0),
    )
    jobs = [a_queued_job(number) for number in range(ACTIVE + finished)]
    jobs[ACTIVE:] = [_finished(job) for job in jobs[ACTIVE:]]
    for start in range(0, len(jobs), 1000):
        await journal.commit([a_change(job) for job in jobs[start : start + 1000]])
    await service.recover()
    await service.sync.relay.once()
    return service


def _finished(job: Job) -> Job:
    reason = Reason(code="completed", message="every rank returned")
    return replace(job, status=Status.COMPLETED, finished_at=job.created_at, reason=reason)


async def _pass_s(service: Engine) -> float:
    began_s = time.perf_counter()
    answer = await service.sync.reconcile(dry_run=False)
    took_s = time.perf_counter() - began_s
    assert (answer.rows_compared, answer.repairs) == (ACTIVE, [])
    return took_s


def _waits(stack: Stack, folder: Path) -> list[dict[str, float]]:
    settings = Settings(
        state_dir=folder / "state",
        storage_path=folder / "storage",
        cluster="beside",
        port=free_port(),
        warm_runs=0,
        supabase_url=stack.url,
        supabase_key=SecretStr(stack.service_key),
    )
    info = local_cluster.up(settings, num_cpus=1)
    try:
        with httpx.Client(base_url=info.api_url, timeout=60) as client:
            job_id = client.get("/api/training/jobs?limit=1").json()["jobs"][0]["job_id"]
            _p99_s(client, job_id)
            return [_pair(client, job_id) for _ in range(PAIRS)]
    finally:
        local_cluster.down(settings)


def _pair(client: httpx.Client, job_id: str) -> dict[str, float]:
    idle_s = _p99_s(client, job_id)
    over = threading.Event()
    passes = threading.Thread(target=_reconcile_until, args=(str(client.base_url), over))
    passes.start()
    during_s = _p99_s(client, job_id)
    over.set()
    passes.join()
    pair = {"idle_p99_s": idle_s, "during_p99_s": during_s}
    print(pair, flush=True)
    return pair


def _reconcile_until(url: str, over: threading.Event) -> None:
    while not over.is_set():
        httpx.post(f"{url}/api/training/reconcile", timeout=60).raise_for_status()


def _p99_s(client: httpx.Client, job_id: str) -> float:
    times: list[float] = []
    for _ in range(CALLS):
        began_s = time.perf_counter()
        client.get(f"/api/training/status/{job_id}").raise_for_status()
        times.append(time.perf_counter() - began_s)
    return statistics.quantiles(times, n=100)[98]


if __name__ == "__main__":
    asyncio.run(main())
