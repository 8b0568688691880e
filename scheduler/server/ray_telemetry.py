"""Measures as metrics of Ray: each node's agent gathers them and offers them to Prometheus."""

from __future__ import annotations

import logging
from typing import Any

from ray.util.metrics import Counter, Gauge, Histogram

from scheduler.engine.telemetry import ALL, Kind, Measure
from scheduler.runs.ray_internals import record_metric

log = logging.getLogger(__name__)


class RayTelemetry:
    """Every series carries the name of this scheduler as `cluster`.  A number that Ray refuses is logged once."""

    def __init__(self, cluster: str) -> None:
        self._metrics = {measure.name: _metric(measure, cluster) for measure in ALL}
        self._refused: set[str] = set()

    def add(self, measure: Measure, by: float = 1.0, **tags: str) -> None:
        self._record(measure, by, tags)

    def set(self, measure: Measure, value: float, **tags: str) -> None:
        self._record(measure, value, tags)

    def observe(self, measure: Measure, value: float, **tags: str) -> None:
        self._record(measure, value, tags)

    def _record(self, measure: Measure, value: float, tags: dict[str, str]) -> None:
        try:
            record_metric(self._metrics[measure.name], float(value), tags)
        except Exception as error:  # noqa: BLE001  metrics must never stop the work they measure
            if measure.name not in self._refused:
                self._refused.add(measure.name)
                log.error("metric %s cannot be recorded: %s: %s", measure.name, type(error).__name__, error)


def _metric(measure: Measure, cluster: str) -> Any:
    tags = (*measure.tags, "cluster")
    match measure.kind:
        case Kind.COUNTER:
            metric = Counter(measure.name, measure.text, tag_keys=tags)
        case Kind.GAUGE:
            metric = Gauge(measure.name, measure.text, tag_keys=tags)
        case Kind.HISTOGRAM:
            buckets = list(measure.buckets)
            metric = Histogram(measure.name, measure.text, boundaries=buckets, tag_keys=tags)
    return metric.set_default_tags({"cluster": cluster})
