"""The text of a spec file: whatever the file is, never more of it than a spec may be, and in any encoding of Unicode."""

from __future__ import annotations

import json
import os
import re
import select
import stat
import sys
from pathlib import Path
from typing import IO

from scheduler.errors import InvalidSpec, Problem

MAX_BYTES = 1_000_000
_SILENT_S = 10.0
"""A FIFO into which nobody writes for so long is no spec."""
_UNPRINTABLE = re.compile("[^\t\n\r -~\xa0-\u2027\u202a-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What YAML refuses, and what it would silently take for the end of a line."""


def spec_text(path: str | Path, source: str) -> str:
    """What the file says; `-` is standard input.  Raises InvalidSpec, naming *source*."""
    raw = _stdin() if str(path) == "-" else _file(path, source)
    if len(raw) > MAX_BYTES:
        raise refused(
            source,
            f"is larger than {MAX_BYTES:,} bytes; a spec is not: put data in a file, and its path in config",
        )
    return _decoded(raw, source)


def refused(where: str, what: str) -> InvalidSpec:
    return InvalidSpec.of(Problem(where, what))


def refuse_unprintable(text: str, source: str) -> None:
    """Raises InvalidSpec with the place of the first character that no YAML may hold as it is."""
    if found := _UNPRINTABLE.search(text):
        code = ord(found.group())
        shown = f"U+{code:04X}"
        escape = f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
        what = f"holds the character {shown}, which cannot be seen; take it out, or write it as {escape} in double quotes"
        raise refused(place(text, found.start(), source), what)


def place(text: str, at: int, source: str) -> str:
    before = text[:at]
    return f"{source}, line {before.count(chr(10)) + 1}, column {at - before.rfind(chr(10))}"


def _stdin() -> bytes:
    binary: IO[bytes] | None = getattr(sys.stdin, "buffer", None)
    if binary is None:  # a notebook, or a test, that has put text in its place
        return (sys.stdin.read(MAX_BYTES + 1) if sys.stdin else "").encode("utf-8", "surrogatepass")
    return binary.read(MAX_BYTES + 1)


def _file(path: str | Path, source: str) -> bytes:
    try:
        return _read(Path(path).expanduser())
    except FileNotFoundError:
        raise refused(source, "is not there; give the path of a YAML or JSON file with a job spec") from None
    except TimeoutError:
        raise refused(
            source, f"is a FIFO, and nobody wrote into it for {_SILENT_S:g} s; give a file"
        ) from None
    except OSError as error:
        raise refused(source, f"cannot be read: {error.strerror or error}") from None
    except (ValueError, RuntimeError) as error:  # a NUL in the path; no such home folder
        raise refused(source, f"is no path of a file: {error}") from None


def _read(path: Path) -> bytes:
    # Not waiting, since to open a FIFO is to wait for whoever writes into it.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        if stat.S_ISFIFO(os.fstat(descriptor).st_mode) and not select.select([file], [], [], _SILENT_S)[0]:
            raise TimeoutError
        os.set_blocking(descriptor, True)
        return file.read(MAX_BYTES + 1)


def _decoded(raw: bytes, source: str) -> str:
    encoding = json.detect_encoding(raw)
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError as error:
        name = encoding.upper().removesuffix("-SIG").removesuffix("-LE").removesuffix("-BE")
        line = raw[: error.start].count(b"\n") + 1
        what = f"is not {name} text (byte {error.start}); write the file as UTF-8"
        raise refused(f"{source}, line {line}", what) from None
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
