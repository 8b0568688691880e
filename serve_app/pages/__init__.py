"""The web monitor: pages rendered here, complete without a script, livelier with one."""

from __future__ import annotations

from fastapi import FastAPI, Request
from fastapi.responses import Response

from scheduler.api.scheduler_api import SchedulerApi
from scheduler.errors import SchedulerError
from scheduler.settings import Settings
from serve_app.caller import redirect
from serve_app.change_hub import Hub
from serve_app.pages import (
    assets,
    calls,
    confirm,
    health,
    jobs_list,
    monitor,
    repairs,
    submit,
    together,
    visitor,
)
from serve_app.pages.rendering import Renderer
from serve_app.problems import shown
from serve_app.verified_reads import VerifiedReads


class NoSuchPage(SchedulerError):
    http_status = 404
    code = "unknown_path"


def add(app: FastAPI, registry: SchedulerApi, reads: VerifiedReads, hub: Hub, settings: Settings) -> None:
    renderer = Renderer()
    assets.add(app)
    together.add(app)
    jobs_list.add(app, renderer, registry, reads, hub)
    repairs.add(app, renderer, registry)
    health.add(app, renderer, registry, reads)
    monitor.add(app, renderer, registry, reads, hub, settings)
    confirm.add(app, renderer, registry)
    submit.add(app, renderer, registry, reads)

    @app.get("/", include_in_schema=False)
    async def root(request: Request) -> Response:
        return redirect(request, "/training", 307)

    @app.post("/training/me", include_in_schema=False)
    async def me(request: Request) -> Response:
        """Who looks: their name stands in the history of what they do, and `mine` shows their jobs."""
        try:
            fields = await visitor.form_of(request)
        except SchedulerError as error:
            heading = "Your name was not kept"
            return renderer.page(request, "refused.html", error.http_status, error=error, heading=heading)
        response = redirect(request, calls.own_path("".join(fields.get("back", []))))
        visitor.remember(request, response, "".join(fields.get("name", [])))
        return response

    @app.get("/docs", include_in_schema=False)
    async def docs(request: Request) -> Response:
        return renderer.page(request, "docs.html", page_name="docs", api=request.app.openapi())

    @app.get("/training/{rest:path}", include_in_schema=False)
    async def elsewhere(request: Request, rest: str) -> Response:
        """Mistyped, or where only a form leads: a browser that goes back to its answer asks so."""
        if not rest:
            return redirect(request, "/training", 307)
        error = NoSuchPage(f"There is no page {shown(request.url.path)} to look at.")
        return renderer.page(request, "refused.html", 404, error=error, heading="No such page")
