"""Recurring jobs: kept in the journal, and submitted when their moments come, each moment once."""

from __future__ import annotations

import asyncio
import logging
import re
import uuid
from collections.abc import Coroutine, Mapping
from dataclasses import replace
from datetime import datetime
from functools import lru_cache
from typing import Any, TypeVar
from weakref import WeakValueDictionary
from zoneinfo import ZoneInfo, available_timezones

from scheduler.api.recurring import (
    NAME,
    NAME_IN_WORDS,
    RecurringChanges,
    RecurringForgotten,
    RecurringJobDocument,
    RecurringJobList,
    SkippedMoment,
    SubmittedMoment,
)
from scheduler.api.serialize import shown
from scheduler.core import cron
from scheduler.core.codec import in_words
from scheduler.core.model import Job, JobId
from scheduler.core.recurring import (
    LABEL,
    RECURRING,
    RecurringJob,
    Skipped,
    Submitted,
    key_of,
    labelled,
    made_up,
    moment_of,
    overlapping,
    scheduled,
)
from scheduler.core.redaction import Redactor
from scheduler.engine.commands import Commands
from scheduler.engine.job_store import JobStore
from scheduler.engine.periodic import all_of
from scheduler.engine.registry import Registry
from scheduler.errors import InvalidRequest, InvalidSpec, Problem, RecurringJobNotFound
from scheduler.ports import Clock, Journal

log = logging.getLogger(__name__)

NOTES = "recurring:"
"""Each recurring job is a note of the journal, whose name is this and its own."""
MOST = 1000
_MOST_LABELS = 63
"""A spec may have one more: the one that names the recurring job."""
_IDS = uuid.UUID("5a8c1b2e-6f1d-4a53-9d0e-0c7f4d1e8a21")
T = TypeVar("T")


class RecurringJobs:
    """By name.  What memory has is in the journal; a job is submitted before it is noted that it was."""

    def __init__(
        self,
        journal: Journal,
        registry: Registry,
        store: JobStore,
        commands: Commands,
        clock: Clock,
        cluster_name: str,
    ) -> None:
        self._journal, self._registry, self._store = journal, registry, store
        self._commands, self._clock = commands, clock
        self._cluster_name = cluster_name
        self._known: Mapping[str, RecurringJob] = {}
        self._unreadable: Mapping[str, str] = {}
        """Those of the journal that are not submitted, and why."""
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def load(self) -> None:
        """Begin with what the journal has.  One that cannot be read does not take the others with it."""
        known, unreadable = dict[str, RecurringJob](), dict[str, str]()
        for note, doc in (await self._journal.notes(NOTES)).items():
            name = note.removeprefix(NOTES)
            try:
                known[name] = _checked(RECURRING.validate_python(doc))
            except ValueError as error:
                unreadable[name] = in_words(error)
                log.error("recurring job %r is not submitted: cannot read %s", name, unreadable[name])
        self._known, self._unreadable = known, unreadable

    def problem(self) -> str | None:
        """What is in the journal and is not submitted, in words; None: nothing."""
        if not self._unreadable:
            return None
        name, why = next(iter(self._unreadable.items()))
        return (
            f"{len(self._unreadable)} recurring jobs cannot be read and are not submitted, such as {name!r} ({why}); "
            f"make it anew with `scheduler every ... --name {name}`, or `scheduler recurring forget {name}`"
        )

    # As their moments come

    async def once(self) -> None:
        """Submit, or skip in words, what is due."""
        now = self._clock.now()
        due = [name for name, one in self._known.items() if one.is_due(now)]
        await all_of(_to_its_end(self._come_due(name)) for name in due)

    async def _come_due(self, name: str) -> None:
        async with self._locks.setdefault(name, asyncio.Lock()):
            if one := self._known.get(name):
                await self._up_to_date(one)

    async def _up_to_date(self, one: RecurringJob) -> RecurringJob:
        """*one* with what is due by now dealt with, in the journal too."""
        now = self._clock.now()
        if not one.is_due(now):
            return one
        zone = ZoneInfo(one.timezone)
        one = made_up(one, zone, now)
        assert one.next_at is not None
        outcome = await self._submit(one, one.next_at)
        if isinstance(outcome, Submitted):
            after = replace(one, submitted=outcome)
        else:
            self._tell(one, outcome)
            after = replace(one, skipped=outcome, num_invalid=one.num_invalid + (outcome.code == "invalid"))
        after = scheduled(after, zone, now)
        await self._keep(after)
        return after

    async def _submit(self, one: RecurringJob, moment: datetime) -> Submitted | Skipped:
        """A crash after it leaves the job, and no note of it: the next pass finds that job by its id."""
        key = key_of(one, moment)
        if earlier := self._earlier_job(one, key):
            return overlapping(one, ZoneInfo(one.timezone), moment, earlier)
        job_id = uuid.uuid5(_IDS, f"{self._cluster_name} {one.created_at.isoformat()} {key}")
        try:
            job, _ = await self._commands.submit(str(job_id), labelled(one), key)
        except InvalidSpec as error:
            words = "; ".join(map(str, error.problems))
            return Skipped(at=moment, code="invalid", message=f"its spec is not valid now: {words}")
        return Submitted(at=moment, job=JobId(job.job_id))

    def _earlier_job(self, one: RecurringJob, key: str) -> Job | None:
        """One of its jobs, of another moment, that has not ended."""
        active = (job for job in self._registry.active() if job.idempotency_key != key)
        return next((job for job in active if moment_of(one, job)), None)

    def _tell(self, before: RecurringJob, now: Skipped) -> None:
        """What is not valid is an error, once for the same words."""
        if now.code == "invalid" and not (before.skipped and before.skipped.message == now.message):
            names = {"action": "recurring_job_invalid", "recurring": before.name}
            log.error("recurring job %s: %s", before.name, now.message, extra=names)
        else:
            log.info("recurring job %s: skipped %s: %s", before.name, now.at.isoformat(), now.message)

    # As the API asks

    async def recurring_jobs(self) -> RecurringJobList:
        found = [await self._document(one) for _, one in sorted(self._known.items())]
        return RecurringJobList(recurring_jobs=found)

    async def recurring_job(self, name: str) -> RecurringJobDocument:
        if one := self._known.get(name):
            return await self._document(one)
        raise RecurringJobNotFound.of(name)

    async def set_recurring_job(self, name: str, changes: RecurringChanges, by: str) -> RecurringJobDocument:
        """Raises InvalidRequest and InvalidSpec with each field that is wrong, RecurringJobNotFound where there is too
        little to make one."""
        return await self._document(await _to_its_end(self._set(name, changes, by)))

    async def forget_recurring_job(self, name: str, by: str) -> RecurringForgotten:
        existed = await _to_its_end(self._forget(name))
        log.info("recurring job %r is forgotten, as %s asked", name, by)
        return RecurringForgotten(name=name, existed=existed)

    async def _set(self, name: str, changes: RecurringChanges, by: str) -> RecurringJob:
        """To its end, whoever asked for it: memory must not fall behind the journal."""
        async with self._locks.setdefault(name, asyncio.Lock()):
            known = self._known.get(name)
            if known:
                known = await self._up_to_date(known)
            wanted = self._changed(known, name, changes, by)
            if "spec" in changes:
                await self._check(wanted)
            if wanted != known:
                await self._keep(wanted)
                log.info("recurring job %s was changed, as %s asked", name, by)
            return wanted

    def _changed(
        self, known: RecurringJob | None, name: str, changes: RecurringChanges, by: str
    ) -> RecurringJob:
        now, spec = self._clock.now(), changes.get("spec", known and known.spec)
        expression = changes.get("cron", known and known.cron)
        zone = changes.get("timezone", known.timezone if known else "UTC")
        problems = [*_of_name(name), *_of_cron(expression), *_of_zone(zone)]
        if known is None and not {"cron", "spec"} & changes.keys():
            raise RecurringJobNotFound.of(name)
        if spec is None:
            problems.append(Problem("spec", "is required for a new recurring job; add it"))
        elif len(spec.labels.keys() | {LABEL}) > _MOST_LABELS + 1:
            words = f"has {len(spec.labels)}; {_MOST_LABELS} are taken, because one is added: `{LABEL}`"
            problems.append(Problem("spec.labels", words))
        if known is None and len(self._known) >= MOST:
            problems.append(Problem("name", f"there are {MOST:,} already, which is the most; forget some"))
        if problems or spec is None or expression is None:
            words = "; ".join(map(str, problems))
            raise InvalidRequest(f"the recurring job was not changed; {words}", tuple(problems))
        one = known or RecurringJob(
            name=name, cron=expression, timezone=zone, spec=spec, by=by, created_at=now
        )
        one = replace(one, spec=spec, cron=expression, timezone=zone)
        one = replace(one, is_paused=changes.get("paused", one.is_paused))
        if known is None or _moments(one) != _moments(known):
            one = scheduled(one, ZoneInfo(zone), now)
        return one if one == known else replace(one, by=by)

    async def _check(self, one: RecurringJob) -> None:
        try:
            await self._commands.validate(labelled(one))
        except InvalidSpec as error:
            raise InvalidSpec.of(
                *(Problem(f"spec.{problem.field}", problem.message) for problem in error.problems)
            ) from error

    async def _keep(self, one: RecurringJob) -> None:
        await self._journal.note(f"{NOTES}{one.name}", RECURRING.dump_python(one, mode="json"))
        self._known = {**self._known, one.name: one}
        self._unreadable = {name: why for name, why in self._unreadable.items() if name != one.name}

    async def _forget(self, name: str) -> bool:
        async with self._locks.setdefault(name, asyncio.Lock()):
            if name not in self._known and name not in self._unreadable:
                return False
            await self._journal.note(f"{NOTES}{name}", None)
            self._known = {other: one for other, one in self._known.items() if other != name}
            self._unreadable = {other: why for other, why in self._unreadable.items() if other != name}
            return True

    async def _document(self, one: RecurringJob) -> RecurringJobDocument:
        """Moments are told by the clocks of its time zone."""
        last, redactor, zone = None, Redactor.of(one.spec), ZoneInfo(one.timezone)
        if one.submitted:
            job = await self._store.find(one.submitted.job)
            at = one.submitted.at.astimezone(zone)
            last = SubmittedMoment(at=at, job_id=one.submitted.job, status=job.status if job else None)
        skipped = one.skipped and SkippedMoment(
            at=one.skipped.at.astimezone(zone),
            code=one.skipped.code,
            message=redactor.text(one.skipped.message),
        )
        return RecurringJobDocument(
            name=one.name,
            cron=one.cron,
            words=cron.explained(one.cron),
            timezone=one.timezone,
            paused=one.is_paused,
            next_at=one.next_at and one.next_at.astimezone(zone),
            last=last,
            skipped=skipped,
            num_invalid=one.num_invalid,
            by=one.by,
            created_at=one.created_at,
            spec=redactor.spec(shown(one.spec)),
        )


def _to_its_end(work: Coroutine[Any, Any, T]) -> asyncio.Future[T]:
    """Begun at once, and done also when its caller goes away."""
    return asyncio.shield(asyncio.ensure_future(work))


def _moments(one: RecurringJob) -> tuple[object, ...]:
    """What decides when it is due."""
    return one.cron, one.timezone, one.is_paused


def _checked(one: RecurringJob) -> RecurringJob:
    """Raises ValueError for one that could not be submitted: this machine may know fewer time zones."""
    if problems := [*_of_cron(one.cron), *_of_zone(one.timezone)]:
        raise ValueError("; ".join(map(str, problems)))
    return one


def _of_name(name: str) -> list[Problem]:
    return [] if re.fullmatch(NAME, name) else [Problem("name", f"{NAME_IN_WORDS}; give another one")]


def _of_cron(expression: str | None) -> list[Problem]:
    if expression is None:
        return [Problem("cron", f"is required for a new recurring job; add it, as {cron.EXAMPLE}")]
    words = cron.problem_of(expression)
    return [Problem("cron", words)] if words else []


def _of_zone(zone: str) -> list[Problem]:
    if zone in _zones():
        return []
    return [Problem("timezone", f"there is no time zone {zone[:60]!r}; give one as Europe/Berlin, or UTC")]


@lru_cache(maxsize=1)
def _zones() -> frozenset[str]:
    return frozenset(available_timezones())
