"""The HTTP API and the pages, put together.  Whatever happens to a job happens in the scheduler."""

from __future__ import annotations

import functools

from fastapi import Depends, FastAPI

from scheduler import __version__
from scheduler.api.scheduler_api import SchedulerApi
from scheduler.ports import Mirror
from scheduler.settings import Settings
from serve_app import openapi, pages, probes, problems, request_body
from serve_app.change_hub import Hub
from serve_app.concurrency_limit import ConcurrencyLimit
from serve_app.cors import NamedOrigins
from serve_app.forwarding import Forwarded
from serve_app.methods import Methods
from serve_app.parameters import each_once
from serve_app.routes import (
    actions,
    arrays,
    changes,
    jobs,
    nodes,
    projects,
    queue,
    recurring,
    server,
    usage,
)
from serve_app.security import SecurityMiddleware
from serve_app.verified_reads import VerifiedReads

_TAGS = [
    {"name": "jobs", "description": "Submit jobs and see how they stand."},
    {"name": "arrays", "description": "One spec over a grid of values, as a group of jobs."},
    {"name": "actions", "description": "What a person may ask of a job."},
    {"name": "queue", "description": "Whose turn it is, why each job waits, and who holds nodes."},
    {"name": "nodes", "description": "What was lost on which node, and which are set aside."},
    {"name": "projects", "description": "What each project may have of the cluster, and what it holds."},
    {
        "name": "recurring",
        "description": "Jobs that are submitted again and again, as a cron expression says.",
    },
    {
        "name": "usage",
        "description": "What runs held of the cluster: GPU and CPU hours by project, user and day.",
    },
    {"name": "repairs", "description": "Compare registry, runs and database, and see what was put right."},
    {"name": "server", "description": "What this server offers and how it is."},
]
_DESCRIPTION = (
    "Jobs are durable once a submit is answered.  Every call is safe to repeat; a submit needs an "
    "`Idempotency-Key` for that.  Errors are problem documents (RFC 9457) that name the field and the remedy."
)


def create_app(scheduler: SchedulerApi, settings: Settings, database: Mirror | None = None) -> FastAPI:
    """The API and the pages over *scheduler*, whose lists are compared with *database* where there is one.

    Holds no state but who listens, so any number may run.
    """
    app = _empty()
    app.state.scheduler, app.state.settings = scheduler, settings
    app.state.reads = reads = _reads(scheduler, database, settings)
    app.state.hub = hub = Hub(scheduler)
    app.state.streams = _stream_limit(settings)
    app.openapi = functools.partial(openapi.describe, app, wants_token=settings.token is not None)
    _add_edge(app, settings)
    problems.install(app)
    openapi.add(app)
    probes.add(app, scheduler)
    for group in (recurring, jobs, arrays, changes, actions, queue, projects, nodes, usage, server):
        app.include_router(group.router)
    pages.add(app, scheduler, reads, hub, settings)
    return app


def _empty() -> FastAPI:
    return FastAPI(
        title="Training scheduler",
        version=__version__,
        summary="Fine-tuning jobs whose states are true.",
        description=_DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        openapi_tags=_TAGS,
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,
        dependencies=[Depends(each_once)],
    )


def _reads(scheduler: SchedulerApi, database: Mirror | None, settings: Settings) -> VerifiedReads:
    return VerifiedReads(
        scheduler,
        database,
        budget_s=settings.list_budget_s,
        overdue_after_s=settings.overdue_after_s,
        pause_s=settings.list_pause_s,
    )


def _stream_limit(settings: Settings) -> ConcurrencyLimit:
    remedy = "close some, or ask for states now and then instead (SCHEDULER_MAX_STREAMS, SCHEDULER_MAX_STREAMS_EACH)"
    return ConcurrencyLimit("live streams", settings.max_streams, settings.max_streams_each, remedy)


def _add_edge(app: FastAPI, settings: Settings) -> None:
    """What each request passes on its way in: the last one added comes first."""
    app.add_middleware(request_body.Deadline, within_s=settings.body_timeout_s)
    app.add_middleware(Methods)
    app.add_middleware(SecurityMiddleware, settings=settings)
    app.add_middleware(NamedOrigins, settings=settings)
    app.add_middleware(Forwarded, settings=settings)
