"""A curve as small as a word."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 96, 22
_EDGE = 2


@dataclass(frozen=True, slots=True)
class Sparkline:
    points: str
    """As an SVG polyline has them."""
    last: tuple[float, float]
    words: str
    """The same for whoever does not see it."""


def sparkline(values: Sequence[float]) -> Sparkline | None:
    """From left to right, the highest value at the top; None when there is no curve in *values*."""
    finite = [value for value in values if math.isfinite(value)]
    if len(finite) < 2:
        return None
    low, high = min(finite), max(finite)
    step = (WIDTH - 2 * _EDGE) / (len(finite) - 1)
    points = [
        (round(_EDGE + index * step, 1), round(_y(value, low, high), 1)) for index, value in enumerate(finite)
    ]
    return Sparkline(
        points=" ".join(f"{x:g},{y:g}" for x, y in points),
        last=points[-1],
        words=f"loss from {finite[0]:.3g} to {finite[-1]:.3g}, lowest {low:.3g}",
    )


def _y(value: float, low: float, high: float) -> float:
    if high == low:
        return HEIGHT / 2
    return _EDGE + (HEIGHT - 2 * _EDGE) * (high - value) / (high - low)
