"""What the page of a job listens to: that the job has changed, and in what."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from fastapi.sse import format_sse_event

from scheduler.api.jobs import JobDocument
from serve_app.change_hub import ChangeBatch, ChangePosition, Doubt, Hub


async def events(hub: Hub, job_id: str, position: ChangePosition | None) -> AsyncIterator[bytes]:
    """Events after *position*, for ever.

    `changed`: the job has, and what decides how much of the page is old; `anew`: perhaps it has; `doubt`: the
    registry does not answer, and why, or null: it does again; `beat`: nothing has changed.
    """
    async with aclosing(hub.listen(position)) as listening:
        async for heard in listening:
            match heard:
                case ChangeBatch():
                    yield _of_news(heard, job_id)
                case Doubt(message=message):
                    yield _event("doubt", {"message": message})
                case _:
                    yield _event("beat", {})


def _of_news(news: ChangeBatch, job_id: str) -> bytes:
    if news.missed:
        return _event("anew", {}, str(news.position))
    changed = next((one.document for one in news.jobs if one.document.job_id == job_id), None)
    if changed is None:
        return _event("beat", {}, str(news.position))
    return _event("changed", _signs(changed), str(news.position))


def _signs(job: JobDocument) -> dict[str, Any]:
    saved = job.last_checkpoint.checkpoint if job.last_checkpoint else None
    return {"version": job.version, "status": job.status, "attempt": job.attempt, "saved": saved}


def _event(name: str, data: dict[str, Any], position: str | None = None) -> bytes:
    return format_sse_event(event=name, data_str=json.dumps(data), id=position)
