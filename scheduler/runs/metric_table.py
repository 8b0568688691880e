"""Numbers that a loop said, as columns: kept in bounded memory, and thinned out for a chart.

Thinning keeps, of each series that counts, the ends and the smallest and largest value of equal stretches of the
history, so that no spike is lost.  This is the idea of M4 (Jugel, Jerzak, Hackenbroich, Markl: "M4: A
Visualization-Oriented Time Series Data Aggregation", PVLDB 7(10), 2014) with the ends of the whole series
instead of those of every stretch.  Rows are chosen, not made: every number shown is one that the loop said.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from scheduler.api.metrics import LOSSES, MetricsDocument, ResumptionMark, SampleDocument
from scheduler.core.finite import finite

NO_SERIES = frozenset({"time", "step", "total_steps", "stop_seen"})
"""Numbers of a progress line that measure nothing."""
MOST_ROWS, KEPT_ROWS = 30_000, 10_000
"""A table that has grown to so many rows is thinned out to so many: even the largest chart asks for fewer."""
LONGEST_NAME = 200
MOST_SERIES = 64
"""The first so many names are kept: a loop may make up new ones for ever."""


class MetricTable:
    """Rows in the order of being said, however many: *total* of them, of which enough for any chart are kept."""

    def __init__(self) -> None:
        self.attempt, self.number = array("l"), array("l")
        self.step, self.at = array("d"), array("d")
        self.series: dict[str, array[float]] = {}
        self.total = 0

    def __len__(self) -> int:
        return len(self.step)

    @property
    def num_cells(self) -> int:
        return len(self) * (4 + len(self.series))

    def add(self, attempt: int, step: float, at: float, values: Mapping[str, float]) -> None:
        if not values.keys() <= self.series.keys():
            self._begin(values)
        self.attempt.append(attempt)
        self.number.append(self.total)
        self.step.append(step)
        self.at.append(at)
        for name, column in self.series.items():
            column.append(values.get(name, math.nan))
        self.total += 1
        if len(self) >= MOST_ROWS:
            self._keep(self.rows(KEPT_ROWS))

    def _begin(self, names: Iterable[str]) -> None:
        for name in names:
            if name not in self.series and len(self.series) < MOST_SERIES:
                self.series[name] = array("d", [math.nan]) * len(self)

    def rows(self, points: int) -> list[int]:
        """At most *points* rows to show.

        Half of them may be for series that are said less often than the loss (an evaluation among thousands of
        steps would be lost otherwise), the others are for the loss, and what that leaves for the fullest series.
        """
        if len(self) <= points:
            return list(range(len(self)))
        said = {name: _said(column) for name, column in self.series.items()}
        fullest = max(said, key=lambda name: len(said[name]))
        lead = next((name for name in LOSSES if name in said), fullest)
        rare = sorted(
            (name for name in said if len(said[name]) < len(said[lead])), key=lambda n: len(said[n])
        )
        kept = {0, len(self) - 1}
        free = (points - 2) // 2
        for place, name in enumerate(rare):
            chosen = self._extremes(name, said[name], free // (len(rare) - place))
            kept.update(chosen)
            free -= len(chosen)
        for name in (lead, fullest):
            kept.update(self._extremes(name, said[name], points - len(kept)))
        return sorted(kept)

    def trend(self, points: int) -> list[float]:
        """At most *points* values of the loss, without what a later attempt did again."""
        lead = next((name for name in LOSSES if name in self.series), None)
        if lead is None:
            return []
        column = self.series[lead]
        chosen = self._extremes(lead, self._not_replaced(_said(column)), points)
        return [column[row] for row in chosen]

    def document(
        self,
        job_id: str,
        points: int,
        resumptions: list[ResumptionMark],
        samples: list[SampleDocument],
    ) -> MetricsDocument:
        rows = self.rows(points)
        return MetricsDocument(
            job_id=job_id,
            attempt=[self.attempt[row] for row in rows],
            step=[self.step[row] for row in rows],
            at=[self.at[row] for row in rows],
            series={
                name: [None if math.isnan(column[row]) else column[row] for row in rows]
                for name, column in self.series.items()
            },
            total_points=self.total,
            resumptions=resumptions,
            samples=samples,
        )

    def _extremes(self, name: str, rows: Sequence[int], budget: int) -> Sequence[int]:
        """Of *rows*, the ends and those with the smallest and largest value in equal stretches; *budget* at most."""
        if len(rows) <= budget:
            return rows
        if budget < 2:
            return []
        num_stretches = (budget - 2) // 2
        chosen = {rows[0], rows[-1]}
        if num_stretches:
            first = self.number[rows[0]]
            width = (self.number[rows[-1]] - first + 1) / num_stretches
            stretch_of = [int((self.number[row] - first) / width) for row in rows]
            chosen |= _extremes_of_each(self.series[name], rows, stretch_of)
        return sorted(chosen)

    def _not_replaced(self, rows: Iterable[int]) -> list[int]:
        kept: list[int] = []
        for row in rows:
            while (
                kept and self.attempt[kept[-1]] < self.attempt[row] and self.step[kept[-1]] >= self.step[row]
            ):
                kept.pop()
            kept.append(row)
        return kept

    def _keep(self, rows: Sequence[int]) -> None:
        self.attempt = array("l", [self.attempt[row] for row in rows])
        self.number = array("l", [self.number[row] for row in rows])
        self.step = array("d", [self.step[row] for row in rows])
        self.at = array("d", [self.at[row] for row in rows])
        for name, column in self.series.items():
            self.series[name] = array("d", [column[row] for row in rows])


def numbers_in(line: Mapping[str, Any]) -> dict[str, float]:
    """What a progress line measured."""
    return {
        name: number
        for name, value in line.items()
        if name not in NO_SERIES and len(name) <= LONGEST_NAME and (number := finite(value)) is not None
    }


def _said(column: Sequence[float]) -> list[int]:
    """The rows in which the series has a value."""
    return [row for row, value in enumerate(column) if value == value]


def _extremes_of_each(column: Sequence[float], rows: Sequence[int], stretch_of: Sequence[int]) -> set[int]:
    lowest: dict[int, int] = {}
    highest: dict[int, int] = {}
    for row, stretch in zip(rows, stretch_of, strict=True):
        if column[row] < column[lowest.setdefault(stretch, row)]:
            lowest[stretch] = row
        if column[row] > column[highest.setdefault(stretch, row)]:
            highest[stretch] = row
    return {*lowest.values(), *highest.values()}
