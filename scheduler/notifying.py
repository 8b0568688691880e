"""Tells whoever runs the cluster what the system did to a job."""

from __future__ import annotations

from scheduler.ports import Journal, Webhook

BATCH = 100


class Notifier:
    """Delivers the journal's notices in their order.  One that was not taken stays first, and is tried again."""

    def __init__(self, journal: Journal, webhook: Webhook | None) -> None:
        self._journal, self._webhook = journal, webhook

    async def once(self) -> int:
        """Returns how many were delivered, or dropped because nobody is to be told.  Raises NotDelivered."""
        done = 0
        while notices := await self._journal.notices(BATCH):
            for notice in notices:
                if self._webhook is not None:
                    await self._webhook.send(notice)
                await self._journal.forget_notices([notice.seq])
                done += 1
        return done
