"""The description of the API, as client generators want it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse, Response
from pydantic import TypeAdapter
from pydantic.json_schema import models_json_schema

from scheduler.api.base import Document, ProblemDocument
from scheduler.api.jobs import CHANGE_EVENTS
from scheduler.api.logs import LOG_EVENTS
from serve_app.caller import base_of
from serve_app.problems import MEDIA_TYPE

router = APIRouter(include_in_schema=False)
Json = dict[str, Any]
_REF = "#/components/schemas/{model}"
_PUBLISHED_AS = {"JobAction": "Action"}
"""Components whose name in the description is not that of our class: clients were generated with it, so it stays."""

SPEC_EXAMPLE: Json = {
    "loop": "torch_ddp",
    "name": "first try",
    "config": {"steps": 100},
    "resources": {"num_ranks": 2, "cpus_per_rank": 1, "gpus_per_rank": 0},
    "user": "ada",
}
PROBLEM_EXAMPLE: Json = {
    "type": "about:blank",
    "title": "Unprocessable Entity",
    "status": 422,
    "detail": "the job was not accepted; resources.num_ranks: is -1; it must be 1 or more",
    "code": "invalid_spec",
    "errors": [{"field": "resources.num_ranks", "message": "is -1; it must be 1 or more"}],
}
REPAIR_EXAMPLE: Json = {
    "job_id": "0b2f1c9e-2a55-4d0c-8c4f-6a1f1a1c0001",
    "at": "2026-11-22T12:00:00Z",
    "by": "reconciler",
    "in_database": "running, version 3",
    "in_reality": "not in the registry; no run of it is alive",
    "decided": "marked it as failed: stale",
    "why": "last vouched for 640 s ago; the limit is 600 s",
}
RECONCILE_EXAMPLE: Json = {
    "dry_run": False,
    "repairs": [REPAIR_EXAMPLE],
    "rows_compared": 12,
    "database": "compared",
}
REPAIRS_EXAMPLE: Json = {"repairs": [REPAIR_EXAMPLE], "next_cursor": "1042"}
SUBMIT_ARRAY_EXAMPLE: Json = {
    "spec": SPEC_EXAMPLE,
    "parameters": {"learning_rate": [0.0001, 0.0003], "seed": [1, 2, 3, 4]},
    "at_most": 4,
    "metric": "loss",
    "metric_is": "min",
}
ARRAY_EXAMPLE: Json = {
    "array_id": "6c1d4a52-53b7-4a55-9f5a-2f8b2a0e0001",
    "name": "first try",
    "user": "ada",
    "project": "vision",
    "created_at": "2026-11-22T12:00:00Z",
    "size": 1,
    "at_most": 1,
    "metric": "loss",
    "metric_is": "min",
    "counts": {"running": 1},
    "has_ended": False,
    "best": 1,
    "message": "1 job: 1 running; best loss so far: 0.25, of job 1",
    "jobs": [
        {
            "index": 1,
            "job_id": "0b2f1c9e-2a55-4d0c-8c4f-6a1f1a1c0001",
            "name": "first try-1",
            "status": "running",
            "reason": "attempt 1 is training, step 20 of 100",
            "values": {"seed": 1},
            "metric": 0.25,
        }
    ],
}
PROJECT_EXAMPLE: Json = {
    "name": "vision",
    "weight": 2.0,
    "quota": 8.0,
    "limit": 16.0,
    "held": 12.0,
    "running": 3,
    "queued": 1,
}
RECURRING_EXAMPLE: Json = {
    "name": "nightly",
    "cron": "0 3 * * *",
    "words": "At 03:00 every day",
    "timezone": "Europe/Berlin",
    "paused": False,
    "next_at": "2026-11-23T03:00:00+01:00",
    "last": {
        "at": "2026-11-21T03:00:00+01:00",
        "job_id": "0b2f1c9e-2a55-4d0c-8c4f-6a1f1a1c0001",
        "status": "running",
    },
    "skipped": {
        "at": "2026-11-22T03:00:00+01:00",
        "code": "overlap",
        "message": "job 0b2f1c9e-2a55-4d0c-8c4f-6a1f1a1c0001 of 2026-11-21 03:00 CET is still running",
    },
    "num_invalid": 0,
    "by": "ada",
    "created_at": "2026-11-20T12:00:00Z",
    "spec": SPEC_EXAMPLE,
}
NODE_EXAMPLE: Json = {
    "node_id": "c1f5d9",
    "name": "10.0.0.7",
    "cpus": 96.0,
    "gpus": 8.0,
    "labels": {"ray.io/accelerator-type": "H100"},
    "draining": False,
    "set_aside": {
        "at": "2026-11-22T12:00:00Z",
        "by": "scheduler",
        "why": "runs of 2 different jobs were lost on it within an hour",
        "losses": [
            {
                "job_id": "0b2f1c9e-2a55-4d0c-8c4f-6a1f1a1c0001",
                "job": "first try",
                "at": "2026-11-22T11:58:00Z",
                "why": "rank 3 was killed by signal 9",
            }
        ],
    },
    "lost": [],
}
NODES_EXAMPLE: Json = {"nodes": [NODE_EXAMPLE]}
PROJECTS_EXAMPLE: Json = {"unit": "GPU", "projects": [PROJECT_EXAMPLE]}
QUEUE_EXAMPLE: Json = {
    "at": "2026-11-22T12:00:00Z",
    "policy": "fair",
    "rules": "9f2c41d07be3",
    "unit": "GPU",
    "size": 16.0,
    "projects": [{**PROJECT_EXAMPLE, "entitled": 10.0, "lent": 2.0, "usage_h": 140.5}],
    "num_waiting": 1,
    "waiting": [
        {
            "position": 1,
            "job_id": "0b2f1c9e-2a55-4d0c-8c4f-6a1f1a1c0001",
            "name": "first try",
            "project": "vision",
            "user": "ada",
            "size": 4.0,
            "reason": {
                "code": "over_share",
                "message": "vision holds 12 of its 10 GPUs; those within their share go first",
            },
            "kept": False,
            "starts_in_s": 360.0,
        }
    ],
    "num_holding": 1,
    "holding": [
        {
            "job_id": "0b2f1c9e-2a55-4d0c-8c4f-6a1f1a1c0002",
            "name": "long one",
            "project": "vision",
            "user": "ada",
            "size": 12.0,
            "left_s": 360.0,
            "on_loan": True,
            "stopping": False,
        }
    ],
}
USAGE_EXAMPLE: Json = {
    "first_day": "2026-11-01",
    "last_day": "2026-11-30",
    "by": ["project"],
    "counted_until": "2026-11-22T12:00:00Z",
    "complete_since": "2026-03-02T09:30:00Z",
    "num_open": 3,
    "num_left_out": 0,
    "total": {"gpu_hours": 1240.5, "cpu_hours": 9924.0, "num_jobs": 57},
    "rows": [
        {"project": "speech", "gpu_hours": 340.5, "cpu_hours": 2724.0, "num_jobs": 16},
        {"project": "vision", "gpu_hours": 900.0, "cpu_hours": 7200.0, "num_jobs": 41},
    ],
}
USAGE_CSV = """\
project,gpu_hours,cpu_hours,num_jobs
speech,340.500000,2724.000000,16
vision,900.000000,7200.000000,41
"""
STREAM_EXAMPLE = """\
retry: 1000

event: attempt
data: {"attempt":1,"state":"began","reason":null}
id: 1.open.0-0

event: log
data: {"attempt":1,"rank":0,"text":"step 1\\n","offset":0,"next_offset":7}
id: 1.open.0-7

"""
_TOLD = {
    400: "The job's status does not permit it.",
    401: "The token is missing or wrong.",
    403: "Asked under a foreign host name, or by a page of another site.",
    404: "No such job, or no such log.",
    408: "The body did not come in time.",
    413: "The body is larger than the server takes.",
    422: "Something in the request is not acceptable; `errors` names each field and the remedy.",
    429: "Too many live streams are open for whoever asks; ask again after `Retry-After` seconds.",
    500: "The server failed; its log says why.",
    502: "The database refuses; `detail` says why, and what mends it.",
    503: "The registry does not answer, or cannot write, or too much is open; ask again after `Retry-After` seconds.",
}


def refusals(*statuses: int) -> dict[int | str, Json]:
    """What an operation may answer besides success; 401, 403, 500 and 503 always."""
    return {
        status: {"model": ProblemDocument, "description": _TOLD[status]}
        for status in sorted({*statuses, 401, 403, 500, 503})
    }


def answer(example: Json) -> Json:
    """What an operation answers when all is well."""
    return {"content": {"application/json": {"example": example}}}


def event_stream() -> dict[int | str, Json]:
    """What a stream of logs answers: the wire format, and the schema of the data of each event."""
    told = (
        "Events `log`, `attempt`, `waiting`, `doubt` and, as the last one, `end`; their data is JSON.  The `id` of "
        "an event is a position in all logs: given back, the stream goes on after that event.  A comment comes "
        "at least every 15 s."
    )
    return {
        200: {
            "description": told,
            "content": {"text/event-stream": {"schema": events_of(LOG_EVENTS), "example": STREAM_EXAMPLE}},
        },
        204: {"description": "Everything was sent before: there is no need to connect again."},
    }


def changes_stream() -> dict[int | str, Json]:
    """What a stream of changes answers."""
    told = (
        "Events `jobs` and `doubt`; their data is JSON.  Given back, the `id` of an event lets the stream go on after "
        "it.  A comment comes at least every 10 s."
    )
    data = '{"life": 3, "seq": 17, "counts": {"running": 2}, "missed": false, "jobs": []}'
    example = f"id: 3.17\nevent: jobs\ndata: {data}\n\n"
    return {
        200: {
            "description": told,
            "content": {"text/event-stream": {"schema": events_of(CHANGE_EVENTS), "example": example}},
        }
    }


def events_of(kinds: Mapping[str, type[Document]]) -> Json:
    """The schema of a stream of events; no standard one can say what the data of each event is, so `x-events` does."""
    return {
        "type": "string",
        "contentMediaType": "text/event-stream",
        "x-events": {kind: {"$ref": _REF.format(model=model.__name__)} for kind, model in kinds.items()},
    }


def _event_schemas() -> Json:
    """Those that `events_of` refers to: no operation answers with them, so nothing else would list them."""
    models = {*LOG_EVENTS.values(), *CHANGE_EVENTS.values()}
    _, listed = models_json_schema([(model, "serialization") for model in models], ref_template=_REF)
    return listed["$defs"]


def body(kind: TypeAdapter[Any], example: Json) -> Json:
    """The request body of an operation that reads it itself."""
    schema = kind.json_schema(ref_template=_REF)
    schema.pop("$defs", None)
    return {
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": schema, "example": example}},
        }
    }


def add(app: FastAPI) -> None:
    app.include_router(router)


@router.get("/openapi.json")
async def description(request: Request) -> Response:
    """Behind a proxy that serves us below a path, with that path."""
    base = base_of(request.scope)
    return JSONResponse(request.app.openapi() | ({"servers": [{"url": base}]} if base else {}))


def describe(app: FastAPI, *, wants_token: bool) -> Json:
    """The document, built once."""
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title,
            version=app.version,
            summary=app.summary,
            description=app.description,
            routes=app.routes,
            tags=app.openapi_tags,
        )
        document = _with_published_names(document)
        document["components"]["schemas"] = _event_schemas() | document["components"]["schemas"]
        for path in document["paths"].values():
            for operation in path.values():
                _as_problems(operation["responses"])
        document["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"token": []}] if wants_token else [{}, {"token": []}]
        app.openapi_schema = document
    return app.openapi_schema


def _with_published_names(document: Json) -> Json:
    text = json.dumps(document)
    for ours, published in _PUBLISHED_AS.items():
        text = text.replace(f'"{_REF.format(model=ours)}"', f'"{_REF.format(model=published)}"')
    named = json.loads(text)
    schemas = {
        _PUBLISHED_AS.get(name, name): schema for name, schema in named["components"]["schemas"].items()
    }
    for published in _PUBLISHED_AS.values():
        schemas[published]["title"] = published
    named["components"]["schemas"] = dict(sorted(schemas.items()))
    return named


def _as_problems(responses: Json) -> None:
    for status, response in responses.items():
        for content in list(response.get("content", {}).values()):
            if content.get("schema", {}).get("$ref", "").endswith("/ProblemDocument"):
                response["content"] = {MEDIA_TYPE: content}
                if status == "422":
                    content["example"] = PROBLEM_EXAMPLE
