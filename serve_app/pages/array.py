"""An array of jobs, as a group: how far it is, its jobs with their values, and which is best."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response

from scheduler.api.arrays import ArrayDocument
from scheduler.core.model import Status
from scheduler.errors import InvalidRequest, SchedulerError
from serve_app.caller import redirect
from serve_app.pages.calls import job_id_in, soon
from serve_app.pages.rendering import is_part
from serve_app.pages.site import OfSite, Site
from serve_app.pages.visitor import Visitor, form_of
from serve_app.problems import answer, shown

router = APIRouter(include_in_schema=False)
_ENDED = tuple(status for status in Status if status.is_terminal)


@router.get("/training/array/{array_id}")
async def array_page(request: Request, site: OfSite, array_id: str) -> Response:
    try:
        found = await soon(site.registry.array(_id_in(array_id)))
    except SchedulerError as error:
        if is_part(request):  # the page stays as it is, and says that it is old
            return answer(error)
        return _refuse(request, site, error, "This array cannot be shown")
    name = "array_part.html" if is_part(request) else "array.html"
    return site.renderer.page(request, name, array=found, num_ended=_num_ended(found))


@router.get("/training/array/{array_id}/cancel")
async def confirm(request: Request, site: OfSite, array_id: str) -> Response:
    """What would happen, and the button that does it."""
    try:
        found = await soon(site.registry.array(_id_in(array_id)))
    except SchedulerError as error:
        return _refuse(request, site, error, "This array cannot be shown")
    num_left = len(found.jobs) - _num_ended(found)
    return site.renderer.page(request, "array_cancel.html", array=found, num_left=num_left)


@router.post("/training/array/{array_id}/cancel")
async def cancel(request: Request, site: OfSite, array_id: str) -> Response:
    try:
        await form_of(request)
        found = await site.registry.cancel_array(_id_in(array_id), Visitor.of(request).by)
    except SchedulerError as error:
        return _refuse(request, site, error, "Not all jobs may have been cancelled")
    return redirect(request, f"/training/array/{found.array_id}")


def _refuse(request: Request, site: Site, error: SchedulerError, heading: str) -> Response:
    return site.renderer.page(request, "refused.html", error.http_status, error=error, heading=heading)


def _num_ended(array: ArrayDocument) -> int:
    return sum(array.counts.get(status, 0) for status in _ENDED)


def _id_in(text: str) -> str:
    try:
        return job_id_in(text)
    except InvalidRequest:
        raise InvalidRequest(
            f"{shown(text)} is not the id of an array; open it from one of its jobs"
        ) from None
