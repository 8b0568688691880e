"""What a person asks of jobs from a page: asking for it, and what was answered."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from scheduler.api.jobs import ActionAnswer, ForceStartAnswer
from scheduler.api.scheduler_api import SchedulerApi
from scheduler.core.commands import JobAction
from scheduler.core.model import Status
from scheduler.errors import RegistryUnavailable, SchedulerError
from serve_app.pages.calls import soon

_AT_ONCE = 16
"""Jobs that are asked about at the same time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionCall:
    """One action for one job, and by whom."""

    job_id: str
    action: JobAction
    by: str
    checkpoint: str | None = None
    preempt: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of an action, for one job."""

    job_id: str
    message: str
    error: SchedulerError | None = None
    remedy: str | None = None

    @property
    def is_unknown(self) -> bool:
        """No answer came, so it may have been done or not."""
        return self.error is not None and self.error.http_status == 503


async def carry_out(registry: SchedulerApi, asked: Sequence[ActionCall]) -> list[Outcome]:
    """Ask for each; what is refused for one job hinders no other."""
    slots = asyncio.Semaphore(_AT_ONCE)

    async def one(job: ActionCall) -> Outcome:
        async with slots:
            return await _carry_out_one(registry, job)

    return list(await asyncio.gather(*map(one, asked)))


async def _carry_out_one(registry: SchedulerApi, asked: ActionCall) -> Outcome:
    try:
        answer = await soon(
            registry.act(asked.job_id, asked.action, asked.by, asked.checkpoint, asked.preempt)
        )
    except RegistryUnavailable as error:
        remedy = "It is not known whether it was done. Look how the job stands before you ask again."
        return Outcome(job_id=asked.job_id, message=error.message, error=error, remedy=remedy)
    except SchedulerError as error:
        remedy = await _remedy(registry, asked)
        return Outcome(job_id=asked.job_id, message=error.message, error=error, remedy=remedy)
    return Outcome(job_id=asked.job_id, message=_told(answer))


async def _remedy(registry: SchedulerApi, asked: ActionCall) -> str | None:
    """What to do instead, if the registry can say so."""
    try:
        effect = registry.effect(asked.job_id, asked.action, asked.checkpoint, asked.preempt)
        return (await soon(effect)).remedy
    except SchedulerError:
        return None


def _told(answer: ActionAnswer) -> str:
    if isinstance(answer, ForceStartAnswer):
        return answer.message
    if answer.status is Status.QUEUED and answer.queue_position:
        place = f" (position {answer.queue_position})"
        is_held = answer.reason.code == "held"
        return f"{answer.reason.message}{place}" if is_held else f"Job queued successfully{place}"
    return f"{answer.status}: {answer.reason.message}"
