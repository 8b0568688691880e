"""Checks of files that misbehave, as `scheduler.engine.inspection` calls them by name."""

from __future__ import annotations

import time


def check(path: str, until_s: float) -> None:
    """As a file system that is away: it never comes back."""
    time.sleep(3600)


def devour(path: str, until_s: float) -> None:
    """Takes memory without end."""
    held = [b"x" * 50_000_000]
    while True:
        held.append(bytes(held[0]) + b"x")


def fall(path: str, until_s: float) -> None:
    raise LookupError("this checker is broken")
