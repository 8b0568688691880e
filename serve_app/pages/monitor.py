"""One job, whole."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from scheduler.api.jobs import JobDocument
from scheduler.api.metrics import LOSSES, MetricsDocument
from scheduler.api.redaction import retold
from scheduler.core.commands import ACTIONS, action_of
from scheduler.core.visible import visible
from scheduler.errors import InvalidRequest, SchedulerError
from serve_app.change_hub import ChangePosition
from serve_app.pages import job_live, job_logs
from serve_app.pages.calls import all_of, job_id_in, soon
from serve_app.pages.job_page import submitted_text
from serve_app.pages.rendering import is_part
from serve_app.pages.site import OfSite, Site
from serve_app.pages.sparkline import sparkline
from serve_app.pages.start_bar import start_bar
from serve_app.parameters import CHECKPOINT
from serve_app.problems import answer, shown
from serve_app.streams import EventStream

router = APIRouter(include_in_schema=False)
_POINTS, _POINTS_IN_TABLE = 1000, 40


@router.get("/training/monitor")
async def monitor(
    request: Request, site: OfSite, jobId: str = "", part: str = "", rank: str = "", attempt: str = ""
) -> Response:
    """The page, or what of it has changed: `part=now` or `part=past`."""
    try:
        job_id = job_id_in(jobId)
        if is_part(request):
            values = await site.view.past(job_id) if part == "past" else _drawn(await site.view.now(job_id))
            name = "past" if part == "past" else "now"
            return site.renderer.page(request, "alone.html", **_part(name), **values)
        position = await _position(site)
        now = _drawn(await site.view.now(job_id))
        shown_rank, shown_attempt = job_logs.number(rank, "rank"), job_logs.number(attempt, "attempt")
        rest = await _rest(site, now["job"], shown_rank or 0, shown_attempt)
    except SchedulerError as error:
        return _refuse(request, site, error)
    values = now | rest | {"dashboard_url": site.settings.dashboard_url, "position": position}
    return site.renderer.page(request, "monitor.html", **values)


@router.get("/training/monitor/live")
async def live(request: Request, site: OfSite, jobId: str = "") -> Response:
    """Server-sent events: see `job_live.events`."""
    given = request.headers.get("last-event-id") or request.query_params.get("from", "")
    position = ChangePosition.of(given) if given else None
    return EventStream(job_live.events(site.hub, job_id_in(jobId), position))


@router.get("/training/metrics")
async def metrics(site: OfSite, jobId: str = "") -> Response:
    """As the API gives them; here for browsers, which know the password of the pages alone."""
    document = await soon(site.registry.metrics(job_id_in(jobId), _POINTS))
    samples = [retold(sample, visible) for sample in document.samples]
    document = document.model_copy(update={"samples": samples})
    return Response(document.model_dump_json(), media_type="application/json")


@router.get("/training/effect")
async def effect(
    request: Request, site: OfSite, jobId: str = "", action: str = "", checkpoint: str = ""
) -> Response:
    """What the card of a job says about its button, when another checkpoint is chosen."""
    try:
        asked = action_of(action)
        if not re.fullmatch(f"({CHECKPOINT})?", checkpoint):
            raise InvalidRequest(f"{asked} from {shown(checkpoint)} is nothing that can be asked")
        (found,) = await all_of(site.registry.effect(job_id_in(jobId), asked, checkpoint or None))
    except SchedulerError as error:
        found = error
    return site.renderer.part(request, "effect.html", effect=found)


@router.get("/training/spec")
async def spec(request: Request, site: OfSite, jobId: str = "") -> Response:
    """As it would run: a page of its own, or what unfolds in the page of the job."""
    try:
        found = await site.view.spec_as_run(job_id_in(jobId))
    except SchedulerError as error:
        if is_part(request):
            return site.renderer.part(request, "spec_part.html", refusal=error)
        return _refuse(request, site, error)
    if is_part(request):
        return site.renderer.part(request, "spec_part.html", refusal=None, **found)
    return site.renderer.page(request, "spec.html", refusal=None, **found)


def _refuse(request: Request, site: Site, error: SchedulerError) -> Response:
    if is_part(request):  # the page stays as it is, and says that it is old
        return answer(error)
    return site.renderer.page(request, "refused.html", error.http_status, error=error)


async def _rest(site: Site, job: JobDocument, rank: int, attempt: int | None) -> dict[str, Any]:
    """What a page shows once, beside where the job stands now."""
    past, metrics, log = await all_of(
        site.view.past(job.job_id),
        site.registry.metrics(job.job_id, _POINTS_IN_TABLE),
        job_logs.tail(site.registry, job, rank, attempt),
    )
    if isinstance(past, SchedulerError):
        raise past
    return past | {
        "metrics": metrics,
        "curve": None if isinstance(metrics, SchedulerError) else sparkline(_losses(metrics)),
        "log": log,
        "chosen": job_logs.choices(job, rank=rank, attempt=attempt),
        "submitted": submitted_text(job.spec),
    }


def _part(name: str) -> dict[str, str]:
    return {"part": f"job_{name}.html", "part_id": f"job-{name}", "instead": "part_unreadable.html"}


async def _position(site: Site) -> str:
    """From where the page listens: asked before it is read, so that nothing is lost between.  Empty: not known."""
    try:
        return str(await soon(site.hub.position()))
    except SchedulerError:
        return ""


def _drawn(now: dict[str, Any]) -> dict[str, Any]:
    return now | {"start": start_bar(now["job"], datetime.now(UTC)), "actions": ACTIONS}


def _losses(metrics: MetricsDocument) -> list[float]:
    name = next((one for one in LOSSES if one in metrics.series), None)
    return [value for value in metrics.series[name] if value is not None] if name else []
