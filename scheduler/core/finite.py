"""Numbers and moments out of JSON that anybody may have written."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

LARGEST = 2**53
"""Whole numbers up to here mean the same to every JSON reader."""


def whole(value: Any) -> int | None:
    """None for whatever is no whole number that everybody reads alike."""
    return value if type(value) is int and abs(value) <= LARGEST else None


def seconds(value: Any) -> float | None:
    """Seconds since the epoch; None for whatever is no moment until the year 2100, which no calendar has to hold."""
    number = finite(value)
    return number if number is not None and 0 <= number < 4_102_444_800 else None


def moment(value: Any) -> datetime | None:
    number = seconds(value)
    return None if number is None else datetime.fromtimestamp(number, UTC)


def finite(value: Any) -> float | None:
    """None for whatever is no finite number: a loop may write anything."""
    if type(value) is float:  # nearly all are: a history may have millions
        return value if math.isfinite(value) else None
    if type(value) is not int:
        return None
    try:
        return float(value)
    except OverflowError:
        return None
