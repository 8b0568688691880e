"""One real cluster for the whole session: a Ray head, the scheduler actor and the API, started as users start it."""

from __future__ import annotations

import json
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

# Before anything imports ray, which reads it once.  The demo runs with tokens.
os.environ["RAY_AUTH_MODE"] = "disabled"

import httpx
import psutil
import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from pydantic import SecretStr

from scheduler.client import Client
from scheduler.core.model import Fence, JobId
from scheduler.runs.run_dir import RunDir
from scheduler.server import local_cluster
from scheduler.settings import Settings
from tests.stack.fixtures import fresh_stack as fresh_stack
from tests.stack.fixtures import supabase_stack as supabase_stack
from tests.stack.stack import Stack

T = TypeVar("T")
ROOT = Path(__file__).resolve().parents[1]

_ANY_SPEED: Any = {
    "deadline": None,
    "suppress_health_check": [HealthCheck.too_slow],
}  # a busy machine breaks nothing
hypothesis_settings.register_profile("default", derandomize=True, **_ANY_SPEED)
hypothesis_settings.register_profile("big", max_examples=2000, **_ANY_SPEED)  # and new ones each time
hypothesis_settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


RAY_FOLDERS = ("tests/integration/", "tests/browser/", "tests/chaos/")
"""Where `make test` looks for tests that need Ray; the others need not even be read for them."""


@pytest.hookimpl(tryfirst=True)  # before any are left out
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    lost = [
        item.nodeid
        for item in items
        if item.get_closest_marker("ray") and not item.nodeid.startswith(RAY_FOLDERS)
    ]
    if lost:
        raise pytest.UsageError(
            f"no part of `make test` runs {lost[0]}: tests that need Ray belong in {RAY_FOLDERS}"
        )


def wait_until(seen: Callable[[], T], *, within_s: float, what: str, pause_at_most_s: float = 0.3) -> T:
    """Return the first true value of *seen*; fail in words when there is none in time.

    Looks less and less often: each look at a real cluster costs it as much as it costs us.
    """
    until_s, pause_s = time.monotonic() + within_s, 0.02
    while not (value := seen()):
        assert time.monotonic() < until_s, f"not within {within_s:g} s: {what}"
        time.sleep(pause_s)
        pause_s = min(pause_s * 1.3, pause_at_most_s)
    return value


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@dataclass(frozen=True)
class Cluster:
    """The system under test, and the ways to look at it and to hurt it."""

    client: Client
    settings: Settings
    info: local_cluster.UpInfo

    def submit(self, loop: str, config: dict[str, Any] | None = None, **fields: Any) -> str:
        if ":" not in loop and loop not in ("sft", "torch_ddp"):
            loop = f"tests.loops:{loop}"
        return self.client.submit({"loop": loop, "config": config or {}, **fields}).id

    def status(self, job_id: str) -> Any:
        return self.client.status(job_id)

    def wait_for(self, job_id: str, *statuses: str, within_s: float = 240) -> Any:
        def there() -> Any:
            job = self.status(job_id)
            return job if job.status in statuses else None

        return wait_until(
            there, within_s=within_s, what=f"job {job_id} is {' or '.join(statuses)}; {self.status(job_id)}"
        )

    def wait_for_step(self, job_id: str, step: int, attempt: int = 1, within_s: float = 240) -> Any:
        def there() -> Any:
            job = self.status(job_id)
            assert job.status in ("queued", "running"), job
            return job if job.attempt >= attempt and ((job.progress or {}).get("step") or 0) >= step else None

        return wait_until(
            there, within_s=within_s, what=f"job {job_id} is at step {step} of attempt {attempt}"
        )

    def folder(self, job_id: str, attempt: int = 1) -> RunDir:
        return RunDir.of(self.settings.storage_path, JobId(job_id), Fence(attempt))

    def rank_pids(self, job_id: str, attempt: int = 1) -> list[int]:
        return [rank.pid for rank in self.folder(job_id, attempt).ranks()]

    def run_actor_pid(self, job_id: str, attempt: int = 1) -> int:
        return json.loads((self.folder(job_id, attempt).path / "started.json").read_text())["pid"]

    def registry(self) -> dict[str, Any]:
        return httpx.get(f"{self.info.api_url}/health", timeout=30).json().get("registry", {})

    def events(self, job_id: str) -> list[Any]:
        return list(self.client.events(job_id).events)


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def start_cluster(folder: Path, name: str, num_cpus: int = 4, **changes: Any) -> Cluster:
    """Runs are killed on it on purpose: no node is set aside for that, unless *changes* say so."""
    settings = Settings(
        state_dir=folder / "state",
        storage_path=folder / "storage",
        cluster=name,
        port=free_port(),
        allowed_loops=("tests.loops:*", "tests.odd_loops:*"),
        allow_shipped_code=True,
        retry_backoff_s=0.2,
        max_losses=1,
        stop_grace_s=8.0,
        **({"warm_runs": 0, "set_aside_share": 0.0} | changes),
    )
    info = local_cluster.up(settings, num_cpus=num_cpus)
    return Cluster(Client(url=info.api_url), settings, info)


def in_seconds(stack: Stack) -> dict[str, Any]:
    """Settings that mirror to *stack*, and let in seconds pass what takes minutes otherwise."""
    return {
        "supabase_url": stack.url,
        "supabase_key": SecretStr(stack.service_key),
        "supabase_timeout_s": 3.0,
        "liveness_every_s": 2.0,
        "inbox_every_s": 0.3,
        "vouch_every_s": 0.5,
        "reconcile_every_s": 1.5,
        "stale_after_s": 6.0,
        "relay_backoff_s": 0.2,
        "relay_backoff_max_s": 1.0,
    }


@pytest.fixture(scope="session")
def cluster_stack() -> Iterator[Stack]:
    """The Supabase of the shared cluster.  Not to be emptied."""
    with Stack.start() as stack:
        yield stack


@pytest.fixture(scope="session")
def cluster(cluster_stack: Stack) -> Iterator[Cluster]:
    """Four CPUs in Ray's books on two real ones, so that several short runs go on at once."""
    folder = Path(tempfile.mkdtemp(prefix="sched-"))
    os.chdir(ROOT)
    soon = "preempt=share,min_run_s=3,lost_share=1"  # only tests that name two projects meet a preemption
    policies = {"policy_rules": soon, "policy_shadow": "fifo"}
    cluster = start_cluster(folder, "tests", **policies, **in_seconds(cluster_stack))
    yield cluster
    local_cluster.down(cluster.settings)
    shutil.rmtree(folder, ignore_errors=True)
