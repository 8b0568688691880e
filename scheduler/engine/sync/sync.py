"""Everything that keeps the journal, the runs and the database in step, put together."""

from __future__ import annotations

import random

from scheduler.api.repairs import ReconcileAnswer
from scheduler.engine.cluster import Cluster
from scheduler.engine.commands import Commands
from scheduler.engine.job_store import JobStore
from scheduler.engine.periodic import Backoff, PeriodicTask
from scheduler.engine.registry import Registry
from scheduler.engine.spec_validation import SpecValidator
from scheduler.engine.sync.adoption import Adoption
from scheduler.engine.sync.heartbeat import Heartbeat
from scheduler.engine.sync.inbox import Inbox
from scheduler.engine.sync.notifier import Notifier
from scheduler.engine.sync.pruner import EVERY_S, Pruner
from scheduler.engine.sync.reconciler import Reconciler
from scheduler.engine.sync.relay import Relay
from scheduler.engine.sync.session import MirrorSession
from scheduler.ports import Clock, Journal, Runner, Webhook
from scheduler.settings import Settings


class Sync:
    """Without a database the same parts run: the outbox is emptied, the journal has its heartbeat."""

    def __init__(
        self,
        journal: Journal,
        session: MirrorSession | None,
        heartbeat: Heartbeat,
        webhook: Webhook | None,
        registry: Registry,
        store: JobStore,
        cluster: Cluster,
        validator: SpecValidator,
        commands: Commands,
        runner: Runner,
        clock: Clock,
        settings: Settings,
    ) -> None:
        self.session, self.heartbeat = session, heartbeat
        self.relay = Relay(journal, session, store, registry, heartbeat, settings.relay_batch)
        self.adoption = Adoption(store, registry, session, cluster, validator, clock, settings)
        self.reconciler = Reconciler(
            journal, registry, store, runner, clock, session, self.relay, self.adoption
        )
        self.inbox = Inbox(session, store, runner, self.adoption, commands)
        self.pruner = Pruner(journal, session, clock, settings.keep_days)
        self.notifier = Notifier(
            journal, webhook, clock, _backoff(settings), settings.webhook_give_up_after_s
        )
        self.relay_task, self.notify_task, *others = (
            PeriodicTask(name, every_s, once, clock, _backoff(settings))
            for name, every_s, once in (
                ("relay", settings.liveness_every_s, self.relay.once),
                ("webhook", settings.liveness_every_s, self.notifier.once),
                ("vouch", settings.vouch_every_s, heartbeat.once),
                ("inbox", settings.inbox_every_s, self.inbox.once),
                ("reconcile", settings.reconcile_every_s, self.reconciler.once),
                ("prune", EVERY_S, self.pruner.once),
            )
        )
        self.database_tasks = (self.relay_task, *others)
        self.tasks = (*self.database_tasks, self.notify_task)

    def committed(self, *_: object) -> None:
        """Something was journalled, and waits to be sent."""
        self.relay_task.wake()
        self.notify_task.wake()

    async def reconcile(self, dry_run: bool) -> ReconcileAnswer:
        """Compare everything now.  Raises what the database raises."""
        return await self.reconciler.once(dry_run=dry_run)


def _backoff(settings: Settings) -> Backoff:
    return Backoff(first_s=settings.relay_backoff_s, max_s=settings.relay_backoff_max_s, chance=random.random)
