"""The list of jobs."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from fastapi import APIRouter, Request
from fastapi.responses import Response

from scheduler.core.commands import ACTIONS
from scheduler.errors import InvalidRequest, SchedulerError
from serve_app.caller import base_of, redirect
from serve_app.change_hub import ChangePosition
from serve_app.pages import visitor
from serve_app.pages.calls import all_of, job_id_in, own_path, soon
from serve_app.pages.listing import JOBS_SHOWN, ListQuery
from serve_app.pages.rendering import is_part
from serve_app.pages.site import OfSite, Site
from serve_app.pages.sparkline import sparkline
from serve_app.streams import EventStream

router = APIRouter(include_in_schema=False)
_TREND_POINTS = 32
BULK = {action: rule for action, rule in ACTIONS.items() if rule.is_for_many}
"""What may be asked of many jobs at once."""


@router.get("/training")
async def recent(request: Request, site: OfSite) -> Response:
    listing = ListQuery.of(request)
    seen = await _look(listing, site)
    name = "jobs_part.html" if is_part(request) else "jobs.html"
    status = 422 if isinstance(seen["jobs"], InvalidRequest) else 200
    return site.renderer.page(request, name, status, listing=listing, bulk=BULK, page_name="jobs", **seen)


@router.get("/training/live")
async def live(request: Request, site: OfSite) -> Response:
    """Server-sent events: see `LiveRows`."""
    given = request.query_params.get("from", "")
    return EventStream(site.rows.events(ChangePosition.of(given) if given else None, base_of(request.scope)))


@router.get("/training/trends")
async def trends(request: Request, site: OfSite) -> Response:
    """The curves of the jobs of a page, which loads them when it has been drawn."""
    ids = [job_id_in(one) for one in request.query_params.get("jobs", "").split(",")[:JOBS_SHOWN]]
    found = await soon(site.registry.trends(ids, _TREND_POINTS))
    lines = {job_id: line for job_id, values in found.items() if (line := sparkline(values))}
    return site.renderer.part(request, "trends.html", lines=lines)


@router.post("/training/marked")
async def marked(request: Request, site: OfSite) -> Response:
    """Without a script: from boxes to the page that asks first."""
    try:
        return redirect(request, _confirmation(await visitor.form_of(request)))
    except SchedulerError as error:
        return site.renderer.page(
            request, "refused.html", error.http_status, error=error, heading="Nothing was done"
        )


async def _look(listing: ListQuery, site: Site) -> dict[str, Any]:
    """What the page shows; for each part that cannot be had, the refusal."""
    found: dict[str, Any] = {"health": None, "position": None}
    try:
        query = listing.query()
        # First of all: what changes while the page is read is told to it then.
        found["position"] = await soon(site.hub.position())
    except InvalidRequest as error:
        return found | {"jobs": error}
    except SchedulerError as error:
        return found | {"health": error, "jobs": (await all_of(site.reads.jobs(listing.query())))[0]}
    health, jobs = await all_of(site.registry.health(), site.reads.jobs(query))
    return found | {"health": health, "jobs": jobs}


def _confirmation(fields: dict[str, list[str]]) -> str:
    back = own_path("".join(fields.get("back", [])))
    ids = [job_id_in(one) for one in fields.get("jobs", [])]
    action = "".join(fields.get("action", []))
    if not ids or action not in BULK:
        return back
    return "/training/confirm?" + urlencode({"action": action, "jobs": ",".join(ids), "back": back})
