"""A job in its owner's hands: `scheduler pause`, `resume`, `cancel` and the like, `attempts`, `checkpoints`."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import typer

from scheduler.api.jobs import AttemptDocument, CheckpointDocument
from scheduler.cli.acting import Yes, act, ask_first, jobs_in
from scheduler.cli.follow import printable, size
from scheduler.cli.options import AsJson, JobId, Url, connect
from scheduler.cli.views import print_json
from scheduler.core.durations import exact_span
from scheduler.core.model import Status
from scheduler.errors import InvalidRequest

_NOT_OVER = (Status.PENDING, Status.QUEUED, Status.RUNNING, Status.PAUSED)
_MAY_RESUME = (Status.PAUSED, Status.FAILED, Status.CANCELLED, Status.QUEUED)
_MAY_FORCE_START = (Status.PENDING, Status.QUEUED, Status.FAILED, Status.CANCELLED)
Checkpoint = Annotated[
    str | None,
    typer.Option(
        "--checkpoint", metavar="ID", help="Go on from this one, as `scheduler checkpoints` shows it."
    ),
]


def pause(
    job_ids: Annotated[list[str], jobs_in(Status.RUNNING, Status.QUEUED)],
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Pause a running job: it saves, and holds nothing once it is `paused`.  A queued one is held in the queue."""
    act(job_ids, connect(url).pause, as_json)


def resume(
    job_ids: Annotated[list[str], jobs_in(*_MAY_RESUME)],
    checkpoint: Checkpoint = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Let a job that is paused, failed, cancelled or held go on from its last checkpoint, or one of your choice."""
    if checkpoint and len(job_ids) > 1:
        raise InvalidRequest("--checkpoint is of one job; resume the others in a call of their own")
    client = connect(url)
    act(job_ids, lambda job_id: client.resume(job_id, checkpoint), as_json)


def restart(
    job_ids: Annotated[list[str], jobs_in(*_MAY_RESUME)], url: Url = None, as_json: AsJson = False
) -> None:
    """Begin a paused, failed, cancelled or queued job again from the beginning; its checkpoints stay."""
    act(job_ids, connect(url).restart, as_json)


def preempt(
    job_ids: Annotated[list[str], jobs_in(Status.RUNNING)], url: Url = None, as_json: AsJson = False
) -> None:
    """Preempt a running job: it saves, gives its nodes back, and is queued again."""
    act(job_ids, connect(url).preempt, as_json)


def cancel(
    job_ids: Annotated[list[str], jobs_in(*_NOT_OVER)],
    yes: Yes = False,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Cancel a job; a running one is `cancelled` once its processes are gone.  Asks first, on a terminal."""
    client = connect(url)
    if not (yes or as_json):
        ask_first(client, (one for one in job_ids if client.status(one).status is Status.RUNNING), "cancel")
    act(job_ids, client.cancel, as_json)


def force_start(
    job_ids: Annotated[list[str], jobs_in(*_MAY_FORCE_START)], url: Url = None, as_json: AsJson = False
) -> None:
    """Queue a job that is pending, queued, failed or cancelled, from the beginning."""
    act(job_ids, connect(url).force_start, as_json)


def fail(
    job_ids: Annotated[list[str], jobs_in(Status.PENDING, Status.QUEUED)],
    yes: Yes = False,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Mark a job as failed that is pending or queued; it can be force-started later.  Asks first, on a terminal."""
    client = connect(url)
    if not (yes or as_json):
        ask_first(client, job_ids, "fail")
    act(job_ids, client.mark_failed, as_json)


def attempts(job_id: JobId, url: Url = None, as_json: AsJson = False) -> None:
    """The runs of a job, oldest first: how long, where it went on, how far it came, why it ended."""
    page = connect(url).attempts(job_id)
    if as_json:
        print_json(page)
        return
    for attempt in page.attempts:
        print(printable(_attempt(attempt)))


def checkpoints(job_id: JobId, url: Url = None, as_json: AsJson = False) -> None:
    """The complete checkpoints of a job, newest first; `>` marks the one its next run would go on from."""
    page = connect(url).checkpoints(job_id)
    if as_json:
        print_json(page)
        return
    for checkpoint in page.checkpoints:
        print(printable(_checkpoint(checkpoint)))


def _attempt(attempt: AttemptDocument) -> str:
    ended = attempt.ended_at or datetime.now(attempt.started_at.tzinfo)
    resumed = attempt.resumed
    begun = f"from {resumed.checkpoint} (step {resumed.step})" if resumed and resumed.checkpoint else "anew"
    facts = [
        f"{attempt.attempt:>3}  {attempt.started_at:%Y-%m-%d %H:%M:%S}",
        exact_span((ended - attempt.started_at).total_seconds()),
        begun,
        *([f"to step {attempt.last_step}"] if attempt.last_step is not None else []),
        *([f"{attempt.steps_lost} steps lost"] if attempt.steps_lost else []),
        attempt.ending or "running",
    ]
    return "  ".join(facts) + (f": {attempt.reason.message}" if attempt.reason else "")


def _checkpoint(checkpoint: CheckpointDocument) -> str:
    facts = [
        f"{'>' if checkpoint.next else ' '} {checkpoint.checkpoint:<6} {checkpoint.at:%Y-%m-%d %H:%M:%S}",
        f"step {checkpoint.step}" if checkpoint.step is not None else "no step reported",
        *([f"loss {checkpoint.loss:.4g}"] if checkpoint.loss is not None else []),
        size(checkpoint.num_bytes),
        f"saved in {checkpoint.seconds:.1f} s",
    ]
    return "  ".join(facts)
