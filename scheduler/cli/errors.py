"""What was refused, in words on stderr, and exit codes that scripts can use."""

from __future__ import annotations

import sys

from scheduler.api.base import ProblemDocument
from scheduler.api.problems import problem_fields, readable
from scheduler.errors import (
    ArrayNotFound,
    BodyTooLarge,
    CheckpointNotFound,
    InvalidRequest,
    InvalidSpec,
    JobNotFound,
    NodeNotFound,
    NotAllowed,
    RegistryUnavailable,
    SchedulerError,
    Unauthorized,
    WaitTimedOut,
)

EXIT_CODES = """\b
Exit codes:
  0    ok; for `wait` and `submit --wait`: the job completed
  1    the job, or the request, failed; or you said no
  2    wrong usage, or the spec is not valid
  3    no such job, array, node or checkpoint
  4    no scheduler answers, or it is not ready
  5    the job's status does not allow it
  124  the wait timed out; the job goes on
  130  interrupted; the job goes on
"""


class AmbiguousJob(InvalidRequest):
    """A name, or the beginning of an id, that is right for several jobs."""

    code = "ambiguous_job"


_EXIT_CODES: tuple[tuple[type[SchedulerError], int], ...] = (
    (InvalidSpec, 2),
    (InvalidRequest, 2),
    (BodyTooLarge, 2),
    (JobNotFound, 3),
    (ArrayNotFound, 3),
    (NodeNotFound, 3),
    (CheckpointNotFound, 3),
    (NotAllowed, 5),
    (WaitTimedOut, 124),
)
_REMEDY: tuple[tuple[type[SchedulerError], str], ...] = (
    (InvalidSpec, "correct it and submit again; `scheduler loops` shows what each loop takes"),
    (Unauthorized, "set SCHEDULER_TOKEN to the token of the scheduler"),
    (AmbiguousJob, "give more of the id"),
    (NotAllowed, "`scheduler explain JOB` says what can be done with it"),
    (CheckpointNotFound, "`scheduler checkpoints JOB` shows those it has"),
    (RegistryUnavailable, "ask again in a moment; `scheduler health` says how the scheduler is"),
)


def exit_code(error: SchedulerError) -> int:
    for kind, code in _EXIT_CODES:
        if isinstance(error, kind):
            return code
    return 4 if error.http_status == 503 else 1


def problem_document(error: SchedulerError) -> ProblemDocument:
    return ProblemDocument(
        title=type(error).__name__,
        status=error.http_status,
        detail=readable(error.message),
        code=error.code,
        errors=problem_fields(error.problems),
    )


def print_error(error: SchedulerError, *, as_json: bool) -> None:
    """To stderr: what was wrong, which fields, what to do next."""
    if as_json:
        print(problem_document(error).model_dump_json(indent=2), file=sys.stderr)
        return
    # With fields, the sentence would only repeat them on one line.
    print(f"error: {error.message.partition('; ')[0] if error.problems else error.message}", file=sys.stderr)
    for problem in error.problems:
        print(f"  {problem}", file=sys.stderr)
    for kind, remedy in _REMEDY:
        if isinstance(error, kind):
            print(f"next: {remedy}", file=sys.stderr)
