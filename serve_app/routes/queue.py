"""The queue as the policy sees it."""

from __future__ import annotations

from fastapi import APIRouter

from scheduler.api.queue import QueueDocument
from serve_app import openapi
from serve_app.routes.parts import BASE, Scheduler

router = APIRouter()


@router.get(
    f"{BASE}/queue",
    tags=["queue"],
    summary="The queue: whose turn it is, when each may start, and what projects are entitled to",
    responses={200: openapi.answer(openapi.QUEUE_EXAMPLE), **openapi.refusals()},
)
async def queue(scheduler: Scheduler) -> QueueDocument:
    """At most the first 100 that wait, and 100 that run; the numbers are of all."""
    return await scheduler.queue()
