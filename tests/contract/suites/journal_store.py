"""Where a journal under test keeps its things, seen from outside."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol

from scheduler.core.model import JobId
from scheduler.ports import Journal

Written = list[tuple[JobId, int]]
"""(job, version), in the order in which they were written."""


@dataclass(frozen=True)
class Stored:
    """What lies in a store."""

    jobs: dict[JobId, int]
    """The version of each."""
    events: Written
    outbox: Written
    notices: Written = field(default_factory=list)
    num_repairs: int = 0
    attempts: list[tuple[JobId, int]] = field(default_factory=list)
    """(job, fence), sorted."""


class Store(Protocol):
    """Where the journals of one test are kept.  It looks inside without asking the journal under test."""

    def open(self) -> AbstractAsyncContextManager[Journal]:
        """The next life of the journal."""
        ...

    def look(self) -> Stored: ...
