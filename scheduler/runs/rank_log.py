"""A piece of what a rank printed, cut where no character is cut in two."""

from __future__ import annotations

import codecs
import os
from pathlib import Path

from scheduler.ports import LogPart


def read_part(path: Path, offset: int, limit: int) -> LogPart:
    """At most *limit* bytes from *offset*; from the end of the file where that is negative."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            start = max(0, size + offset) if offset < 0 else min(offset, size)
            file.seek(start)
            data = file.read(limit)
    except FileNotFoundError:
        return LogPart("", 0, 0, is_end=True)
    text, num_bytes = _whole_characters(data)
    end = start + num_bytes
    return LogPart(text, start, end, is_end=end >= size)


def _whole_characters(data: bytes) -> tuple[str, int]:
    """The text, and the bytes it stands for: a character that the limit cut in two is left for the next piece.

    Not if there is nothing else: who asks for more would get nothing for ever.
    """
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    text = decoder.decode(data)
    if not text:
        return decoder.decode(b"", final=True), len(data)
    return text, len(data) - len(decoder.getstate()[0])
