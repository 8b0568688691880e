"""Single keys from a terminal, without Enter."""

from __future__ import annotations

import os
import re
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_KEY = re.compile(r"\x1b[\[O][0-9;]*[A-Za-z~]|.", re.DOTALL)
_NAMES = {
    "\x1b[A": "up",
    "\x1bOA": "up",
    "\x1b[B": "down",
    "\x1bOB": "down",
    "\x1b[5~": "page up",
    "\x1b[6~": "page down",
    "\x1b[H": "home",
    "\x1b[F": "end",
    "\x1b": "escape",
    " ": "page down",
}


def can_read_keys() -> bool:
    """Whether somebody sits there, on a system whose terminals work so."""
    return sys.stdin.isatty() and os.name == "posix"


@contextmanager
def reading_keys() -> Iterator[None]:
    """Keys come one by one and are not echoed; Ctrl-C stays what it is.  The terminal is put back at the end."""
    import termios
    import tty

    before = termios.tcgetattr(sys.stdin)
    try:
        tty.setcbreak(sys.stdin)
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def next_keys(within_s: float) -> list[str]:
    """The keys that were pressed, by name or letter; none when none is in time, `q` when the terminal is gone."""
    if not select.select([sys.stdin], [], [], within_s)[0]:
        return []
    pressed = os.read(sys.stdin.fileno(), 1024).decode(errors="replace")
    return keys_in(pressed) if pressed else ["q"]


def keys_in(pressed: str) -> list[str]:
    """What is pressed fast, or held down, comes in one piece."""
    keys: list[str] = _KEY.findall(pressed)
    return [_NAMES.get(key, key) for key in keys]
