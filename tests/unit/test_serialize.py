"""What is made from a value by the names of its fields has all that the value has."""

from __future__ import annotations

from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Any

from scheduler.api.serialize import attempt_document, checkpoint_document, event_document, saved_document
from scheduler.core.checkpoints import Checkpoint, checkpoint_id
from scheduler.core.model import (
    Allocation,
    Attempt,
    Cause,
    Ending,
    Fence,
    JobEvent,
    JobId,
    NodeId,
    Reason,
    Resumption,
    Saved,
    Status,
)

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
REASON = Reason(code="failed", message="it raised", detail="Traceback: ...")
SAVED = Saved(checkpoint=checkpoint_id(Fence(2), 3), step=40, at=AT)
RESUMED = Resumption(
    checkpoint=checkpoint_id(Fence(1), 9), step=30, checked=("weights",), differs=("data",), skipped=("1.10",)
)
ATTEMPT = Attempt(
    fence=Fence(2),
    allocation=Allocation(ranks=((NodeId("a"), 1), (NodeId("b"), 1))),
    started_at=AT,
    ended_at=AT,
    ending=Ending.FAILED,
    cause=Cause.USER,
    reason=REASON,
    resumed=RESUMED,
    last_step=44,
    saved=SAVED,
    steps_lost=4,
    evidence={"logs": {"0": "x"}},
)
CHECKPOINT = Checkpoint(
    id=checkpoint_id(Fence(2), 3),
    fence=Fence(2),
    number=3,
    step=40,
    at=AT,
    seconds=1.5,
    num_bytes=1_000,
    num_files=7,
    metrics={"loss": 0.5, "note": "n"},
    path="/x",
)


def same(value: Any) -> Any:
    """As JSON would have it: lists, not tuples."""
    if isinstance(value, dict):
        return {name: same(one) for name, one in value.items()}
    return [same(one) for one in value] if isinstance(value, list | tuple) else value


def test_an_event() -> None:
    event = JobEvent(
        job_id=JobId("j"),
        version=7,
        kind="run_ended",
        at=AT,
        by="run",
        from_status=Status.RUNNING,
        to_status=Status.FAILED,
        reason=REASON,
        attempt=ATTEMPT,
    )
    has = asdict(event)
    del has["job_id"], has["attempt"]  # it stands in the page, and among the attempts
    assert event_document(event).model_dump() == same(has)


def test_an_attempt() -> None:
    has = asdict(ATTEMPT)
    del has["allocation"]
    has |= {"attempt": has.pop("fence"), "nodes": ["a", "b"]}
    assert attempt_document(ATTEMPT).model_dump() == same(has)


def test_an_attempt_that_has_just_begun() -> None:
    begun = attempt_document(Attempt(fence=Fence(1), allocation=ATTEMPT.allocation, started_at=AT))
    given = {"attempt": 1, "started_at": AT, "nodes": ["a", "b"]}
    assert begun.model_dump() == dict.fromkeys(begun.model_dump()) | given


def test_a_checkpoint() -> None:
    has = asdict(CHECKPOINT)
    del has["number"], has["path"]  # the one is in its id, the other is the cluster's own business
    has |= {"checkpoint": has.pop("id"), "attempt": has.pop("fence"), "loss": 0.5, "next": True}
    assert checkpoint_document(CHECKPOINT, is_next=True).model_dump() == has


def test_a_loss_that_is_no_number_is_none() -> None:
    odd = replace(CHECKPOINT, metrics={"loss": float("nan")})
    assert checkpoint_document(odd, is_next=False).loss is None


def test_what_was_saved() -> None:
    document = saved_document(SAVED)
    assert document is not None
    assert document.model_dump() == asdict(SAVED)
    assert saved_document(None) is None
