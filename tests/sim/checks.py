"""What must hold at every moment, and what must be reached once all is calm."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from scheduler.core.lifecycle import StartRun
from scheduler.core.model import JobId, Status
from scheduler.errors import JobNotFound, Superseded
from scheduler.testing.memory import Disk, MemoryJournal
from tests.sim.copies import Copies
from tests.sim.ledger import Ledger
from tests.sim.lives import Answer
from tests.sim.rest import unrest

if TYPE_CHECKING:
    from tests.sim.world import World


class Broken(AssertionError):
    """A promise was not kept; in words."""


class Checks:
    """Looks on.  Nothing in here is used by the scheduler, and nothing of the scheduler decides here."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._ledgers: dict[int, Ledger] = {}
        self.copies = Copies(world.database)
        self.promised: set[JobId] = set()
        """Jobs whose submit was answered, and that no lost disk took away."""
        self.withdrawn: set[JobId] = set()
        """Jobs whose cancel was answered, and of which nobody has asked anything since."""
        self._by_key: dict[tuple[str, str], JobId] = {}

    @property
    def ledger(self) -> Ledger:
        return self._ledger_of(self._world.disk)

    # Safety: called at each change, by whatever made it

    async def journal_call(
        self, journal: MemoryJournal, method: str, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Any:
        """Make the call on behalf of a life, and look at what it did."""
        leaving = _outbox_rows(journal.disk, args[0]) if method == "forget" else []
        value = await getattr(journal, method)(*args, **kwargs)
        if method == "commit":
            self._committed(journal.disk, args[0])
        for job_id, version in leaving:
            self._tell(self.copies.lacks(job_id, version))
        return value
