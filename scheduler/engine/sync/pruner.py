"""Takes away the history that nobody asks for any more, a little at a time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

from scheduler.engine.sync.session import MirrorSession
from scheduler.ports import Clock, Journal, Mark, Pruned

log = logging.getLogger(__name__)

EVERY_S = 86_400.0
BATCH = 200
PAUSE_S = 0.05
"""Between two batches, so that commits and reads go in between."""


class Pruner:
    """Of jobs that ended more than *keep_days* ago all events but the last go, and the evidence of their attempts: in
    the journal, and then in the database.  The jobs, their attempts and the files of their runs stay."""

    def __init__(
        self, journal: Journal, session: MirrorSession | None, clock: Clock, keep_days: float
    ) -> None:
        self._journal, self._session, self._clock = journal, session, clock
        self._keep = timedelta(days=keep_days)
        self.events = 0
        """Taken in this life, in the journal."""

    async def once(self) -> None:
        """Raises what journal and database raise: what was taken until then is gone, the next pass does the rest."""
        before = self._clock.now() - self._keep
        self.events += await _walk(self._journal.prune, before, "the journal")
        if self._session is not None:
            await _walk((await self._session.claimed()).prune, before, "the database")


async def _walk(
    prune: Callable[[datetime, Mark | None, int], Awaitable[Pruned]], before: datetime, where: str
) -> int:
    events, evidence, after = 0, 0, None
    while True:
        taken = await prune(before, after, BATCH)
        events, evidence, after = events + taken.events, evidence + taken.evidence, taken.after
        if after is None:
            break
        await asyncio.sleep(PAUSE_S)
    if events or evidence:
        log.info(
            "%s: %s events and the evidence of %s attempts of jobs that ended before %s were pruned",
            where,
            events,
            evidence,
            before.date(),
        )
    return events
