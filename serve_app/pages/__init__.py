"""The web monitor: pages rendered here, complete without a script, livelier with one."""

from __future__ import annotations

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import Response

from scheduler.api.scheduler_api import SchedulerApi
from scheduler.errors import SchedulerError
from scheduler.settings import Settings
from serve_app.caller import redirect
from serve_app.change_hub import Hub
from serve_app.pages import (
    array,
    assets,
    calls,
    confirm,
    health,
    job_logs,
    jobs_list,
    monitor,
    queue,
    recurring,
    repairs,
    shared_connection,
    submit,
    usage,
    visitor,
)
from serve_app.pages.site import OfSite, Site
from serve_app.problems import shown
from serve_app.verified_reads import VerifiedReads

router = APIRouter(include_in_schema=False)


class NoSuchPage(SchedulerError):
    http_status = 404
    code = "unknown_path"


def add(app: FastAPI, registry: SchedulerApi, reads: VerifiedReads, hub: Hub, settings: Settings) -> None:
    site = Site.of(registry, reads, hub, settings)
    app.state.site = site
    for part in (
        assets,
        shared_connection,
        jobs_list,
        queue,
        array,
        recurring,
        usage,
        repairs,
        health,
        job_logs,
        monitor,
    ):
        app.include_router(part.router)
    confirm.add(app, site.renderer, registry)
    app.include_router(submit.router)
    app.include_router(router)


@router.get("/")
async def root(request: Request) -> Response:
    return redirect(request, "/training", 307)


@router.post("/training/me")
async def me(request: Request, site: OfSite) -> Response:
    """Who looks: their name stands in the history of what they do, and `mine` shows their jobs."""
    try:
        fields = await visitor.form_of(request)
    except SchedulerError as error:
        heading = "Your name was not kept"
        return site.renderer.page(request, "refused.html", error.http_status, error=error, heading=heading)
    response = redirect(request, calls.own_path("".join(fields.get("back", []))))
    visitor.remember(request, response, "".join(fields.get("name", [])))
    return response


@router.get("/docs")
async def docs(request: Request, site: OfSite) -> Response:
    return site.renderer.page(request, "docs.html", page_name="docs", api=request.app.openapi())


@router.get("/training/{rest:path}")
async def elsewhere(request: Request, site: OfSite, rest: str) -> Response:
    """Mistyped, or where only a form leads: a browser that goes back to its answer asks so."""
    if not rest:
        return redirect(request, "/training", 307)
    error = NoSuchPage(f"There is no page {shown(request.url.path)} to look at.")
    return site.renderer.page(request, "refused.html", 404, error=error, heading="No such page")
