"""The real `scheduler` in a pseudo-terminal, and what its screen shows at each moment."""

from __future__ import annotations

import os
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path

import pexpect
import pyte

SCHEDULER = str(Path(sys.executable).with_name("scheduler"))
_HINTS = ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "BROWSER")
CTRL_C = "\x03"
_WITHIN_S = 30.0


class Terminal:
    """A program that thinks that a person sits before it."""

    def __init__(
        self, *args: str, columns: int = 120, rows: int = 40, program: str = SCHEDULER, **env: str
    ) -> None:
        inherited = {name: value for name, value in os.environ.items() if name not in _HINTS}
        self._child = pexpect.spawn(
            program,
            list(args),
            dimensions=(rows, columns),
            env=inherited | {"TERM": "xterm-256color"} | env,
            timeout=_WITHIN_S,
        )
        self._screen = pyte.Screen(columns, rows)
        self._stream = pyte.ByteStream(self._screen)
        self.written = ""
        """All that came, with every escape code."""
        self.is_as_before = False
        """At its end: what is typed shows, and is read line by line."""

    @property
    def lines(self) -> list[str]:
        return [line.rstrip() for line in self._screen.display]

    @property
    def shown(self) -> str:
        return "\n".join(self.lines)

    def wait_for(self, *texts: str) -> str:
        """The screen, once it shows all of *texts*."""
        return self.wait_until(lambda: all(text in self.shown for text in texts), " and ".join(texts))

    def wait_until(self, seen: Callable[[], bool], what: str) -> str:
        until_s = time.monotonic() + _WITHIN_S
        while not seen():
            assert time.monotonic() < until_s, f"not on the screen in time: {what}\n{self.shown}"
            assert self._read(), f"it ended without {what}\n{self.shown}"
        return self.shown

    def press_until(self, keys: str, text: str) -> None:
        """Press *keys* again while nothing comes of it: for answers that may be given up on a busy machine."""
        until_s, again_s = time.monotonic() + _WITHIN_S, 0.0
        while text not in self.shown:
            assert time.monotonic() < until_s, f"not on the screen in time: {text}\n{self.shown}"
            if time.monotonic() > again_s:
                self.press(keys)
                again_s = time.monotonic() + 5
            assert self._read(), f"it ended without {text}\n{self.shown}"

    def press(self, keys: str) -> None:
        self._child.send(keys)

    def ends(self) -> int:
        """Its exit code; everything it wrote has been read."""
        until_s = time.monotonic() + _WITHIN_S
        while self._read():
            assert time.monotonic() < until_s, f"it did not end\n{self.shown}"
        self._child.wait()
        flags = termios.tcgetattr(self._child.child_fd)[3]
        self.is_as_before = bool(flags & termios.ECHO and flags & termios.ICANON)
        self._child.close()
        assert self._child.exitstatus is not None, f"killed by signal {self._child.signalstatus}"
        assert "Traceback" not in self.written, self.written
        return self._child.exitstatus

    def _read(self) -> bool:
        """False at the end."""
        try:
            piece = self._child.read_nonblocking(65536, timeout=0.2)
        except pexpect.TIMEOUT:
            return True
        except pexpect.EOF:
            return False
        self.written += piece.decode(errors="replace")
        self._stream.feed(piece)
        return True
