"""What a run leaves on disk: one folder for each run, on the storage that every node sees.

<storage>/<job_id>/
    train-<job>-<restarts>/   Ray Train's folder: checkpoints, and which of them are complete
    run-<fence>/
        started.json          the run's actor was here
        rank-<n>.json         the process of each rank: node, pid, when it was created
        rank-<n>.log          all it printed
        rank-<n>.error.json   the exception that left its loop
        progress.jsonl        what rank 0 says of itself
        stop                  exists when the run should save and return
        output/               the final adapter or model
        final.json            how it ended; written last, by rename
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from scheduler.core.model import Fence, JobId, Json, Outcome
from scheduler.ports import LogPart, RankProcess

_OUTCOME: TypeAdapter[Outcome] = TypeAdapter(Outcome)
_RANK: TypeAdapter[RankProcess] = TypeAdapter(RankProcess)


@dataclass(frozen=True, slots=True)
class RunFolder:
    path: Path

    @classmethod
    def of(cls, storage: Path, job_id: JobId, fence: Fence) -> RunFolder:
        return cls(storage / job_id / f"run-{fence}")

    @property
    def progress_file(self) -> Path:
        return self.path / "progress.jsonl"

    @property
    def stop_file(self) -> Path:
        return self.path / "stop"

    @property
    def output_dir(self) -> Path:
        return self.path / "output"

    def log_file(self, rank: int) -> Path:
        return self.path / f"rank-{rank}.log"

    def begin(self) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        write_json(self.path / "started.json", {"pid": os.getpid()})

    def has_begun(self) -> bool:
        return (self.path / "started.json").exists()

    def write_rank(self, process: RankProcess) -> None:
        write_json(self.path / f"rank-{process.rank}.json", _RANK.dump_python(process))

    def ranks(self) -> tuple[RankProcess, ...]:
        found = (
            _read_json(path) for path in sorted(self.path.glob("rank-*.json")) if ".error" not in path.name
        )
        return tuple(_RANK.validate_python(row) for row in found if row)

    def write_error(self, rank: int, error: Json) -> None:
        write_json(self.path / f"rank-{rank}.error.json", error)

    def first_error(self) -> Json | None:
        """The exception that was raised first; the others are often only its echo."""
        errors = [row for path in self.path.glob("rank-*.error.json") if (row := _read_json(path))]
        return min(errors, key=lambda row: row["at"], default=None)

    def write_final(self, outcome: Outcome) -> None:
        write_json(self.path / "final.json", _OUTCOME.dump_python(outcome, mode="json"))

    def final(self) -> Outcome | None:
        row = _read_json(self.path / "final.json")
        return _OUTCOME.validate_python(row) if row else None

    def read_log(self, rank: int, offset: int, limit: int) -> LogPart:
        try:
            with self.log_file(rank).open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                start = max(0, size + offset) if offset < 0 else min(offset, size)
                file.seek(start)
                data = file.read(limit)
        except FileNotFoundError:
            return LogPart("", 0, 0, is_end=True)
        whole = _whole_characters(data)
        return LogPart(whole.decode(errors="replace"), start, start + len(whole), start + len(whole) >= size)


class ProgressReader:
    """Follows a progress file.  Each `said()` reads what is new and merges it: keys persist."""

    def __init__(self, path: Path) -> None:
        self._path, self._offset = path, 0
        self._merged: Json = {}
        self.phase: str | None = None
        self.phases: dict[str, float] = {}
        """Seconds since the epoch at which each phase was first entered."""

    def said(self) -> Json | None:
        """Everything the loop has said so far, newest values; None before it said anything."""
        for line in self._new_lines():
            self._take(line)
        return dict(self._merged) or None

    def _new_lines(self) -> list[bytes]:
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                data = file.read()
        except FileNotFoundError:
            return []
        complete = data[: data.rfind(b"\n") + 1]
        self._offset += len(complete)
        return complete.splitlines()

    def _take(self, line: bytes) -> None:
        try:
            row = json.loads(line)
        except ValueError:
            return  # a line torn by a kill; the next one is whole
        if not isinstance(row, dict):
            return
        at = row.pop("time", 0.0)
        if phase := row.pop("phase", None):
            self.phase = str(phase)
            self.phases.setdefault(self.phase, float(at))
        self._merged |= row


def write_json(path: Path, value: Any) -> None:
    """Whole or not at all, and on disk when this returns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("w") as file:
        json.dump(value, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return None


def _whole_characters(data: bytes) -> bytes:
    """Without the beginning of a UTF-8 character that the limit cut in two."""
    for cut in range(1, min(4, len(data)) + 1):
        byte = data[-cut]
        if byte < 0x80:
            return data
        if byte >= 0xC0:
            needed = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return data[:-cut] if cut < needed and len(data) > cut else data
    return data
