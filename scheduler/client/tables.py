"""Metrics as a table, where pandas is installed."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from scheduler.api.metrics import MetricsDocument
from scheduler.errors import NotReady


def as_table(metrics: MetricsDocument, wanted: bool | None) -> Any:
    """A DataFrame: one row for each point, one column for each series; None asks for it where pandas is there."""
    if wanted is False:
        return metrics
    try:
        pandas = import_module("pandas")
    except ImportError:
        if wanted:
            raise NotReady(
                "metrics as a table need pandas: `pip install pandas`, or ask for metrics(table=False)"
            ) from None
        return metrics
    times = pandas.to_datetime(metrics.at, unit="s", utc=True)
    columns: dict[str, Any] = {"attempt": metrics.attempt, "step": metrics.step, "at": times}
    for name, values in metrics.series.items():
        columns[name if name not in columns else f"{name}_reported"] = values
    return pandas.DataFrame(columns).astype({"step": float} | dict.fromkeys(metrics.series, float))
