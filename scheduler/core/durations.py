"""How long, in words: in the unit in which people would say it."""

from __future__ import annotations

import math

_DAY_S, _HOUR_S, _MINUTE_S = 86_400, 3_600, 60


def span(seconds: float) -> str:
    """Whole seconds at least, as of a forecast: "12 s", "6 min", "2.5 h", "3 days"."""
    return f"{max(1, math.ceil(seconds))} s" if seconds < 90 else _long(seconds)


def precise_span(seconds: float) -> str:
    """As it was measured; two digits are enough to compare: "0.05 s", "48 s", "4 min", "2.5 h"."""
    if seconds < 0.01:
        return "less than 0.01 s"
    if seconds < 9.95:
        return f"{seconds:.2g} s"
    return f"{seconds:.0f} s" if seconds < 90 else _long(seconds)


def _long(seconds: float) -> str:
    if seconds < 90 * _MINUTE_S:
        return f"{seconds / _MINUTE_S:.0f} min"
    if seconds < 2 * _DAY_S:
        return f"{seconds / _HOUR_S:.1f} h"
    return f"{seconds / _DAY_S:.0f} days"
