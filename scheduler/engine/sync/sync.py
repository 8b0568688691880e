"""Everything that keeps the journal, the runs and the database in step, put together."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Sequence

from scheduler.core.model import JobSpec
from scheduler.engine.job_store import JobStore
from scheduler.engine.periodic import Backoff, PeriodicTask
from scheduler.engine.registry import Registry
from scheduler.engine.spec_validation import Accepted
from scheduler.engine.sync.adoption import ActOn, Adoption, Inbox
from scheduler.engine.sync.notifier import Notifier
from scheduler.engine.sync.pruner import EVERY_S, Pruner
from scheduler.engine.sync.reconciler import Reconciler
from scheduler.engine.sync.relay import Heartbeat, MirrorSession, Relay
from scheduler.ports import Clock, Journal, Mirror, ProgressUpdate, Runner, Webhook
from scheduler.settings import Settings


class Sync:
    """Without a mirror the same parts run: the outbox is emptied, the journal vouched for, the runs compared."""

    def __init__(
        self,
        *,
        journal: Journal,
        mirror: Mirror | None,
        webhook: Webhook | None,
        book: JobStore,
        registry: Registry,
        runner: Runner,
        clock: Clock,
        settings: Settings,
        check: Callable[[JobSpec], Awaitable[Accepted]],
        act_on: ActOn,
        signs: Callable[[int], Sequence[ProgressUpdate]],
    ) -> None:
        self.link = link = MirrorSession(mirror, journal) if mirror else None
        self.relay = Relay(
            journal=journal,
            link=link,
            batch=settings.relay_batch,
            find=book.find,
            position=registry.position,
            rewritten=lambda job_id: self.voucher.forget(job_id),
        )
        self.adoption = Adoption(
            book=book,
            registry=registry,
            link=link,
            clock=clock,
            check=check,
            stale_after_s=settings.stale_after_s,
            policy=settings.recover_queued,
        )
        self.inbox = Inbox(link=link, book=book, runner=runner, adoption=self.adoption, act_on=act_on)
        self.reconciler = Reconciler(
            journal=journal,
            registry=registry,
            book=book,
            runner=runner,
            clock=clock,
            link=link,
            relay=self.relay,
            adoption=self.adoption,
        )
        self.voucher = Heartbeat(
            journal=journal,
            link=link,
            clock=clock,
            signs=signs,
            has_read_database=lambda: self.reconciler.has_read_database,
        )
        self._settings, self._clock = settings, clock
        self.notifier = Notifier(
            journal,
            webhook,
            clock=clock,
            backoff=self._backoff(),
            give_up_after_s=settings.webhook_give_up_after_s,
        )
        self.pruner = Pruner(journal=journal, link=link, clock=clock, keep_days=settings.keep_days)
        self.relay_loop = self._loop("relay", settings.liveness_every_s, self.relay.once)
        self.notify_loop = self._loop("webhook", settings.liveness_every_s, self.notifier.once)
        self.database_loops = (
            self.relay_loop,
            self._loop("vouch", settings.vouch_every_s, self.voucher.once),
            self._loop("inbox", settings.inbox_every_s, self.inbox.once),
            self._loop("reconcile", settings.reconcile_every_s, self.reconciler.once),
            self._loop("prune", EVERY_S, self.pruner.once),
        )
        self.loops = (*self.database_loops, self.notify_loop)

    def wake(self) -> None:
        """Something was journalled."""
        self.relay_loop.wake()
        self.notify_loop.wake()

    def _loop(self, name: str, every_s: float, once: Callable[[], Awaitable[object]]) -> PeriodicTask:
        return PeriodicTask(name, every_s, once, self._clock, backoff=self._backoff())

    def _backoff(self) -> Backoff:
        return Backoff(
            first_s=self._settings.relay_backoff_s,
            max_s=self._settings.relay_backoff_max_s,
            chance=random.random,
        )
