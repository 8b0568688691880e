"""The detached actor that holds the registry and the queue.  The one place that knows which adapters exist."""

from __future__ import annotations

import asyncio
import logging
import random
import tempfile
import time
from contextlib import AsyncExitStack
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import ray

from scheduler import __version__
from scheduler.adapters.journal.sqlite import SqliteJournal
from scheduler.adapters.supabase import mirror_of
from scheduler.adapters.webhook import webhook_of
from scheduler.api.health import Health
from scheduler.api.scheduler_api import operation
from scheduler.core.model import Node, NodeId, Phase
from scheduler.core.observation import Sighting
from scheduler.engine.periodic import Backoff, PeriodicTask, SystemClock
from scheduler.engine.service import Engine
from scheduler.engine.spec_validation import SpecValidator, function_of
from scheduler.errors import SchedulerError, Superseded
from scheduler.runs.ray_runner import RayRunner
from scheduler.runs.warm_pool import WarmPool
from scheduler.server import collector, health
from scheduler.server.boot import Boot
from scheduler.server.dispatch import method_of
from scheduler.server.gauges import Gauges
from scheduler.server.ray_telemetry import RayTelemetry
from scheduler.settings import Settings

log = logging.getLogger(__name__)

ACTOR_NAME = "scheduler"
QUIET_S = 15.0
"""Processes are prepared beside a run only when it has trained for so long: they must not slow a start or an end."""

BOOT_AGAIN_S, BOOT_AGAIN_MAX_S = 1.0, 60.0
"""Pause after the first start that failed, and the longest one."""

RUN_ENVIRONMENT = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_ENABLE_STATE_TRACKING": "1",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    "RAY_WARN_BLOCKING_GET_INSIDE_ASYNC": "0",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
"""Of every process of a run.  All of it stands here, so that Ray Train adds nothing and prepared processes fit."""
SETUP_HOOK = {"__RAY_WORKER_PROCESS_SETUP_HOOK_ENV_VAR": "scheduler.runs.warm_worker.begin"}


def run_environment(settings: Settings) -> dict[str, str]:
    """Where nothing is prepared ahead of need, no process begins to import what it may never use."""
    return RUN_ENVIRONMENT | SETUP_HOOK if settings.warm_runs else RUN_ENVIRONMENT


def namespace(cluster: str) -> str:
    return f"scheduler-{cluster}"


class SchedulerActor:
    """What is asked waits until recovery is done: nothing is answered from a half-read journal."""

    def __init__(self, settings: Settings, roots: tuple[Path, ...]) -> None:
        _log_to(settings.state_dir / "logs" / "scheduler.log")
        self._settings, self._roots = settings, roots
        self._pool = WarmPool(settings.warm_runs, run_environment(settings))
        self._clock = SystemClock()
        self._started_at = self._clock.now()
        backoff = Backoff(first_s=BOOT_AGAIN_S, max_s=BOOT_AGAIN_MAX_S, chance=random.random)
        self._booting = Boot(self._boot, self._clock, backoff)
        self._forever: asyncio.Task[None] | None = None
        self._kept_until_s = 0.0
        self._superseded: Superseded | None = None
        # After a restart nobody calls: the actor wakes itself.
        ray.get_runtime_context().current_actor.ready.remote()

    def __repr__(self) -> str:
        """What the Ray dashboard shows beside the name."""
        return f"scheduler of {self._settings.cluster}"

    async def ready(self) -> int:
        """The incarnation, once recovery is done."""
        return (await self._service()).journal.incarnation

    async def keep_warm(self, for_s: float) -> None:
        """Prepare processes for the next *for_s* seconds.  Called by the keeper as long as it lives: without a
        driver that stays, Ray would end what was prepared."""
        self._kept_until_s = time.monotonic() + for_s

    async def call(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What the operation *method* of `SchedulerApi` answers; any other name is refused."""
        if operation(method).name == "health":
            return await self._health()
        return await method_of(await self._service(), method)(*args, **kwargs)

    async def _health(self) -> Health:
        """The one question that is answered also by a scheduler that cannot start, or that was superseded."""
        if self._superseded:
            return Health(status="degraded", problems=[self._superseded.message], version=__version__)
        try:
            service = await self._service()
        except SchedulerError as error:
            return Health(status="degraded", problems=[error.message], version=__version__)
        return health.health(await service.state(), started_at=self._started_at, pool=self._pool.health())

    async def _service(self) -> Engine:
        if self._superseded:
            raise self._superseded
        return await self._booting.made()

    async def _boot(self) -> Engine:
        """Recover before serving: journal, incarnation, live runs; then the loops.  A try that fails lets go of all
        that it took."""
        async with AsyncExitStack() as taken:
            service, gauges = await self._take(taken)
            with collector.set_aside():
                await service.recover()
            taken.pop_all()
        service.tasks += (
            PeriodicTask("pool", 2.0, partial(self._refill, service), self._clock),
            gauges.task(),
        )
        self._forever = asyncio.create_task(self._serve(service))
        incarnation, active = service.journal.incarnation, len(service.registry.active())
        log.info("incarnation %s serves %s active jobs", incarnation, active)
        return service

    async def _take(self, taken: AsyncExitStack) -> tuple[Engine, Gauges]:
        settings = self._settings
        journal = await SqliteJournal.open(
            settings.state_dir / "journal.db", reserve_bytes=settings.journal_reserve_bytes
        )
        taken.push_async_callback(journal.close)
        mirror, webhook = mirror_of(settings, settings.supabase_timeout_s), webhook_of(settings, self._clock)
        for adapter in filter(None, (mirror, webhook)):
            taken.push_async_callback(adapter.close)
        runner = RayRunner(
            storage=settings.storage_path,
            checkpoint_url=settings.checkpoints_at,
            namespace=namespace(settings.cluster),
            env_vars=run_environment(settings),
            function_of=function_of,
            observe_timeout_s=settings.observe_timeout_s,
            stop_grace_s=settings.stop_grace_s,
            on_start=lambda node, warm: self._pool.took(node, warm=warm),
        )
        door = SpecValidator(
            settings.allowed_loops,
            self._roots,
            node_types(settings),
            allow_shipped_code=settings.allow_shipped_code,
        )
        telemetry = RayTelemetry(settings.cluster)
        service = Engine(
            journal=journal,
            runner=runner,
            clock=self._clock,
            settings=settings,
            validator=door,
            mirror=mirror,
            webhook=webhook,
            telemetry=telemetry,
        )
        taken.push_async_callback(service.background.close)
        return service, Gauges(service, telemetry, self._pool)

    async def _serve(self, service: Engine) -> None:
        """Until a newer scheduler owns the journal or the database.  Then nothing is done or answered any more,
        but that: whoever asks is told why."""
        loops = asyncio.create_task(service.run_forever())
        superseded = asyncio.create_task(service.background.superseded.wait())
        await asyncio.wait([loops, superseded], return_when=asyncio.FIRST_COMPLETED)
        self._superseded = service.background.superseded_by or _superseded_in(loops)
        log.critical("this scheduler stops: %s", self._superseded)
        loops.cancel()
        await service.journal.close()

    async def _refill(self, service: Engine) -> None:
        if time.monotonic() > self._kept_until_s:
            return
        busy = frozenset(
            node
            for job in service.registry.running()
            if job.allocation and not _is_under_way(service.registry.sighting(job), self._clock.now())
            for node in job.allocation.node_of_each_rank
        )
        await self._pool.refill_once(service.cluster.nodes, busy)


def _superseded_in(loops: asyncio.Task[None]) -> Superseded:
    """What ended the loops.  They end for nothing else; if they do, that is shown in the same way."""
    error = loops.exception() if loops.done() and not loops.cancelled() else None
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error if isinstance(error, Superseded) else Superseded(f"the scheduler's loops ended: {error!r}")


def default_roots(settings: Settings, working_dir: Path) -> tuple[Path, ...]:
    """The folders that specs may read from, unless the settings name others."""
    given = settings.data_roots or (working_dir, Path.home(), Path(tempfile.gettempdir()))
    return (settings.storage_path, *given)


def node_types(settings: Settings) -> list[Node]:
    """What the autoscaler may add, as nodes."""
    return [
        Node(id=NodeId(f"{name}-{i}"), name=name, cpus=kind.cpus, gpus=kind.gpus, labels=kind.labels)
        for name, kind in settings.node_types.items()
        for i in range(kind.max_nodes)
    ]


def _is_under_way(sighting: Sighting | None, now: datetime) -> bool:
    """Training for a while, so that it is neither starting nor about to end at once."""
    began_s = sighting.observation.phases.get(Phase.TRAINING) if sighting else None
    return began_s is not None and now.timestamp() - began_s > QUIET_S


def _log_to(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it would log whole URLs
    logger = logging.getLogger("scheduler")
    logger.setLevel(logging.INFO)
    logger.handlers = [handler]
