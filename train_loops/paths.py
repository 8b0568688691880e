"""What people write for a file or folder, made into one path.  Looks at no disk."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

MAX_CHARS = 4096
_WINDOWS = re.compile(r"[A-Za-z]:[\\/]|\\\\")
_VARIABLE = re.compile(r"\$|%\w+%")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


def written_out(value: str) -> str:
    """*value* with `~` and `file://` written out; anything else stays as it is.

    Raises ValueError, in words, for what names no file on any node.
    """
    if "\0" in value or len(value) > MAX_CHARS:
        raise ValueError("this is not a path")
    if value != value.strip():
        raise ValueError(f"{value!r} begins or ends with a blank; take it out")
    if _WINDOWS.match(value):
        raise ValueError(
            f"{value!r} is a path of Windows, and jobs run on Linux; give the path that the nodes see"
        )
    if _VARIABLE.match(value):
        raise ValueError(f"{value!r} names a variable, and none is put in here; write the path out")
    if _URL.match(value):
        return _of_url(value)
    return _at_home(value) if value.startswith("~") else value


def _at_home(value: str) -> str:
    try:
        return str(Path(value).expanduser())
    except RuntimeError:
        raise ValueError(f"{value!r}: there is no such home folder here; write the path out") from None


def _of_url(value: str) -> str:
    try:
        parts = urlsplit(value)
    except ValueError:
        raise ValueError(f"{value!r} is neither a path nor a URL of a file") from None
    if parts.scheme.lower() != "file":
        raise ValueError(
            f"{value!r} is a URL, and nothing is downloaded; put it where every node can read it, and give the path"
        )
    path = unquote(parts.path)
    if parts.netloc not in ("", "localhost") or not path.startswith("/") or parts.query or parts.fragment:
        raise ValueError(
            f"{value!r} does not name a file of the nodes; give its path, such as /data/train.jsonl"
        )
    return written_out(path)
