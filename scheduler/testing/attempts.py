"""Attempts, and the changes that tell of them."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

from scheduler.core.lifecycle import Admit, Event, RunEnded, apply, record
from scheduler.core.model import (
    Allocation,
    Attempt,
    Cause,
    CheckpointId,
    Ending,
    Fence,
    Job,
    NodeId,
    Outcome,
    Reason,
    Resumption,
    Saved,
)
from scheduler.ports import Change
from scheduler.testing.builders import a_change
from scheduler.testing.clock import NOON

NODES = Allocation(ranks=((NodeId("node-1"), 2), (NodeId("node-2"), 1)))
LOST = Outcome(
    ending=Ending.LOST,
    cause=Cause.INFRASTRUCTURE,
    reason=Reason(code="lost", message="its node is gone"),
    progress={"step": 7},
    saved=Saved(checkpoint=CheckpointId("1.2"), step=5, at=NOON),
    evidence={"rank 0": ["the last line"]},
)
"""Two steps after its last checkpoint."""


def an_attempt(fence: int = 1, **fields: Any) -> Attempt:
    """One that still runs."""
    return Attempt(**{"fence": Fence(fence), "allocation": NODES, "started_at": NOON, **fields})


def a_full_attempt(fence: int = 1) -> Attempt:
    """Every field set, and what is hard to keep: NUL, line ends, numbers beyond 64 bits, microseconds."""
    text = 'l\'été "quoted" 日本 🚀\n\t\\ \x00 ; DROP TABLE attempts'
    return an_attempt(
        fence,
        ended_at=NOON + timedelta(seconds=9, microseconds=1),
        ending=Ending.STOPPED,
        cause=Cause.PREEMPTION,
        reason=Reason(code="preempted", message=text, detail="x" * 10_000),
        resumed=Resumption(
            checkpoint=CheckpointId("1.1"), step=2**40, checked=(text,), differs=(text, text), skipped=(text,)
        ),
        last_step=10**30,
        saved=Saved(checkpoint=CheckpointId("2.1"), step=None, at=NOON + timedelta(microseconds=1)),
        steps_lost=10**30,
        evidence={text: [text, None, 0.1 + 0.2]},
    )


def telling(attempt: Attempt, job: Job, before: Job | None = None) -> Change:
    """The commit of *job* whose event tells of *attempt*."""
    change = a_change(job, before=before)
    return replace(change, event=replace(change.event, attempt=attempt))


def admitted(job: Job) -> Change:
    """A queued job gets its nodes."""
    return _step(job, Admit(at=job.updated_at + timedelta(seconds=1), by="scheduler", allocation=NODES))


def run_lost(job: Job) -> Change:
    """The run of a running job is lost, as `LOST` says."""
    at = job.updated_at + timedelta(seconds=1)
    return _step(job, RunEnded(at=at, by="scheduler", fence=job.fence, outcome=LOST))


def _step(before: Job, event: Event) -> Change:
    after, _ = apply(before, event)
    return Change(job=after, event=record(before, after, event), before=before.version)
