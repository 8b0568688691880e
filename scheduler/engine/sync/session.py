"""The database as this life of the scheduler has it: claimed before anything is written to it."""

from __future__ import annotations

import asyncio
from datetime import datetime

from scheduler.ports import Journal, Mirror


class MirrorSession:
    """The mirror of this life of the scheduler: claimed before anything is written to it."""

    def __init__(self, mirror: Mirror, journal: Journal) -> None:
        self._mirror, self._journal = mirror, journal
        self._claiming = asyncio.Lock()
        self.incarnation: int | None = None
        """None until the database has been reached for the first time."""
        self.vouched_before: datetime | None = None
        """When an earlier life said for the last time that it was alive."""
        self.has_read_rows = False
        """Whether this life has compared every active row once: until then it cannot speak for all of them."""

    async def claimed(self) -> Mirror:
        """The mirror, with this life as its newest writer.  Raises what `claim` raises; then ask again."""
        async with self._claiming:
            if self.incarnation is None:
                self.vouched_before = (await self._mirror.rows([])).vouched_at
                incarnation = await self._mirror.claim(self._journal.incarnation)
                # A journal that was lost counts from 1 again; the database remembers how far it was.
                await self._journal.raise_incarnation(incarnation)
                self.incarnation = incarnation
        return self._mirror
