"""What the reconciler repaired, and a comparison on demand."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response

from scheduler.errors import SchedulerError
from serve_app.pages.calls import all_of
from serve_app.pages.rendering import is_part
from serve_app.pages.site import OfSite
from serve_app.pages.visitor import form_of

router = APIRouter(include_in_schema=False)
_REPAIRS_SHOWN = 50


@router.get("/training/repairs")
async def repairs_page(request: Request, site: OfSite) -> Response:
    cursor = request.query_params.get("cursor", "")
    (page,) = await all_of(site.registry.repairs(cursor or None, _REPAIRS_SHOWN))
    status = page.http_status if isinstance(page, SchedulerError) and page.http_status < 500 else 200
    return site.renderer.page(
        request, "repairs.html", status, page_name="repairs", page=page, cursor=cursor, comparison=None
    )


@router.post("/training/repairs")
async def compare(request: Request, site: OfSite) -> Response:
    """A dry run, unless the form says `really`.  Takes as long as the database does."""
    status = 200
    try:
        really = "yes" in (await form_of(request)).get("really", [])
        comparison = await site.registry.reconcile(not really)
    except SchedulerError as error:
        comparison, status = error, error.http_status
    if is_part(request):
        return site.renderer.page(request, "comparison.html", status, comparison=comparison)
    (page,) = await all_of(site.registry.repairs(None, _REPAIRS_SHOWN))
    return site.renderer.page(
        request, "repairs.html", status, page_name="repairs", page=page, cursor="", comparison=comparison
    )
