"""The HTTP API: paths, parameters and answers.  Whatever happens to a job happens in the registry."""

from __future__ import annotations

import functools
import uuid
from dataclasses import replace
from typing import Annotated, Any
from uuid import UUID

from fastapi import Depends, FastAPI, Query, Request, Response
from pydantic import TypeAdapter

from scheduler import __version__
from scheduler.api.forecasts import EffectDocument, Explanation, PlanAnswer
from scheduler.api.health import Health, LoopList, ShutdownAnswer
from scheduler.api.jobs import (
    AttemptPage,
    BatchAnswer,
    CheckpointPage,
    EventPage,
    ForceStartAnswer,
    JobDocument,
    JobPage,
    SubmitBatch,
)
from scheduler.api.logs import LogChunk
from scheduler.api.metrics import MetricsDocument
from scheduler.api.problems import not_valid
from scheduler.api.repairs import ReconcileAnswer, RepairPage
from scheduler.api.scheduler_api import SchedulerApi
from scheduler.core.model import SPEC, JobSpec
from scheduler.errors import InvalidRequest, InvalidSpec, SchedulerError
from scheduler.ports import Mirror
from scheduler.settings import Settings
from serve_app import change_stream, log_stream, openapi, pages, probes, problems, request_body
from serve_app.caller import base_of
from serve_app.change_hub import Hub
from serve_app.change_stream import ChangesQuery, LastChange
from serve_app.concurrency_limit import ConcurrencyLimit
from serve_app.cors import NamedOrigins
from serve_app.forwarding import Forwarded
from serve_app.log_stream import LastEventId, StreamQuery
from serve_app.methods import Methods
from serve_app.parameters import (
    Asker,
    EffectQuery,
    IdempotencyKey,
    JobsQuery,
    LogsQuery,
    MetricsQuery,
    ReconcileQuery,
    RepairsQuery,
    ResumeQuery,
    ShutdownQuery,
    each_once,
    job_query,
)
from serve_app.security import SecurityMiddleware
from serve_app.streams import EventStream
from serve_app.verified_reads import VerifiedReads

BASE = "/api/training"
BATCH: TypeAdapter[SubmitBatch] = TypeAdapter(SubmitBatch)
_TAGS = [
    {"name": "jobs", "description": "Submit jobs and see how they stand."},
    {"name": "actions", "description": "What a person may ask of a job."},
    {"name": "repairs", "description": "Compare registry, runs and database, and see what was put right."},
    {"name": "server", "description": "What this server offers and how it is."},
]
_DESCRIPTION = (
    "Jobs are durable once a submit is answered.  Every call is safe to repeat; a submit needs an "
    "`Idempotency-Key` for that.  Errors are problem documents (RFC 9457) that name the field and the remedy."
)


def create_app(registry: SchedulerApi, settings: Settings, database: Mirror | None = None) -> FastAPI:
    """The API and the pages over *registry*, whose lists are compared with *database* where there is one.

    Holds no state but who listens, so any number may run.
    """
    reads = VerifiedReads(
        registry,
        database,
        budget_s=settings.list_budget_s,
        overdue_after_s=settings.overdue_after_s,
        pause_s=settings.list_pause_s,
    )
    hub = Hub(registry)
    app = FastAPI(
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
    app.openapi = functools.partial(openapi.describe, app, wants_token=settings.token is not None)
    openapi.add(app)
    remedy = "close some, or ask for states now and then instead (SCHEDULER_MAX_STREAMS, SCHEDULER_MAX_STREAMS_EACH)"
    app.state.streams = ConcurrencyLimit(
        "live streams", settings.max_streams, settings.max_streams_each, remedy
    )
    _add_edge(app, settings)
    problems.install(app)
    probes.add(app, registry)
    _add_jobs(app, registry, reads, settings)
    _add_changes(app, hub)
    _add_actions(app, registry)
    _add_repairs(app, registry)
    _add_server(app, registry, reads)
    pages.add(app, registry, reads, hub, settings)
    return app


def _add_edge(app: FastAPI, settings: Settings) -> None:
    """What each request passes on its way in: the last one added comes first."""
    app.add_middleware(request_body.Deadline, within_s=settings.body_timeout_s)
    app.add_middleware(Methods)
    app.add_middleware(SecurityMiddleware, settings=settings)
    app.add_middleware(NamedOrigins, settings=settings)
    app.add_middleware(Forwarded, settings=settings)


def _add_jobs(app: FastAPI, registry: SchedulerApi, reads: VerifiedReads, settings: Settings) -> None:
    known = {"model": JobDocument, "description": "The job that an earlier submit with this key made."}

    @app.post(
        BASE,
        status_code=201,
        tags=["jobs"],
        summary="Submit a job",
        responses={200: known, **openapi.refusals(408, 413, 422)},
        openapi_extra=openapi.body(SPEC, openapi.SPEC_EXAMPLE),
    )
    async def submit(
        request: Request, response: Response, asker: Asker, key: IdempotencyKey = None
    ) -> JobDocument:
        """Answers when the job is on disk."""
        spec = await request_body.read(request, SPEC, settings.max_body_bytes)
        job, created = await registry.submit(str(uuid.uuid4()), _signed(spec, asker), key)
        response.status_code = 201 if created else 200
        response.headers["Location"] = f"{base_of(request.scope)}{BASE}/status/{job.job_id}"
        return job

    @app.post(
        f"{BASE}/batch",
        status_code=201,
        tags=["jobs"],
        summary="Submit many jobs: all are accepted, or none",
        responses=openapi.refusals(408, 413, 422),
        openapi_extra=openapi.body(BATCH, {"jobs": [openapi.SPEC_EXAMPLE]}),
    )
    async def submit_batch(request: Request, asker: Asker) -> BatchAnswer:
        batch = await request_body.read(request, BATCH, settings.max_body_bytes)
        jobs = [(str(uuid.uuid4()), _signed(spec, asker)) for spec in batch.jobs]
        return BatchAnswer(jobs=await registry.submit_batch(jobs))

    @app.get(f"{BASE}/status/{{job_id}}", tags=["jobs"], summary="How a job stands", responses=_OF_ONE_JOB)
    async def status(job_id: UUID) -> JobDocument:
        """While the registry is away: as the database has it, with `verified` false."""
        return await reads.status(str(job_id))

    @app.get(
        f"{BASE}/jobs",
        tags=["jobs"],
        summary="Jobs: filtered, searched and sorted",
        responses=openapi.refusals(422),
    )
    async def jobs(query: Annotated[JobsQuery, Query()]) -> JobPage:
        """`stale`: the database says something else.  `verified` false: the registry does not vouch for it."""
        return await reads.jobs(job_query(query))

    @app.post(
        f"{BASE}/plan",
        tags=["jobs"],
        summary="What would become of a submit: nothing is queued",
        responses=openapi.refusals(408, 413, 422),
        openapi_extra=openapi.body(SPEC, openapi.SPEC_EXAMPLE),
    )
    async def plan(request: Request, asker: Asker) -> PlanAnswer:
        """200 also for a spec that is not valid: `valid` is false then, and `errors` names each field."""
        try:
            spec = await request_body.read(request, SPEC, settings.max_body_bytes)
        except (InvalidSpec, InvalidRequest) as error:
            return not_valid(error)
        return await registry.plan(_signed(spec, asker))

    @app.get(
        f"{BASE}/{{job_id}}/explain",
        tags=["jobs"],
        summary="Where a job stands and why, and what to do next",
        responses=_OF_ONE_JOB,
    )
    async def explain(job_id: UUID) -> Explanation:
        return await registry.explain(str(job_id))

    @app.get(
        f"{BASE}/{{job_id}}/effect",
        tags=["jobs"],
        summary="What an action would do: nothing is done",
        responses=_OF_ONE_JOB,
    )
    async def effect(job_id: UUID, query: Annotated[EffectQuery, Query()]) -> EffectDocument:
        """Refuses what the action would refuse, in the same words, with `allowed` false."""
        return await registry.effect(str(job_id), query.action, query.checkpoint)

    @app.get(f"{BASE}/{{job_id}}/events", tags=["jobs"], summary="A job's history", responses=_OF_ONE_JOB)
    async def events(job_id: UUID) -> EventPage:
        return await registry.events(str(job_id))

    @app.get(f"{BASE}/{{job_id}}/attempts", tags=["jobs"], summary="The runs of a job", responses=_OF_ONE_JOB)
    async def attempts(job_id: UUID) -> AttemptPage:
        """When each began and ended, why, where it went on, and what was lost."""
        return await registry.attempts(str(job_id))

    @app.get(
        f"{BASE}/{{job_id}}/checkpoints",
        tags=["jobs"],
        summary="The complete checkpoints of a job",
        responses=_OF_ONE_JOB,
    )
    async def checkpoints(job_id: UUID) -> CheckpointPage:
        """Read from the storage, so that each is there."""
        return await registry.checkpoints(str(job_id))

    @app.get(
        f"{BASE}/{{job_id}}/metrics",
        tags=["jobs"],
        summary="What the loop measured, for charts",
        responses=_OF_ONE_JOB,
    )
    async def metrics(job_id: UUID, query: Annotated[MetricsQuery, Query()]) -> MetricsDocument:
        """Through all attempts, of jobs that run and of those long gone.  A later attempt may repeat steps: both
        are there.  Of a long history the rows with the smallest and largest loss of equal stretches are kept, and
        the ends; every number is one that the loop said."""
        return await registry.metrics(str(job_id), query.points)

    @app.get(f"{BASE}/{{job_id}}/logs", tags=["jobs"], summary="The log of one rank", responses=_OF_ONE_JOB)
    async def logs(job_id: UUID, query: Annotated[LogsQuery, Query()]) -> LogChunk:
        return await registry.logs(str(job_id), query.rank, query.attempt, query.offset, query.limit)

    @app.get(
        f"{BASE}/{{job_id}}/logs/stream",
        tags=["jobs"],
        summary="The logs of all ranks, live, as server-sent events",
        response_class=EventStream,
        responses={**openapi.event_stream(), **openapi.refusals(404, 422, 429, 502)},
    )
    async def stream_logs(
        job_id: UUID, query: Annotated[StreamQuery, Query()], last_event_id: LastEventId = None
    ) -> Response:
        """Until the job has ended or is paused, retries included; of a job that waits, it waits too."""
        return await log_stream.answer(registry, str(job_id), query, last_event_id)


def _add_changes(app: FastAPI, hub: Hub) -> None:
    @app.get(
        f"{BASE}/changes",
        tags=["jobs"],
        summary="What changes, live, as server-sent events",
        response_class=EventStream,
        responses={**openapi.changes_stream(), **openapi.refusals(422, 429)},
    )
    async def changes(query: Annotated[ChangesQuery, Query()], last_event_id: LastChange = None) -> Response:
        """Without an end.  The first event says where the stream begins, and how many jobs stand in each status.

        A move in the line is told of its first 200 places.  `missed`: read the list anew; `doubt`: the scheduler does
        not answer, and the stream goes on when it does."""
        return change_stream.answer(hub, query, last_event_id)


def _add_actions(app: FastAPI, registry: SchedulerApi) -> None:
    @app.post(f"{BASE}/{{job_id}}/cancel", tags=["actions"], summary="Cancel a job", responses=_OF_AN_ACTION)
    async def cancel(job_id: UUID, asker: Asker) -> JobDocument:
        """A running job is `cancelled` once its processes are gone."""
        return await registry.cancel(str(job_id), asker or "api")

    @app.post(
        f"{BASE}/{{job_id}}/pause",
        tags=["actions"],
        summary="Pause a running job, or hold a queued one",
        responses=_OF_AN_ACTION,
    )
    async def pause(job_id: UUID, asker: Asker) -> JobDocument:
        """A running job is `paused` once it has saved and its processes are gone.  A queued one keeps its place
        and does not start until it is resumed."""
        return await registry.pause(str(job_id), asker or "api")

    @app.post(
        f"{BASE}/{{job_id}}/preempt",
        tags=["actions"],
        summary="Let a running job give way",
        responses=_OF_AN_ACTION,
    )
    async def preempt(job_id: UUID, asker: Asker) -> JobDocument:
        """It saves, gives its nodes back, and is `queued` again; it goes on when it is its turn."""
        return await registry.preempt(str(job_id), asker or "api")

    @app.post(
        f"{BASE}/{{job_id}}/resume",
        tags=["actions"],
        summary="Let a paused, failed or cancelled job go on",
        responses=_OF_AN_ACTION,
    )
    async def resume(job_id: UUID, asker: Asker, query: Annotated[ResumeQuery, Query()]) -> JobDocument:
        """Back in the line, to go on from its last checkpoint, or from the one given."""
        return await registry.resume(str(job_id), asker or "api", query.checkpoint)

    @app.post(
        f"{BASE}/{{job_id}}/restart",
        tags=["actions"],
        summary="Begin a paused, failed, cancelled or queued job again from the beginning",
        responses=_OF_AN_ACTION,
    )
    async def restart(job_id: UUID, asker: Asker) -> JobDocument:
        """Its checkpoints stay, and can be chosen later."""
        return await registry.restart(str(job_id), asker or "api")

    @app.post(
        f"{BASE}/{{job_id}}/force-start",
        tags=["actions"],
        summary="Queue a pending, queued, failed or cancelled job",
        responses=_OF_AN_ACTION,
    )
    async def force_start(job_id: UUID, asker: Asker) -> ForceStartAnswer:
        """A failed or cancelled job starts from the beginning.  A queued one is never queued twice."""
        return await registry.force_start(str(job_id), asker or "api")

    @app.post(
        f"{BASE}/{{job_id}}/fail", tags=["actions"], summary="Mark a job as failed", responses=_OF_AN_ACTION
    )
    async def mark_failed(job_id: UUID, asker: Asker) -> JobDocument:
        """Only a job that waits; a running one is cancelled instead."""
        return await registry.mark_failed(str(job_id), asker or "api")


def _add_repairs(app: FastAPI, registry: SchedulerApi) -> None:
    @app.post(
        f"{BASE}/reconcile",
        tags=["repairs"],
        summary="Compare registry, runs and database now, and put right what differs",
        responses={200: openapi.answer(openapi.RECONCILE_EXAMPLE), **openapi.refusals(422, 502)},
    )
    async def reconcile(query: Annotated[ReconcileQuery, Query()]) -> ReconcileAnswer:
        """A second pass finds nothing to do.  May take tens of seconds where the database is slow."""
        return await registry.reconcile(query.dry_run)

    @app.get(
        f"{BASE}/repairs",
        tags=["repairs"],
        summary="What was put right, newest first",
        responses={200: openapi.answer(openapi.REPAIRS_EXAMPLE), **openapi.refusals(422)},
    )
    async def repairs(query: Annotated[RepairsQuery, Query()]) -> RepairPage:
        return await registry.repairs(query.cursor, query.limit)


def _add_server(app: FastAPI, registry: SchedulerApi, reads: VerifiedReads) -> None:
    @app.get(
        f"{BASE}/loops", tags=["server"], summary="Loops and their settings", responses=openapi.refusals()
    )
    async def loops() -> LoopList:
        return await registry.loops()

    @app.post(
        f"{BASE}/shutdown",
        tags=["server"],
        summary="Get ready to be ended: what runs saves and gives way, nothing starts",
        responses=openapi.refusals(422),
    )
    async def shutdown(query: Annotated[ShutdownQuery, Query()], asker: Asker) -> ShutdownAnswer:
        """For `scheduler down`, which ends the processes.  Jobs keep their places and go on at the next `scheduler up`;
        where nobody ends the scheduler, they go on by themselves a minute after the grace."""
        return await registry.shutdown(query.save, asker or "api")

    @app.get(
        "/health",
        tags=["server"],
        summary="How the scheduler is",
        responses={
            **openapi.refusals(),
            503: {"model": Health, "description": "The registry does not answer."},
        },
    )
    async def health(response: Response) -> Health:
        """200 whenever the registry answers, `degraded` or not; 503 when it does not."""
        try:
            return await registry.health()
        except SchedulerError as error:
            response.status_code = 503
            response.headers["Retry-After"] = str(problems.RETRY_AFTER_S)
            return await reads.health_without_registry(error.message)


def _signed(spec: JobSpec, asker: str | None) -> JobSpec:
    """With who submits it: what it says itself, else who asked."""
    return replace(spec, user=asker) if asker and not spec.user else spec


_OF_ONE_JOB: dict[int | str, Any] = openapi.refusals(404, 422, 502)
_OF_AN_ACTION: dict[int | str, Any] = openapi.refusals(400, 404, 422, 502)
