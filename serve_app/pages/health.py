"""How the scheduler is, for people."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from scheduler.api.health import Health
from scheduler.errors import SchedulerError
from serve_app.pages.calls import soon
from serve_app.pages.rendering import is_part
from serve_app.pages.site import OfSite

router = APIRouter(include_in_schema=False)


@router.get("/training/health")
async def health_page(request: Request, site: OfSite) -> Response:
    try:
        health, answers = await soon(site.registry.health()), True
    except SchedulerError as error:
        health, answers = await site.reads.health_without_registry(error.message), False
    name = "health_part.html" if is_part(request) else "health.html"
    return site.renderer.page(
        request, name, page_name="health", health=health, answers=answers, registry=_registry(health)
    )


def _registry(health: Health) -> dict[str, Any]:
    """What it says of itself, with a time where it gives one."""
    reported = dict(health.registry)
    started_at = None
    with contextlib.suppress(ValueError):
        given = datetime.fromisoformat(str(reported.get("started_at", "")))
        started_at = given if given.tzinfo else given.replace(tzinfo=UTC)
    return (
        {"started_at": None, "incarnation": None, "pid": None, "jobs": {}}
        | reported
        | {"started_at": started_at}
    )
