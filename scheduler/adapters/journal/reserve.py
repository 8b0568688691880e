"""A few megabytes of the disk, kept for what gives resources back: on a full disk, runs must still be stopped."""

from __future__ import annotations

import logging
import os
import shutil
import sqlite3
from pathlib import Path

log = logging.getLogger(__name__)

GIVES_BACK = frozenset({"AskStop", "RunEnded", "GiveUp"})
"""Kinds of events that end something, or are on the way to it.  Whatever begins something waits for room."""

_FULL = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE, sqlite3.SQLITE_IOERR_WRITE})
_TO_THE_LOG = 0.5
"""The rest is for the index of the log, and for pages that a checkpoint adds to the journal itself."""


def is_full(error: sqlite3.Error | OSError) -> bool:
    """Whether the disk had no room, as far as SQLite tells."""
    return getattr(error, "sqlite_errorcode", 0) in _FULL


class Reserve:
    """A file beside the journal, whose blocks are real.  Used in the thread that writes the journal.

    *num_bytes* 0: there is none, and nothing is ever refused for its sake.
    """

    def __init__(self, journal: Path, num_bytes: int) -> None:
        self._journal, self._num_bytes = journal, num_bytes
        self._file = journal.with_name(f"{journal.name}.reserve")
        self._log = journal.with_name(f"{journal.name}-wal")
        self._is_whole = True

    def is_whole(self) -> bool:
        """Makes it where it is not, as soon as there is room for it."""
        self._is_whole = not self._num_bytes or self._size() >= self._num_bytes or self._make()
        return self._is_whole

    def spend(self) -> None:
        """Let the journal have it.  Most of it goes to SQLite's log at once: whoever filled the disk writes on, and
        would else take it first.  SQLite reads a log up to its last whole transaction, so zeros behind it are fine."""
        if not self._num_bytes:
            return
        log.critical("the disk of the journal %s is full; its reserve is used now", self._journal)
        self._is_whole = False
        self._file.unlink(missing_ok=True)
        try:
            _allocate(self._log, int(self._num_bytes * _TO_THE_LOG))
        except OSError as error:
            log.error("the log of the journal could not be given the reserve: %s", error)

    def problem(self) -> str | None:
        if self._is_whole:
            return None
        return (
            f"the disk of the journal {self._journal} is full: cancels, pauses and ends of runs are still written, from "
            f"a reserve of {self._num_bytes / 1e6:g} MB; submits and starts are refused. Free space there: once there is "
            "room for the reserve again, all goes on by itself"
        )

    def _size(self) -> int:
        try:
            return self._file.stat().st_size
        except FileNotFoundError:
            return 0

    def _make(self) -> bool:
        try:
            if shutil.disk_usage(self._journal.parent).free < self._num_bytes:
                return False
            _allocate(self._file, self._num_bytes - self._size())
        except OSError as error:
            log.warning("the reserve of the journal cannot be made: %s", error)
            self._file.unlink(missing_ok=True)
            return False
        return True


def _allocate(file: Path, num_bytes: int) -> None:
    """Make *file* longer by blocks that are there, not by a hole."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        os.posix_fallocate(descriptor, os.fstat(descriptor).st_size, num_bytes)
    finally:
        os.close(descriptor)
