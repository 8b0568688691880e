"""Jobs: submitted, listed, and looked at."""

from __future__ import annotations

import uuid
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from pydantic import TypeAdapter

from scheduler.api.forecasts import EffectDocument, Explanation, PlanAnswer, WhatIfDocument
from scheduler.api.jobs import (
    AttemptPage,
    BatchAnswer,
    CheckpointPage,
    EventPage,
    JobDocument,
    JobPage,
    SubmitBatch,
)
from scheduler.api.logs import LogChunk
from scheduler.api.metrics import MetricsDocument
from scheduler.api.problems import not_valid
from scheduler.core.model import SPEC
from scheduler.errors import InvalidRequest, InvalidSpec
from serve_app import log_stream, openapi, request_body
from serve_app.caller import base_of
from serve_app.log_stream import LastEventId, StreamQuery
from serve_app.parameters import (
    Asker,
    EffectQuery,
    IdempotencyKey,
    JobsQuery,
    LogsQuery,
    MetricsQuery,
    WhatIfQuery,
    job_query,
)
from serve_app.routes.parts import BASE, Configured, Reads, Scheduler, signed
from serve_app.streams import EventStream

router = APIRouter()
_OF_ONE_JOB: dict[int | str, Any] = openapi.refusals(404, 422, 502)
_KNOWN = {"model": JobDocument, "description": "The job that an earlier submit with this key made."}
_BATCH: TypeAdapter[SubmitBatch] = TypeAdapter(SubmitBatch)


@router.post(
    BASE,
    status_code=201,
    tags=["jobs"],
    summary="Submit a job",
    responses={200: _KNOWN, **openapi.refusals(408, 413, 422)},
    openapi_extra=openapi.body(SPEC, openapi.SPEC_EXAMPLE),
)
async def submit(
    settings: Configured,
    scheduler: Scheduler,
    request: Request,
    response: Response,
    asker: Asker,
    key: IdempotencyKey = None,
) -> JobDocument:
    """Answers when the job is on disk."""
    spec = await request_body.read(request, SPEC, settings.max_body_bytes)
    job, created = await scheduler.submit(str(uuid.uuid4()), signed(spec, asker), key)
    response.status_code = 201 if created else 200
    response.headers["Location"] = f"{base_of(request.scope)}{BASE}/status/{job.job_id}"
    return job


@router.post(
    f"{BASE}/batch",
    status_code=201,
    tags=["jobs"],
    summary="Submit many jobs: all are accepted, or none",
    responses=openapi.refusals(408, 413, 422),
    openapi_extra=openapi.body(_BATCH, {"jobs": [openapi.SPEC_EXAMPLE]}),
)
async def submit_batch(
    settings: Configured, scheduler: Scheduler, request: Request, asker: Asker
) -> BatchAnswer:
    batch = await request_body.read(request, _BATCH, settings.max_body_bytes)
    jobs = [(str(uuid.uuid4()), signed(spec, asker)) for spec in batch.jobs]
    return BatchAnswer(jobs=await scheduler.submit_batch(jobs))


@router.get(f"{BASE}/status/{{job_id}}", tags=["jobs"], summary="How a job stands", responses=_OF_ONE_JOB)
async def status(reads: Reads, job_id: UUID) -> JobDocument:
    """While the registry is away: as the database has it, with `verified` false."""
    return await reads.status(str(job_id))


@router.get(
    f"{BASE}/jobs",
    tags=["jobs"],
    summary="Jobs: filtered, searched and sorted",
    responses=openapi.refusals(422),
)
async def jobs(reads: Reads, query: Annotated[JobsQuery, Query()]) -> JobPage:
    """`stale`: the database says something else.  `verified` false: the registry does not vouch for it."""
    return await reads.jobs(job_query(query))


@router.post(
    f"{BASE}/plan",
    tags=["jobs"],
    summary="What would become of a submit: nothing is queued",
    responses=openapi.refusals(408, 413, 422),
    openapi_extra=openapi.body(SPEC, openapi.SPEC_EXAMPLE),
)
async def plan(settings: Configured, scheduler: Scheduler, request: Request, asker: Asker) -> PlanAnswer:
    """200 also for a spec that is not valid: `valid` is false then, and `errors` names each field."""
    try:
        spec = await request_body.read(request, SPEC, settings.max_body_bytes)
    except (InvalidSpec, InvalidRequest) as error:
        return not_valid(error)
    return await scheduler.plan(signed(spec, asker))


@router.get(
    f"{BASE}/{{job_id}}/explain",
    tags=["jobs"],
    summary="Where a job stands and why, and what to do next",
    responses=_OF_ONE_JOB,
)
async def explain(scheduler: Scheduler, job_id: UUID) -> Explanation:
    return await scheduler.explain(str(job_id))


@router.get(
    f"{BASE}/{{job_id}}/effect",
    tags=["jobs"],
    summary="What an action would do: nothing is done",
    responses=_OF_ONE_JOB,
)
async def effect(
    scheduler: Scheduler, job_id: UUID, query: Annotated[EffectQuery, Query()]
) -> EffectDocument:
    """Refuses what the action would refuse, in the same words, with `allowed` false."""
    return await scheduler.effect(str(job_id), query.action, query.checkpoint, query.preempt)


@router.get(
    f"{BASE}/{{job_id}}/what-if",
    tags=["jobs"],
    summary="What a change of a job that waits would do, to it and to others: nothing is done",
    responses=openapi.refusals(400, 404, 422, 502),
)
async def what_if(
    scheduler: Scheduler, job_id: UUID, query: Annotated[WhatIfQuery, Query()]
) -> WhatIfDocument:
    """Exactly one of the changes is asked for.  Only under the policy `fair`."""
    return await scheduler.what_if(str(job_id), query.priority, query.front, query.preempt)


@router.get(f"{BASE}/{{job_id}}/events", tags=["jobs"], summary="A job's history", responses=_OF_ONE_JOB)
async def events(scheduler: Scheduler, job_id: UUID) -> EventPage:
    return await scheduler.events(str(job_id))


@router.get(f"{BASE}/{{job_id}}/attempts", tags=["jobs"], summary="The runs of a job", responses=_OF_ONE_JOB)
async def attempts(scheduler: Scheduler, job_id: UUID) -> AttemptPage:
    """When each began and ended, why, where it went on, and what was lost."""
    return await scheduler.attempts(str(job_id))


@router.get(
    f"{BASE}/{{job_id}}/checkpoints",
    tags=["jobs"],
    summary="The complete checkpoints of a job",
    responses=_OF_ONE_JOB,
)
async def checkpoints(scheduler: Scheduler, job_id: UUID) -> CheckpointPage:
    """Read from the storage, so that each is there."""
    return await scheduler.checkpoints(str(job_id))


@router.get(
    f"{BASE}/{{job_id}}/metrics",
    tags=["jobs"],
    summary="What the loop measured, for charts",
    responses=_OF_ONE_JOB,
)
async def metrics(
    scheduler: Scheduler, job_id: UUID, query: Annotated[MetricsQuery, Query()]
) -> MetricsDocument:
    """Through all attempts, of jobs that run and of those long gone.  A later attempt may repeat steps: both
    are there.  Of a long history the rows with the smallest and largest loss of equal stretches are kept, and
    the ends; every number is one that the loop said."""
    return await scheduler.metrics(str(job_id), query.points)


@router.get(f"{BASE}/{{job_id}}/logs", tags=["jobs"], summary="The log of one rank", responses=_OF_ONE_JOB)
async def logs(scheduler: Scheduler, job_id: UUID, query: Annotated[LogsQuery, Query()]) -> LogChunk:
    return await scheduler.logs(str(job_id), query.rank, query.attempt, query.offset, query.limit)


@router.get(
    f"{BASE}/{{job_id}}/logs/stream",
    tags=["jobs"],
    summary="The logs of all ranks, live, as server-sent events",
    response_class=EventStream,
    responses={**openapi.event_stream(), **openapi.refusals(404, 422, 429, 502)},
)
async def stream_logs(
    scheduler: Scheduler,
    job_id: UUID,
    query: Annotated[StreamQuery, Query()],
    last_event_id: LastEventId = None,
) -> Response:
    """Until the job has ended or is paused, retries included; of a job that waits, it waits too."""
    return await log_stream.answer(scheduler, str(job_id), query, last_event_id)
