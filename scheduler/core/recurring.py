"""Recurring jobs: what is written down of each, and how it goes from one of its moments to the next."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, tzinfo
from typing import Literal

from pydantic import AwareDatetime, TypeAdapter

from scheduler.core import cron
from scheduler.core.model import Job, JobId, JobSpec

LABEL = "recurring"
"""The label of its jobs that has its name."""
_KEY = "every:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Submitted:
    """The job that was made for a moment."""

    at: AwareDatetime
    """The moment, not when somebody got round to it."""
    job: JobId


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """A moment for which no job was made."""

    at: AwareDatetime
    code: Literal["overlap", "missed", "invalid"]
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RecurringJob:
    """As the journal keeps it: new fields stand at the end, with a default."""

    name: str
    cron: str
    timezone: str
    spec: JobSpec
    by: str
    """Who made it, or changed it last."""
    created_at: AwareDatetime
    next_at: AwareDatetime | None = None
    """The first moment that was not dealt with; None: it is paused, or its expression names no more."""
    is_paused: bool = False
    submitted: Submitted | None = None
    """The last one."""
    skipped: Skipped | None = None
    """The last one."""
    num_invalid: int = 0
    """Moments at which its spec was not valid any more."""

    def is_due(self, now: datetime) -> bool:
        return self.next_at is not None and self.next_at <= now


RECURRING: TypeAdapter[RecurringJob] = TypeAdapter(RecurringJob)


def key_of(one: RecurringJob, moment: datetime) -> str:
    """The idempotency key of its job for *moment*: however often that is submitted, there is one."""
    return f"{_prefix(one)}{moment.astimezone(UTC).isoformat()}"


def moment_of(one: RecurringJob, job: Job) -> datetime | None:
    """For which moment of *one* the job was made; None: it is no job of it."""
    key, prefix = job.idempotency_key or "", _prefix(one)
    try:
        return datetime.fromisoformat(key.removeprefix(prefix)) if key.startswith(prefix) else None
    except ValueError:  # somebody else's key, that happens to begin so
        return None


def _prefix(one: RecurringJob) -> str:
    return f"{_KEY}{one.name}:"


def labelled(one: RecurringJob) -> JobSpec:
    """The spec of its next job."""
    return replace(one.spec, labels={**one.spec.labels, LABEL: one.name})


def scheduled(one: RecurringJob, zone: tzinfo, now: datetime) -> RecurringJob:
    """*one* with its first moment after *now*; none while it is paused."""
    return replace(one, next_at=None if one.is_paused else cron.next_after(one.cron, zone, now))


def made_up(one: RecurringJob, zone: tzinfo, now: datetime) -> RecurringJob:
    """*one*, which is due, with its newest moment as the one to deal with; those before it were missed."""
    assert one.next_at is not None
    newest = cron.newest_until(one.cron, zone, now)
    if newest is None or newest <= one.next_at:
        return one
    first = in_words(one.next_at, zone)
    why = (
        f"nobody submitted it from {first} on, because the scheduler was down or its clock was set; of the moments that "
        f"were missed only the newest is made up for, {in_words(newest, zone)}"
    )
    return replace(one, next_at=newest, skipped=Skipped(at=one.next_at, code="missed", message=why))


def overlapping(one: RecurringJob, zone: tzinfo, moment: datetime, job: Job) -> Skipped:
    """*moment* is skipped because *job*, of an earlier one, has not ended."""
    earlier = moment_of(one, job)
    of = f" of {in_words(earlier, zone)}" if earlier else ""
    return Skipped(at=moment, code="overlap", message=f"job {job.id}{of} is still {job.status}")


def in_words(moment: datetime, zone: tzinfo) -> str:
    """As the clocks of its time zone show it."""
    clock = "%H:%M:%S" if moment.second else "%H:%M"
    return moment.astimezone(zone).strftime(f"%Y-%m-%d {clock} %Z")
