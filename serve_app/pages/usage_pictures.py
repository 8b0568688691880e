"""The bars of the usage page, as parts of a width, and in words for whoever does not see them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from scheduler.api.usage import UsageDocument, UsageRow, UsedDocument

SHOWN = 50
"""Projects."""
_NOTHING = UsedDocument(gpu_hours=0.0, cpu_hours=0.0, num_jobs=0)


@dataclass(frozen=True, slots=True)
class UsageBar:
    """A line of the page.  Its width is a part of that of the longest."""

    name: str
    used: UsedDocument
    percent: float
    words: str


@dataclass(frozen=True, slots=True)
class UsageBars:
    bars: tuple[UsageBar, ...]
    unit: str
    """What their widths show: GPU hours, or CPU hours where no run held a GPU."""
    num_more: int = 0
    """Lines that are not shown: those with the least."""


def project_bars(usage: UsageDocument) -> UsageBars:
    """Who held most comes first."""
    unit = _unit(usage)

    def order(row: UsageRow) -> tuple[float, float, str]:
        return -_hours(row, unit), -row.cpu_hours, row.project or ""

    rows = sorted(usage.rows, key=order)
    named = [(row.project or "", row.project or "no project", row) for row in rows[:SHOWN]]
    return UsageBars(_bars(named, unit), unit, max(0, len(rows) - SHOWN))


def day_bars(usage: UsageDocument) -> UsageBars:
    """Every day, also those on which nothing ran."""
    unit, found = _unit(usage), {row.day: row for row in usage.rows}
    count = (usage.last_day - usage.first_day).days + 1
    days = [usage.first_day + timedelta(days=number) for number in range(count)]
    return UsageBars(_bars([(str(day), str(day), found.get(day, _NOTHING)) for day in days], unit), unit)


def _bars(named: Sequence[tuple[str, str, UsedDocument]], unit: str) -> tuple[UsageBar, ...]:
    whole = max((_hours(used, unit) for _, _, used in named), default=0.0) or 1.0
    return tuple(
        UsageBar(
            name,
            used,
            round(100 * _hours(used, unit) / whole, 2),
            f"{shown}: {_hours(used, unit):,.1f} {unit} hours",
        )
        for name, shown, used in named
    )


def _unit(usage: UsageDocument) -> str:
    return "GPU" if usage.total.gpu_hours else "CPU"


def _hours(used: UsedDocument, unit: str) -> float:
    return used.gpu_hours if unit == "GPU" else used.cpu_hours
