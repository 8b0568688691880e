"""What a person may ask of a job from a page: the words for it, and what was answered."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from scheduler.api.jobs import ForceStartAnswer, JobDocument
from scheduler.api.scheduler_api import SchedulerApi
from scheduler.core.model import Status
from scheduler.errors import RegistryUnavailable, SchedulerError
from serve_app.pages.calls import soon

_AT_ONCE = 16
"""Jobs that are asked about at the same time."""

Answer = JobDocument | ForceStartAnswer


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionCall:
    """One action for one job, and by whom."""

    job_id: str
    by: str
    checkpoint: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    words: str
    """On its button."""
    question: str
    """Before the name of the job, or the number of jobs."""
    is_hard: bool
    """It ends something."""
    call: Callable[[SchedulerApi, ActionCall], Awaitable[Answer]]


ACTIONS: dict[str, Action] = {
    "cancel": Action(
        words="Cancel",
        question="Cancel",
        is_hard=True,
        call=lambda registry, asked: registry.cancel(asked.job_id, asked.by),
    ),
    "pause": Action(
        words="Pause",
        question="Pause",
        is_hard=False,
        call=lambda registry, asked: registry.pause(asked.job_id, asked.by),
    ),
    "preempt": Action(
        words="Preempt",
        question="Preempt",
        is_hard=False,
        call=lambda registry, asked: registry.preempt(asked.job_id, asked.by),
    ),
    "resume": Action(
        words="Resume",
        question="Resume",
        is_hard=False,
        call=lambda registry, asked: registry.resume(asked.job_id, asked.by, asked.checkpoint),
    ),
    "restart": Action(
        words="Restart",
        question="Restart",
        is_hard=False,
        call=lambda registry, asked: registry.restart(asked.job_id, asked.by),
    ),
    "force-start": Action(
        words="Start Job Now",
        question="Start",
        is_hard=False,
        call=lambda registry, asked: registry.force_start(asked.job_id, asked.by),
    ),
    "fail": Action(
        words="Mark as Failed",
        question="Mark as failed:",
        is_hard=True,
        call=lambda registry, asked: registry.mark_failed(asked.job_id, asked.by),
    ),
}
"""As in the paths of the API."""


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


async def carry_out(registry: SchedulerApi, name: str, asked: Sequence[ActionCall]) -> list[Outcome]:
    """Ask for the action *name* of each job; what one of them refuses hinders no other."""
    slots = asyncio.Semaphore(_AT_ONCE)

    async def one(job: ActionCall) -> Outcome:
        async with slots:
            return await _carry_out_one(registry, name, job)

    return list(await asyncio.gather(*map(one, asked)))


async def _carry_out_one(registry: SchedulerApi, name: str, asked: ActionCall) -> Outcome:
    try:
        answer = await soon(ACTIONS[name].call(registry, asked))
    except RegistryUnavailable as error:
        remedy = "It is not known whether it was done. Look how the job stands before you ask again."
        return Outcome(job_id=asked.job_id, message=error.message, error=error, remedy=remedy)
    except SchedulerError as error:
        remedy = await _remedy(registry, name, asked)
        return Outcome(job_id=asked.job_id, message=error.message, error=error, remedy=remedy)
    return Outcome(job_id=asked.job_id, message=_told(answer))


async def _remedy(registry: SchedulerApi, name: str, asked: ActionCall) -> str | None:
    """What to do instead, if the registry can say so."""
    try:
        return (await soon(registry.effect(asked.job_id, name, asked.checkpoint))).remedy
    except SchedulerError:
        return None


def _told(answer: Answer) -> str:
    if isinstance(answer, ForceStartAnswer):
        return answer.message
    if answer.status is Status.QUEUED and answer.queue_position:
        place = f" (position {answer.queue_position})"
        is_held = answer.reason.code == "held"
        return f"{answer.reason.message}{place}" if is_held else f"Job queued successfully{place}"
    return f"{answer.status}: {answer.reason.message}"
