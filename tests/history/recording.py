"""A history as it is written down: one file of what the client did and saw, one of what the ranks say of themselves."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from threading import Lock
from typing import Any

from tests.history.checker import Line
from train_loops.progress import append_line

TRACED = ("lives", "stepped")


class History:
    """Written by one process with several threads.  A line counts once it is in the file."""

    def __init__(self, folder: Path) -> None:
        self.file, self.trace = folder / "history.jsonl", folder / "trace.jsonl"
        self.trace.touch()
        self._lock = Lock()
        self._told: list[Line] = []
        """What the ranks have said, as far as it was read."""
        self._offset = 0

    def write(self, did: str, at: float | None = None, **values: Any) -> None:
        append_line(str(self.file), {"did": did, "at": at or time.time(), **values})

    def told_by(self, job: str) -> list[Line]:
        """All that the ranks of *job* have said so far."""
        with self._lock:
            with self.trace.open("rb") as file:
                file.seek(self._offset)
                new = file.read()
            whole = new[: new.rfind(b"\n") + 1]
            self._offset += len(whole)
            self._told += map(json.loads, whole.splitlines())
            return [line for line in self._told if line["job"] == job]

    def lines(self) -> list[Line]:
        """Both files as one, in the order of time."""
        texts = [path.read_text().splitlines() for path in (self.file, self.trace)]
        return sorted((json.loads(line) for text in texts for line in text), key=lambda line: line["at"])


def story(history: Iterable[Line]) -> str:
    """What happened, for people: the client's side, and of the ranks when each attempt came and went."""
    lines = list(history)
    began = lines[0]["at"] if lines else 0.0
    told = [(line["at"], _sentence(line)) for line in lines if line["did"] not in TRACED]
    told += _lives_of_attempts(lines)
    names = {line["job"]: line["name"] for line in lines if line.get("name") and line.get("job")}
    text = "\n".join(f"{at - began:8.2f} s  {sentence}" for at, sentence in _without_repeats(sorted(told)))
    for job, name in names.items():
        text = text.replace(job, name)
    return text


def _sentence(line: Line) -> str:
    rest = " ".join(
        f"{key}={value}"
        for key, value in line.items()
        if key not in ("did", "at", "until", "job", "weights", "undisturbed") and value is not None
    )
    return f"{line.get('job') or '-'}  {line['did']} {rest}"


def _lives_of_attempts(lines: Iterable[Line]) -> list[tuple[float, str]]:
    moments: dict[tuple[str, int, int], list[Line]] = {}
    for line in lines:
        if line["did"] in TRACED:
            moments.setdefault((line["job"], line["attempt"], line["rank"]), []).append(line)
    told: list[tuple[float, str]] = []
    for (job, attempt, rank), said in moments.items():
        steps = [line["step"] for line in said if line["did"] == "stepped"]
        who = f"{job}  attempt {attempt} rank {rank}, pid {said[0]['pid']} on {said[0]['node'][:8]}"
        first, last = (f"step {steps[0]}", f"step {steps[-1]}") if steps else ("no step", "no step")
        told += [(said[0]["at"], f"{who}: begins, {first}"), (said[-1]["at"], f"{who}: last word, {last}")]
    return told


def _without_repeats(told: Iterable[tuple[float, str]]) -> Iterator[tuple[float, str]]:
    """An answer that says what the one before it said of the same job is left out."""
    newest: dict[str, str] = {}
    for at, sentence in told:
        job = sentence.partition("  ")[0]
        if "  saw " not in sentence or newest.get(job) != sentence:
            yield at, sentence
        if "  saw " in sentence:
            newest[job] = sentence
