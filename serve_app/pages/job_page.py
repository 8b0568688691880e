"""All that the page of a job shows, asked for at once; each part may be refused by itself."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from scheduler.api.jobs import CheckpointPage, JobDocument
from scheduler.api.scheduler_api import SchedulerApi
from scheduler.core.commands import JobAction
from scheduler.core.model import SPEC, JobSpec
from scheduler.core.redaction import HIDDEN, masked
from scheduler.errors import SchedulerError
from serve_app.pages.calls import all_of, soon
from serve_app.pages.cards import Card, card, may_resume
from serve_app.verified_reads import VerifiedReads


class JobPageView:
    """Every method gives values for the templates; a refusal stands for what could not be had."""

    def __init__(self, registry: SchedulerApi, reads: VerifiedReads) -> None:
        self._registry, self._reads = registry, reads

    async def now(self, job_id: str) -> dict[str, Any]:
        """Where it stands.  Raises what the state itself is refused with."""
        job, explained = await all_of(self._reads.status(job_id), self._registry.explain(job_id))
        if isinstance(job, SchedulerError):
            raise job
        checkpoints = await self._checkpoints(job) if may_resume(job) else None
        found = checkpoints.checkpoints if isinstance(checkpoints, CheckpointPage) else []
        shown = card(job, found)
        return {
            "job": job,
            "explained": explained,
            "card": shown,
            "card_checkpoints": checkpoints,
            "effect": await self._effect(job, shown.main, shown) if shown.main else None,
        }

    async def past(self, job_id: str) -> dict[str, Any]:
        """What happened to it, and what it left."""
        job, events, attempts, checkpoints = await all_of(
            self._reads.status(job_id),
            self._registry.events(job_id),
            self._registry.attempts(job_id),
            self._registry.checkpoints(job_id),
        )
        if isinstance(job, SchedulerError):
            raise job
        return {
            "job": job,
            "events": events,
            "attempts": attempts,
            "checkpoints": checkpoints,
            "can_resume": may_resume(job),
        }

    async def _checkpoints(self, job: JobDocument) -> CheckpointPage | SchedulerError:
        (found,) = await all_of(self._registry.checkpoints(job.job_id))
        return found

    async def _effect(self, job: JobDocument, action: JobAction, shown: Card) -> Any:
        checkpoint = shown.chosen.checkpoint if shown.chosen else None
        (found,) = await all_of(self._registry.effect(job.job_id, action, checkpoint))
        return found

    async def spec_as_run(self, job_id: str) -> dict[str, Any]:
        """With every default written out.  Raises what it is refused with."""
        job = await soon(self._reads.status(job_id))
        spec = replace(job.spec, array=None)
        plan = await soon(self._registry.plan(spec))
        given = SPEC.dump_python(spec, mode="json")
        # Whether it would be accepted cannot be said of a spec whose secrets are covered.
        is_whole = HIDDEN not in as_text(given)
        text = as_text(masked(plan.spec or given)) if plan.spec or not is_whole else None
        return {"job": job, "plan": plan, "text": text, "is_whole": is_whole}


def submitted_text(spec: JobSpec) -> str:
    """As it was submitted: what is not as it is by default, secrets covered."""
    return as_text(masked(_without_defaults(replace(spec, array=None))))


def as_text(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


def _without_defaults(spec: JobSpec) -> dict[str, Any]:
    given = SPEC.dump_python(spec, mode="json")
    default = SPEC.dump_python(JobSpec(loop=spec.loop), mode="json")
    return {
        name: _differing(value, default.get(name), name)
        for name, value in given.items()
        if name == "loop" or value != default.get(name)
    }


def _differing(value: Any, usual: Any, name: str) -> Any:
    """Of `resources` and the like, only what was set; a config and labels are all of the user's making."""
    if name in ("config", "labels") or not isinstance(value, dict) or not isinstance(usual, dict):
        return value
    return {key: one for key, one in value.items() if key not in usual or one != usual[key]}
