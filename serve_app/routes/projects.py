"""Projects: their shares of the cluster, and what they hold."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Request
from starlette.convertors import StringConvertor, register_url_convertor

from scheduler.api.projects import CHANGES, ProjectDocument, ProjectList
from serve_app import openapi, problems, request_body
from serve_app.parameters import Asker
from serve_app.request_body import Wanted
from serve_app.routes.parts import BASE, Configured, Scheduler


class TextConvertor(StringConvertor):
    """As `path`, but a line break in a name is text too: it is refused in words, and not as a path that there is not."""

    regex = r"[\s\S]*"


register_url_convertor("text", TextConvertor())
router = APIRouter()

Name = Annotated[
    str,
    Path(
        min_length=1,
        max_length=200,
        description="As in the field `project` of its jobs; what has a meaning in a URL is percent-encoded, also `/`.",
        examples=["vision"],
    ),
]
_A_SHARE = Wanted('any of weight, quota and limit as JSON, as {"quota": 8}', problems.invalid_body)
_ONE = openapi.answer(openapi.PROJECT_EXAMPLE)


@router.get(
    f"{BASE}/projects",
    tags=["projects"],
    summary="Projects: what each may have, and what it holds",
    responses={200: openapi.answer(openapi.PROJECTS_EXAMPLE), **openapi.refusals()},
)
async def projects(scheduler: Scheduler) -> ProjectList:
    """Every project that was set, or has a job that has not ended, by name."""
    return await scheduler.projects()


@router.put(
    f"{BASE}/projects/{{name:text}}",
    tags=["projects"],
    summary="Change what a project may have",
    responses={200: _ONE, **openapi.refusals(408, 413, 422)},
    openapi_extra=openapi.body(CHANGES, {"weight": 2, "quota": 8, "limit": 16}),
)
async def set_project(
    settings: Configured, scheduler: Scheduler, request: Request, name: Name, asker: Asker
) -> ProjectDocument:
    """A field that is not given stays as it is.  Answers when it is on disk."""
    request_body.require_storable(name, "name")
    changes = await request_body.read(request, CHANGES, settings.max_body_bytes, _A_SHARE)
    return await scheduler.set_project(name, changes, asker or "api")


@router.delete(
    f"{BASE}/projects/{{name:text}}",
    tags=["projects"],
    summary="Give a project the default share again: weight 1, no quota, no limit",
    responses={200: _ONE, **openapi.refusals(422)},
)
async def forget_project(scheduler: Scheduler, name: Name, asker: Asker) -> ProjectDocument:
    """Its jobs stay as they are.  Fine for one that has the default."""
    request_body.require_storable(name, "name")
    return await scheduler.forget_project(name, asker or "api")
