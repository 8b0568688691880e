"""Which jobs a list shows: all of it stands in its URL, so that it can be kept, sent, and gone back to."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from urllib.parse import urlencode

from fastapi import Request

from scheduler.api.cursors import place_of_cursor
from scheduler.core.model import Status
from scheduler.ports import JobQuery, Sort
from serve_app.parameters import sort_in, statuses_in
from serve_app.problems import invalid

JOBS_SHOWN = 50
_MAX_TEXT, _MAX_CURSOR = 200, 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class ListQuery:
    """As it was asked for; `query` says whether it can be answered."""

    status: str = ""
    user: str = ""
    project: str = ""
    search: str = ""
    sort: str = ""
    cursor: str = ""

    @classmethod
    def of(cls, request: Request) -> ListQuery:
        given = {name: request.query_params.get(name, "").strip() for name in cls.__slots__}
        return cls(**given)

    def query(self) -> JobQuery:
        """Raises InvalidRequest, which names what is wrong."""
        for name, most in (("user", _MAX_TEXT), ("project", _MAX_TEXT), ("search", _MAX_TEXT)):
            if len(getattr(self, name)) > most:
                raise invalid(name, f"is longer than {most} characters")
        sort = sort_in(self.order)
        return JobQuery(
            statuses=statuses_in(self.status),
            user=self.user or None,
            project=self.project or None,
            search=self.search or None,
            sort=sort,
            after=place_of_cursor(self.cursor[:_MAX_CURSOR], sort) if self.cursor else None,
            limit=JOBS_SHOWN,
        )

    @property
    def order(self) -> str:
        return self.sort or Sort.NEWEST.value

    @property
    def statuses(self) -> list[str]:
        return [name.strip() for name in self.status.split(",") if name.strip()]

    @property
    def has_filters(self) -> bool:
        """Not all jobs of everybody: statuses are not counted, for each has its own count."""
        return bool(self.user or self.project or self.search)

    @property
    def is_top(self) -> bool:
        """The newest jobs first, from the newest on: a new one belongs above all others."""
        return self.order == Sort.NEWEST and not self.cursor

    def url(self, **changes: str) -> str:
        """Where the same list with *changes* is; it begins at its first page, unless they hold a `cursor`."""
        wanted = asdict(replace(self, **({"cursor": ""} | changes)))
        fields = {name: value for name, value in wanted.items() if value}
        return "/training" + (f"?{urlencode(fields)}" if fields else "")

    def only(self, status: Status | str) -> str:
        return self.url(status=str(status))

    def sorted_by(self, name: str, first: str) -> str:
        """Sorted by *name*, at first in the order *first*, and the other way round when it is so already."""
        other = name if first.startswith("-") else f"-{name}"
        return self.url(sort=other if self.order == first else first)

    def direction(self, *names: str) -> str:
        """For `aria-sort` of a column that can be sorted by each of *names*."""
        if self.order.removeprefix("-") not in names:
            return "none"
        return "descending" if self.order.startswith("-") else "ascending"
