"""Recurring jobs for people: when each is next, its last job, and what was skipped; to pause one and let it go on."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response

from scheduler.errors import InvalidRequest, SchedulerError
from serve_app.caller import redirect
from serve_app.pages.calls import all_of, soon
from serve_app.pages.rendering import is_part
from serve_app.pages.site import OfSite
from serve_app.pages.visitor import Visitor, form_of

router = APIRouter(include_in_schema=False)
_PAUSED = {"pause": True, "resume": False}


@router.get("/training/recurring")
async def recurring_page(request: Request, site: OfSite) -> Response:
    (found,) = await all_of(site.registry.recurring_jobs())
    name = "recurring_part.html" if is_part(request) else "recurring.html"
    refused = found.http_status if isinstance(found, SchedulerError) else 200
    status = refused if refused < 500 else 200
    return site.renderer.page(request, name, status, page_name="recurring", found=found)


@router.post("/training/recurring")
async def change(request: Request, site: OfSite) -> Response:
    """Pauses the one that the form names, or lets it go on."""
    try:
        fields = await form_of(request)
        name, action = "".join(fields.get("name", [])), "".join(fields.get("action", []))
        if action not in _PAUSED:
            raise InvalidRequest(f"a recurring job can be paused and resumed; {action[:20]!r} is neither")
        by = Visitor.of(request).by
        await soon(site.registry.set_recurring_job(name, {"paused": _PAUSED[action]}, by))
    except SchedulerError as error:
        heading = "The recurring job was not changed"
        return site.renderer.page(request, "refused.html", error.http_status, error=error, heading=heading)
    return redirect(request, "/training/recurring")
