"""What is left of a job when it has ended: its result, or the error that says why there is none."""

from __future__ import annotations

from scheduler.api.jobs import JobDocument, ResultDocument
from scheduler.core.model import Status
from scheduler.errors import JobFailed, JobNotCompleted, SchedulerError


def result_of(job: JobDocument) -> ResultDocument:
    """Raises JobFailed with the traceback of the job, or JobNotCompleted when nothing failed."""
    if job.status is Status.COMPLETED:
        return job.result or ResultDocument(output_dir=None)
    words = f"job {job.job_id} is {job.status}: {job.reason.message}; `scheduler logs {job.job_id}`"
    if job.status is not Status.FAILED:
        raise JobNotCompleted(words)
    raise JobFailed.of(
        words, job_id=job.job_id, reason_code=job.reason.code, remote_traceback=job.reason.detail
    )


def could_not_cancel(job_id: str, refusal: SchedulerError) -> str:
    return f"job {job_id} could not be cancelled and may go on: {refusal}; `scheduler cancel {job_id}`"
