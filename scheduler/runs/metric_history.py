"""What loops reported, read from the progress files of all runs of a job, whether they live or are long gone."""

from __future__ import annotations

import json
import os
import threading
from collections import OrderedDict, deque
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from scheduler.api.metrics import MetricsDocument, ResumptionMark, SampleDocument
from scheduler.core.finite import finite, seconds, whole
from scheduler.core.model import Fence, JobId
from scheduler.runs.metric_table import MetricTable, numbers_in
from scheduler.runs.run_dir import RunDir

CHUNK_BYTES = 1 << 20
"""Read at once.  A line longer than that is left out."""
TRENDS_BYTES = 16 << 20
"""What one call for trends reads at most; jobs it does not get through are left out, until a later call has."""
MOST_CELLS = 4_000_000
"""Numbers kept of all jobs: 32 MB.  What is dropped is read again."""
MOST_TRENDS = 10_000
SAMPLES_KEPT = 100
MOST_CHARACTERS = 8_000
"""Of a sample's prompt, and of its text."""

Sizes = tuple[tuple[Fence, int], ...]
"""Of each progress file of a job: while they stay, nothing new was said."""


class MetricHistories:
    """Of all jobs under *storage*.  Follows files that grow: each call reads only what is new.  Safe for threads.

    Every call raises OSError when the storage cannot be read; a job without files has said nothing.
    """

    def __init__(self, storage: Path, *, most_cells: int = MOST_CELLS) -> None:
        self._storage, self._most_cells = storage, most_cells
        self._lock = threading.Lock()
        self._histories: OrderedDict[JobId, History] = OrderedDict()
        self._trends: OrderedDict[tuple[JobId, int], tuple[Sizes, list[float]]] = OrderedDict()

    def metrics(self, job_id: JobId, points: int) -> MetricsDocument:
        history = self._history(job_id)
        while not history.read_on(CHUNK_BYTES).is_done:
            pass  # a chunk at a time, so that a call for trends need not wait for the whole
        self._forget()
        return history.document(points)

    def trends(self, job_ids: Collection[JobId], points: int) -> dict[JobId, list[float]]:
        """The loss of each job; one that has told none is left out, and one that is not read to its end yet."""
        found: dict[JobId, list[float]] = {}
        left_bytes = TRENDS_BYTES
        for job_id in job_ids:
            sizes = tuple((fence, size) for fence, _, size in _files(self._storage, job_id))
            kept = self._trends.get((job_id, points))
            if kept is None or kept[0] != sizes:
                history = self._history(job_id)
                step = history.read_on(left_bytes)
                left_bytes -= step.num_bytes
                if not step.is_done:
                    continue
                kept = sizes, history.trend(points)
                self._remember((job_id, points), kept)
            if kept[1]:
                found[job_id] = kept[1]
        self._forget()
        return found

    def _history(self, job_id: JobId) -> History:
        with self._lock:
            history = self._histories.setdefault(job_id, History(self._storage, job_id))
            self._histories.move_to_end(job_id)
            return history

    def _remember(self, key: tuple[JobId, int], trend: tuple[Sizes, list[float]]) -> None:
        with self._lock:
            self._trends[key] = trend
            self._trends.move_to_end(key)
            if len(self._trends) > MOST_TRENDS:
                self._trends.popitem(last=False)

    def _forget(self) -> None:
        """The histories that were not asked for longest."""
        with self._lock:
            num_cells = sum(history.num_cells for history in self._histories.values())
            while num_cells > self._most_cells and len(self._histories) > 1:
                num_cells -= self._histories.popitem(last=False)[1].num_cells


@dataclass(frozen=True, slots=True)
class Step:
    num_bytes: int
    is_done: bool


class History:
    """One job's."""

    def __init__(self, storage: Path, job_id: JobId) -> None:
        self._storage, self._job_id = storage, job_id
        self._lock = threading.Lock()
        self._told = Reported()

    @property
    def num_cells(self) -> int:
        return 64 + self._told.table.num_cells

    def read_on(self, limit_bytes: int) -> Step:
        """Read about *limit_bytes* of what is new.  If a file is shorter than it was, all is read anew."""
        with self._lock:
            files = list(_files(self._storage, self._job_id))
            sizes: dict[int, int] = {fence: size for fence, _, size in files}
            if any(sizes.get(fence, 0) < run.offset for fence, run in self._told.runs.items()):
                self._told = Reported()
            left = limit_bytes
            for fence, folder, size in files:
                run = self._told.run(fence, folder)
                while left > 0 and run.offset < size and (done := self._read_chunk(folder, run)):
                    left -= done
            return Step(limit_bytes - left, is_done=left > 0)

    def document(self, points: int) -> MetricsDocument:
        with self._lock:
            return self._told.document(self._job_id, points)

    def trend(self, points: int) -> list[float]:
        with self._lock:
            return self._told.table.trend(points)

    def _read_chunk(self, folder: RunDir, run: Run) -> int:
        """The number of bytes taken; 0 when there is no whole line yet."""
        try:
            with folder.progress_file.open("rb") as file:
                file.seek(run.offset)
                data = file.read(CHUNK_BYTES)
        except FileNotFoundError:
            return 0
        taken = data.rfind(b"\n") + 1 or (len(data) if len(data) == CHUNK_BYTES else 0)
        for line in data[:taken].splitlines():
            self._told.take(run, line)
        run.offset += taken
        return taken


@dataclass(slots=True)
class Run:
    """How far the words of an attempt are taken."""

    attempt: int
    offset: int = 0
    at: float = 0.0
    """Of the newest line, in seconds since the epoch; a line without a time has that of the one before."""
    began_at: float | None = None
    step: float | None = None
    goes_on_at: float | None = None
    num_points: int = 0

    def mark(self) -> ResumptionMark | None:
        if self.attempt == 1 or self.began_at is None:
            return None
        step = None if self.goes_on_at is None else whole(int(self.goes_on_at))
        return ResumptionMark(attempt=self.attempt, step=step, at=datetime.fromtimestamp(self.began_at, UTC))


@dataclass(slots=True)
class Reported:
    """All that the attempts of a job said, line by line."""

    table: MetricTable = field(default_factory=MetricTable)
    samples: deque[SampleDocument] = field(default_factory=lambda: deque(maxlen=SAMPLES_KEPT))
    runs: dict[int, Run] = field(default_factory=dict)

    def run(self, attempt: int, folder: RunDir | None = None) -> Run:
        if attempt not in self.runs:
            resumed = folder.resumed() if folder else None
            self.runs[attempt] = Run(attempt, goes_on_at=resumed.step if resumed else None)
        return self.runs[attempt]

    def take(self, run: Run, line: bytes | str) -> None:
        try:
            row = from_json(line)
        except ValueError:
            return  # cut off by a kill; the next one is whole
        if not isinstance(row, dict):
            return
        run.at = seconds(row.get("time")) or run.at
        if run.began_at is None:
            run.began_at = run.at
        if (step := finite(row.get("step"))) is not None:
            run.step = step
            if run.goes_on_at is None and row.get("phase") == "loading":
                run.goes_on_at = step
        self._keep(run, row)

    def _keep(self, run: Run, row: dict[str, Any]) -> None:
        if values := numbers_in(row):
            run.num_points += 1
            step = run.num_points if run.step is None else run.step
            self.table.add(run.attempt, step, run.at, values)
        if isinstance(told := row.get("samples"), list):
            self.samples.extend(_samples(told, run))

    def document(self, job_id: str, points: int) -> MetricsDocument:
        marks = [run.mark() for _, run in sorted(self.runs.items())]
        return self.table.document(
            job_id, points, [mark for mark in marks if mark], list(reversed(self.samples))
        )


def reported_by(lines_of_each_attempt: Mapping[int, Iterable[Mapping[str, Any]]]) -> Reported:
    """As if the attempts had written these lines."""
    all_told = Reported()
    for attempt, lines in lines_of_each_attempt.items():
        for line in lines:
            all_told.take(all_told.run(attempt), json.dumps(line))
    return all_told


def _samples(told: list[Any], run: Run) -> Iterator[SampleDocument]:
    for one in told:
        if isinstance(one, dict) and isinstance(one.get("prompt"), str) and isinstance(one.get("text"), str):
            yield SampleDocument(
                attempt=run.attempt,
                step=None if run.step is None else whole(int(run.step)),
                prompt=_short(one["prompt"]),
                text=_short(one["text"]),
            )


def _short(text: str) -> str:
    return text if len(text) <= MOST_CHARACTERS else f"{text[:MOST_CHARACTERS]} …"


def _files(storage: Path, job_id: JobId) -> Iterator[tuple[Fence, RunDir, int]]:
    """The runs of a job that have a progress file, oldest first, with its size."""
    try:
        names = [entry.name for entry in os.scandir(storage / job_id)]
    except FileNotFoundError:
        return
    for fence in sorted(int(name[4:]) for name in names if name[:4] == "run-" and name[4:].isdecimal()):
        folder = RunDir.of(storage, job_id, Fence(fence))
        try:
            yield Fence(fence), folder, folder.progress_file.stat().st_size
        except FileNotFoundError:
            continue  # no rank has entered the loop yet
