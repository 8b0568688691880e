"""The list, live: what changes is drawn once, and sent to everybody who looks at it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

from fastapi.sse import format_sse_event

from scheduler.api.jobs import JobDocument
from scheduler.api.scheduler_api import SchedulerApi
from scheduler.core.model import Status
from scheduler.errors import SchedulerError
from scheduler.ports import JobQuery
from serve_app.change_hub import ChangeBatch, ChangedJob, ChangePosition, Doubt, Hub
from serve_app.pages.calls import soon
from serve_app.pages.rendering import Renderer

PROOF_EVERY_S = 10.0
_MOST_PROOFS = 200
_ACTIVE = frozenset({Status.PENDING, Status.QUEUED, Status.RUNNING, Status.PAUSED})


class Proofs:
    """When each active job was last checked: that goes on while nothing else changes.

    Asked for by everybody who looks, read and drawn once in `PROOF_EVERY_S`.
    """

    def __init__(self, registry: SchedulerApi, renderer: Renderer, now_s: Callable[[], float]) -> None:
        self._registry, self._renderer, self._now_s = registry, renderer, now_s
        self._drawn, self._read_at_s = b"", -PROOF_EVERY_S
        self._reading = asyncio.Lock()

    async def newest(self) -> bytes:
        """An event; nothing when the registry does not answer, which the hub tells by itself."""
        async with self._reading:
            if self._now_s() - self._read_at_s >= PROOF_EVERY_S:
                self._drawn = await self._read()
                self._read_at_s = self._now_s()
            return self._drawn

    async def _read(self) -> bytes:
        try:
            page = await soon(self._registry.jobs(JobQuery(statuses=_ACTIVE, limit=_MOST_PROOFS)))
        except SchedulerError:
            return b""
        return _event("proofs", {job.job_id: self._draw(job) for job in page.jobs})

    def _draw(self, job: JobDocument) -> str:
        return self._renderer.alone("job_proof", "", job)


class LiveRows:
    """What a page of the list listens to."""

    def __init__(self, hub: Hub, registry: SchedulerApi, renderer: Renderer) -> None:
        self._hub, self._renderer = hub, renderer
        self._proofs = Proofs(registry, renderer, time.monotonic)

    async def events(self, position: ChangePosition | None, base: str) -> AsyncGenerator[bytes]:
        """Events from *position* on, for ever.  Without one the list was not read whole: it is to be, first.

        `row`: a job as it is now; `counts`; `proofs`; `doubt`: the registry does not answer, and why, or null: it
        does again; `anew`: more has changed than can be told; `beat`: nothing has changed.
        """
        is_unread = position is None
        proved_at_s = time.monotonic()
        async with aclosing(self._hub.listen(position)) as listening:
            async for heard in listening:
                match heard:
                    case ChangeBatch():
                        yield _event("anew", {}) if is_unread else self._drawn(heard, base)
                        is_unread = False
                    case Doubt(message=message):
                        yield _event("doubt", {"message": message})
                    case _:
                        yield _event("beat", {})
                if time.monotonic() - proved_at_s >= PROOF_EVERY_S:
                    proved_at_s = time.monotonic()
                    if proofs := await self._proofs.newest():
                        yield proofs

    def _drawn(self, news: ChangeBatch, base: str) -> bytes:
        """The same bytes for all listeners behind the same proxy."""
        return news.once(("list", base), lambda: self._draw(news, base))

    def _draw(self, news: ChangeBatch, base: str) -> bytes:
        counts = _event(
            "counts", {status.value: count for status, count in news.counts.items()}, str(news.position)
        )
        if news.missed:
            return _event("anew", {}) + counts
        return b"".join(self._row(changed, base) for changed in news.jobs) + counts

    def _row(self, changed: ChangedJob, base: str) -> bytes:
        return changed.once(("row", base), lambda: self._draw_row(changed.document, base))

    def _draw_row(self, job: JobDocument, base: str) -> bytes:
        row = self._renderer.alone("job_row", base, job)
        return _event("row", {"job": job.job_id, "html": row})


def _event(name: str, data: dict[str, Any], position: str | None = None) -> bytes:
    """*position*: what came before it, and it, was heard."""
    return format_sse_event(event=name, data_str=json.dumps(data, ensure_ascii=False), id=position)
