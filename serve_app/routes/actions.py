"""The actions on a job: a path for each of `ACTIONS`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request

from scheduler.api.jobs import ActionAnswer, ForceStartAnswer, JobDocument
from scheduler.core.commands import ACTIONS, ActionRule, JobAction
from serve_app import openapi
from serve_app.parameters import Asker, ForceStartQuery, ResumeQuery
from serve_app.routes.parts import BASE, Scheduler

router = APIRouter()
_REFUSALS: dict[int | str, Any] = openapi.refusals(400, 404, 422, 502)


def _in_path(request: Request) -> JobAction:
    return JobAction(request.scope["path"].rpartition("/")[2])


Asked = Annotated[JobAction, Depends(_in_path)]


async def act(scheduler: Scheduler, job_id: UUID, action: Asked, asker: Asker) -> ActionAnswer:
    return await scheduler.act(str(job_id), action, asker or "api")


async def act_from_checkpoint(
    scheduler: Scheduler, job_id: UUID, action: Asked, asker: Asker, query: Annotated[ResumeQuery, Query()]
) -> ActionAnswer:
    return await scheduler.act(str(job_id), action, asker or "api", query.checkpoint)


async def act_before_others(
    scheduler: Scheduler,
    job_id: UUID,
    action: Asked,
    asker: Asker,
    query: Annotated[ForceStartQuery, Query()],
) -> ActionAnswer:
    return await scheduler.act(str(job_id), action, asker or "api", None, query.preempt)


def _handler(rule: ActionRule) -> Callable[..., Any]:
    if rule.takes_checkpoint:
        return act_from_checkpoint
    return act_before_others if rule.takes_preempt else act


for _action, _rule in ACTIONS.items():
    router.add_api_route(
        f"{BASE}/{{job_id}}/{_action}",
        _handler(_rule),
        methods=["POST"],
        name=_rule.method,
        tags=["actions"],
        summary=_rule.title,
        description=_rule.promise,
        response_model=ForceStartAnswer if _action is JobAction.FORCE_START else JobDocument,
        responses=_REFUSALS,
    )
