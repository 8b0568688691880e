"""The form that submits a job: made from the schemas, filled from another job on request, checked by a dry run."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from scheduler.api.forecasts import PlanAnswer
from scheduler.api.health import LoopDocument
from scheduler.api.jobs import JobDocument
from scheduler.api.scheduler_api import SchedulerApi
from scheduler.core.model import SPEC, JobSpec
from scheduler.core.redaction import HIDDEN
from scheduler.errors import InvalidSpec, Problem, SchedulerError
from serve_app import request_body
from serve_app.caller import base_of, redirect
from serve_app.pages import visitor
from serve_app.pages.calls import job_id_in, soon
from serve_app.pages.form_fields import Field, Group, groups, texts, value_of
from serve_app.pages.rendering import is_part
from serve_app.pages.site import OfSite, Site
from serve_app.verified_reads import VerifiedReads

router = APIRouter(include_in_schema=False)
_TYPE_ANEW = "is a secret of the job that this one is made from, and not taken over; type it anew"
_APART = ("loop", "config", "code")
"""Fields of a spec that the form has no plain input for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """What the page shows: inputs, what stands in them, and what is wrong with it."""

    loop: str
    loops: Sequence[LoopDocument]
    config: Sequence[Group]
    rest: Sequence[Group]
    values: Mapping[str, str] = field(default_factory=dict)
    source: str = ""
    """The job that is cloned."""
    key: str = ""
    """Makes sending the form twice submit one job."""
    is_new: bool = False
    """Nothing was asked of it yet: its errors tell what is to be typed."""
    errors: Sequence[Problem] = ()
    plan: PlanAnswer | None = None

    @property
    def fields(self) -> list[Field]:
        return list(chain.from_iterable(group.fields for group in (*self.config, *self.rest)))

    def errors_of(self, path: str) -> list[str]:
        return [one.message for one in self.errors if one.field == path]

    @property
    def other_errors(self) -> list[Problem]:
        """Those that belong to no input, or to a part within one."""
        shown = {one.path for one in self.fields} | {"loop"}
        return [one for one in self.errors if one.field not in shown]


def _show(request: Request, site: Site, form: Form, status: int = 200) -> Response:
    name = "submit_form.html" if is_part(request) else "submit.html"
    return site.renderer.page(request, name, status, page_name="submit", form=form)


def _refuse(request: Request, site: Site, error: SchedulerError) -> Response:
    heading = "The job was not submitted"
    if not is_part(request):
        return site.renderer.page(request, "refused.html", error.http_status, error=error, heading=heading)
    # What was typed stays where it is.
    response = site.renderer.page(
        request, "submit_refused.html", error.http_status, error=error, heading=heading
    )
    response.headers.update({"HX-Retarget": "#submit-refused", "HX-Reswap": "innerHTML show:top"})
    return response


@router.get("/training/submit")
async def form(request: Request, site: OfSite, loop: str = "", source: str = "") -> Response:
    try:
        loops = (await soon(site.registry.loops())).loops
        job = await site.reads.status(job_id_in(source)) if source else None
    except SchedulerError as error:
        return site.renderer.page(
            request, "refused.html", error.http_status, error=error, heading="No job can be submitted now"
        )
    return _show(request, site, _new_form(loops, loop, job))


@router.post("/training/submit")
async def send(request: Request, site: OfSite) -> Response:
    """With `do=submit` the job is submitted; else it is only looked at, or shown with another loop."""
    try:
        given = {name: "".join(values) for name, values in (await visitor.form_of(request)).items()}
        loops = (await soon(site.registry.loops())).loops
        filled, job = _filled(loops, given), await _source(site.reads, given)
    except SchedulerError as error:
        return _refuse(request, site, error)
    if given.get("do") == "loop":
        return _show(request, site, filled)
    if left_out := _left_out(filled, given):
        return _show(request, site, replace(filled, errors=[left_out]), InvalidSpec.http_status)
    try:
        spec = _spec(filled, job)
        if given.get("do") != "submit":
            return _show(request, site, await _planned(site.registry, filled, spec))
        if not spec.user:
            spec = replace(spec, user=visitor.Visitor.of(request).name)
        accepted, _ = await soon(site.registry.submit(str(uuid.uuid4()), spec, filled.key or None))
    except SchedulerError as error:
        errors = error.problems or [Problem("", error.message)]
        return _show(request, site, replace(filled, errors=errors), error.http_status)
    return _to(request, f"/training/monitor?jobId={accepted.job_id}")


def _new_form(loops: Sequence[LoopDocument], loop: str, job: JobDocument | None) -> Form:
    chosen = loop or (job.spec.loop if job else loops[0].name)
    form = _form(loops, chosen, key=str(uuid.uuid4()))
    if job is None:
        return form
    hidden = _hidden_in(job, form.fields)
    values = _values_of(job, form.fields) | dict.fromkeys(hidden, "")
    errors = [Problem(path, _TYPE_ANEW) for path in hidden]
    return replace(form, values=values, source=job.job_id, is_new=True, errors=errors)


def _form(loops: Sequence[LoopDocument], loop: str, **more: Any) -> Form:
    known = next((one for one in loops if one.name == loop), None)
    config = (
        groups(known.config_schema, "config.")
        if known
        else [Group(path="config", description="As JSON.", fields=(Field(path="config", kind="json"),))]
    )
    rest = groups(SPEC.json_schema(), without=_APART)
    return Form(loop=loop, loops=loops, config=config, rest=rest, **more)


def _filled(loops: Sequence[LoopDocument], given: Mapping[str, str]) -> Form:
    loop = given.get("own_loop", "").strip() or given.get("loop", "")
    more = {"source": given.get("source", ""), "key": given.get("key", "")}
    form = _form(loops, loop, **more)
    return replace(form, values={one.path: given[one.path] for one in form.fields if one.path in given})


def _values_of(job: JobDocument, fields: Sequence[Field]) -> dict[str, str]:
    """What stands in each field of *job*, which hides secrets.  One that is a part of a value keeps its cover: it is
    seen where something has to be typed, and no spec is accepted with it."""
    return texts(fields, SPEC.dump_python(job.spec, mode="json"))


def _hidden_in(job: JobDocument, fields: Sequence[Field]) -> list[str]:
    """Fields of which *job* has a secret."""
    return [path for path, text in _values_of(job, fields).items() if text == HIDDEN]


async def _source(reads: VerifiedReads, given: Mapping[str, str]) -> JobDocument | None:
    return await reads.status(job_id_in(given["source"])) if given.get("source") else None


def _spec(form: Form, job: JobDocument | None) -> JobSpec:
    """Raises InvalidSpec and InvalidRequest.  A secret of the job that is cloned is not taken from it: whoever may
    submit could have it printed."""
    hidden = _hidden_in(job, form.fields) if job else []
    if untyped := [path for path in hidden if not form.values.get(path, "").strip()]:
        raise InvalidSpec.of(*(Problem(path, _TYPE_ANEW) for path in untyped))
    value = {**value_of(form.fields, form.values), "loop": form.loop}
    return request_body.parse(json.dumps(value).encode(), SPEC)


def _left_out(form: Form, given: Mapping[str, str]) -> Problem | None:
    """What was typed while the form was that of another loop; it must not be dropped without a word."""
    known = {one.path for one in form.fields}
    left = [name for name, text in given.items() if name.startswith("config") and text and name not in known]
    if not left:
        return None
    return Problem("loop", f"{form.loop} has no {', '.join(left)}: look at its fields below, then go on")


async def _planned(registry: SchedulerApi, form: Form, spec: JobSpec) -> Form:
    plan = await soon(registry.plan(spec))
    return replace(form, plan=plan, errors=[Problem(one.field, one.message) for one in plan.errors])


def _to(request: Request, path: str) -> Response:
    """A script follows the header; a browser without one the redirect."""
    if is_part(request):
        return Response(status_code=200, headers={"HX-Redirect": base_of(request.scope) + path})
    return redirect(request, path)
