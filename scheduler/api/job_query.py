"""Which jobs a list shows, and in which order."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from scheduler.core.model import JobId, Status


class Sort(StrEnum):
    """What a list is ordered by, downwards with a `-`.  Equals stand in the order of their creation."""

    NEWEST = "-submitted"
    OLDEST = "submitted"
    NAME = "name"
    NAME_DOWN = "-name"
    USER = "user"
    USER_DOWN = "-user"
    STATUS = "status"
    STATUS_DOWN = "-status"
    UPDATED = "updated"
    UPDATED_DOWN = "-updated"

    @property
    def by(self) -> str:
        return self.value.removeprefix("-")

    @property
    def is_down(self) -> bool:
        return self.value.startswith("-")


class Place(NamedTuple):
    """Where a job stands in a list."""

    created_at: datetime
    id: JobId
    value: str | datetime = ""
    """What the list is ordered by; empty in one that is ordered by `created_at` alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobQuery:
    """A page of jobs, in the order of *sort*, then of `created_at` and id, all up or all down."""

    statuses: frozenset[Status] = frozenset()
    user: str | None = None
    project: str | None = None
    search: str | None = None
    """Only jobs whose name contains it, whose id begins with it, or that have it as a label, `value` or
    `key=value`; upper and lower case are one."""
    sort: Sort = Sort.NEWEST
    after: Place | None = None
    """Only jobs that come after this place: that of the last job of the page before."""
    limit: int = 50

    @property
    def is_plain(self) -> bool:
        """Newest first and without a search: what the database can answer as well."""
        return self.sort is Sort.NEWEST and not self.search
