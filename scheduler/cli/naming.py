"""Which job is meant: by its id, the beginning of it, or its name."""

from __future__ import annotations

import re

from scheduler.api.jobs import JobDocument
from scheduler.cli.errors import AmbiguousJob
from scheduler.cli.follow import printable
from scheduler.client import Client
from scheduler.errors import InvalidRequest, JobNotFound, Problem, RegistryUnavailable

_SHORTEST_PREFIX = 4
_MOST_NAMED = 6
_MOST_LOOKED_AT = 1000
_WHOLE_ID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


def job_id_of(client: Client, text: str) -> str:
    """The id of the one job that *text* names.

    Raises JobNotFound when there is none, AmbiguousJob, which names the candidates, when there are several, and
    RegistryUnavailable when that is not known: a list without the registry has not all jobs.
    """
    if _WHOLE_ID.fullmatch(text):
        return text.lower()
    if not text.strip():
        raise InvalidRequest("an empty text names no job; `scheduler list` shows the jobs")
    found = _named(client, text)
    if not found:
        raise JobNotFound(
            f"no job has the name {text!r}, or an id that begins so; `scheduler list` shows the jobs"
        )
    if len(found) > 1:
        raise _ambiguous(text, found)
    return found[0].job_id


def is_named(job: JobDocument, text: str) -> bool:
    return job.name == text or (len(text) >= _SHORTEST_PREFIX and job.job_id.startswith(text.lower()))


def _named(client: Client, text: str) -> list[JobDocument]:
    """All that *text* names, or more than one of them."""
    looked_at, found = 0, list[JobDocument]()
    for page in client.job_pages(search=text, limit=_MOST_LOOKED_AT):
        if not page.verified:
            raise RegistryUnavailable(
                f"which job {text!r} names is not known now; give the whole id, as `scheduler list` shows it "
                f"({page.note})"
            )
        looked_at += len(page.jobs)
        found += [job for job in page.jobs if is_named(job, text)]
        if len(found) >= _MOST_NAMED:
            return found[:_MOST_NAMED]
    if looked_at == _MOST_LOOKED_AT and len(found) < 2:
        raise InvalidRequest(
            f"{text!r} is part of the names of more than {_MOST_LOOKED_AT:,} jobs, too many to find the one "
            "that is meant; give the id, as `scheduler list` shows it"
        )
    return found


def _ambiguous(text: str, found: list[JobDocument]) -> AmbiguousJob:
    count = f"{len(found)} jobs" if len(found) < _MOST_NAMED else f"at least {_MOST_NAMED} jobs"
    problems = tuple(
        Problem(
            job.job_id, printable(f"{job.name}, {job.status}, submitted {job.created_at:%Y-%m-%d %H:%M:%S}")
        )
        for job in found
    )
    return AmbiguousJob(f"{text!r} may be one of {count}", problems)
