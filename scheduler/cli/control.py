"""The runs of a job, and what they saved: `scheduler attempts`, `checkpoints`."""

from __future__ import annotations

from datetime import datetime

from scheduler.api.jobs import AttemptDocument, CheckpointDocument
from scheduler.cli.follow import printable, size
from scheduler.cli.options import AsJson, JobId, Url, connect
from scheduler.cli.views import print_json
from scheduler.core.durations import exact_span


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
