"""Reads that say what they are worth: the registry's word, compared with the database's.

Without a database every answer is the registry's.  With one:

- The list is the union of both pages.  Both are asked at once, and who does not answer in time is left out; a
  job that only one side has on its page is looked for by id on the other, so that pages need not end alike.
- A job is `stale` when its row says another status than the registry, or is not there; also when the registry
  does not know the job and the row claims to be queued, running or paused.  A side that did not answer makes
  nothing stale, nor does a change that is still on its way to the database.
- A job that only the database speaks of is not `verified`.  A page is not when the registry was silent.
- While the registry is away, jobs are served as the database has them, and say so.
- Who hangs is waited for once; then lists do without it until it answers again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial

from scheduler import __version__
from scheduler.api.health import DatabaseHealth, Health
from scheduler.api.jobs import JobDocument, JobPage
from scheduler.api.scheduler_api import SchedulerApi
from scheduler.api.serialize import row_document
from scheduler.core.model import JobId
from scheduler.core.reconcile import Row
from scheduler.errors import RegistryUnavailable
from scheduler.ports import JobQuery, Mirror, Sort
from serve_app.page_comparison import PageComparison, has_words, unverified_page
from serve_app.read_source import NoAnswer, ReadSource

_GRACE_S = 0.25
"""What each of the two questions about single jobs of a page may take beyond the budget."""
_CHECK_S = 1.0
"""How long `/health` waits for the database while the registry is away."""


class VerifiedReads:
    """Lists, states and health over *registry* and, where there is one, *database*.

    A list takes at most *budget_s* and three quarters of a second, whoever hangs; a status at most twice *budget_s*; and
    while somebody hangs, only the first of them: see `ReadSource`.
    """

    def __init__(
        self,
        registry: SchedulerApi,
        database: Mirror | None,
        *,
        budget_s: float,
        overdue_after_s: float,
        pause_s: float,
    ) -> None:
        self._registry, self._database = registry, database
        self._budget_s, self._overdue_after_s = budget_s, overdue_after_s
        how = {"budget_s": budget_s, "pause_s": pause_s}
        self._from_registry = ReadSource("the registry", lambda: registry.documents([]), **how)
        self._from_database = ReadSource("the database", self._look, **how)

    async def jobs(self, query: JobQuery) -> JobPage:
        """A page of jobs; a stale one may stand in it under either of its states.

        Raises RegistryUnavailable when neither side answers.
        """
        if self._database is None:
            return await self._registry.jobs(query)
        until_s = time.monotonic() + self._budget_s
        if not query.is_plain:
            return await self._in_order_of_the_registry(self._database, query, until_s)
        page, rows = await asyncio.gather(
            self._from_registry.ask(partial(self._registry.jobs, query), until_s),
            self._from_database.ask(partial(self._database.page, query), until_s),
        )
        if isinstance(page, NoAnswer):
            if isinstance(rows, NoAnswer):
                raise _both_silent(page, rows)
            return self._unverified(rows, query.limit, page)
        if isinstance(rows, NoAnswer):
            return page.model_copy(update={"note": f"not compared with the database: {rows.why}"})
        return await self._union(self._database, page, rows, query.limit, until_s)

    async def status(self, job_id: str) -> JobDocument:
        """The registry's word; while it is away, the row as it is, not verified.

        Raises JobNotFound when the registry says so, RegistryUnavailable when nobody can tell.
        """
        if self._database is None:
            return await self._registry.status(job_id)
        asked = partial(self._registry.status, job_id)
        document = await self._from_registry.ask(asked, time.monotonic() + self._budget_s, anyway=True)
        if not isinstance(document, NoAnswer):
            return document
        looked = partial(self._database.rows, [JobId(job_id)])
        found = await self._from_database.ask(looked, time.monotonic() + self._budget_s)
        if isinstance(found, NoAnswer):
            raise _both_silent(document, found)
        if not found.rows:
            raise RegistryUnavailable(f"{document.why}; the database has no job {job_id}: ask again later")
        return row_document(
            found.rows[0],
            now=datetime.now(UTC),
            overdue_after_s=self._overdue_after_s,
            doubt="the registry does not answer",
        )

    async def health_without_registry(self, why: str) -> Health:
        """Degraded, with what is known of the database."""
        problems, database = [why], DatabaseHealth()
        if self._database is not None:
            checked = await self._from_database.ask(self._database.check, time.monotonic() + _CHECK_S)
            if isinstance(checked, NoAnswer):
                problems.append(checked.why)
                database = DatabaseHealth(configured=True, ok=False, last_error=checked.why)
            else:
                note = f"it answers, and lists show what it has: {checked}"
                database = DatabaseHealth(configured=True, ok=True, note=note)
        return Health(status="degraded", problems=problems, version=__version__, database=database)

    async def _in_order_of_the_registry(self, database: Mirror, query: JobQuery, until_s: float) -> JobPage:
        """The database can neither sort nor search: the page is the registry's, and its rows are comparison by id."""
        page = await self._from_registry.ask(partial(self._registry.jobs, query), until_s)
        if isinstance(page, NoAnswer):
            return await self._newest_rows(database, query, page, until_s + self._budget_s)
        comparison = self._comparison_of(page, [])
        shown = list(comparison.documents)
        comparison, unseen = await self._look_up(database, comparison, shown, until_s + _GRACE_S)
        comparison, unheard = await self._listen_again(comparison, shown, until_s + 2 * _GRACE_S)
        comparison = await self._look_again(database, comparison, shown, until_s + 3 * _GRACE_S)
        return page.model_copy(
            update={
                "jobs": [comparison.compared(job_id, datetime.now(UTC)) for job_id in shown],
                "verified": unheard is None,
                "note": "; ".join(filter(None, (unheard, unseen))) or None,
            }
        )

    async def _newest_rows(
        self, database: Mirror, query: JobQuery, no_answer: NoAnswer, until_s: float
    ) -> JobPage:
        """What of a list in another order, or of a search, the database can serve: the newest of all its jobs."""
        if query.after:
            raise RegistryUnavailable(
                f"{no_answer.why}; the database cannot go on with a list sorted by {query.sort}, or with a search: "
                "ask again later, or begin a list without them"
            )
        plain = replace(query, sort=Sort.NEWEST, search=None)
        rows = await self._from_database.ask(partial(database.page, plain), until_s)
        if isinstance(rows, NoAnswer):
            raise _both_silent(no_answer, rows)
        found = [row for row in rows if has_words(row, query.search)]
        page = self._unverified(found, query.limit, no_answer)
        note = f"{page.note}; newest first" + (
            f", and searched for in the newest {query.limit} alone" if query.search else ""
        )
        return page.model_copy(update={"note": note, "next_cursor": None})

    async def _union(
        self, database: Mirror, page: JobPage, rows: Sequence[Row], limit: int, until_s: float
    ) -> JobPage:
        comparison = self._comparison_of(page, rows)
        found = comparison.newest_first()
        shown = found[:limit]
        # The registry comes last: nothing it said is older than the row it is compared with.
        comparison, unseen = await self._look_up(database, comparison, shown, until_s + _GRACE_S)
        comparison, unheard = await self._listen_again(comparison, shown, until_s + 2 * _GRACE_S)
        comparison = await self._look_again(database, comparison, shown, until_s + 3 * _GRACE_S)
        more = page.next_cursor is not None or len(rows) >= limit or len(found) > limit
        return JobPage(
            jobs=[comparison.compared(job_id, datetime.now(UTC)) for job_id in shown],
            next_cursor=comparison.cursor_after(shown[-1]) if shown and more else None,
            verified=unheard is None,
            note="; ".join(filter(None, (unheard, unseen))) or None,
            counts=page.counts,
        )

    def _comparison_of(self, page: JobPage, rows: Sequence[Row]) -> PageComparison:
        return PageComparison(
            documents={job.job_id: job for job in page.jobs},
            rows={row.id: row for row in rows},
            overdue_after_s=self._overdue_after_s,
        )

    async def _look(self) -> object:
        return await self._database.rows([]) if self._database else None

    def _unverified(self, rows: list[Row], limit: int, no_answer: NoAnswer) -> JobPage:
        return unverified_page(
            rows, limit, now=datetime.now(UTC), overdue_after_s=self._overdue_after_s, why=no_answer.why
        )

    async def _look_up(
        self, database: Mirror, comparison: PageComparison, shown: list[str], until_s: float
    ) -> tuple[PageComparison, str | None]:
        """Ask the database about jobs that it did not list."""
        ids = [JobId(job_id) for job_id in shown if job_id not in comparison.rows]
        if not ids:
            return comparison, None
        found = await self._from_database.ask(partial(database.rows, ids), until_s)
        if isinstance(found, NoAnswer):
            note = f"{len(ids)} not compared with the database: {found.why}"
            return replace(comparison, unseen=frozenset(ids)), note
        return replace(comparison, rows={**comparison.rows, **{row.id: row for row in found.rows}}), None

    async def _look_again(
        self, database: Mirror, comparison: PageComparison, shown: list[str], until_s: float
    ) -> PageComparison:
        """What differs may only have moved between the two answers.  A row that is read after the registry has told that
        nothing of the job is on its way to the database says what it says for good."""
        ids = [JobId(job_id) for job_id in shown if comparison.may_have_moved(job_id)]
        if not ids:
            return comparison
        found = await self._from_database.ask(partial(database.rows, ids), until_s)
        if isinstance(found, NoAnswer):
            return replace(comparison, unseen=comparison.unseen | frozenset(ids))
        return comparison.seen_again(ids, {row.id: row for row in found.rows})

    async def _listen_again(
        self, comparison: PageComparison, shown: list[str], until_s: float
    ) -> tuple[PageComparison, str | None]:
        """Ask the registry about jobs that it did not list, or that have moved on since."""
        ids = [job_id for job_id in shown if comparison.is_outdated(job_id)]
        asked = partial(self._registry.documents, ids)
        known = await self._from_registry.ask(asked, until_s) if ids else {}
        if isinstance(known, NoAnswer):
            return replace(comparison, unheard=frozenset(ids)), f"{len(ids)} not verified: {known.why}"
        return replace(comparison, documents={**comparison.documents, **known}), None


def _both_silent(registry: NoAnswer, database: NoAnswer) -> RegistryUnavailable:
    return RegistryUnavailable(f"neither registry nor database can tell: {registry.why}; {database.why}")
