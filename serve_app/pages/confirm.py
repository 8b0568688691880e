"""Asking before an action, telling what it would do, and doing it: for one job or for many."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import Response

from scheduler.api.forecasts import EffectDocument
from scheduler.api.scheduler_api import SchedulerApi
from scheduler.core.commands import ACTIONS, JobAction, action_of
from scheduler.errors import InvalidRequest, SchedulerError
from serve_app.pages.actions import ActionCall, Outcome, carry_out
from serve_app.pages.calls import job_id_in, own_path, soon
from serve_app.pages.rendering import Renderer, is_part
from serve_app.pages.visitor import Visitor, form_of
from serve_app.parameters import CHECKPOINT
from serve_app.problems import shown

MAX_JOBS = 500
MAX_TOLD = 20
"""Jobs whose effect is told before; for each of them the scheduler plays its line forward."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionRequest:
    """What is to be done, as a link or a form says it."""

    action: JobAction
    job_ids: tuple[str, ...]
    checkpoint: str | None
    preempt: bool
    back: str
    place: str
    """`card`: the answer goes into the card of the job's page."""

    @classmethod
    def of(cls, given: Mapping[str, str]) -> ActionRequest:
        """Raises InvalidRequest."""
        action, checkpoint = action_of(given.get("action", "")), given.get("checkpoint") or None
        ids = tuple(dict.fromkeys(job_id_in(one) for one in given.get("jobs", "").split(",") if one))
        if not 1 <= len(ids) <= MAX_JOBS:
            raise InvalidRequest(f"{len(ids)} jobs are marked; mark 1 to {MAX_JOBS} of them in the list")
        if checkpoint and not (ACTIONS[action].takes_checkpoint and re.fullmatch(CHECKPOINT, checkpoint)):
            raise InvalidRequest(
                f"checkpoint {shown(checkpoint)} cannot be used; `resume` takes one such as 2.3"
            )
        preempt = given.get("preempt", "")
        if preempt not in ("", "true") or (preempt and not ACTIONS[action].takes_preempt):
            raise InvalidRequest(f"preempt={shown(preempt)} cannot be used; `force-start` takes preempt=true")
        back = given.get("back") or (f"/training/monitor?jobId={ids[0]}" if len(ids) == 1 else "/training")
        return cls(
            action=action,
            job_ids=ids,
            checkpoint=checkpoint,
            preempt=bool(preempt),
            back=own_path(back),
            place=given.get("place", ""),
        )


def add(app: FastAPI, renderer: Renderer, registry: SchedulerApi) -> None:
    def show(request: Request, name: str, status: int = 200, **values: Any) -> Response:
        whole = "acting.html" if not is_part(request) else name
        return renderer.page(request, whole, status, part=name, actions=ACTIONS, **values)

    def refuse(request: Request, error: SchedulerError) -> Response:
        return show(request, "not_done.html", error.http_status, title="Nothing was done", error=error)

    @app.get("/training/confirm", include_in_schema=False)
    async def confirm(request: Request) -> Response:
        """What would happen to each job, and the button that does it."""
        try:
            wish = ActionRequest.of(request.query_params)
        except SchedulerError as error:
            return refuse(request, error)
        names, effects = await asyncio.gather(_names(registry, wish.job_ids), _effects(registry, wish))
        title = _title(wish, names)
        return show(request, "confirm.html", wish=wish, names=names, effects=effects, title=title)

    @app.post("/training/act", include_in_schema=False)
    async def act(request: Request) -> Response:
        """Does it, and tells for each job what became of it."""
        try:
            fields = await form_of(request)
            wish = ActionRequest.of({name: ",".join(values) for name, values in fields.items()})
        except SchedulerError as error:
            return refuse(request, error)
        by = Visitor.of(request).by
        asked = [
            ActionCall(
                job_id=job_id, action=wish.action, by=by, checkpoint=wish.checkpoint, preempt=wish.preempt
            )
            for job_id in wish.job_ids
        ]
        outcomes = await carry_out(registry, asked)
        names = await _names(registry, wish.job_ids)
        title = _summary(wish, outcomes)
        return show(
            request,
            "outcome.html",
            _http_status(outcomes),
            wish=wish,
            names=names,
            outcomes=outcomes,
            title=title,
        )


async def _names(registry: SchedulerApi, job_ids: Sequence[str]) -> dict[str, str]:
    """What people call the jobs; ids where the registry does not know, or does not answer."""
    known = {job_id: f"job {job_id}" for job_id in job_ids}
    try:
        found = await soon(registry.documents(list(job_ids)))
    except SchedulerError:
        return known
    return known | {job_id: document.name for job_id, document in found.items()}


async def _effects(registry: SchedulerApi, wish: ActionRequest) -> list[EffectDocument | SchedulerError]:
    async def one(job_id: str) -> EffectDocument | SchedulerError:
        try:
            return await soon(registry.effect(job_id, wish.action, wish.checkpoint, wish.preempt))
        except SchedulerError as error:
            return error

    return list(await asyncio.gather(*map(one, wish.job_ids[:MAX_TOLD])))


def _title(wish: ActionRequest, names: Mapping[str, str]) -> str:
    many = len(wish.job_ids) > 1
    what = f"{len(wish.job_ids)} jobs" if many else names[wish.job_ids[0]]
    return f"{ACTIONS[wish.action].question} {what}?"


def _summary(wish: ActionRequest, outcomes: Sequence[Outcome]) -> str:
    words = ACTIONS[wish.action].button
    done = sum(not one.error for one in outcomes)
    if len(outcomes) == 1:
        return f"{words}: {'done' if done else 'not known' if outcomes[0].is_unknown else 'not done'}"
    return f"{words}: done for {done} of {len(outcomes)} jobs"


def _http_status(outcomes: Sequence[Outcome]) -> int:
    """That of the only error; what was done for some of many is no error."""
    errors = [one.error for one in outcomes if one.error]
    return errors[0].http_status if errors and len(errors) == len(outcomes) else 200
