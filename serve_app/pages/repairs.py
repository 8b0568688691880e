"""What the reconciler put right, and a comparison on demand."""

from __future__ import annotations

from fastapi import FastAPI, Request
from fastapi.responses import Response

from scheduler.api.scheduler_api import SchedulerApi
from scheduler.errors import SchedulerError
from serve_app.pages.calls import all_of
from serve_app.pages.rendering import Renderer, is_part
from serve_app.pages.visitor import form_of

_REPAIRS_SHOWN = 50


def add(app: FastAPI, renderer: Renderer, registry: SchedulerApi) -> None:
    @app.get("/training/repairs", include_in_schema=False)
    async def repairs_page(request: Request) -> Response:
        cursor = request.query_params.get("cursor", "")
        (page,) = await all_of(registry.repairs(cursor or None, _REPAIRS_SHOWN))
        status = page.http_status if isinstance(page, SchedulerError) and page.http_status < 500 else 200
        return renderer.page(
            request, "repairs.html", status, page_name="repairs", page=page, cursor=cursor, comparison=None
        )

    @app.post("/training/repairs", include_in_schema=False)
    async def compare(request: Request) -> Response:
        """A dry run, unless the form says `really`.  Takes as long as the database does."""
        status = 200
        try:
            really = "yes" in (await form_of(request)).get("really", [])
            comparison = await registry.reconcile(not really)
        except SchedulerError as error:
            comparison, status = error, error.http_status
        if is_part(request):
            return renderer.page(request, "comparison.html", status, comparison=comparison)
        (page,) = await all_of(registry.repairs(None, _REPAIRS_SHOWN))
        return renderer.page(
            request, "repairs.html", status, page_name="repairs", page=page, cursor="", comparison=comparison
        )
