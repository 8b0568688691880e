"""Usage accounting: what runs held in some days, counted from the journal."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, date, datetime, time, timedelta
from typing import NamedTuple

from scheduler.api.usage import DEFAULT_DAYS, MAX_DAYS, MAX_ROWS, UsageDocument, UsageRow, UsedDocument
from scheduler.core.usage import GROUPINGS, Grouping, HeldRun, Ledger
from scheduler.errors import InvalidRequest, JournalUnwritable, Problem
from scheduler.ports import Clock, Journal

log = logging.getLogger(__name__)

NOTE = "usage_since"
_JOBS_A_PAGE = 500
_DAY = timedelta(days=1)
_NO_RUNS_BEFORE = date(1970, 1, 1)


class _Found(NamedTuple):
    until: datetime
    runs: list[HeldRun]
    left_out: int


class UsageAccounts:
    """Reads page by page and counts in a thread: the engine goes on meanwhile."""

    def __init__(self, journal: Journal, clock: Clock) -> None:
        self._journal, self._clock = journal, clock
        self._since: datetime | None = None
        self._reading: dict[tuple[date, date], asyncio.Task[_Found]] = {}

    async def begin(self) -> None:
        """Find, or write down, since when this journal has every run.  A disk that is full keeps nobody from starting."""
        self._since = _moment(await self._journal.noted(NOTE))
        if self._since is None:
            now = self._clock.now()
            try:
                await self._journal.note(NOTE, {"at": now.isoformat()})
                self._since = now
            except JournalUnwritable as error:
                log.warning("since when usage is complete was not written down: %s", error)

    async def usage(
        self, first_day: date | None, last_day: date | None, by: tuple[Grouping, ...]
    ) -> UsageDocument:
        first, last = _days(first_day, last_day, self._clock.now().astimezone(UTC).date())
        order: tuple[Grouping, ...] = tuple(name for name in GROUPINGS if name in by)
        found = await self._read(first, last)
        ledger = Ledger(order, _midnight(first), found.until)
        rows = await asyncio.to_thread(_counted, ledger, found.runs, order)
        if len(rows) > MAX_ROWS:
            words = (
                f"gives {len(rows):,} rows, and {MAX_ROWS:,} are the most; ask for fewer days, or name fewer"
            )
            raise _refused("by", words)
        return UsageDocument(
            first_day=first,
            last_day=last,
            by=list(order),
            counted_until=found.until,
            complete_since=self._since,
            num_open=ledger.num_open,
            num_left_out=found.left_out,
            total=UsedDocument(**asdict(ledger.total())),
            rows=rows,
        )

    async def _read(self, first: date, last: date) -> _Found:
        """Who asks about the same days while they are read waits for that: the page asks twice."""
        reading = self._reading.get((first, last))
        if reading is None:
            reading = self._reading[first, last] = asyncio.create_task(self._walk(first, last))
        return await asyncio.shield(reading)

    async def _walk(self, first: date, last: date) -> _Found:
        begin, until = _midnight(first), min(_midnight(last + _DAY), self._clock.now().astimezone(UTC))
        runs: list[HeldRun] = []
        left_out, after = 0, None
        try:
            while True:
                page = await self._journal.held_runs(begin, until, after, _JOBS_A_PAGE)
                runs += page.runs
                left_out, after = left_out + page.left_out, page.after
                if after is None:
                    return _Found(until, runs, left_out)
        finally:
            del self._reading[first, last]


def _counted(ledger: Ledger, runs: Sequence[HeldRun], order: tuple[Grouping, ...]) -> list[UsageRow]:
    ledger.add(runs)
    ledger.close()
    return [
        UsageRow.model_validate(dict(zip(order, key, strict=True)) | asdict(used))
        for key, used in ledger.rows().items()
    ]


def _days(first: date | None, last: date | None, today: date) -> tuple[date, date]:
    """Raises InvalidRequest.  Nothing is known of days to come."""
    if early := [f"`{day}`" for day in (first, last) if day and day < _NO_RUNS_BEFORE]:
        raise _refused("from", f"{early[0]} is before {_NO_RUNS_BEFORE}; give a later day")
    last = min(last or today, today)
    first = first or max(last - (DEFAULT_DAYS - 1) * _DAY, _NO_RUNS_BEFORE)
    if first > last:
        raise _refused("from", f"{first} is after {last}, the last day; give an earlier one, up to {today}")
    if (last - first).days >= MAX_DAYS:
        days = (last - first).days + 1
        raise _refused("from", f"to {last} are {days:,} days, and {MAX_DAYS} are the most; ask for fewer")
    return first, last


def _refused(field: str, words: str) -> InvalidRequest:
    return InvalidRequest(f"the usage was not told; {field}: {words}", (Problem(field, words),))


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)


def _moment(noted: object) -> datetime | None:
    """None also for a note that is none: what is not known is not claimed."""
    try:
        found = datetime.fromisoformat(noted["at"])  # pyright: ignore[reportIndexIssue, reportUnknownArgumentType]
    except (TypeError, KeyError, ValueError):
        return None
    return found if found.tzinfo else None
