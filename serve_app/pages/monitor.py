"""One job, whole."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import Response

from scheduler.api.jobs import JobDocument
from scheduler.api.metrics import LOSSES, MetricsDocument
from scheduler.api.redaction import retold
from scheduler.api.scheduler_api import SchedulerApi
from scheduler.core.commands import ACTIONS, action_of
from scheduler.core.visible import visible
from scheduler.errors import InvalidRequest, SchedulerError
from scheduler.settings import Settings
from serve_app.change_hub import Hub, Position
from serve_app.pages import job_live, job_logs
from serve_app.pages.calls import all_of, job_id_in, soon
from serve_app.pages.job_page import JobPageView, submitted_text
from serve_app.pages.rendering import Renderer, is_part
from serve_app.pages.sparkline import sparkline
from serve_app.pages.start_bar import start_bar
from serve_app.parameters import CHECKPOINT
from serve_app.problems import answer, shown
from serve_app.streams import EventStream
from serve_app.verified_reads import VerifiedReads

_POINTS, _POINTS_IN_TABLE = 1000, 40


def add(
    app: FastAPI,
    renderer: Renderer,
    registry: SchedulerApi,
    reads: VerifiedReads,
    hub: Hub,
    settings: Settings,
) -> None:
    sight = JobPageView(registry, reads)
    links: dict[str, Any] = {"dashboard_url": settings.dashboard_url}
    job_logs.add(app, renderer, registry)

    def refuse(request: Request, error: SchedulerError) -> Response:
        if is_part(request):  # the page stays as it is, and says that it is old
            return answer(error)
        return renderer.page(request, "refused.html", error.http_status, error=error)

    @app.get("/training/monitor", include_in_schema=False)
    async def monitor(
        request: Request, jobId: str = "", part: str = "", rank: str = "", attempt: str = ""
    ) -> Response:
        """The page, or what of it has changed: `part=now` or `part=past`."""
        try:
            job_id = job_id_in(jobId)
            if is_part(request) and part == "past":
                return renderer.page(
                    request,
                    "alone.html",
                    instead="part_unreadable.html",
                    part="job_past.html",
                    part_id="job-past",
                    **await sight.past(job_id),
                )
            position = None if is_part(request) else await _position(hub)
            now = _drawn(await sight.now(job_id))
            if is_part(request):
                return renderer.page(
                    request,
                    "alone.html",
                    instead="part_unreadable.html",
                    part="job_now.html",
                    part_id="job-now",
                    **now,
                )
            rest = await _rest(
                job_id, now["job"], job_logs.number(rank, "rank"), job_logs.number(attempt, "attempt")
            )
        except SchedulerError as error:
            return refuse(request, error)
        return renderer.page(request, "monitor.html", **now | rest | links, position=position)

    async def _rest(job_id: str, job: JobDocument, rank: int | None, attempt: int | None) -> dict[str, Any]:
        past, metrics, log = await all_of(
            sight.past(job_id),
            registry.metrics(job_id, _POINTS_IN_TABLE),
            job_logs.tail(registry, job, rank or 0, attempt),
        )
        if isinstance(past, SchedulerError):
            raise past
        curve = None if isinstance(metrics, SchedulerError) else sparkline(_losses(metrics))
        chosen = job_logs.choices(job, rank=rank or 0, attempt=attempt)
        return past | {
            "metrics": metrics,
            "curve": curve,
            "log": log,
            "chosen": chosen,
            "submitted": submitted_text(job.spec),
        }

    @app.get("/training/monitor/live", include_in_schema=False)
    async def live(request: Request, jobId: str = "") -> Response:
        """Server-sent events: see `job_live.told`."""
        given = request.headers.get("last-event-id") or request.query_params.get("from", "")
        position = Position.of(given) if given else None
        return EventStream(job_live.told(hub, job_id_in(jobId), position))

    @app.get("/training/metrics", include_in_schema=False)
    async def metrics(jobId: str = "") -> Response:
        """As the API gives them; here for browsers, which know the password of the pages alone."""
        document = await soon(registry.metrics(job_id_in(jobId), _POINTS))
        samples = [retold(sample, visible) for sample in document.samples]
        document = document.model_copy(update={"samples": samples})
        return Response(document.model_dump_json(), media_type="application/json")

    @app.get("/training/effect", include_in_schema=False)
    async def effect(request: Request, jobId: str = "", action: str = "", checkpoint: str = "") -> Response:
        """What the card of a job says about its button, when another checkpoint is chosen."""
        try:
            asked = action_of(action)
            if not re.fullmatch(f"({CHECKPOINT})?", checkpoint):
                raise InvalidRequest(f"{asked} from {shown(checkpoint)} is nothing that can be asked")
            (found,) = await all_of(registry.effect(job_id_in(jobId), asked, checkpoint or None))
        except SchedulerError as error:
            found = error
        return renderer.part(request, "effect.html", effect=found)

    @app.get("/training/spec", include_in_schema=False)
    async def spec(request: Request, jobId: str = "") -> Response:
        """As it would run: a page of its own, or what unfolds in the page of the job."""
        try:
            found = await sight.spec_as_run(job_id_in(jobId))
        except SchedulerError as error:
            if is_part(request):
                return renderer.part(request, "spec_part.html", refusal=error)
            return refuse(request, error)
        if is_part(request):
            return renderer.part(request, "spec_part.html", refusal=None, **found)
        return renderer.page(request, "spec.html", refusal=None, **found)


def _part(name: str) -> dict[str, str]:
    return {"part": f"job_{name}.html", "part_id": f"job-{name}", "instead": "part_unreadable.html"}


async def _position(hub: Hub) -> str:
    """From where the page listens: asked before it is read, so that nothing is lost between.  Empty: not known."""
    try:
        return str(await soon(hub.position()))
    except SchedulerError:
        return ""


def _drawn(now: dict[str, Any]) -> dict[str, Any]:
    return now | {"start": start_bar(now["job"], datetime.now(UTC)), "actions": ACTIONS}


def _losses(metrics: MetricsDocument) -> list[float]:
    name = next((one for one in LOSSES if one in metrics.series), None)
    return [value for value in metrics.series[name] if value is not None] if name else []
