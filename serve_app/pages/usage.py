"""Usage for people: what each project and each day held, as bars with their numbers beside them."""

from __future__ import annotations

from urllib.parse import urlencode

from fastapi import APIRouter, Request
from fastapi.responses import Response

from scheduler.errors import SchedulerError
from serve_app.pages.calls import all_of
from serve_app.pages.site import OfSite
from serve_app.pages.usage_pictures import day_bars, project_bars
from serve_app.parameters import day_in

router = APIRouter(include_in_schema=False)


@router.get("/training/usage")
async def usage_page(request: Request, site: OfSite) -> Response:
    asked = {name: request.query_params.get(name, "") for name in ("from", "to")}
    try:
        first, last = (day_in(text, name) for name, text in asked.items())
    except SchedulerError as error:
        return site.renderer.page(
            request, "usage.html", error.http_status, page_name="usage", asked=asked, usage=error
        )
    projects, days = await all_of(
        site.registry.usage(first, last, ("project",)), site.registry.usage(first, last, ("day",))
    )
    for found in (projects, days):
        if isinstance(found, SchedulerError):
            status = found.http_status if found.http_status < 500 else 200
            return site.renderer.page(
                request, "usage.html", status, page_name="usage", asked=asked, usage=found
            )
    dates = {"from": str(projects.first_day), "to": str(projects.last_day)}
    return site.renderer.page(
        request,
        "usage.html",
        page_name="usage",
        asked=dates,
        usage=projects,
        projects=project_bars(projects),
        days=day_bars(days),
        table=urlencode({**dates, "by": "project,user,day"}),
    )
