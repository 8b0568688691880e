"""Jobs for the tests of pages, and registries that answer otherwise for a while."""

from __future__ import annotations

import asyncio
import math
import threading
import time
import uuid
from typing import Any

from scheduler.api.jobs import JobDocument
from scheduler.core.model import JobSpec, Status
from tests.unit.served import LOOP, Served

HOSTILE = "<img src=x onerror=alert(1)>\"'&{{7*7}}"
FOR_LONG = 600
NO_SUCH_JOB = "0b2f1c9e-2a55-4d0c-8c4f-6a1f1a1c0001"


def submit(served: Served, name: str = "a-job", *, spec: dict[str, Any] | None = None, **config: Any) -> str:
    """The id of a job that was accepted; *config* is the script of its runs."""
    job_id = str(uuid.uuid4())
    made = JobSpec(loop=LOOP, name=name, config={"seconds": FOR_LONG} | config, **(spec or {}))
    served.call(served.service.commands.submit(job_id, made, None))
    return job_id


def submit_until(served: Served, status: Status, name: str = "a-job", **given: Any) -> str:
    job_id = submit(served, name, **given)
    until(served, job_id, status)
    return job_id


def until(served: Served, job_id: str, status: Status) -> None:
    """Waits for a state of the scheduler; for what a page shows there is `expect`."""
    until_s = time.monotonic() + 15
    while seen(served, job_id).status is not status:
        assert time.monotonic() < until_s, f"{job_id} is {seen(served, job_id).status}, not {status}"
        time.sleep(0.02)


def seen(served: Served, job_id: str) -> JobDocument:
    return served.call(served.service.queries.status(job_id))


def fill(served: Served) -> list[str]:
    """Jobs that hold the whole cluster: whatever comes after them waits."""
    return [submit_until(served, Status.RUNNING, f"runs-{number}") for number in range(4)]


def pretend(served: Served, **changes: Any) -> None:
    """From now on the registry says this of every job."""

    async def status(job_id: str) -> JobDocument:
        return (await served.service.queries.status(job_id)).model_copy(update=changes)

    served.registry.status = status


def answer(served: Served, method: str, document: Any) -> None:
    """From now on the registry answers *method* so."""

    async def answering(*_: Any) -> Any:
        return document

    setattr(served.registry, method, answering)


def refuse(served: Served, method: str, error: Exception) -> None:
    async def raising(*_: Any) -> Any:
        raise error

    setattr(served.registry, method, raising)


def slow(served: Served, method: str) -> threading.Event:
    """*method* answers once the event is set."""
    gate, real = threading.Event(), getattr(served.registry, method)

    async def waiting(*given: Any) -> Any:
        while not gate.is_set():
            await asyncio.sleep(0.01)
        return await real(*given)

    setattr(served.registry, method, waiting)
    return gate


def monitor(job_id: str) -> str:
    return f"/training/monitor?jobId={job_id}"


def curve(first: int, last: int) -> list[dict[str, Any]]:
    """Progress lines of the steps *first* to *last*."""
    return [
        {
            "step": step,
            "loss": 3 * math.exp(-step / 40),
            "learning_rate": 1e-4,
            "tokens_per_s": 900 + step % 7,
            "time": 1.7e9 + step,
        }
        for step in range(first, last + 1)
    ]
