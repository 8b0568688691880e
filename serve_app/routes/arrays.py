"""Job arrays: submitted, looked at and cancelled as a group."""

from __future__ import annotations

import uuid
from uuid import UUID

from fastapi import APIRouter, Request, Response

from scheduler.api.arrays import SUBMIT_ARRAY, ArrayDocument
from serve_app import openapi, problems, request_body
from serve_app.caller import base_of
from serve_app.parameters import Asker, IdempotencyKey
from serve_app.request_body import Wanted
from serve_app.routes.parts import BASE, Configured, Scheduler, signed

router = APIRouter()

_AN_ARRAY = Wanted(
    'a spec and its parameters as JSON, as {"spec": ..., "parameters": {"seed": [1, 2]}}',
    problems.invalid_spec,
)
_ONE = openapi.answer(openapi.ARRAY_EXAMPLE)
_KNOWN = {"model": ArrayDocument, "description": "The array that an earlier submit with this key made."}


@router.post(
    f"{BASE}/arrays",
    status_code=201,
    tags=["arrays"],
    summary="Submit one spec over a grid of values: all of its jobs are accepted, or none",
    responses={200: _KNOWN, 201: _ONE, **openapi.refusals(400, 408, 413, 422)},
    openapi_extra=openapi.body(SUBMIT_ARRAY, openapi.SUBMIT_ARRAY_EXAMPLE),
)
async def submit_array(
    settings: Configured,
    scheduler: Scheduler,
    request: Request,
    response: Response,
    asker: Asker,
    key: IdempotencyKey = None,
) -> ArrayDocument:
    """Answers when all jobs are on disk."""
    wanted = await request_body.read(request, SUBMIT_ARRAY, settings.max_body_bytes, _AN_ARRAY)
    wanted = wanted.model_copy(update={"spec": signed(wanted.spec, asker)})
    array, created = await scheduler.submit_array(str(uuid.uuid4()), wanted, key)
    response.status_code = 201 if created else 200
    response.headers["Location"] = f"{base_of(request.scope)}{BASE}/arrays/{array.array_id}"
    return array


@router.get(
    f"{BASE}/arrays/{{array_id}}",
    tags=["arrays"],
    summary="How an array stands, each of its jobs, and which is best",
    responses={200: _ONE, **openapi.refusals(404, 422, 502)},
)
async def array(scheduler: Scheduler, array_id: UUID) -> ArrayDocument:
    return await scheduler.array(str(array_id))


@router.post(
    f"{BASE}/arrays/{{array_id}}/cancel",
    tags=["arrays"],
    summary="Cancel all jobs of an array that have not ended",
    responses={200: _ONE, **openapi.refusals(404, 422, 502)},
)
async def cancel_array(scheduler: Scheduler, array_id: UUID, asker: Asker) -> ArrayDocument:
    """Those that run become `cancelled` once their processes are gone.  Fine for an array that has ended."""
    return await scheduler.cancel_array(str(array_id), asker or "api")
