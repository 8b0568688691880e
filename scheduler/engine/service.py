"""The engine, put together: what is built in which order, how it recovers, and which tasks it runs."""

from __future__ import annotations

import asyncio
import logging
from datetime import datetime

from scheduler.core import lifecycle
from scheduler.core.invariants import violations
from scheduler.core.lifecycle import GiveUp, Recover
from scheduler.core.model import Reason
from scheduler.core.reconcile import Policy
from scheduler.engine.arrays import Arrays
from scheduler.engine.bad_nodes import BadNodes
from scheduler.engine.change_feed import ChangeFeed
from scheduler.engine.cluster import Cluster
from scheduler.engine.commands import Commands
from scheduler.engine.found_runs import FoundRuns
from scheduler.engine.job_store import JobStore
from scheduler.engine.periodic import BackgroundTasks, PeriodicTask, all_of
from scheduler.engine.policies import policy_in_charge
from scheduler.engine.projects import Projects
from scheduler.engine.queries.job_view import JobViews
from scheduler.engine.queries.queries import Queries
from scheduler.engine.queries.queue_view import QueueView
from scheduler.engine.queries.usage import UsageAccounts
from scheduler.engine.recurring import RecurringJobs
from scheduler.engine.registry import Registry
from scheduler.engine.run_metrics import RunMetrics
from scheduler.engine.run_monitor import RunMonitor
from scheduler.engine.run_times import RunTimes
from scheduler.engine.scheduling import Scheduling
from scheduler.engine.shadow import shadow_of
from scheduler.engine.shutdown import Shutdown
from scheduler.engine.spec_validation import SpecValidator
from scheduler.engine.state import DatabaseState, EngineState
from scheduler.engine.supervisor import Supervisor
from scheduler.engine.sync.heartbeat import Heartbeat
from scheduler.engine.sync.session import MirrorSession
from scheduler.engine.sync.sync import Sync
from scheduler.engine.telemetry import LOOKED_AT, NoTelemetry, Telemetry
from scheduler.errors import MirrorRefused, MirrorUnavailable
from scheduler.ports import Clock, Journal, Mirror, Runner, Webhook
from scheduler.settings import Settings

log = logging.getLogger(__name__)


class Engine:
    """The one writer of jobs, in front of the journal, the runs and the database."""

    def __init__(
        self,
        *,
        journal: Journal,
        runner: Runner,
        clock: Clock,
        settings: Settings,
        validator: SpecValidator,
        mirror: Mirror | None = None,
        webhook: Webhook | None = None,
        telemetry: Telemetry | None = None,
    ) -> None:
        self.journal, self.runner, self.clock = journal, runner, clock
        self.settings, self.validator, self.accounts = settings, validator, UsageAccounts(journal, clock)
        self.background = background = BackgroundTasks(clock)
        # what is known: jobs in memory and journal, nodes, what has changed
        self.registry = registry = Registry(settings.finished_in_memory)
        self.cluster = cluster = Cluster(runner, registry)
        self.projects = projects = Projects(journal, registry, cluster)
        self.bad_nodes = bad = BadNodes(journal, cluster, clock, settings.set_aside_share)
        session = MirrorSession(mirror, journal) if mirror else None
        self.store = store = JobStore(journal, registry, session, settings.retries())
        self.views = views = JobViews(registry, clock, settings)
        feed, times, metrics = ChangeFeed(), RunTimes(clock), RunMetrics(telemetry or NoTelemetry())
        # the runs: found, followed to their ends, looked at
        heartbeat = Heartbeat(journal, session, clock, views)
        self.found = found = FoundRuns(store, runner, clock)
        self.supervisor = Supervisor(runner, registry, store, found, session, heartbeat, background, clock)
        self.monitor = RunMonitor(
            runner, registry, store, cluster, views, feed, heartbeat, metrics, times, clock, settings
        )
        # the queue
        self.shutdown = shutdown = Shutdown(store, registry, clock)
        self.policy = policy = policy_in_charge(cluster, registry, projects, journal, clock, settings)
        self.shadow = shadow = shadow_of(policy, cluster, registry, projects, journal, clock, settings)
        self.scheduling = Scheduling(
            registry, store, cluster, found, shutdown, policy, views, feed, times, bad, clock, shadow)  # fmt: skip
        # people, and the database
        self.queries = queries = Queries(
            journal, runner, registry, store, cluster, validator, views, feed, session, policy, clock, settings
        )  # fmt: skip
        self.queue = QueueView(registry, cluster, projects, views, policy, queries, clock, shadow)
        self.commands = commands = Commands(
            registry, store, cluster, validator, views, queries, policy, shutdown, clock, settings
        )
        self.recurring = RecurringJobs(journal, registry, store, commands, clock, settings.cluster)
        self.arrays = Arrays(registry, store, cluster, validator, views, commands)
        self.sync = Sync(
            journal, session, heartbeat, webhook, registry, store, cluster, validator, commands, runner, clock, settings
        )  # fmt: skip
        # what runs again and again, and what follows a commit
        self.tick = tick = PeriodicTask("tick", settings.tick_every_s, self.scheduling.once, clock)
        self.tasks = self._periodic()
        store.on_action = self.supervisor.act
        store.on_commit = (views.committed, feed.committed, policy.committed, bad.committed, shadow.committed,
            tick.wake, self.sync.committed, metrics.committed)  # fmt: skip

    def _periodic(self) -> tuple[PeriodicTask, ...]:
        """What runs again and again, each in a loop of its own."""
        settings, clock = self.settings, self.clock
        return (
            self.tick,
            PeriodicTask("recurring", settings.tick_every_s, self.recurring.once, clock),
            PeriodicTask("observe", settings.observe_every_s, self.monitor.once, clock),
            PeriodicTask("liveness", settings.liveness_every_s, self.supervisor.once, clock),
            *self.sync.tasks,
        )

    async def recover(self) -> None:
        """Before serving: read the journal, find what still lives, ask the database, take up every intention."""
        self.registry.fill(await self.journal.active())
        await self.projects.load()
        await self.recurring.load()
        await self.bad_nodes.load()
        # Places in milliseconds: jobs of a journal that was lost, found again later, stand before those of this one.
        self.registry.begin_after(int(self.clock.now().timestamp() * 1000))
        await self.cluster.look()
        await self.policy.recall()
        await self.accounts.begin()
        await self.shadow.recall()
        await self._after_an_outage()
        try:
            await self.sync.reconciler.once(by="start-up")
        except (MirrorUnavailable, MirrorRefused) as error:
            log.error("starting without the database, which is asked again soon: %s", error)
        await self.supervisor.once()

    async def run_forever(self) -> None:
        """Until cancelled, or until a newer life of the scheduler owns the journal (raises Superseded)."""
        async with asyncio.TaskGroup() as group:
            for task in self.tasks:
                group.create_task(task.run_forever(), name=task.name)

    async def state(self) -> EngineState:
        """How everything stands at this moment."""
        oldest, newest = await self.journal.outbox(1), await self.journal.repairs(1)
        notifier = self.sync.notifier
        return EngineState(
            at=self.clock.now(),
            settings=self.settings,
            incarnation=self.journal.incarnation,
            jobs=await self.journal.counts(),
            running=self.registry.running(),
            next_queued=self.registry.queued(LOOKED_AT),
            nodes=self.cluster.nodes,
            aside=self.bad_nodes.aside,
            tasks=tuple((task.name, task.health()) for task in self.tasks),
            database=self._database(),
            unmirrored=await self.journal.outbox_size(),
            oldest_unmirrored_at=oldest[0].event.at if oldest else None,
            repairs=newest[0][0] if newest else 0,
            pruned_events=self.sync.pruner.events,
            notices_refused=notifier.refused,
            notices_given_up=notifier.given_up,
            background_errors=self.background.errors,
            shadow=self.shadow.document(),
            problems=self.problems(),
        )

    def _database(self) -> DatabaseState | None:
        if self.sync.session is None:
            return None
        tasks = self.sync.database_tasks
        return DatabaseState(
            incarnation=self.sync.session.incarnation,
            tasks=tuple(task.health() for task in tasks),
            is_failing=any(task.problem() for task in tasks),
        )

    def problems(self) -> list[str]:
        """Everything that is not as it must be, in words; empty when all is well."""
        nodes, running = self.cluster.nodes, self.registry.running()
        found = [
            *(task.problem() for task in self.tasks),
            self.background.problem(),
            self.journal.problem(),
            *self.monitor.clocks.problems({node.id: node.name for node in nodes}),
            *self.found.problems(running),
            self.shutdown.problem(),
            self.recurring.problem(),
            *self.bad_nodes.problems(),
            self.shadow.problem(),
            None if nodes else "no live Ray node is known yet: jobs cannot start",
            self.sync.notifier.problem(),
            self.views.problem(self.journal.unreadable),
            *violations(running, nodes)[:10],
        ]
        return [words for words in found if words]

    async def _after_an_outage(self) -> None:
        """Waiting jobs of the journal were promised a start; after a long silence the operator may want a say."""
        last, now = self.journal.last_vouched_at, self.clock.now()
        away_s = (now - last).total_seconds() if last else 0.0
        policy = self.settings.recover_queued
        if away_s <= self.settings.stale_after_s or policy is Policy.START:
            return
        why = f"the scheduler was away for {away_s:.0f} s and recover_queued is `{policy}`"
        waiting = [job for job in self.registry.queued() if not (job.held and policy is Policy.HOLD)]
        events = ((job, _after_outage(policy, now, why)) for job in waiting)
        await all_of(self.store.apply(job, event) for job, event in events)


def _after_outage(policy: Policy, now: datetime, why: str) -> lifecycle.Event:
    if policy is Policy.FAIL:
        reason = Reason(code="failed_after_outage", message=f"{why}; force-start it to run it")
        return GiveUp(at=now, by="start-up", reason=reason)
    reason = Reason(code="held", message=f"{why}; force-start it, or mark it as failed")
    return Recover(at=now, by="start-up", reason=reason, hold=True)
