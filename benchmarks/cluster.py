"""A scheduler that a benchmark has started, and ways to wait for what happens in it."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from scheduler.client import Client
from scheduler.core.model import Fence, JobId
from scheduler.runs.run_dir import RunDir
from scheduler.settings import Settings

T = TypeVar("T")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until(seen: Callable[[], T], *, within_s: float, what: str) -> T:
    """Return the first true value of *seen*; fail in words when there is none in time."""
    until_s = time.monotonic() + within_s
    while not (value := seen()):
        if time.monotonic() > until_s:
            raise TimeoutError(f"not within {within_s:g} s: {what}")
        time.sleep(0.05)
    return value


@dataclass(frozen=True)
class Cluster:
    client: Client
    settings: Settings

    def status(self, job_id: str) -> Any:
        return self.client.status(job_id)

    def folder(self, job_id: str, attempt: int = 1) -> RunDir:
        return RunDir.of(self.settings.storage_path, JobId(job_id), Fence(attempt))

    def wait_for_step(self, job_id: str, step: int, within_s: float) -> None:
        def there() -> bool:
            job = self.status(job_id)
            return job.status == "running" and ((job.progress or {}).get("step") or 0) >= step

        wait_until(there, within_s=within_s, what=f"job {job_id} is at step {step}")
