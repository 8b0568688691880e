"""Values with good defaults, so that a test names only what it is about."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from itertools import count
from typing import Any
from uuid import UUID

from scheduler.core.lifecycle import record
from scheduler.core.model import (
    Allocation,
    CheckpointId,
    Fence,
    Gang,
    Job,
    JobId,
    JobSpec,
    Node,
    NodeId,
    Origin,
    Reason,
    Resumption,
    Saved,
    Status,
    Stop,
    StopKind,
)
from scheduler.core.reconcile import Repair
from scheduler.ports import Change
from scheduler.testing.clock import NOON

_numbers = count(1)


def a_spec(*, ranks: int = 1, cpus: float = 1.0, gpus: float = 0.0, **fields: Any) -> JobSpec:
    """`torch_ddp` for user `ann`; *ranks*, *cpus* and *gpus* (both for each rank) make its gang."""
    gang = Gang(num_ranks=ranks, cpus_per_rank=cpus, gpus_per_rank=gpus)
    return JobSpec(**{"loop": "torch_ddp", "user": "ann", "resources": gang, **fields})


def a_job(status: Status | str = Status.QUEUED, *, spec: JobSpec | None = None, **fields: Any) -> Job:
    """A job that could stand in *status*: a running one has a fence and nodes, an ended one has ended.

    Each call without `id` gives another job, a second younger than the one before and behind it in the queue.
    """
    number = next(_numbers)
    status = Status(status)
    spec = spec or a_spec()
    created_at = fields.get("created_at", NOON + timedelta(seconds=number))
    likely: dict[str, Any] = {
        "id": JobId(str(UUID(int=number))),
        "reason": Reason(code="test", message=f"a test made it {status}"),
        "created_at": created_at,
        "updated_at": created_at,
    }
    if status is not Status.PENDING:
        likely |= {"queue_seq": number, "queued_at": created_at}
    if status not in (Status.PENDING, Status.QUEUED):
        likely |= {"fence": Fence(1), "started_at": created_at, "admitted_at": created_at}
    if status is Status.RUNNING:
        likely["allocation"] = Allocation(ranks=((NodeId("node-1"), spec.resources.most),))
    if status.is_terminal:
        likely["finished_at"] = created_at
    return Job(spec=spec, status=status, **(likely | fields))


def a_full_job(status: Status) -> Job:
    """Every field set, and text that is hard to keep: quotes, line ends, NUL, and what is not ASCII."""
    text = 'l\'été "quoted" 日本 🚀\n\t\\ \x00 ; DROP TABLE jobs'
    spec = a_spec(
        ranks=3, gpus=0.5, user="zoë", name=text, config={"lr": 1e-5, "deep": {"list": [1, None, text]}}
    )
    return a_job(
        status,
        spec=spec,
        reason=Reason(code="test", message=text, detail="x" * 10_000),
        retry_at=NOON + timedelta(microseconds=1),
        held=True,
        stop=Stop(
            kind=StopKind.PREEMPT,
            by=text,
            at=NOON,
            why=Reason(code="test", message=text),
            evidence={text: [text]},
        ),
        failures=1,
        losses=2,
        preemptions=3,
        repeats=4,
        last_failure=text,
        origin=Origin(checkpoint=CheckpointId("1.2"), after=Fence(1)),
        saved=Saved(checkpoint=CheckpointId("1.2"), step=2**40, at=NOON),
        resumed=Resumption(
            checkpoint=CheckpointId("1.1"), step=7, checked=(text,), differs=(text, text), skipped=(text,)
        ),
        progress={"step": 2**62, "loss": 0.1 + 0.2},
        result={"output_dir": text},
        idempotency_key=f"{text}-{status}",
        raw_spec={"loop": 7, text: [text, None]},
    )


def advanced(job: Job, seconds: float = 1.0, **fields: Any) -> Job:
    """The next version of *job*, *seconds* later."""
    later = {"version": job.version + 1, "updated_at": job.updated_at + timedelta(seconds=seconds)}
    return replace(job, **(later | fields))


def a_change(
    job: Job | None = None, *, before: Job | None = None, kind: str | None = None, is_news: bool = False
) -> Change:
    """The commit of *job*: the step from *before*, or its creation."""
    job = job or a_job()
    event = record(before, job, None)
    kind = kind or ("Submitted" if before is None else "Changed")
    return Change(
        job=job,
        event=replace(event, kind=kind),
        before=before.version if before else 0,
        is_news=is_news,
    )


def a_repair(job: Job | None = None, **fields: Any) -> Repair:
    """A queued row without a heartbeat, marked as failed by the reconciler."""
    likely: dict[str, Any] = {
        "job_id": (job or a_job()).id,
        "at": NOON,
        "by": "reconciler",
        "in_database": "queued, version 3",
        "in_reality": "not in the registry; no run of it is alive",
        "decided": "stale",
        "why": "last heartbeat 700 s ago; the limit is 600 s",
    }
    return Repair(**(likely | fields))


def a_node(node_id: str = "node-1", *, cpus: float = 8.0, gpus: float = 0.0, **fields: Any) -> Node:
    """A live node whose name is its id and of which Ray says nothing is used."""
    return Node(**{"id": NodeId(node_id), "name": node_id, "cpus": cpus, "gpus": gpus, **fields})
