"""A telemetry that a test can read."""

from __future__ import annotations

from collections import defaultdict

from scheduler.engine.telemetry import Kind, Measure

Series = tuple[str, frozenset[tuple[str, str]]]


class MemoryTelemetry:
    """Refuses what Ray would refuse, or would take and show wrongly: tags that the measure does not have, the wrong
    kind, a count that goes down."""

    def __init__(self) -> None:
        self._values: dict[Series, float] = {}
        self._observed: defaultdict[Series, list[float]] = defaultdict(list)

    def add(self, measure: Measure, by: float = 1.0, **tags: str) -> None:
        assert by >= 0, f"{measure.name} is a counter: {by} would count down"
        series = _series(measure, Kind.COUNTER, tags)
        self._values[series] = self._values.get(series, 0.0) + by

    def set(self, measure: Measure, value: float, **tags: str) -> None:
        self._values[_series(measure, Kind.GAUGE, tags)] = value

    def observe(self, measure: Measure, value: float, **tags: str) -> None:
        self._observed[_series(measure, Kind.HISTOGRAM, tags)].append(value)

    def value(self, measure: Measure, **tags: str) -> float | None:
        """Of a counter or a gauge; None when nothing was ever said of this series."""
        return self._values.get(_series(measure, measure.kind, tags))

    def observed(self, measure: Measure, **tags: str) -> list[float]:
        return self._observed[_series(measure, Kind.HISTOGRAM, tags)]


def _series(measure: Measure, kind: Kind, tags: dict[str, str]) -> Series:
    assert measure.kind is kind, f"{measure.name} is a {measure.kind}, not a {kind}"
    assert set(tags) == set(measure.tags), f"{measure.name} has the tags {measure.tags}, not {tuple(tags)}"
    assert all(isinstance(value, str) for value in tags.values()), tags
    return measure.name, frozenset(tags.items())
