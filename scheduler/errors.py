"""Everything that can be refused, and why.

SchedulerError
├── InvalidSpec          422  the job spec is not acceptable; one problem per field
├── InvalidRequest       422  some other part of the request is not
├── BodyTooLarge         413
├── Unstorable           422  a value that the journal could not give back; it was not written
├── NotAllowed           400  the job's status does not permit it
├── JobNotFound          404
├── RecurringJobNotFound 404
├── NodeNotFound         404
├── Unauthorized         401
├── ArrayNotFound        404
├── RegistryUnavailable  503  the scheduler actor does not answer (yet); ask again
├── JournalUnwritable    503  the disk refused; nothing was accepted
├── JournalUnusable      500  the file is torn, newer than this release, or owned by a newer scheduler
│   └── Superseded       500  a newer incarnation owns the journal; this one must stop
├── VersionConflict      409  a write came from an older copy of the job
├── MirrorUnavailable    503  Supabase does not answer: not known whether it was done
├── MirrorRefused        502  Supabase said no: a wrong key, a missing migration, a row it does not take
├── NotDelivered         502  the webhook did not take a notice
│   └── NoticeRefused    502  and said that it will not: the notice, not the connection, is what it does not want
├── RunUnreachable       503  a run does not answer: unknown, not dead
├── CheckpointNotFound   404  the job has no such complete checkpoint
├── CheckpointUnusable   409  a checkpoint is incomplete or corrupt
├── StorageUnavailable   503  where checkpoints are kept does not answer
├── NotReady             500  something start-up needs is missing
├── AlreadyUp            409  something lives that is not as `scheduler up` was asked for; it was left alone
├── ServerUnreachable    503  seen by a client: no scheduler answers at the URL
├── WaitTimedOut         504  seen by a client: the job had not ended in time
└── JobNotCompleted      409  seen by a client: it wants the result of a job that has none
    └── JobFailed        409  because the job failed; it carries what the job raised

Each class knows its HTTP status and a stable `code`; each instance pickles, because errors cross Ray.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: where, what, and what to do about it."""

    field: str
    message: str

    def __str__(self) -> str:
        return f"{self.field}: {self.message}"


class SchedulerError(Exception):
    """The root.  `str(error)` is a sentence for people: what was wrong and what to do next."""

    http_status = 500
    code = "scheduler_error"

    def __init__(self, message: str, problems: tuple[Problem, ...] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.problems = problems

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.message, self.problems), self.__dict__


class InvalidSpec(SchedulerError):
    http_status = 422
    code = "invalid_spec"

    @classmethod
    def of(cls, *problems: Problem) -> InvalidSpec:
        return cls("the job was not accepted; " + "; ".join(map(str, problems)), problems)


class InvalidRequest(SchedulerError):
    http_status = 422
    code = "invalid_request"


class BodyTooLarge(SchedulerError):
    http_status = 413
    code = "body_too_large"


class Unstorable(SchedulerError):
    http_status = 422
    code = "unstorable"


class NotAllowed(SchedulerError):
    http_status = 400
    code = "not_allowed"


class JobNotFound(SchedulerError):
    http_status = 404
    code = "job_not_found"

    @classmethod
    def of(cls, job_id: str) -> JobNotFound:
        return cls(f"no job {job_id!r} is known here; `scheduler list` shows the jobs that are")


class RecurringJobNotFound(SchedulerError):
    http_status = 404
    code = "recurring_job_not_found"

    @classmethod
    def of(cls, name: str) -> RecurringJobNotFound:
        return cls(
            f"there is no recurring job {name[:100]!r}; `scheduler recurring` shows those that are, and "
            "`scheduler every` makes one"
        )


class ArrayNotFound(SchedulerError):
    http_status = 404
    code = "array_not_found"

    @classmethod
    def of(cls, array_id: str) -> ArrayNotFound:
        return cls(
            f"no array {array_id!r} is known here; `scheduler submit` with --array says the id of a new one"
        )


class NodeNotFound(SchedulerError):
    http_status = 404
    code = "node_not_found"

    @classmethod
    def of(cls, node: str) -> NodeNotFound:
        return cls(f"no node {node!r:.100} is known here; `scheduler nodes` shows those that are")


class Unauthorized(SchedulerError):
    http_status = 401
    code = "unauthorized"


class RegistryUnavailable(SchedulerError):
    http_status = 503
    code = "registry_unavailable"


class JournalUnwritable(SchedulerError):
    http_status = 503
    code = "journal_unwritable"


class JournalUnusable(SchedulerError):
    code = "journal_unusable"


class Superseded(JournalUnusable):
    code = "superseded"


class VersionConflict(SchedulerError):
    http_status = 409
    code = "version_conflict"


class MirrorUnavailable(SchedulerError):
    http_status = 503
    code = "mirror_unavailable"


class MirrorRefused(SchedulerError):
    http_status = 502
    code = "mirror_refused"


class NotDelivered(SchedulerError):
    http_status = 502
    code = "not_delivered"


class NoticeRefused(NotDelivered):
    code = "notice_refused"


class RunUnreachable(SchedulerError):
    http_status = 503
    code = "run_unreachable"


class CheckpointNotFound(SchedulerError):
    http_status = 404
    code = "checkpoint_not_found"


class CheckpointUnusable(SchedulerError):
    http_status = 409
    code = "checkpoint_torn"


class StorageUnavailable(SchedulerError):
    http_status = 503
    code = "storage_unavailable"


class NotReady(SchedulerError):
    code = "not_ready"


class AlreadyUp(SchedulerError):
    """`scheduler up` found something alive that is not as it was asked for, and left it alone."""

    http_status = 409
    code = "already_up"


class ServerUnreachable(SchedulerError):
    http_status = 503
    code = "server_unreachable"


class WaitTimedOut(SchedulerError, TimeoutError):
    http_status = 504
    code = "wait_timed_out"


class JobNotCompleted(SchedulerError):
    http_status = 409
    code = "job_not_completed"


class JobFailed(JobNotCompleted):
    """The traceback of the job is a note of this error: Python prints it below the message."""

    code = "job_failed"
    job_id = ""
    reason_code = ""
    """The stable word for why, such as `exception`."""
    remote_traceback: str | None = None
    """What the job raised, where it raised it; None when it was not an exception that ended it."""

    @classmethod
    def of(cls, message: str, *, job_id: str, reason_code: str, remote_traceback: str | None) -> JobFailed:
        error = cls(message)
        error.job_id, error.reason_code, error.remote_traceback = job_id, reason_code, remote_traceback
        if remote_traceback:
            error.add_note(f"\nremote traceback of job {job_id}:\n\n{remote_traceback.rstrip()}")
        return error
