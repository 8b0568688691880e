"""Changes of jobs as server-sent events: filtered, resumed at any event, going on by themselves after an outage."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import aclosing
from typing import Annotated, Any
from uuid import UUID

from fastapi import Header
from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event
from pydantic import BaseModel, ConfigDict, Field

from scheduler.api.jobs import JobDocument
from scheduler.core.model import Status
from serve_app.change_hub import ChangeBatch, ChangedJob, ChangePosition, Doubt, Hub
from serve_app.parameters import statuses_in
from serve_app.streams import EventStream

RETRY_MS = 1000
_TOLD_BEFORE = 10_000
_POSITION = r"[0-9]{1,15}\.[0-9]{1,15}"


class ChangesQuery(BaseModel):
    model_config = ConfigDict(extra="forbid")
    status: str | None = Field(
        None,
        description="Only jobs in these, separated by commas, and those that leave them after they were told.",
        examples=["running,queued"],
        max_length=200,
    )
    user: str | None = Field(None, max_length=200)
    project: str | None = Field(None, max_length=200)
    job_id: UUID | None = Field(None, description="Only this job.")
    position: str | None = Field(
        None,
        alias="from",
        description="The id of an event: go on after it.  The header `Last-Event-ID` wins.",
        json_schema_extra={"pattern": f"^{_POSITION}$"},
    )


LastChange = Annotated[
    str | None,
    Header(
        alias="Last-Event-ID",
        max_length=100,
        description="As browsers send it when they connect again: go on after that event.",
        json_schema_extra={"pattern": f"^({_POSITION})?$"},
    ),
]


class Wanted:
    """What one listener asked for."""

    def __init__(self, query: ChangesQuery) -> None:
        self._query = query
        self._statuses = statuses_in(query.status)
        self._told: OrderedDict[str, None] = OrderedDict()
        self.is_everything = not (self._statuses or query.user or query.project or query.job_id)

    def of(self, news: ChangeBatch) -> list[ChangedJob]:
        return [changed for changed in news.jobs if self._has(changed.document)]

    def _has(self, job: JobDocument) -> bool:
        query = self._query
        is_its_kind = (
            query.user in (None, job.spec.user)
            and query.project in (None, job.spec.project)
            and (query.job_id is None or str(query.job_id) == job.job_id)
        )
        return is_its_kind and self._is_in(job)

    def _is_in(self, job: JobDocument) -> bool:
        if not self._statuses:
            return True
        if job.status not in self._statuses:
            return self._told.pop(job.job_id, self) is None
        self._told[job.job_id] = None
        while len(self._told) > _TOLD_BEFORE:
            self._told.popitem(last=False)
        return True


def answer(hub: Hub, query: ChangesQuery, last_event_id: str | None) -> EventStream:
    """The stream.  Raises InvalidRequest before it begins."""
    begun_at = last_event_id or query.position
    position = ChangePosition.of(begun_at) if begun_at else None
    return EventStream(_body(hub, Wanted(query), position))


async def _body(hub: Hub, wanted: Wanted, position: ChangePosition | None) -> AsyncIterator[bytes]:
    yield format_sse_event(retry=RETRY_MS)
    counts: Mapping[Status, int] | None = None
    async with aclosing(hub.listen(position)) as listening:
        async for heard in listening:
            match heard:
                case ChangeBatch():
                    is_told = heard.missed or heard.counts != counts
                    counts = heard.counts
                    for event in _told(heard, wanted, is_told=is_told):
                        yield event
                case Doubt():
                    yield format_sse_event(event="doubt", data_str=json.dumps({"message": heard.message}))
                case None:
                    yield KEEPALIVE_COMMENT


def _told(news: ChangeBatch, wanted: Wanted, *, is_told: bool) -> Iterator[bytes]:
    if wanted.is_everything:
        yield news.once("event", lambda: _event(news, list(news.jobs)))
    elif (jobs := wanted.of(news)) or is_told:
        yield _event(news, jobs)


def _event(news: ChangeBatch, jobs: list[ChangedJob]) -> bytes:
    """A `Changes` document; each job is encoded once for all listeners."""
    frame: dict[str, Any] = {"life": news.life, "seq": news.seq, "counts": news.counts, "missed": news.missed}
    documents = ",".join(
        changed.once("json", lambda changed=changed: _encoded(changed.document)) for changed in jobs
    )
    data = f'{json.dumps(frame)[:-1]}, "jobs": [{documents}]}}'
    return format_sse_event(event="jobs", data_str=data, id=str(news.position))


def _encoded(job: JobDocument) -> str:
    return json.dumps(job.model_dump(mode="json"))  # ASCII: nothing in it looks like an end of line
