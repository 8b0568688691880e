"""Takes what only the database knows into the journal: rows of front ends, and of an earlier life."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Set
from dataclasses import replace
from datetime import datetime

from scheduler.core.commands import JobAction, action_in_database
from scheduler.core.lifecycle import Adopt, Event, GiveUp, Recover
from scheduler.core.model import Job, JobId, JobSpec, Reason, Status
from scheduler.core.reconcile import Decision, Policy, Repair, Row, Verdict, in_words, judge, oldest_first
from scheduler.core.rows import job_of, spec_of
from scheduler.engine.job_store import JobStore
from scheduler.engine.periodic import all_of
from scheduler.engine.registry import Registry
from scheduler.engine.spec_validation import Accepted
from scheduler.engine.sync.relay import MirrorSession
from scheduler.errors import InvalidSpec, JobNotFound, SchedulerError
from scheduler.ports import Clock, Rows, Run, Runner

log = logging.getLogger("scheduler")

PAGE = 500
ActOn = Callable[[str, JobAction, str], Awaitable[object]]
"""Does what a front end asked: (job id, what, by whom)."""


class Adoption:
    """Decides about rows that neither registry nor journal knows; whatever is decided is journalled first."""

    def __init__(
        self,
        *,
        book: JobStore,
        registry: Registry,
        link: MirrorSession | None,
        clock: Clock,
        check: Callable[[JobSpec], Awaitable[Accepted]],
        stale_after_s: float,
        policy: Policy,
    ) -> None:
        self._book, self._registry, self._link, self._clock = book, registry, link, clock
        self._check, self._stale_after_s, self._policy = check, stale_after_s, policy

    async def get(self, job_id: str) -> Job:
        """The job, wherever it is known: registry, journal, database.  Raises JobNotFound, or MirrorUnavailable
        when only the database could tell and does not answer."""
        if job := await self._book.find(JobId(job_id)):
            return job
        if self._link:
            mirror = await self._link.claimed()
            for row in (await mirror.rows([JobId(job_id)])).rows:
                return job_of(row)
        raise JobNotFound.of(job_id)

    def judge(self, rows: Rows, live: Set[Run]) -> list[tuple[Row, Verdict]]:
        """What is to be done about each row, in the order in which they enter the line.

        This life knows none of them: that it is alive, and says so, makes none of them younger.  A row that had not
        heard of a run which lives is left out: the run knows better (see found_runs.py).
        """
        assert self._link is not None, "rows come from a database"
        newest = dict(sorted(live))
        return [
            (
                row,
                judge(
                    row,
                    live=live,
                    vouched_at=self._link.vouched_before,
                    now=rows.read_at,
                    stale_after_s=self._stale_after_s,
                    policy=self._policy,
                ),
            )
            for row in oldest_first(rows.rows)
            if newest.get(row.id, 0) <= _last_told(row)
        ]

    async def carry_out(self, row: Row, verdict: Verdict, by: str) -> None:
        """Journal the decision, with its repair.  A front end's new row is no repair."""
        repair = None if is_submit(row, verdict) else repair_of(row, verdict, self._clock.now(), by)
        job = await self._as_known(row)
        job, event = await self._event(job, row, verdict, by)
        await self._book.adopt(job, event, repair, row.attempts)

    async def _as_known(self, row: Row) -> Job:
        job = job_of(row)
        if job.status in (Status.PENDING, Status.QUEUED) and job.queue_seq is None:
            # Before anything waits: the order of the rows is that of the line.
            job = replace(job, queue_seq=self._registry.next_seq())
        if await self._key_is_taken(job):
            job = replace(job, idempotency_key=None)
        return job

    async def _key_is_taken(self, job: Job) -> bool:
        """A journal that was lost forgot the key, and may have given it to another job meanwhile."""
        known = await self._book.submitted_before(job.id, job.spec.user, job.idempotency_key)
        return known is not None and known.id != job.id

    async def _event(self, job: Job, row: Row, verdict: Verdict, by: str) -> tuple[Job, Event]:
        now = self._clock.now()
        match verdict.decision:
            case Decision.ADOPT:
                return await self._admit_or_refuse(job, row, by)
            case Decision.STALE:
                reason = Reason(code="stale", message=f"nobody knew this job: {verdict.why}")
                return job, GiveUp(at=now, by=by, reason=reason, is_gone=True)
            case Decision.FAIL:
                reason = Reason(code="failed_after_outage", message=verdict.why)
                return job, GiveUp(at=now, by=by, reason=reason, is_gone=True)
            case _:
                message = f"found in the database after the journal was lost; {verdict.why}"
                reason = Reason(code="recovered", message=message)
                return job, Recover(at=now, by=by, reason=reason, hold=verdict.decision is Decision.HOLD)

    async def _admit_or_refuse(self, job: Job, row: Row, by: str) -> tuple[Job, Event]:
        """A front end's row is validated like any submit, and runs as it was checked."""
        now = self._clock.now()
        try:
            job = replace(job, spec=(await self._check(spec_of(row))).spec)
        except InvalidSpec as error:
            words = "; ".join(map(str, error.problems))
            reason = Reason(code="invalid_spec", message=f"not accepted: {words}")
            return job, GiveUp(at=now, by=by, reason=reason)
        if job.status is Status.PENDING:
            return job, Adopt(at=now, by=by, queue_seq=job.queue_seq or self._registry.next_seq())
        reason = Reason(code="adopted", message="found queued in the database")
        return job, Recover(at=now, by=by, reason=reason)


class Inbox:
    """Looks for what front ends wrote: new jobs, and requests.  One small query when there is nothing."""

    def __init__(
        self,
        *,
        link: MirrorSession | None,
        book: JobStore,
        runner: Runner,
        adoption: Adoption,
        act_on: ActOn,
    ) -> None:
        self._link, self._book, self._runner, self._adoption = link, book, runner, adoption
        self._act_on = act_on

    async def once(self) -> int:
        """Returns how many rows were dealt with.  What was dealt with and not mirrored yet is passed over."""
        if self._link is None:
            return 0
        mirror, after, done = await self._link.claimed(), None, 0
        while True:
            page = await mirror.inbox(after, PAGE)
            done += await self._deal_with(page)
            if len(page.rows) < PAGE:
                return done
            after = (page.rows[-1].updated_at, page.rows[-1].id)

    async def _deal_with(self, page: Rows) -> int:
        asked = [row for row in page.rows if row.requested_action]
        for row in asked:
            await self._take_request(row)
        new = [row for row in page.rows if row.status is Status.PENDING and not row.version]
        unknown = [row for row in new if await self._book.find(row.id) is None]
        if unknown:
            await self._adopt(replace(page, rows=tuple(unknown)))
        return len(asked) + len(unknown)

    async def _adopt(self, rows: Rows) -> None:
        live = await self._runner.live()
        judged = self._adoption.judge(rows, live)
        await all_of(self._adoption.carry_out(row, verdict, "inbox") for row, verdict in judged)

    async def _take_request(self, row: Row) -> None:
        """Act, then say so: a crash in between does it again, and doing it again changes nothing."""
        action, by = str(row.requested_action), f"user {row.user_id}" if row.user_id else "front end"
        refusal = None
        try:
            await self._act_on(row.id, action_in_database(action), by)
        except SchedulerError as error:
            if error.http_status >= 500:
                raise
            refusal = error.message
            log.info("job %s: %s asked by %s was refused: %s", row.id, action, by, refusal)
        assert self._link is not None
        await (await self._link.claimed()).answer(row.id, action, refusal)


def _last_told(row: Row) -> int:
    """The newest run that the database has heard of."""
    return row.job.fence if row.job else row.attempt


def is_submit(row: Row, verdict: Verdict) -> bool:
    return verdict.decision is Decision.ADOPT and row.status is Status.PENDING


def repair_of(row: Row, verdict: Verdict, at: datetime, by: str) -> Repair:
    return Repair(
        job_id=row.id,
        at=at,
        by=by,
        in_database=in_words(row),
        in_reality=verdict.in_reality,
        decided=DECIDED[verdict.decision],
        why=verdict.why,
    )


DECIDED = {
    Decision.ADOPT: "validated it, and put it in the line or failed it",
    Decision.RECOVER: "took it back into the journal as it stood",
    Decision.HOLD: "took it back and held it for a person",
    Decision.STALE: "marked it as failed: stale",
    Decision.FAIL: "marked it as failed, as the settings say",
}
