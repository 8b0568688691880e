"""Looks at the files that jobs name, in a process of its own: they may be endless, hang, or be anything at all.

`scheduler.engine.inspection` starts it for each question; it needs no packages, so that it is there at once.  One line of
JSON comes in, one goes out for each file before it is looked at, and one after.
"""

from __future__ import annotations

import json
import os
import resource
import stat
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

MEMORY_BYTES = 512_000_000
_MAX_CONFIG_BYTES = 10_000_000


@dataclass(slots=True)
class Finding:
    """What is to be said of one file or folder."""

    path: str
    """Where it really is: no `..` and no link on the way."""
    problem: str | None = None
    note: str | None = None
    """What was left unread, where that is worth a word."""
    seen: str = ""
    """Changes when the file does."""
    shape: Any = None


def main() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    os.nice(5)  # the scheduler itself goes first
    asked = json.loads(sys.stdin.buffer.readline())
    until_s = time.monotonic() + asked["budget_s"]
    roots = [Path(root) for root in asked["roots"]]
    # All are found first: where a file may not be is said of each, however long the first ones take.
    found = []
    for index, question in enumerate(asked["questions"]):
        _say({"at": index})
        found.append(_found(question, roots))
    for index, (question, finding) in enumerate(zip(asked["questions"], found, strict=True)):
        _say({"at": index})
        if finding.problem is None and finding.seen != question["known"]:
            _look_into(question, finding, until_s)
        _say({"finding": asdict(finding), "of": index})


def _say(words: dict[str, Any]) -> None:
    print(json.dumps(words), flush=True)


def _found(question: dict[str, Any], roots: list[Path]) -> Finding:
    path = Path(question["path"])
    try:
        finding = Finding(str(path.resolve(strict=False)))
        finding.problem = _outside(path, Path(finding.path), roots) or _is_there(question["kind"], finding)
    except (OSError, RuntimeError) as error:  # no right to look there, or links in a circle
        reason = getattr(error, "strerror", None) or str(error)
        return Finding(
            str(path), f"{path} cannot be looked at: {reason}; correct that where the scheduler runs"
        )
    return finding


def _outside(path: Path, real: Path, roots: list[Path]) -> str | None:
    if any(real.is_relative_to(root) for root in roots):
        return None
    allowed = ", ".join(map(str, roots))
    return f"{path} is outside the folders that jobs may read ({allowed}); move it there or set SCHEDULER_DATA_ROOTS"


def _is_there(kind: str, finding: Finding) -> str | None:
    path = finding.path
    wants_folder = kind in ("model", "shape")
    try:
        found = Path(path).stat()
    except (FileNotFoundError, NotADirectoryError):
        if wants_folder:
            return f"there is no folder {path}; save the model there with save_pretrained, or give a hub id"
        return f"there is no file {path}; put it where every node can read it"
    finding.seen = f"{found.st_dev}.{found.st_ino}.{found.st_size}.{found.st_mtime_ns}"
    if wants_folder:
        return (
            None if stat.S_ISDIR(found.st_mode) else f"{path} is {_kind(found.st_mode)}, not a model's folder"
        )
    if not stat.S_ISREG(found.st_mode):
        return (
            f"{path} is {_kind(found.st_mode)}, not a file that can be read from its beginning; give a file"
        )
    if not found.st_size:
        return f"{path} is empty; it needs one conversation a line"
    return None


def _kind(mode: int) -> str:
    for is_kind, words in (
        (stat.S_ISDIR, "a folder"),
        (stat.S_ISREG, "a file"),
        (stat.S_ISFIFO, "a FIFO"),
        (stat.S_ISSOCK, "a socket"),
    ):
        if is_kind(mode):
            return words
    return "a device"


def _look_into(question: dict[str, Any], finding: Finding, until_s: float) -> None:
    try:
        if question["kind"] == "model":
            finding.problem = _model(Path(finding.path))
        elif question["kind"] == "shape":
            finding.shape = _shape(finding.path)
        else:
            checked = resolve_name(question["check"])(finding.path, until_s)
            finding.problem, finding.note = checked.problem, checked.note
    except MemoryError:
        finding.problem = f"{finding.path} needs more than {MEMORY_BYTES / 1e6:.0f} MB only to be looked at"


def _model(folder: Path) -> str | None:
    file = folder / "config.json"
    if not file.is_file():
        return f"{folder} is not a model folder: it has no config.json; save the model there with save_pretrained"
    try:
        with file.open("rb") as opened:
            text = opened.read(_MAX_CONFIG_BYTES + 1)
        is_config = len(text) <= _MAX_CONFIG_BYTES and isinstance(json.loads(text), dict)
    except OSError as error:
        return f"{file} cannot be read: {error.strerror}"
    except (ValueError, RecursionError):
        is_config = False
    return (
        None
        if is_config
        else f"{file} is no JSON object of a model; save the model there with save_pretrained"
    )


def _shape(folder: str) -> dict[str, Any]:
    from scheduler.engine.queries.model_files import read_shape

    try:
        return asdict(read_shape(Path(folder)))
    except ValueError as error:
        return {"unknown": str(error)}
