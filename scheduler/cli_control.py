"""`scheduler pause`, `resume`, `restart`, `preempt`, `attempts` and `checkpoints`: a job in its owner's hands."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import typer

from scheduler.cli_options import AsJson, JobId, Url, connect
from scheduler.cli_views import print_json, show_job
from scheduler.documents import AttemptDocument, CheckpointDocument
from scheduler.follow import duration, printable, size

Checkpoint = Annotated[
    str | None,
    typer.Option(
        "--checkpoint", metavar="ID", help="Go on from this one, as `scheduler checkpoints` shows it."
    ),
]


def pause(job_id: JobId, url: Url = None, as_json: AsJson = False) -> None:
    """Pause a running job: it saves, and holds nothing once it is `paused`.  A queued one is held in the line."""
    show_job(connect(url).pause(job_id), as_json)


def resume(job_id: JobId, checkpoint: Checkpoint = None, url: Url = None, as_json: AsJson = False) -> None:
    """Let a job that is paused, failed, cancelled or held go on from its last checkpoint, or one of your choice."""
    show_job(connect(url).resume(job_id, checkpoint), as_json)


def restart(job_id: JobId, url: Url = None, as_json: AsJson = False) -> None:
    """Begin a paused, failed, cancelled or queued job again from the beginning; its checkpoints stay."""
    show_job(connect(url).restart(job_id), as_json)


def preempt(job_id: JobId, url: Url = None, as_json: AsJson = False) -> None:
    """Let a running job give way: it saves, gives its nodes back, and waits for its turn again."""
    show_job(connect(url).preempt(job_id), as_json)


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
        duration((ended - attempt.started_at).total_seconds()),
        begun,
        *([f"to step {attempt.last_step}"] if attempt.last_step is not None else []),
        *([f"{attempt.steps_lost} steps lost"] if attempt.steps_lost else []),
        attempt.ending or "running",
    ]
    return "  ".join(facts) + (f": {attempt.reason.message}" if attempt.reason else "")


def _checkpoint(checkpoint: CheckpointDocument) -> str:
    facts = [
        f"{'>' if checkpoint.next else ' '} {checkpoint.checkpoint:<6} {checkpoint.at:%Y-%m-%d %H:%M:%S}",
        f"step {checkpoint.step}" if checkpoint.step is not None else "no step told",
        *([f"loss {checkpoint.loss:.4g}"] if checkpoint.loss is not None else []),
        size(checkpoint.num_bytes),
        f"saved in {checkpoint.seconds:.1f} s",
    ]
    return "  ".join(facts)
