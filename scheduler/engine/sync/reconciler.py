"""One pass over everything: what the registry believes, what runs, what the database says."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from scheduler.api.repairs import ReconcileAnswer, RepairDocument
from scheduler.core.lifecycle import Recover
from scheduler.core.model import Attempt, Job, JobId, Reason, Status
from scheduler.core.reconcile import (
    Decision,
    Differences,
    Repair,
    Row,
    Stub,
    Verdict,
    compare_rows,
    in_words,
)
from scheduler.engine.job_store import JobStore
from scheduler.engine.periodic import all_of
from scheduler.engine.registry import Registry
from scheduler.engine.sync.adoption import Adoption, repair_of
from scheduler.engine.sync.relay import Relay
from scheduler.engine.sync.session import MirrorSession
from scheduler.errors import MirrorRefused
from scheduler.ports import Clock, Journal, Mirror, Rows, Run, Runner

log = logging.getLogger(__name__)

PAGE = 1000
AT_ONCE = 200
"""Rows read whole in one request, and taken in side by side."""


@dataclass(slots=True)
class Pass:
    """What one pass has seen and done."""

    by: str
    dry_run: bool
    repairs: list[Repair] = field(default_factory=list[Repair])
    rows_compared: int = 0


class Reconciler:
    """Level-triggered: each pass looks at what is, so a missed event costs a pass and nothing else.

    Reads only active rows, never the history.  A pass that finds everything as it should be writes nothing.
    """

    def __init__(
        self,
        journal: Journal,
        registry: Registry,
        store: JobStore,
        runner: Runner,
        clock: Clock,
        session: MirrorSession | None,
        relay: Relay,
        adoption: Adoption,
    ) -> None:
        self._journal, self._registry, self._store = journal, registry, store
        self._runner, self._clock, self._session = runner, clock, session
        self._relay, self._adoption = relay, adoption
        self._one_at_a_time = asyncio.Lock()
        self._refused: frozenset[JobId] = frozenset()
        """Jobs whose rows the database did not take in the last pass."""

    async def once(self, *, by: str = "reconciler", dry_run: bool = False) -> ReconcileAnswer:
        """Compare, and repair what differs; with *dry_run* only say what would be done.

        Raises what the database raises: what was repaired until then stays so, the next pass does the rest.
        """
        async with self._one_at_a_time:
            work = Pass(by=by, dry_run=dry_run)
            if self._session is not None:
                await self._compare(work, await self._session.claimed())
                self._session.has_read_rows |= not dry_run
            return ReconcileAnswer(
                dry_run=dry_run,
                repairs=[repair_document(repair) for repair in work.repairs],
                rows_compared=work.rows_compared,
                database="compared" if self._session else "not configured",
            )

    async def _compare(self, work: Pass, mirror: Mirror) -> None:
        live = await self._runner.live()  # 1. what runs
        if not work.dry_run:
            with suppress(MirrorRefused):  # a job that the database does not take hides no other
                await self._relay.once()  # 2. what is only late is no difference
        stubs = await _all_active(mirror)  # 3. what the database says
        work.rows_compared = len(stubs)
        found = await self._differences(stubs)  # 4. where it differs
        await self._take_in(work, mirror, found.unknown, live)  # 5. passive: what we did not know
        await self._tell_again(work, mirror, (*found.differing, *found.missing))  # 6. active: correct it

    async def _differences(self, stubs: Sequence[Stub]) -> Differences:
        known: dict[JobId, tuple[Status, int]] = {}
        strangers = [stub.id for stub in stubs if self._registry.get(stub.id) is None]
        for job_id in strangers:
            if job := await self._journal.get(job_id):
                known[job_id] = (job.status, job.version)
        for stub in stubs:
            if job := self._registry.get(stub.id):
                known[stub.id] = (job.status, job.version)
        known |= {job.id: (job.status, job.version) for job in self._registry.active()}
        return compare_rows(known, stubs, await self._journal.unsent())

    async def _take_in(
        self, work: Pass, mirror: Mirror, unknown: Collection[JobId], live: frozenset[Run]
    ) -> None:
        pages = await _whole(mirror, unknown)
        if not pages:
            return
        rows = replace(pages[-1], rows=tuple(row for page in pages for row in page.rows))
        judged = [
            (row, verdict)
            for row, verdict in self._adoption.judge(rows, live)
            if verdict.decision is not Decision.WAIT and not await self._store.find(row.id)
        ]
        work.repairs += [repair_of(row, verdict, self._clock.now(), work.by) for row, verdict in judged]
        if not work.dry_run:
            # What runs first, all of it: nobody may be placed on nodes that a later row says are taken.
            for runs in (True, False):
                await self._carry_out(
                    work, [one for one in judged if (one[0].status is Status.RUNNING) is runs]
                )

    async def _carry_out(self, work: Pass, judged: Sequence[tuple[Row, Verdict]]) -> None:
        """Many at once, so that they share commits: a lost journal may have held a hundred thousand jobs."""
        for start in range(0, len(judged), AT_ONCE):
            await all_of(
                self._adoption.carry_out(row, verdict, work.by)
                for row, verdict in judged[start : start + AT_ONCE]
            )

    async def _tell_again(self, work: Pass, mirror: Mirror, suspects: Collection[JobId]) -> None:
        """Look twice: what differs still, of jobs that have not moved meanwhile, was not written by us."""
        rows = {row.id: row for page in await _whole(mirror, suspects) for row in page.rows}
        unsent = await self._journal.unsent()
        refused: dict[JobId, MirrorRefused] = {}
        for job_id in suspects:
            job, row = await self._store.find(job_id), rows.get(job_id)
            if job is None or job_id in unsent or (row and _agrees(row, job)):
                continue
            if row and row.job and row.job.version > job.version:
                await self._catch_up(work, job, row.job, row.attempts)
                continue
            try:
                await self._overwrite(work, job, row)
            except MirrorRefused as error:  # a row that is not taken hides no other
                refused[job_id] = error
        if not work.dry_run:
            self._refused = frozenset(refused)
        if refused:
            error = next(iter(refused.values()))
            raise MirrorRefused(
                f"{len(refused)} rows could not be repaired, refused by the database: {error.message}"
            )

    async def _overwrite(self, work: Pass, job: Job, row: Row | None) -> None:
        repair = self._repair(
            work,
            job,
            in_words(row) if row else "no row",
            "wrote it again as the registry has it",
            "the database held something that no scheduler wrote" if row else "its row was gone",
        )
        work.repairs.append(repair)
        if work.dry_run:
            return
        if job.id not in self._refused:  # written down with the pass that tried it first
            await self._journal.commit([], [repair])
        await self._relay.write_again(job.id)

    async def _catch_up(self, work: Pass, job: Job, newer: Job, attempts: tuple[Attempt, ...]) -> None:
        """The journal is older than what a scheduler told the database: it came from a backup."""
        why = "the journal is older than the database; was it restored from a backup?"
        said = f"{newer.status}, version {newer.version}"
        repair = self._repair(work, job, said, "took the newer state into the journal", why)
        work.repairs.append(repair)
        if work.dry_run:
            return
        event = Recover(at=self._clock.now(), by=work.by, reason=Reason(code="recovered", message=why))
        await self._store.adopt(newer, event, repair, attempts)

    def _repair(self, work: Pass, job: Job, in_database: str, decided: str, why: str) -> Repair:
        return Repair(
            job_id=job.id,
            at=self._clock.now(),
            by=work.by,
            in_database=in_database,
            in_reality=f"{job.status}, version {job.version}, in the journal",
            decided=decided,
            why=why,
        )


def _agrees(row: Row, job: Job) -> bool:
    """Nobody looks at a finished row again: its copy has to be whole too, to rebuild a lost journal from."""
    return (row.status, row.version) == (job.status, job.version) and (
        row.job is not None or not job.status.is_terminal
    )


def repair_document(repair: Repair) -> RepairDocument:
    return RepairDocument(
        job_id=repair.job_id,
        at=repair.at,
        by=repair.by,
        in_database=repair.in_database,
        in_reality=repair.in_reality,
        decided=repair.decided,
        why=repair.why,
    )


async def _all_active(mirror: Mirror) -> list[Stub]:
    stubs: list[Stub] = []
    while page := await mirror.active(stubs[-1].id if stubs else None, PAGE):
        stubs += page
        if len(page) < PAGE:
            break
    return stubs


async def _whole(mirror: Mirror, job_ids: Collection[JobId]) -> list[Rows]:
    ids = list(job_ids)
    return [await mirror.rows(ids[i : i + AT_ONCE]) for i in range(0, len(ids), AT_ONCE)]
