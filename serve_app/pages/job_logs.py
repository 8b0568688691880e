"""Logs for the page of a job: what is shown at first, the live stream, and the whole log as a file."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from scheduler.api.jobs import JobDocument
from scheduler.api.logs import LogChunk
from scheduler.api.scheduler_api import SchedulerApi
from scheduler.core.visible import visible_log
from scheduler.errors import SchedulerError
from serve_app import log_stream
from serve_app.log_stream import LastEventId, StreamQuery
from serve_app.pages.calls import job_id_in, soon
from serve_app.pages.site import OfSite
from serve_app.problems import invalid, shown
from serve_app.streams import Stream

router = APIRouter(include_in_schema=False)
TAIL_BYTES = 16_000
_PART_BYTES = 1_000_000


class LiveQuery(StreamQuery):
    jobId: str = ""


@router.get("/training/logs/stream")
async def stream(
    site: OfSite, query: Annotated[LiveQuery, Query()], last_event_id: LastEventId = None
) -> Response:
    """As the API streams it; here for browsers, which know the password of the pages alone."""
    return await log_stream.answer(
        site.registry, job_id_in(query.jobId), query, last_event_id, show=visible_log
    )


@router.get("/training/logs/download")
async def download(
    request: Request, site: OfSite, jobId: str = "", rank: str = "0", attempt: str = ""
) -> Response:
    try:
        chosen = number(rank, "rank") or 0
        first = await soon(_part(site.registry, job_id_in(jobId), chosen, number(attempt, "attempt"), 0))
    except SchedulerError as error:
        heading = "This log cannot be downloaded"
        return site.renderer.page(request, "refused.html", error.http_status, error=error, heading=heading)
    name = f"{first.job_id[:8]}-attempt-{first.attempt}-rank-{first.rank}.log"
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return Stream(_whole(site.registry, first), headers=headers, media_type="text/plain; charset=utf-8")


async def tail(registry: SchedulerApi, job: JobDocument, rank: int, attempt: int | None) -> LogChunk | None:
    """The last of a log, at whole lines; None when no attempt was begun.  Raises what it is refused with."""
    if not job.attempt:
        return None
    chunk = await soon(registry.logs(job.job_id, rank, attempt, -TAIL_BYTES, TAIL_BYTES))
    if not chunk.offset:
        return chunk
    return chunk.model_copy(update={"text": chunk.text.partition("\n")[2] or chunk.text})


def number(text: str, field: str) -> int | None:
    """None for nothing.  Raises InvalidRequest."""
    if not text:
        return None
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise invalid(field, f"is {shown(text)}; choose one in the page of the job")
    return int(text)


async def _part(registry: SchedulerApi, job_id: str, rank: int, attempt: int | None, offset: int) -> LogChunk:
    return await registry.logs(job_id, rank, attempt, offset, _PART_BYTES)


async def _whole(registry: SchedulerApi, first: LogChunk) -> AsyncIterator[bytes]:
    """All there is now.  An answer that has begun cannot be refused: what is missing is said at its end."""
    part = first
    while part.text:
        yield part.text.encode()
        try:
            part = await soon(_part(registry, part.job_id, part.rank, part.attempt, part.next_offset))
        except SchedulerError as error:
            yield f"\n[the rest is missing: {error.message}]\n".encode()
            return


def choices(job: JobDocument, **chosen: Any) -> dict[str, Any]:
    """What the selectors of the logs offer, and what is chosen."""
    return {"ranks": range(job.spec.resources.most), "attempts": range(job.attempt, 0, -1), **chosen}
