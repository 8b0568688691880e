"""JSON files of a run, written whole, and read by whoever comes after a kill or a full disk."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from scheduler.core.model import Json
from scheduler.runs.atomic_write import write_whole
from scheduler.runs.progress import row_of

log = logging.getLogger(__name__)

T = TypeVar("T")


def write_json(path: Path, value: Any, mode: int = 0o666) -> None:
    """Whole or not at all, and on disk when this returns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(value).encode(), mode=mode)


def read_record(path: Path, adapter: TypeAdapter[T]) -> T | None:
    """None for what is not there, and for what cannot be read: a corrupt file ends and blocks nothing."""
    row = read_json(path)
    return None if row is None else as_record(row, adapter, path)


def as_record(row: Any, adapter: TypeAdapter[T], path: Path) -> T | None:
    """What *path* held, if it has the form that it was written in."""
    try:
        return adapter.validate_python(row)
    except ValidationError as error:
        log.warning("%s is corrupt and is passed over: %s", path, error.errors()[0]["msg"])
        return None


def read_json(path: Path) -> Any:
    """None for what is not there, and for what is no JSON."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError) as error:
        log.warning("%s is corrupt and is passed over: it is not JSON: %s", path, error)
        return None


def read_lines(path: Path) -> list[Json]:
    """The whole lines of a file of JSON lines; one that a kill cut off is left out."""
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return []
    return [row for line in lines if (row := row_of(line)) is not None]
