"""What a loop gives to `ray.train.report`: made plain on its way to Ray Train, and progress where it says nothing else.

A line of progress: `{"time", "phase": "training", "reported": true, <numbers>}`.
"""

from __future__ import annotations

import functools
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scheduler.core.model import Json
from scheduler.core.plain_values import METRICS, plain_dict

CONTROL_WORDS = frozenset({"time", "phase", "reported", "resumed", "stop_seen", "samples"})


def keep_reports(context: Any, progress_file: Path | None) -> Reports:
    """From now on, what is reported in *context* (Ray Train's, of this rank) is plain, and its numbers go to
    *progress_file* too.

    Unless the loop writes there itself: then it has said what it wants to say, and reports only checkpoints.
    """
    report, reports = context.report, Reports(progress_file)

    @functools.wraps(report)
    def report_plainly(metrics: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        return report(reports.take(metrics), *args, **kwargs)

    context.report = report_plainly
    return reports


class Reports:
    """Of one rank.  `last` is what it reported last, as plain JSON."""

    def __init__(self, progress_file: Path | None) -> None:
        self._file = progress_file
        self._size = progress_file.stat().st_size if progress_file else 0
        self._noted: set[str] = set()
        self.last: Json = {}

    def take(self, metrics: Mapping[str, Any]) -> Json:
        """*metrics* as Ray Train gets them: an object that only this process can hold would end the run there."""
        if not isinstance(metrics, Mapping):
            raise TypeError(f"ray.train.report takes a dict of metrics, not {type(metrics).__name__}")
        self.last, notes = plain_dict(metrics, METRICS)
        self._note(notes)
        try:
            self._say({name: value for name, value in self.last.items() if _is_told(name, value, metrics)})
        except OSError as error:  # the checkpoint that comes with it is worth more
            print(f"what was reported could not be written to {self._file}: {error}", file=sys.stderr)
        return dict(self.last)

    def _say(self, values: Json) -> None:
        if not values or self._file is None or self._file.stat().st_size != self._size:
            return
        line = json.dumps({"time": time.time(), "phase": "training", "reported": True, **values}) + "\n"
        with self._file.open("ab", buffering=0) as file:
            self._size += file.write(line.encode()) or 0

    def _note(self, notes: tuple[str, ...]) -> None:
        """Once each: a loop reports the same names again and again."""
        for note in notes:
            if note not in self._noted and len(self._noted) < 100:
                self._noted.add(note)
                print(f"reported: {note}", file=sys.stderr)


def _is_told(name: str, value: Any, metrics: Mapping[str, Any]) -> bool:
    """Every number; one that JSON does not know (NaN) is null there."""
    is_number = type(value) in (int, float) or (value is None and metrics.get(name) is not None)
    return is_number and name not in CONTROL_WORDS
