"""The scheduler itself: what was repaired, what it can run, how it is, and how it is ended."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response

from scheduler.api.health import Health, LoopList, ShutdownAnswer
from scheduler.api.repairs import ReconcileAnswer, RepairPage
from scheduler.errors import SchedulerError
from serve_app import openapi, problems
from serve_app.parameters import Asker, ReconcileQuery, RepairsQuery, ShutdownQuery
from serve_app.routes.parts import BASE, Reads, Scheduler

router = APIRouter()


@router.post(
    f"{BASE}/reconcile",
    tags=["repairs"],
    summary="Compare registry, runs and database now, and put right what differs",
    responses={200: openapi.answer(openapi.RECONCILE_EXAMPLE), **openapi.refusals(422, 502)},
)
async def reconcile(scheduler: Scheduler, query: Annotated[ReconcileQuery, Query()]) -> ReconcileAnswer:
    """A second pass finds nothing to do.  May take tens of seconds where the database is slow."""
    return await scheduler.reconcile(query.dry_run)


@router.get(
    f"{BASE}/repairs",
    tags=["repairs"],
    summary="What was put right, newest first",
    responses={200: openapi.answer(openapi.REPAIRS_EXAMPLE), **openapi.refusals(422)},
)
async def repairs(scheduler: Scheduler, query: Annotated[RepairsQuery, Query()]) -> RepairPage:
    return await scheduler.repairs(query.cursor, query.limit)


@router.get(
    f"{BASE}/loops", tags=["server"], summary="Loops and their settings", responses=openapi.refusals()
)
async def loops(scheduler: Scheduler) -> LoopList:
    return await scheduler.loops()


@router.post(
    f"{BASE}/shutdown",
    tags=["server"],
    summary="Get ready to be ended: what runs saves and gives way, nothing starts",
    responses=openapi.refusals(422),
)
async def shutdown(
    scheduler: Scheduler, query: Annotated[ShutdownQuery, Query()], asker: Asker
) -> ShutdownAnswer:
    """For `scheduler down`, which ends the processes.  Jobs keep their places and go on at the next `scheduler up`;
    where nobody ends the scheduler, they go on by themselves a minute after the grace."""
    return await scheduler.shutdown(query.save, asker or "api")


@router.get(
    "/health",
    tags=["server"],
    summary="How the scheduler is",
    responses={
        **openapi.refusals(),
        503: {"model": Health, "description": "The registry does not answer."},
    },
)
async def health(reads: Reads, scheduler: Scheduler, response: Response) -> Health:
    """200 whenever the registry answers, `degraded` or not; 503 when it does not."""
    try:
        return await scheduler.health()
    except SchedulerError as error:
        response.status_code = 503
        response.headers["Retry-After"] = str(problems.RETRY_AFTER_S)
        return await reads.health_without_registry(error.message)
