"""Numbers out of JSON that anybody may have written."""

from __future__ import annotations

import math
from typing import Any

LARGEST = 2**53
"""Whole numbers up to here mean the same to every JSON reader."""


def whole(value: Any) -> int | None:
    """None for whatever is no whole number that everybody reads alike."""
    return value if type(value) is int and abs(value) <= LARGEST else None


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
