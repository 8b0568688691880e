"""Recurring jobs: made, changed, shown and forgotten."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Request

from scheduler.api.recurring import (
    CHANGES,
    NAME,
    NAME_IN_WORDS,
    RecurringForgotten,
    RecurringJobDocument,
    RecurringJobList,
)
from serve_app import openapi, problems, request_body
from serve_app.parameters import Asker
from serve_app.request_body import Wanted
from serve_app.routes.parts import BASE, Configured, Scheduler

router = APIRouter()


def _named(
    name: Annotated[
        str,
        Path(
            description=f"It {NAME_IN_WORDS}.",
            examples=["nightly"],
            json_schema_extra={"pattern": f"^{NAME}$"},
        ),
    ],
) -> str:
    if not re.fullmatch(NAME, name):
        raise problems.invalid("name", f"{NAME_IN_WORDS}; it is {problems.shown(name)}")
    return name


Name = Annotated[str, Depends(_named)]
_CHANGES = Wanted(
    'any of cron, timezone, spec and paused as JSON, as {"cron": "0 3 * * *", "spec": {"loop": "sft"}}',
    problems.invalid_body,
)
_ONE = openapi.answer(openapi.RECURRING_EXAMPLE)


@router.get(
    f"{BASE}/recurring",
    tags=["recurring"],
    summary="Recurring jobs: when each is next, and what became of its last job",
    responses={200: openapi.answer({"recurring_jobs": [openapi.RECURRING_EXAMPLE]}), **openapi.refusals()},
)
async def recurring_jobs(scheduler: Scheduler) -> RecurringJobList:
    """Every one, by name."""
    return await scheduler.recurring_jobs()


@router.get(
    f"{BASE}/recurring/{{name}}",
    tags=["recurring"],
    summary="One recurring job",
    responses={200: _ONE, **openapi.refusals(404, 422)},
)
async def recurring_job(scheduler: Scheduler, name: Name) -> RecurringJobDocument:
    return await scheduler.recurring_job(name)


@router.put(
    f"{BASE}/recurring/{{name}}",
    tags=["recurring"],
    summary="Make a recurring job, change it, pause it or let it go on",
    responses={200: _ONE, **openapi.refusals(404, 408, 413, 422, 502)},
    openapi_extra=openapi.body(
        CHANGES, {"cron": "0 3 * * *", "timezone": "Europe/Berlin", "spec": openapi.SPEC_EXAMPLE}
    ),
)
async def set_recurring_job(
    settings: Configured, scheduler: Scheduler, request: Request, name: Name, asker: Asker
) -> RecurringJobDocument:
    """A field that is not given stays as it is.  Answers when it is on disk."""
    changes = await request_body.read(request, CHANGES, settings.max_body_bytes, _CHANGES)
    spec = changes.get("spec")
    if asker and spec and not spec.user:
        changes["spec"] = replace(spec, user=asker)
    return await scheduler.set_recurring_job(name, changes, asker or "api")


@router.delete(
    f"{BASE}/recurring/{{name}}",
    tags=["recurring"],
    summary="Forget a recurring job",
    responses={
        200: openapi.answer({"name": "nightly", "existed": True}),
        **openapi.refusals(422),
    },
)
async def forget_recurring_job(scheduler: Scheduler, name: Name, asker: Asker) -> RecurringForgotten:
    """The jobs that it made stay as they are.  Fine for one that is not there."""
    return await scheduler.forget_recurring_job(name, asker or "api")
