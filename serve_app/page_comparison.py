"""Where registry and database agree about a page of jobs, and what is said of those where they do not.  Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from scheduler.api.cursors import cursor_of
from scheduler.api.jobs import JobDocument, JobPage
from scheduler.api.serialize import row_document
from scheduler.core.model import JobId, Status
from scheduler.core.reconcile import Row
from scheduler.ports import Place

_CLAIMS = (Status.QUEUED, Status.RUNNING, Status.PAUSED)
"""What a row cannot truly be while the registry does not know the job."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PageComparison:
    """The jobs of one page as each side has them, by id."""

    documents: Mapping[str, JobDocument]
    rows: Mapping[str, Row]
    overdue_after_s: float
    unheard: frozenset[str] = frozenset()
    """Jobs that the registry was asked about without an answer."""
    unseen: frozenset[str] = frozenset()
    """Jobs that the database was asked about without an answer."""

    def newest_first(self) -> list[str]:
        """Every id that either side has, in the order of listings."""
        return sorted(self.documents.keys() | self.rows.keys(), key=self._place, reverse=True)

    def is_outdated(self, job_id: str) -> bool:
        """Whether the registry has not been heard on the job since it did what the row tells."""
        document, row = self.documents.get(job_id), self.rows.get(job_id)
        return document is None or (row is not None and row.version > document.version)

    def may_have_moved(self, job_id: str) -> bool:
        """Whether the two differ, and the row is none of the version that the registry told."""
        document, row = self.documents.get(job_id), self.rows.get(job_id)
        is_same_version = document and row and row.version == document.version
        return self._differs(job_id) and not is_same_version

    def seen_again(self, job_ids: Collection[str], rows: Mapping[str, Row]) -> PageComparison:
        """With the *rows* of these jobs as they are now.  One that a newer version was written to meanwhile says nothing
        about what the registry told before."""
        moved = {
            job_id
            for job_id in job_ids
            if (row := rows.get(job_id))
            and row.version > self.documents[job_id].version
            and ((before := self.rows.get(job_id)) is None or before.version != row.version)
        }
        others = {job_id: row for job_id, row in self.rows.items() if job_id not in job_ids}
        return replace(self, rows={**others, **rows}, unseen=self.unseen | moved)

    def _differs(self, job_id: str) -> bool:
        """Whether both were heard of the job, and no change on its way to the database explains what they say."""
        document, row = self.documents.get(job_id), self.rows.get(job_id)
        if document is None or (row and row.status is document.status):
            return False
        if job_id in self.unseen or (job_id in self.unheard and self.is_outdated(job_id)):
            return False
        return not (document.unmirrored and (row is None or row.version < document.version))

    def compared(self, job_id: str, now: datetime) -> JobDocument:
        """What is said of the job: the registry's word where there is one."""
        document, row = self.documents.get(job_id), self.rows.get(job_id)
        if document is None:
            assert row is not None, f"{job_id} is on neither side"
            return self._only_in_database(row, now)
        if not self._differs(job_id):
            return document
        marks = {"database_status": row.status if row else None, "registry_status": document.status}
        return document.model_copy(update={"stale": True, **marks})

    def cursor_after(self, job_id: str) -> str:
        return cursor_of(self._place(job_id))

    def _only_in_database(self, row: Row, now: datetime) -> JobDocument:
        if row.id in self.unheard:
            return self._of_row(row, now, "the registry did not answer")
        document = self._of_row(row, now, "the registry does not know this job")
        is_stale = row.status in _CLAIMS
        marks = {"stale": is_stale, "database_status": row.status if is_stale else None}
        return document.model_copy(update=marks)

    def _of_row(self, row: Row, now: datetime, doubt: str) -> JobDocument:
        return row_document(row, now=now, overdue_after_s=self.overdue_after_s, doubt=doubt)

    def _place(self, job_id: str) -> Place:
        known = self.documents.get(job_id) or self.rows[job_id]
        return Place(known.created_at, JobId(job_id))


def has_words(row: Row, search: str | None) -> bool:
    """Whether a search finds the row: by name or id; its spec is not checked, so that its labels may be none."""
    wanted = (search or "").casefold()
    return wanted in row.name.casefold() or row.id.startswith(wanted)


def unverified_page(
    rows: list[Row], limit: int, *, now: datetime, overdue_after_s: float, why: str
) -> JobPage:
    """A page of which the registry said nothing."""
    doubt = "the registry did not answer"
    return JobPage(
        jobs=[row_document(row, now=now, overdue_after_s=overdue_after_s, doubt=doubt) for row in rows],
        next_cursor=cursor_of(Place(rows[-1].created_at, rows[-1].id))
        if rows and len(rows) >= limit
        else None,
        verified=False,
        note=f"not verified, and maybe old: these jobs are as the database has them, because {why}",
    )
