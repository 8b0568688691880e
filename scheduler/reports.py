"""Progress of a loop that is written for Ray Train alone: what it gives to `ray.train.report` is what it says.

A line of it: `{"time", "phase": "training", "reported": true, <numbers>}`.
"""

from __future__ import annotations

import functools
import json
import math
import numbers
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CONTROL_WORDS = frozenset({"time", "phase", "reported", "resumed", "stop_seen", "samples"})


def keep_reports(context: Any, progress_file: Path) -> None:
    """From now on, numbers reported in *context* (Ray Train's, of this rank) go to *progress_file* too.

    Unless the loop writes there itself: then it has said what it wants to say, and reports only checkpoints.
    """
    report, reports = context.report, Reports(progress_file)

    @functools.wraps(report)
    def report_and_say(metrics: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        reports.say(metrics)
        return report(metrics, *args, **kwargs)

    context.report = report_and_say


class Reports:
    def __init__(self, progress_file: Path) -> None:
        self._file = progress_file
        self._size = progress_file.stat().st_size

    def say(self, metrics: Mapping[str, Any]) -> None:
        try:
            self._say({name: _number(value) for name, value in metrics.items() if _is_told(name, value)})
        except OSError as error:  # the checkpoint that comes with it is worth more
            print(f"what was reported could not be written to {self._file}: {error}", file=sys.stderr)

    def _say(self, values: dict[str, float | None]) -> None:
        if not values or self._file.stat().st_size != self._size:
            return
        line = json.dumps({"time": time.time(), "phase": "training", "reported": True, **values}) + "\n"
        with self._file.open("ab", buffering=0) as file:
            self._size += file.write(line.encode()) or 0


def _is_told(name: Any, value: Any) -> bool:
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    return is_number and isinstance(name, str) and name not in CONTROL_WORDS


def _number(value: numbers.Real) -> float | None:
    """As JSON has it, whatever library it is from; JSON knows no NaN: such a number becomes null."""
    if isinstance(value, numbers.Integral):
        return int(value)
    return float(value) if math.isfinite(value) else None
