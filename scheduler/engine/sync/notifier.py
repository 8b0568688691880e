"""Tells whoever runs the cluster what the system did to a job."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from scheduler.core.model import JobId
from scheduler.engine.periodic import Backoff
from scheduler.errors import NotDelivered, NoticeRefused
from scheduler.ports import Clock, Journal, OutboxRow, Webhook

log = logging.getLogger(__name__)

BATCH = 100
IN_A_ROW = 3
"""Of a receiver that refuses so many notices one after the other, the others are not tried either, for a while."""
SHOWN_FOR = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A notice that the receiver did not take."""

    job_id: JobId
    since: datetime
    tries: int
    rests_until_s: float
    """By the monotonic clock: one that is set back an hour must not let it rest for an hour."""
    words: str
    given_up_at: datetime | None = None


@dataclass(slots=True)
class _Turn:
    """What one pass has seen."""

    behind: set[JobId] = field(default_factory=set[JobId])
    """Jobs of which a notice waits: later ones wait behind it."""
    in_a_row: int = 0


class Notifier:
    """Delivers the journal's notices, those of one job in their order.

    One that was not taken rests, with growing pauses, and those of its job behind it; the others go ahead, at once or
    with the next pass.  Once it is older than *give_up_after_s*, and others were taken meanwhile, it is given up in
    this life: it stays in the journal, and the next life tries it again.
    """

    def __init__(
        self,
        journal: Journal,
        webhook: Webhook | None,
        clock: Clock,
        backoff: Backoff,
        give_up_after_s: float,
    ) -> None:
        self._journal, self._webhook, self._clock, self._backoff = journal, webhook, clock, backoff
        self._give_up_after = timedelta(seconds=give_up_after_s)
        self._refusals: dict[int, Refusal] = {}
        """By the number of the notice."""
        self._taken_at: datetime | None = None

    async def once(self) -> int:
        """Returns how many were delivered, or dropped because nobody is to be told.  Raises NotDelivered while the
        receiver takes nothing."""
        done, after = 0, 0
        turn = _Turn()
        while notices := await self._journal.notices(BATCH, after):
            after = notices[-1].seq
            for notice in notices:
                done += await self._take(notice, turn)
        return done

    @property
    def refused(self) -> int:
        """Notices that are tried again."""
        return sum(one.given_up_at is None for one in self._refusals.values())

    @property
    def given_up(self) -> int:
        return len(self._refusals) - self.refused

    def problem(self) -> str | None:
        """What the receiver did not take, in words; a notice that was given up is named for a day."""
        now = self._clock.now()
        shown = [
            one
            for one in self._refusals.values()
            if one.given_up_at is None or now - one.given_up_at < SHOWN_FOR
        ]
        if not shown:
            return None
        first = min(shown, key=lambda one: one.since)
        return (
            f"the webhook's receiver did not take {self.refused} notices, which are sent again, and {self.given_up} "
            f"that were given up until the next start; that of job {first.job_id}, in {first.tries} tries: "
            f"{first.words}"
        )

    async def _take(self, notice: OutboxRow, turn: _Turn) -> bool:
        known = self._refusals.get(notice.seq)
        if known and known.given_up_at:
            return False
        rests = known is not None and self._clock.monotonic_s() < known.rests_until_s
        if notice.job.id in turn.behind or rests:
            turn.behind.add(notice.job.id)
            return False
        try:
            await self._deliver(notice)
        except NoticeRefused as error:
            self._note(notice, error)
            turn.behind.add(notice.job.id)
            turn.in_a_row += 1
            if turn.in_a_row >= IN_A_ROW:
                raise NotDelivered(f"{IN_A_ROW} notices in a row were refused: {error.message}") from error
            return False
        except NotDelivered as error:
            self._note(notice, error)
            raise
        turn.in_a_row = 0
        return True

    async def _deliver(self, notice: OutboxRow) -> None:
        if self._webhook is not None:
            await self._webhook.send(notice)
        await self._journal.forget_notices([notice.seq])
        self._refusals.pop(notice.seq, None)
        self._taken_at = self._clock.now()

    def _note(self, notice: OutboxRow, error: NotDelivered) -> None:
        now, known = self._clock.now(), self._refusals.get(notice.seq)
        since, tries = (known.since, known.tries + 1) if known else (now, 1)
        # Longer than the loop itself may pause: the next pass begins with another notice.
        rests_s = 2 * self._backoff.pause_s(tries)
        takes_others = self._taken_at is not None and self._taken_at > since
        is_given_up = takes_others and now - notice.event.at >= self._give_up_after
        self._refusals[notice.seq] = Refusal(
            job_id=notice.job.id,
            since=since,
            tries=tries,
            rests_until_s=self._clock.monotonic_s() + rests_s,
            words=error.message,
            given_up_at=now if is_given_up else None,
        )
        if known is None or is_given_up:
            what = "given up until the next start" if is_given_up else "not taken, and sent again"
            named = notice.job.id, notice.job.version
            log.warning("the notice of job %s, version %s, is %s: %s", *named, what, error)
