"""From what the scheduler knows to what it answers: jobs as documents."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import lru_cache, partial
from typing import TypeVar

from scheduler.api.base import Document, ReasonDocument
from scheduler.api.jobs import (
    AttemptDocument,
    CheckpointDocument,
    EventDocument,
    JobDocument,
    Liveness,
    ResultDocument,
    ResumptionDocument,
    SavedDocument,
    StopDocument,
    SubmittedJob,
)
from scheduler.api.redaction import redacted
from scheduler.core import codec
from scheduler.core.checkpoints import Checkpoint
from scheduler.core.durations import span
from scheduler.core.finite import finite
from scheduler.core.hangs import Silence
from scheduler.core.model import (
    Attempt,
    Job,
    JobEvent,
    JobId,
    JobSpec,
    Json,
    Phase,
    Reason,
    Resumption,
    Saved,
    Status,
)
from scheduler.core.observation import Sighting
from scheduler.core.reconcile import Row
from scheduler.core.redaction import Redactor
from scheduler.core.rows import job_of

D = TypeVar("D", bound=Document)

log = logging.getLogger(__name__)

SILENT_AFTER_S = 15.0
"""Runs are asked every second: one that was not heard for so long is not known to be alive."""
_NO_REASON = Reason(code="untold", message="the database gives no reason")


def job_document(
    job: Job,
    *,
    position: int | None,
    waits: Reason | None,
    looked_at: datetime | None,
    seen: Sighting | None,
    now: datetime,
    overdue_after_s: float,
    silence: Silence | None = None,
) -> JobDocument:
    """`waits` is why placement left the job in the queue, `looked_at` when it last looked."""
    observation, redactor = seen.observation if seen else None, Redactor.of(job.spec)
    document = JobDocument(
        job_id=job.id,
        name=job.spec.name,
        status=job.status,
        phase=_phase(job, seen),
        phases={name: datetime.fromtimestamp(at, UTC) for name, at in observation.phases.items()}
        if observation
        else {},
        reason=_reason(why(job, waits, seen, silence)),
        attempt=job.attempt,
        queue_position=position,
        progress=progress_of(job, seen),
        created_at=job.created_at,
        queued_at=job.queued_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
        updated_at=job.updated_at,
        verified_at=_verified_at(job, looked_at, seen),
        liveness=_liveness(job, seen, now),
        evidence=_evidence(job, looked_at, seen, now),
        last_checkpoint=saved_document(last_saved(job, seen)),
        unsaved_s=_unsaved_s(job, seen, now),
        resumed=_resumption_document(resumption_of(job, seen)),
        stop=_stop_document(job, seen),
        version=job.version,
        spec=redactor.spec(shown(job.spec)),
        result=ResultDocument(**job.result) if job.result else None,
        overdue=is_overdue(job, now, overdue_after_s),
    )
    return redacted(document, redactor)


def is_overdue(job: Job, now: datetime, after_s: float) -> bool:
    """It waits without being held, and has done so for longer than *after_s*."""
    if job.status not in (Status.PENDING, Status.QUEUED) or job.held:
        return False
    since = max(filter(None, (job.queued_at or job.created_at, job.retry_at)))
    return (now - since).total_seconds() > after_s


def document_or_stand_in(job: Job, render: Callable[[], JobDocument]) -> JobDocument:
    """What *render* makes; of a job that it cannot render, what every job has, and why there is no more.

    Whoever shows jobs does it through this: one that cannot be shown takes no other with it.
    """
    try:
        return render()
    except Exception as error:  # noqa: BLE001  whatever is in it: it is named, logged and shown
        words = codec.in_words(error) if isinstance(error, ValueError) else repr(error)[:200]
        _log_once(job.id, words)
        return _stand_in(job, words)


@lru_cache(maxsize=1000)
def _log_once(job_id: JobId, words: str) -> None:
    log.error("job %s cannot be shown whole: %s", job_id, words)


def is_stand_in(document: JobDocument) -> bool:
    return document.reason.code == codec.UNREADABLE


def _stand_in(job: Job, words: str) -> JobDocument:
    message = f"what is known of it cannot be shown ({words}); its state is true, the rest is left out"
    spec = JobSpec(loop=codec.UNREADABLE_LOOP, user=str(job.spec.user), project=str(job.spec.project))
    return JobDocument(
        job_id=job.id,
        name=str(job.spec.name),
        status=job.status,
        reason=ReasonDocument(code=codec.UNREADABLE, message=message),
        attempt=job.attempt,
        created_at=job.created_at,
        queued_at=job.queued_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
        updated_at=job.updated_at,
        version=job.version,
        spec=spec,
    )


def row_document(row: Row, *, now: datetime, overdue_after_s: float, doubt: str) -> JobDocument:
    """A job as the database has it, not verified; *doubt* is why."""
    job = job_of(row)
    render = partial(_row_document, job, row, now=now, overdue_after_s=overdue_after_s, doubt=doubt)
    found = document_or_stand_in(replace(job, status=row.status), render)
    return found.model_copy(update={"verified": False})


def _row_document(job: Job, row: Row, *, now: datetime, overdue_after_s: float, doubt: str) -> JobDocument:
    redactor = Redactor.of(job.spec)
    document = JobDocument(
        job_id=row.id,
        name=row.name or job.spec.name,
        status=row.status,
        reason=_reason(row.reason or _NO_REASON),
        attempt=row.attempt,
        queue_position=row.queue_position,
        progress=row.progress,
        created_at=row.created_at,
        queued_at=row.queued_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
        updated_at=row.updated_at,
        verified_at=row.verified_at,
        liveness=Liveness.UNKNOWN if row.status is Status.RUNNING else None,
        evidence=f"as the database has it, written {_age(now, row.updated_at)} ago; {doubt}",
        last_checkpoint=saved_document(job.saved),
        version=row.version,
        spec=redactor.spec(shown(job.spec)),
        result=ResultDocument(**job.result) if job.result else None,
        overdue=is_overdue(job, now, overdue_after_s),
    )
    return redacted(document, redactor)


def shown(spec: JobSpec) -> JobSpec:
    """Without the function that was sent along: a page of such jobs would be megabytes that nobody can read."""
    return replace(spec, code=replace(spec.code, pickle="")) if spec.code else spec


def submitted(document: JobDocument) -> SubmittedJob:
    return SubmittedJob(
        job_id=document.job_id, status=document.status, queue_position=document.queue_position
    )


def event_document(event: JobEvent) -> EventDocument:
    return EventDocument.model_validate(event, from_attributes=True)


def attempt_document(attempt: Attempt) -> AttemptDocument:
    nodes = list(attempt.allocation.node_of_each_rank)
    return _by_attributes(AttemptDocument, attempt, attempt=attempt.fence, nodes=nodes)


def checkpoint_document(checkpoint: Checkpoint, *, is_next: bool) -> CheckpointDocument:
    return _by_attributes(
        CheckpointDocument,
        checkpoint,
        checkpoint=checkpoint.id,
        attempt=checkpoint.fence,
        loss=finite(checkpoint.metrics.get("loss")),
        next=is_next,
    )


def saved_document(saved: Saved | None) -> SavedDocument | None:
    return SavedDocument.model_validate(saved, from_attributes=True) if saved else None


def last_saved(job: Job, seen: Sighting | None) -> Saved | None:
    """Where the job would go on now: what its run has saved, else what was there before it."""
    return (seen.observation.saved if seen else None) or job.saved


def resumption_of(job: Job, seen: Sighting | None) -> Resumption | None:
    """The resume report of the newest run; while it runs, as it reported it."""
    if job.status is Status.RUNNING:
        return seen.observation.resumed if seen else None
    return job.resumed


def _resumption_document(resumed: Resumption | None) -> ResumptionDocument | None:
    return ResumptionDocument.model_validate(resumed, from_attributes=True) if resumed else None


def _stop_document(job: Job, seen: Sighting | None) -> StopDocument | None:
    if job.stop is None:
        return None
    return StopDocument(
        kind=job.stop.kind,
        by=job.stop.by,
        asked_at=job.stop.at,
        acknowledged_at=seen.observation.stop_seen_at if seen else None,
        why=job.stop.why.message if job.stop.why else None,
    )


def _unsaved_s(job: Job, seen: Sighting | None, now: datetime) -> float | None:
    """Since this run's newest checkpoint, else since its first step; None before that."""
    if job.status is not Status.RUNNING or seen is None:
        return None
    reported = seen.observation
    began_s = reported.phases.get(Phase.TRAINING)
    if reported.saved is None and began_s is None:
        return None
    since = reported.saved.at if reported.saved else datetime.fromtimestamp(began_s or 0.0, UTC)
    return max(0.0, (now - since).total_seconds())


def _phase(job: Job, seen: Sighting | None) -> Phase | None:
    if job.status is not Status.RUNNING:
        return None
    return seen.observation.phase if seen else Phase.RESERVING


def progress_of(job: Job, seen: Sighting | None) -> Json | None:
    """While it runs, what this run reported, and nothing of the one before."""
    if job.status is Status.RUNNING:
        return seen.observation.progress if seen else None
    return job.progress


def why(job: Job, waits: Reason | None, seen: Sighting | None, silence: Silence | None = None) -> Reason:
    """The newest that is known: why it waits, how far it is, or what the last event left."""
    if job.status is Status.QUEUED and waits:
        return waits
    if job.status is Status.RUNNING and seen and not job.stop:
        progress = seen.observation.progress or {}
        step = (
            f", step {progress['step']} of {progress.get('total_steps', '?')}" if "step" in progress else ""
        )
        words = f"attempt {job.attempt} is {seen.observation.phase}{step}"
        if silence and silence.verdict != "usual":
            return Reason(code="suspect", message=f"{words}; suspect: {silence.words}")
        return Reason(code="running", message=words)
    if job.stop and seen and seen.observation.stop_seen_at:
        return replace(job.reason, message=f"{job.reason.message}; the loop has seen it and saves")
    return job.reason


def _reason(reason: Reason) -> ReasonDocument:
    return ReasonDocument.model_validate(reason, from_attributes=True)


def _by_attributes(kind: type[D], source: object, **given: object) -> D:
    """A document with what is *given*, and of the rest what *source* has under the same names."""
    same = {name: getattr(source, name) for name in kind.model_fields.keys() - given if hasattr(source, name)}
    return kind.model_validate(same | given, from_attributes=True)


def _verified_at(job: Job, looked_at: datetime | None, seen: Sighting | None) -> datetime | None:
    if job.status is Status.RUNNING:
        return seen.at if seen else None
    if job.status is Status.QUEUED:
        return looked_at
    return job.updated_at


def _liveness(job: Job, seen: Sighting | None, now: datetime) -> Liveness | None:
    if job.status is not Status.RUNNING:
        return None
    return Liveness.ALIVE if seen and (now - seen.at).total_seconds() < SILENT_AFTER_S else Liveness.UNKNOWN


def _evidence(job: Job, looked_at: datetime | None, seen: Sighting | None, now: datetime) -> str:
    if job.status is Status.RUNNING:
        if seen is None:
            return "not verified yet: this scheduler has not heard from the run"
        step = (seen.observation.progress or {}).get("step")
        what = seen.observation.phase.value if step is None else f"step {step}"
        if _liveness(job, seen, now) is Liveness.UNKNOWN:
            return f"not verified for {_age(now, seen.at)}: the run does not answer; last seen: {what}"
        return f"{what}, {_age(now, seen.at)} ago"
    if job.status is Status.QUEUED:
        return _evidence_of_waiting(job, looked_at, now)
    if job.status is Status.COMPLETED:
        return "the run left its final record"
    return "on disk; no process of it is left" if job.attempt else "on disk; it never ran"


def _evidence_of_waiting(job: Job, looked_at: datetime | None, now: datetime) -> str:
    """A pass of placement before the job came into the queue does not count."""
    if looked_at is None or (job.queued_at and looked_at < job.queued_at):
        return "in the queue, on disk; placement has not looked since it came"
    return f"in the queue; placement looked {_age(now, looked_at)} ago"


def _age(now: datetime, then: datetime) -> str:
    return span((now - then).total_seconds())
