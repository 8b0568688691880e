"""The queue for people: shares as bars, what comes next on a time line, and why each job waits."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response

from scheduler.errors import SchedulerError
from serve_app.pages.calls import all_of
from serve_app.pages.queue_pictures import share_bars, time_line
from serve_app.pages.rendering import is_part
from serve_app.pages.site import OfSite

router = APIRouter(include_in_schema=False)


@router.get("/training/queue")
async def queue_page(request: Request, site: OfSite) -> Response:
    (queue,) = await all_of(site.registry.queue())
    name = "queue_part.html" if is_part(request) else "queue.html"
    if isinstance(queue, SchedulerError):
        status = queue.http_status if queue.http_status < 500 else 200
        return site.renderer.page(request, name, status, page_name="queue", queue=queue)
    return site.renderer.page(
        request, name, page_name="queue", queue=queue, bars=share_bars(queue), line=time_line(queue)
    )
