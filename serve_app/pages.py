"""Plain pages, rendered here: no script, renewed by themselves, showing whose word each state is."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, HTMLResponse, RedirectResponse, Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from scheduler.documents import EventPage, Health, JobDocument, JobPage, LogChunk
from scheduler.errors import InvalidRequest, RegistryUnavailable, SchedulerError
from serve_app.problems import shown
from serve_app.registry import Registry
from serve_app.verified_reads import VerifiedReads

_HERE = Path(__file__).parent
_JOBS_SHOWN = 50
_LOG_TAIL_BYTES = 8_000
_PATIENCE_S = 5

T = TypeVar("T")


def add(app: FastAPI, registry: Registry, reads: VerifiedReads) -> None:
    templates = _environment()

    def page(name: str, status: int = 200, **values: Any) -> HTMLResponse:
        return HTMLResponse(templates.get_template(name).render(now=datetime.now(UTC), **values), status)

    @app.get("/", include_in_schema=False)
    async def recent() -> Response:
        health, jobs = await _overview(registry, reads)
        return page("recent.html", refresh_s=3, health=health, jobs=jobs)

    @app.get("/training", include_in_schema=False)
    async def training() -> Response:
        return RedirectResponse("/")

    @app.get("/training/monitor", include_in_schema=False)
    async def monitor(jobId: str = "") -> Response:
        try:
            job, events, log = await _one_job(registry, reads, jobId)
        except SchedulerError as error:
            return page("refused.html", error.http_status, refresh_s=3, error=error)
        refresh_s = None if job.status.is_terminal else 3
        return page("monitor.html", refresh_s=refresh_s, job=job, events=events, log=log)

    @app.get("/docs", include_in_schema=False)
    async def docs(request: Request) -> Response:
        return page("docs.html", refresh_s=None, api=request.app.openapi())

    @app.get("/static/style.css", include_in_schema=False)
    async def style() -> Response:
        return FileResponse(_HERE / "static" / "style.css", media_type="text/css")


async def _overview(
    registry: Registry, reads: VerifiedReads
) -> tuple[Health | SchedulerError, JobPage | SchedulerError]:
    health, jobs = await asyncio.gather(
        _soon(registry.health()),
        _soon(reads.jobs(frozenset(), None, None, None, _JOBS_SHOWN)),
        return_exceptions=True,
    )
    return _expected(health), _expected(jobs)


async def _one_job(
    registry: Registry, reads: VerifiedReads, job_id: str
) -> tuple[JobDocument, EventPage | SchedulerError, LogChunk | SchedulerError]:
    known = _job_id(job_id)
    job, events, log = await asyncio.gather(
        _soon(reads.status(known)),
        _soon(registry.events(known)),
        _soon(registry.logs(known, 0, None, -_LOG_TAIL_BYTES, _LOG_TAIL_BYTES)),
        return_exceptions=True,
    )
    return _wanted(job), _expected(events), _expected(log)


async def _soon(call: Awaitable[T]) -> T:
    try:
        return await asyncio.wait_for(call, _PATIENCE_S)
    except TimeoutError:
        raise RegistryUnavailable(f"the scheduler did not answer within {_PATIENCE_S} s") from None


def _expected(found: Any) -> Any:
    """An answer, or a refusal that the page can show; anything else is a mishap."""
    if isinstance(found, BaseException) and not isinstance(found, SchedulerError):
        raise found
    return found


def _wanted(found: Any) -> Any:
    if isinstance(found, BaseException):
        raise found
    return found


def _job_id(text: str) -> str:
    try:
        return str(UUID(text))
    except ValueError:
        raise InvalidRequest(f"jobId={shown(text)} is not a job id; open a job from the list") from None


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(ago=_ago, progress=_progress, percent=_percent)
    environment.tests.update(refusal=lambda found: isinstance(found, SchedulerError))
    return environment


def _ago(then: datetime | None, now: datetime) -> str:
    if then is None:
        return "never"
    seconds = max(0, int((now - then).total_seconds()))
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length} {unit} ago"
    return f"{seconds} s ago"


def _progress(job: JobDocument) -> str:
    """Step, loss and speed, as far as the loop told them."""
    said = job.progress or {}
    step, total = said.get("step"), said.get("total_steps")
    parts = [] if step is None else [f"step {step}" + (f" of {total}" if total else "")]
    loss, speed = said.get("loss"), said.get("tokens_per_s")
    if isinstance(loss, int | float):
        parts.append(f"loss {loss:.4g}")
    if isinstance(speed, int | float):
        parts.append(f"{speed:.0f} tokens/s")
    return ", ".join(parts)


def _percent(job: JobDocument) -> int | None:
    said = job.progress or {}
    step, total = said.get("step"), said.get("total_steps")
    if not (isinstance(step, int | float) and isinstance(total, int | float) and total > 0):
        return None
    return max(0, min(100, round(100 * step / total)))
