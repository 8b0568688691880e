"""The registry inside the scheduler actor: ask it, wait while it restarts, say when it is away."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayError, RayTaskError

from scheduler.api.forecasts import EffectDocument, Explanation, PlanAnswer
from scheduler.api.health import Health, LoopList, ShutdownAnswer
from scheduler.api.jobs import (
    AttemptPage,
    Changes,
    CheckpointPage,
    EventPage,
    ForceStartAnswer,
    JobDocument,
    JobPage,
    SubmittedJob,
)
from scheduler.api.logs import LogChunk, LogView
from scheduler.api.metrics import MetricsDocument
from scheduler.api.repairs import ReconcileAnswer, RepairPage
from scheduler.core.model import JobSpec
from scheduler.errors import RegistryUnavailable, SchedulerError
from scheduler.ports import JobQuery

_HEALTH_TIMEOUT_S = 2.0
_RECONCILE_TIMEOUT_S = 120.0
_PAUSE_S = 0.2
_CHANGING = frozenset(
    [
        "submit",
        "submit_batch",
        "cancel",
        "pause",
        "resume",
        "restart",
        "preempt",
        "force_start",
        "mark_failed",
        "reconcile",
        "shutdown",
    ]
)


class ActorAway(Exception):
    """The actor died, or is being restarted."""


class ActorRegistry:
    """The registry, inside the detached actor *name* of *namespace*.

    Raises what the actor raises, and RegistryUnavailable when it does not answer: within *timeout_s*, after
    which it is not known whether the call was done, or because it stayed away for *patience_s*.
    """

    def __init__(
        self, name: str, namespace: str, *, timeout_s: float = 10.0, patience_s: float = 8.0
    ) -> None:
        self._name = name
        self._namespace = namespace
        self._timeout_s = timeout_s
        self._patience_s = patience_s
        self._handle: ActorHandle[Any] | None = None

    async def submit(
        self, job_id: str, spec: JobSpec, idempotency_key: str | None
    ) -> tuple[JobDocument, bool]:
        return await self._ask("submit", job_id, spec, idempotency_key)

    async def submit_batch(self, jobs: list[tuple[str, JobSpec]]) -> list[SubmittedJob]:
        return await self._ask("submit_batch", jobs)

    async def status(self, job_id: str) -> JobDocument:
        return await self._ask("status", job_id)

    async def documents(self, job_ids: list[str]) -> dict[str, JobDocument]:
        return await self._ask("documents", job_ids)

    async def events(self, job_id: str) -> EventPage:
        return await self._ask("events", job_id)

    async def jobs(self, query: JobQuery) -> JobPage:
        return await self._ask("jobs", query)

    async def changes(self, after: int, life: int, wait_s: float) -> Changes:
        """Whoever listens wants to know soon that nobody answers: no waiting for a restart."""
        try:
            return await self._ask_once("changes", (after, life, wait_s), wait_s + _HEALTH_TIMEOUT_S)
        except ActorAway as away:
            raise self._unavailable(away) from away

    async def cancel(self, job_id: str, by: str) -> JobDocument:
        return await self._ask("cancel", job_id, by)

    async def pause(self, job_id: str, by: str) -> JobDocument:
        return await self._ask("pause", job_id, by)

    async def resume(self, job_id: str, by: str, checkpoint: str | None = None) -> JobDocument:
        return await self._ask("resume", job_id, by, checkpoint)

    async def restart(self, job_id: str, by: str) -> JobDocument:
        return await self._ask("restart", job_id, by)

    async def preempt(self, job_id: str, by: str) -> JobDocument:
        return await self._ask("preempt", job_id, by)

    async def attempts(self, job_id: str) -> AttemptPage:
        return await self._ask("attempts", job_id)

    async def checkpoints(self, job_id: str) -> CheckpointPage:
        return await self._ask("checkpoints", job_id)

    async def metrics(self, job_id: str, points: int) -> MetricsDocument:
        return await self._ask("metrics", job_id, points)

    async def trends(self, job_ids: list[str], points: int) -> dict[str, list[float]]:
        return await self._ask("trends", job_ids, points)

    async def force_start(self, job_id: str, by: str) -> ForceStartAnswer:
        return await self._ask("force_start", job_id, by)

    async def mark_failed(self, job_id: str, by: str) -> JobDocument:
        return await self._ask("mark_failed", job_id, by)

    async def shutdown(self, save: bool, by: str) -> ShutdownAnswer:
        return await self._ask("shutdown", save, by)

    async def logs(self, job_id: str, rank: int, attempt: int | None, offset: int, limit: int) -> LogChunk:
        return await self._ask("logs", job_id, rank, attempt, offset, limit)

    async def log_view(self, job_id: str, attempt: int, offsets: dict[int, int], limit: int) -> LogView:
        return await self._ask("log_view", job_id, attempt, offsets, limit)

    async def explain(self, job_id: str) -> Explanation:
        return await self._ask("explain", job_id)

    async def effect(self, job_id: str, action: str, checkpoint: str | None = None) -> EffectDocument:
        return await self._ask("effect", job_id, action, checkpoint)

    async def plan(self, spec: JobSpec) -> PlanAnswer:
        return await self._ask("plan", spec)

    async def loops(self) -> LoopList:
        return await self._ask("loops")

    async def reconcile(self, dry_run: bool) -> ReconcileAnswer:
        """A pass reads every active row: it may take longer than any other call."""
        return await self._ask("reconcile", dry_run, timeout_s=_RECONCILE_TIMEOUT_S)

    async def repairs(self, cursor: str | None, limit: int) -> RepairPage:
        return await self._ask("repairs", cursor, limit)

    async def health(self) -> Health:
        """Whoever asks for health wants to know now: no waiting for a restart."""
        try:
            return await self._ask_once("health", (), _HEALTH_TIMEOUT_S)
        except ActorAway as away:
            raise self._unavailable(away) from away

    async def _ask(self, method: str, *arguments: Any, timeout_s: float | None = None) -> Any:
        until_s = time.monotonic() + self._patience_s
        while True:
            try:
                return await self._ask_once(method, arguments, timeout_s or self._timeout_s)
            except ActorAway as away:
                if time.monotonic() >= until_s:
                    raise self._unavailable(away) from away
            await asyncio.sleep(_PAUSE_S)

    async def _ask_once(self, method: str, arguments: tuple[Any, ...], timeout_s: float) -> Any:
        try:
            async with asyncio.timeout(timeout_s):
                actor = await self._actor()
                return await getattr(actor, method).remote(*arguments)
        except RayTaskError as error:
            if isinstance(error.cause, SchedulerError):
                raise error.cause from None
            raise
        except RayError as error:
            self._handle = None
            what = str(error).strip().partition("\n")[0]
            raise ActorAway(f"{type(error).__name__}: {what}") from error
        except TimeoutError:
            raise _late(method, timeout_s) from None

    async def _actor(self) -> ActorHandle[Any]:
        if self._handle is None:
            try:
                self._handle = await asyncio.to_thread(ray.get_actor, self._name, namespace=self._namespace)
            except ValueError:  # a restarting actor keeps its name: nobody will come back
                raise self._unavailable("there is no such actor") from None
        return self._handle

    def _unavailable(self, why: object) -> RegistryUnavailable:
        return RegistryUnavailable(
            f"the scheduler actor {self._name!r} does not answer ({why}); it is restarting, or was stopped: "
            "ask again in a few seconds, then see `scheduler doctor`"
        )


def _late(method: str, timeout_s: float) -> RegistryUnavailable:
    """A question that stayed without an answer has done nothing; of a command that is not known."""
    late = f"the scheduler did not answer within {timeout_s:g} s"
    if method in _CHANGING:
        return RegistryUnavailable(f"{late}; whether it was done is not known ({method}): ask again")
    return RegistryUnavailable(f"{late}; ask again in a moment")
