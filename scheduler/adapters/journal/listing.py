"""The narrow table beside the jobs: what lists are filtered, sorted and counted by."""

from __future__ import annotations

import functools
import sqlite3
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from scheduler.adapters.journal.moments import microseconds
from scheduler.api.cursors import search_words
from scheduler.core.model import JOB, Job, JobId, Status
from scheduler.ports import JobQuery, Place, Sort

_SEPARATOR = "\x1f"
_SORTED_BY = {"user": "user", "status": "status", "name": "name", "updated": "updated_at"}
_INDEX_OF = {
    "status": "listing_by_status",
    "user": "listing_by_user",
    "project": "listing_by_project",
    "name": "listing_by_name",
    "updated_at": "listing_by_updated",
}

_ALL_OF_IT = "INDEXED BY sqlite_autoindex_listing_1"
"""The table itself, in its own order.  SQLite's guess may be an index, from which it looks up each row: much slower."""
_COUNTS_KEPT = 100
_STATUSES = frozenset(status.value for status in Status)
_HEX = frozenset("0123456789abcdef-")
"""What ids are made of: nothing else is looked for in them."""

Conditions = dict[str, list[object]]
"""Clauses of SQL, each with its values."""


# Writing


def columns(job: Job) -> tuple[Any, ...]:
    """As `put_listing` takes them."""
    words = "".join(f"{word}{_SEPARATOR}" for word in search_words(job))
    return (
        microseconds(job.created_at),
        job.id,
        microseconds(job.updated_at),
        job.status,
        job.spec.user,
        job.spec.project,
        job.spec.name.casefold(),
        _SEPARATOR + words,
    )


def teach(connection: sqlite3.Connection) -> None:
    """Give SQL what it needs to list the documents of an older file: by itself it cannot read all of their text."""
    connection.create_function("listed_update", 1, lambda doc: _columns_of(doc)[2])
    connection.create_function("listed_name", 1, lambda doc: _columns_of(doc)[6])
    connection.create_function("listed_labels", 1, lambda doc: _columns_of(doc)[7])


@functools.lru_cache(maxsize=1)
def _columns_of(doc: str) -> tuple[Any, ...]:
    """One document that cannot be read keeps no file from being opened: its job is listed without words."""
    try:
        return columns(JOB.validate_json(doc))
    except ValueError:
        return (0, "", 0, "", "", "", "", _SEPARATOR)


# Reading


def page(connection: sqlite3.Connection, query: JobQuery) -> list[tuple[JobId, str]]:
    """Ids and documents.

    A walk down an index that ends after *limit* rows where there is one, else one through the narrow table.
    """
    order = ", ".join(f"{column} {'DESC' if query.sort.is_down else 'ASC'}" for column in _order(query.sort))
    found: list[tuple[Any, ...]] = []
    for index, conditions in _walks(query):
        if query.after:
            conditions |= _beyond(query.after, query.sort)
        # Only the keys are sorted; the documents are fetched for those that are shown.
        found += connection.execute(
            f"SELECT {', '.join(_order(query.sort))} FROM listing {index} {_where(conditions)} "
            f"ORDER BY {order} LIMIT ?",
            [*_values(conditions), query.limit],
        )
    found.sort(reverse=query.sort.is_down)
    ids = [row[-1] for row in found[: query.limit]]
    docs = dict(connection.execute(f"SELECT id, doc FROM jobs WHERE id IN ({_marks(ids)})", ids))
    return [(job_id, docs[job_id]) for job_id in ids if job_id in docs]


class Counted:
    """Jobs by status, counted once for each user, project and search until somebody writes to the file."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._known: dict[tuple[str | None, ...], dict[Status, int]] = {}
        self._version: int | None = None

    def of(self, query: JobQuery) -> dict[Status, int]:
        (version,) = self._connection.execute("PRAGMA data_version").fetchone()
        if version != self._version or len(self._known) >= _COUNTS_KEPT:
            self._known, self._version = {}, version
        asked = (query.user, query.project, query.search)
        if asked not in self._known:
            self._known[asked] = self._count(query)
        return dict(self._known[asked])

    def _count(self, query: JobQuery) -> dict[Status, int]:
        conditions = _equals({"user": query.user, "project": query.project}) | _search(query.search)
        index = _ALL_OF_IT if conditions else f"INDEXED BY {_INDEX_OF['status']}"
        found = self._connection.execute(
            f"SELECT status, count(*) FROM listing {index} {_where(conditions)} GROUP BY status",
            _values(conditions),
        )
        return {Status(status): count for status, count in found if status in _STATUSES}


def _walks(query: JobQuery) -> list[tuple[str, Conditions]]:
    """What to read, and from where."""
    equals = {"user": query.user, "project": query.project}
    by_status = [_equals({"status": status}) for status in sorted(query.statuses)]
    others = _equals(equals) | _search(query.search)
    is_by_age = query.sort.by == "submitted"
    if not others and not by_status:
        return [("" if is_by_age else f"INDEXED BY {_INDEX_OF[_SORTED_BY[query.sort.by]]}", {})]
    if is_by_age and not others:
        return [(f"INDEXED BY {_INDEX_OF['status']}", conditions) for conditions in by_status]
    if is_by_age and not by_status and not query.search and len(others) == 1:
        (column,) = (column for column, value in equals.items() if value is not None)
        return [(f"INDEXED BY {_INDEX_OF[column]}", others)]
    return [(_ALL_OF_IT, others | _is_one_of(query.statuses))]


def _order(sort: Sort) -> list[str]:
    own = [_SORTED_BY[sort.by]] if sort.by in _SORTED_BY else []
    return [*own, "created_at", "id"]


def _beyond(place: Place, sort: Sort) -> Conditions:
    value = microseconds(place.value) if isinstance(place.value, datetime) else place.value
    own = [value] if sort.by in _SORTED_BY else []
    values: list[object] = [*own, microseconds(place.created_at), place.id]
    return {f"({', '.join(_order(sort))}) {'<' if sort.is_down else '>'} ({_marks(values)})": values}


def _equals(wanted: dict[str, str | None]) -> Conditions:
    return {f"{column} = ?": [value] for column, value in wanted.items() if value is not None}


def _is_one_of(statuses: frozenset[Status]) -> Conditions:
    return {f"status IN ({_marks(statuses)})": list(statuses)} if statuses else {}


def _search(search: str | None) -> Conditions:
    if not search:
        return {}
    wanted = search.casefold()
    # No LIKE: it would take `%` and `_` for more than themselves.
    found: Conditions = {
        "instr(name, ?)": [wanted],
        "instr(labels, ?)": [f"{_SEPARATOR}{wanted}{_SEPARATOR}"],
    }
    if _HEX.issuperset(wanted):
        found["substr(id, 1, ?) = ?"] = [len(wanted), wanted]
    return {f"({' OR '.join(found)})": _values(found)}


def _where(conditions: Conditions) -> str:
    return f"WHERE {' AND '.join(conditions)}" if conditions else ""


def _values(conditions: Conditions) -> list[object]:
    return [value for values in conditions.values() for value in values]


def _marks(values: Sequence[object] | frozenset[Status]) -> str:
    return ", ".join("?" * len(values))
