"""The list of jobs."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from fastapi import FastAPI, Request
from fastapi.responses import Response

from scheduler.api.scheduler_api import SchedulerApi
from scheduler.core.commands import ACTIONS
from scheduler.errors import InvalidRequest, SchedulerError
from serve_app.caller import base_of, redirect
from serve_app.change_hub import Hub, Position
from serve_app.pages import visitor
from serve_app.pages.calls import all_of, job_id_in, own_path, soon
from serve_app.pages.listing import JOBS_SHOWN, Listing
from serve_app.pages.live_rows import LiveRows
from serve_app.pages.rendering import Renderer, is_part
from serve_app.pages.sparkline import sparkline
from serve_app.streams import EventStream
from serve_app.verified_reads import VerifiedReads

_TREND_POINTS = 32
BULK = {action: rule for action, rule in ACTIONS.items() if rule.is_for_many}
"""What may be asked of many jobs at once."""


def add(app: FastAPI, renderer: Renderer, registry: SchedulerApi, reads: VerifiedReads, hub: Hub) -> None:
    rows = LiveRows(hub, registry, renderer)

    @app.get("/training", include_in_schema=False)
    async def recent(request: Request) -> Response:
        listing = Listing.of(request)
        seen = await _look(listing, registry, reads, hub)
        name = "jobs_part.html" if is_part(request) else "jobs.html"
        status = 422 if isinstance(seen["jobs"], InvalidRequest) else 200
        return renderer.page(request, name, status, listing=listing, bulk=BULK, page_name="jobs", **seen)

    @app.get("/training/live", include_in_schema=False)
    async def live(request: Request) -> Response:
        """Server-sent events: see `LiveRows`."""
        given = request.query_params.get("from", "")
        return EventStream(rows.told(Position.of(given) if given else None, base_of(request.scope)))

    @app.get("/training/trends", include_in_schema=False)
    async def trends(request: Request) -> Response:
        """The curves of the jobs of a page, which loads them when it has been drawn."""
        ids = [job_id_in(one) for one in request.query_params.get("jobs", "").split(",")[:JOBS_SHOWN]]
        found = await soon(registry.trends(ids, _TREND_POINTS))
        lines = {job_id: line for job_id, values in found.items() if (line := sparkline(values))}
        return renderer.part(request, "trends.html", lines=lines)

    @app.post("/training/marked", include_in_schema=False)
    async def marked(request: Request) -> Response:
        """Without a script: from boxes to the page that asks first."""
        try:
            return redirect(request, _confirmation(await visitor.form_of(request)))
        except SchedulerError as error:
            return renderer.page(
                request, "refused.html", error.http_status, error=error, heading="Nothing was done"
            )


async def _look(listing: Listing, registry: SchedulerApi, reads: VerifiedReads, hub: Hub) -> dict[str, Any]:
    """What the page shows; for each part that cannot be had, the refusal."""
    found: dict[str, Any] = {"health": None, "position": None}
    try:
        query = listing.query()
        # First of all: what changes while the page is read is told to it then.
        found["position"] = await soon(hub.position())
    except InvalidRequest as error:
        return found | {"jobs": error}
    except SchedulerError as error:
        return found | {"health": error, "jobs": (await all_of(reads.jobs(listing.query())))[0]}
    health, jobs = await all_of(registry.health(), reads.jobs(query))
    return found | {"health": health, "jobs": jobs}


def _confirmation(fields: dict[str, list[str]]) -> str:
    back = own_path("".join(fields.get("back", [])))
    ids = [job_id_in(one) for one in fields.get("jobs", [])]
    action = "".join(fields.get("action", []))
    if not ids or action not in BULK:
        return back
    return "/training/confirm?" + urlencode({"action": action, "jobs": ",".join(ids), "back": back})
