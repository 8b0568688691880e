"""Takes what only the database knows into the journal: rows of front ends, and of an earlier life."""

from __future__ import annotations

import logging
from collections.abc import Set
from dataclasses import replace
from datetime import datetime

from scheduler.core.lifecycle import Adopt, Event, GiveUp, Recover
from scheduler.core.model import Job, Reason, Status
from scheduler.core.reconcile import Decision, Repair, Row, Verdict, in_words, judge, oldest_first
from scheduler.core.rows import job_of, spec_of
from scheduler.engine import dependencies
from scheduler.engine.cluster import Cluster
from scheduler.engine.job_store import JobStore
from scheduler.engine.registry import Registry
from scheduler.engine.spec_validation import SpecValidator
from scheduler.engine.sync.session import MirrorSession
from scheduler.errors import InvalidSpec
from scheduler.ports import Clock, Rows, Run
from scheduler.settings import Settings

log = logging.getLogger(__name__)


class Adoption:
    """Decides about rows that neither registry nor journal knows; whatever is decided is journalled first."""

    def __init__(
        self,
        store: JobStore,
        registry: Registry,
        session: MirrorSession | None,
        cluster: Cluster,
        validator: SpecValidator,
        clock: Clock,
        settings: Settings,
    ) -> None:
        self._store, self._registry, self._session, self._clock = store, registry, session, clock
        self._validator, self._cluster = validator, cluster
        self._stale_after_s, self._policy = settings.stale_after_s, settings.recover_queued

    def judge(self, rows: Rows, live: Set[Run]) -> list[tuple[Row, Verdict]]:
        """What is to be done about each row, in the order in which they enter the line.

        This life knows none of them: that it is alive, and says so, makes none of them younger.  A row that had not
        heard of a run which lives is left out: the run knows better (see found_runs.py).
        """
        assert self._session is not None, "rows come from a database"
        newest = dict(sorted(live))
        return [
            (
                row,
                judge(
                    row,
                    live=live,
                    vouched_at=self._session.vouched_before,
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
        await self._store.adopt(job, event, repair, row.attempts)

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
        known = await self._store.submitted_before(job.id, job.spec.user, job.idempotency_key)
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
            accepted = await self._validator.admit(spec_of(row), self._cluster.possible_nodes())
            await dependencies.check(self._store, [accepted.spec])
            job = replace(job, spec=accepted.spec)
        except InvalidSpec as error:
            words = "; ".join(map(str, error.problems))
            reason = Reason(code="invalid_spec", message=f"not accepted: {words}")
            return job, GiveUp(at=now, by=by, reason=reason)
        if job.status is Status.PENDING:
            return job, Adopt(at=now, by=by, queue_seq=job.queue_seq or self._registry.next_seq())
        reason = Reason(code="adopted", message="found queued in the database")
        return job, Recover(at=now, by=by, reason=reason)


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
    Decision.ADOPT: "validated it, and queued or failed it",
    Decision.RECOVER: "took it back into the journal as it stood",
    Decision.HOLD: "took it back and held it for a person",
    Decision.STALE: "marked it as failed: stale",
    Decision.FAIL: "marked it as failed, as the settings say",
}
