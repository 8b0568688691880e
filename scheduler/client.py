"""The Python client, blocking and async, over HTTP alone.  All times are in seconds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator
from contextlib import aclosing
from functools import lru_cache
from typing import Any, TypeVar, Unpack

import httpx

from scheduler import calls
from scheduler.calls import Call, is_event_stream
from scheduler.connection import Connection, Filters, Spec, Watch, Where
from scheduler.documents import (
    AttemptPage,
    CheckpointPage,
    EventPage,
    ForceStartAnswer,
    Health,
    JobDocument,
    JobPage,
    LogEvent,
    LogLines,
    LoopList,
    ReconcileAnswer,
    RepairDocument,
)
from scheduler.flows import Answer, Flow, Item, Pause, Reading, Step
from scheduler.handles import AsyncJobHandle, JobHandle
from scheduler.settings import ClientSettings

T = TypeVar("T")


class Client(Connection):
    """Talks to one scheduler, blocking.  May be used by several threads; also a context manager.

    Every method raises a `SchedulerError` in words: ServerUnreachable when no scheduler answers, JobNotFound,
    InvalidSpec, NotAllowed, ...
    """

    transport = httpx.Client

    def submit(
        self, spec: Spec | None = None, *, idempotency_key: str | None = None, **fields: Any
    ) -> JobHandle:
        """Submit a job: a `JobSpec`, a dict, keyword arguments, or keywords over one of the former.

        When this returns, the job is on the scheduler's disk.  Sent again with the same *idempotency_key* it
        returns the first job; without one a key is made, so that asking again after a lost answer is safe.
        """
        job = self._run(self.submit_flow(spec, idempotency_key, fields))
        return JobHandle(self, job.job_id, job)

    def submit_batch(self, specs: Iterable[Spec]) -> list[JobHandle]:
        """All are accepted, or none.  Not asked again after a lost answer: look at `list_jobs` then."""
        return [JobHandle(self, job.job_id) for job in self._run(self.batch_flow(specs))]

    def get(self, job_id: str) -> JobHandle:
        return JobHandle(self, job_id, self.status(job_id))

    def status(self, job_id: str) -> JobDocument:
        return self._call(calls.status(job_id))

    def wait(self, job_id: str, timeout_s: float | None = None, **watch: Unpack[Watch]) -> JobDocument:
        """Return the job once it is completed, failed or cancelled.

        Raises WaitTimedOut after *timeout_s*; the job goes on.  A restart of the server is sat out.
        """
        return self._run(self.wait_flow(job_id, timeout_s, watch))

    def list_jobs(self, **filters: Unpack[Filters]) -> Iterator[JobDocument]:
        """Jobs, newest first; pages are fetched as you go."""
        for page in self.job_pages(**filters):
            yield from page.jobs

    def job_pages(self, **filters: Unpack[Filters]) -> Iterator[JobPage]:
        """As `list_jobs`, page by page, with whether each was verified."""
        return self._items(self.pages_flow(filters))

    def cancel(self, job_id: str) -> JobDocument:
        """The job as it is now; it becomes `cancelled` once its processes are gone."""
        return self._call(calls.cancel(job_id))

    def pause(self, job_id: str) -> JobDocument:
        """The job as it is now; it becomes `paused` once it has stopped at a checkpoint."""
        return self._call(calls.pause(job_id))

    def resume(self, job_id: str, checkpoint: str | None = None) -> JobDocument:
        """Put a paused, failed or cancelled job in the line, to go on from its last checkpoint or the one given."""
        return self._call(calls.resume(job_id, checkpoint))

    def restart(self, job_id: str) -> JobDocument:
        """Put a paused, failed, cancelled or queued job in the line, to begin again from the beginning."""
        return self._call(calls.restart(job_id))

    def preempt(self, job_id: str) -> JobDocument:
        """The job as it is now; it saves, gives its nodes back, and is queued again."""
        return self._call(calls.preempt(job_id))

    def attempts(self, job_id: str) -> AttemptPage:
        """The runs of the job: when, where, why each ended, and what was lost."""
        return self._call(calls.attempts(job_id))

    def checkpoints(self, job_id: str) -> CheckpointPage:
        """The complete checkpoints of the job, newest first."""
        return self._call(calls.checkpoints(job_id))

    def force_start(self, job_id: str) -> ForceStartAnswer:
        """Put a pending, queued, failed or cancelled job in the line, from the beginning."""
        return self._call(calls.force_start(job_id))

    def mark_failed(self, job_id: str) -> JobDocument:
        """Give up a job that is pending or queued."""
        return self._call(calls.mark_failed(job_id))

    def events(self, job_id: str) -> EventPage:
        return self._call(calls.events(job_id))

    def logs(self, job_id: str, follow: bool = False, **where: Unpack[Where]) -> Iterator[str]:
        """The log of one rank, or of all, piece by piece; with *follow* until the job has ended, retries included.

        Followed live, whole lines at a time; of a job that waits, it waits too.  A restart of the server is sat out.
        """
        return (chunk.text for chunk in self.log_chunks(job_id, follow, **where) if chunk.text)

    def log_chunks(self, job_id: str, follow: bool = False, **where: Unpack[Where]) -> Iterator[LogLines]:
        """As `logs`, with the attempt, the rank and the offset of each piece."""
        events = (
            self.log_events(job_id, **where) if follow else self._items(self.log_flow(job_id, False, where))
        )
        return (event for event in events if isinstance(event, LogLines))

    def log_events(self, job_id: str, **where: Unpack[Where]) -> Iterator[LogEvent]:
        """Follow a job's logs: its lines, the attempts that begin and end, why it waits, and at last why it ended."""
        return self._items(self.log_flow(job_id, True, where))

    def loops(self) -> LoopList:
        return self._call(calls.loops())

    def reconcile(self, dry_run: bool = False) -> ReconcileAnswer:
        """Compare registry, runs and database now, and put right what differs; or only say what would be done."""
        return self._call(calls.reconcile(dry_run=dry_run))

    def repairs(self, limit: int | None = None) -> Iterator[RepairDocument]:
        """What was put right, newest first; pages are fetched as you go."""
        for page in self._items(self.repairs_flow(limit)):
            yield from page.repairs

    def health(self) -> Health:
        return self._call(calls.health())

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _call(self, call: Call[T]) -> T:
        return self._run(self.flow(call))

    def _run(self, flow: Flow[T]) -> T:
        answer: Answer = None
        while True:
            try:
                step = flow.send(answer)
            except StopIteration as done:
                return done.value
            answer = self._do(step)

    def _items(self, flow: Flow[None]) -> Iterator[Any]:
        step, reading = next(flow, None), None
        try:
            while step is not None:
                if isinstance(step, Item):
                    yield step.value
                    step = next(flow, None)
                else:
                    reading = step if isinstance(step, Reading) else reading
                    step = _next(flow, self._do(step))
        finally:
            if reading:
                reading.response.close()

    def _do(self, step: Step) -> Answer:
        if isinstance(step, Pause):
            return time.sleep(step.seconds)
        assert isinstance(step, Call | Reading), step
        try:
            return self._send(step) if isinstance(step, Call) else self._read(step)
        except httpx.TransportError as error:
            return error

    def _send(self, call: Call[Any]) -> httpx.Response:
        request = self._http.build_request(**self.request(call))
        answer = self._http.send(request, stream=call.is_stream)
        self.has_met = True
        if not is_event_stream(answer):
            answer.read()
        return answer

    def _read(self, reading: Reading) -> bytes | None:
        reading.pieces = reading.pieces or reading.response.iter_bytes()
        return next(reading.pieces, None)


class AsyncClient(Connection):
    """As `Client`, to be awaited; what iterates there (`list_jobs`, `logs`, `repairs`, ...) does so here, async."""

    transport = httpx.AsyncClient

    async def submit(
        self, spec: Spec | None = None, *, idempotency_key: str | None = None, **fields: Any
    ) -> AsyncJobHandle:
        job = await self._run(self.submit_flow(spec, idempotency_key, fields))
        return AsyncJobHandle(self, job.job_id, job)

    async def submit_batch(self, specs: Iterable[Spec]) -> list[AsyncJobHandle]:
        return [AsyncJobHandle(self, job.job_id) for job in await self._run(self.batch_flow(specs))]

    async def get(self, job_id: str) -> AsyncJobHandle:
        return AsyncJobHandle(self, job_id, await self.status(job_id))

    async def status(self, job_id: str) -> JobDocument:
        return await self._call(calls.status(job_id))

    async def wait(self, job_id: str, timeout_s: float | None = None, **watch: Unpack[Watch]) -> JobDocument:
        return await self._run(self.wait_flow(job_id, timeout_s, watch))

    async def list_jobs(self, **filters: Unpack[Filters]) -> AsyncIterator[JobDocument]:
        async for page in self.job_pages(**filters):
            for job in page.jobs:
                yield job

    def job_pages(self, **filters: Unpack[Filters]) -> AsyncIterator[JobPage]:
        return self._items(self.pages_flow(filters))

    async def cancel(self, job_id: str) -> JobDocument:
        return await self._call(calls.cancel(job_id))

    async def pause(self, job_id: str) -> JobDocument:
        return await self._call(calls.pause(job_id))

    async def resume(self, job_id: str, checkpoint: str | None = None) -> JobDocument:
        """Put a paused, failed or cancelled job in the line, to go on from its last checkpoint or the one given."""
        return await self._call(calls.resume(job_id, checkpoint))

    async def restart(self, job_id: str) -> JobDocument:
        """Put a paused, failed, cancelled or queued job in the line, to begin again from the beginning."""
        return await self._call(calls.restart(job_id))

    async def preempt(self, job_id: str) -> JobDocument:
        """The job as it is now; it saves, gives its nodes back, and is queued again."""
        return await self._call(calls.preempt(job_id))

    async def attempts(self, job_id: str) -> AttemptPage:
        """The runs of the job: when, where, why each ended, and what was lost."""
        return await self._call(calls.attempts(job_id))

    async def checkpoints(self, job_id: str) -> CheckpointPage:
        """The complete checkpoints of the job, newest first."""
        return await self._call(calls.checkpoints(job_id))

    async def force_start(self, job_id: str) -> ForceStartAnswer:
        return await self._call(calls.force_start(job_id))

    async def mark_failed(self, job_id: str) -> JobDocument:
        return await self._call(calls.mark_failed(job_id))

    async def events(self, job_id: str) -> EventPage:
        return await self._call(calls.events(job_id))

    async def logs(self, job_id: str, follow: bool = False, **where: Unpack[Where]) -> AsyncIterator[str]:
        async with aclosing(self.log_chunks(job_id, follow, **where)) as chunks:
            async for chunk in chunks:
                if chunk.text:
                    yield chunk.text

    async def log_chunks(
        self, job_id: str, follow: bool = False, **where: Unpack[Where]
    ) -> AsyncGenerator[LogLines]:
        async with aclosing(self._items(self.log_flow(job_id, follow, where))) as events:
            async for event in events:
                if isinstance(event, LogLines):
                    yield event

    def log_events(self, job_id: str, **where: Unpack[Where]) -> AsyncIterator[LogEvent]:
        return self._items(self.log_flow(job_id, True, where))

    async def loops(self) -> LoopList:
        return await self._call(calls.loops())

    async def reconcile(self, dry_run: bool = False) -> ReconcileAnswer:
        return await self._call(calls.reconcile(dry_run=dry_run))

    async def repairs(self, limit: int | None = None) -> AsyncIterator[RepairDocument]:
        async for page in self._items(self.repairs_flow(limit)):
            for repair in page.repairs:
                yield repair

    async def health(self) -> Health:
        return await self._call(calls.health())

    async def close(self) -> None:
        await self._http.aclose()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _call(self, call: Call[T]) -> T:
        return await self._run(self.flow(call))

    async def _run(self, flow: Flow[T]) -> T:
        answer: Answer = None
        while True:
            try:
                step = flow.send(answer)
            except StopIteration as done:
                return done.value
            answer = await self._do(step)

    async def _items(self, flow: Flow[None]) -> AsyncGenerator[Any]:
        step, reading = next(flow, None), None
        try:
            while step is not None:
                if isinstance(step, Item):
                    yield step.value
                    step = next(flow, None)
                else:
                    reading = step if isinstance(step, Reading) else reading
                    step = _next(flow, await self._do(step))
        finally:
            if reading:
                await reading.response.aclose()

    async def _do(self, step: Step) -> Answer:
        if isinstance(step, Pause):
            return await asyncio.sleep(step.seconds)
        assert isinstance(step, Call | Reading), step
        try:
            return await (self._send(step) if isinstance(step, Call) else self._read(step))
        except httpx.TransportError as error:
            return error

    async def _send(self, call: Call[Any]) -> httpx.Response:
        request = self._http.build_request(**self.request(call))
        answer = await self._http.send(request, stream=call.is_stream)
        self.has_met = True
        if not is_event_stream(answer):
            await answer.aread()
        return answer

    async def _read(self, reading: Reading) -> bytes | None:
        reading.pieces = reading.pieces or reading.response.aiter_bytes()
        return await anext(reading.pieces, None)


# `scheduler.submit(...)` and friends: the same through one client for each address.


def submit(spec: Spec | None = None, *, idempotency_key: str | None = None, **fields: Any) -> JobHandle:
    """`Client.submit` on the scheduler at `SCHEDULER_URL`."""
    return _client().submit(spec, idempotency_key=idempotency_key, **fields)


def get(job_id: str) -> JobHandle:
    return _client().get(job_id)


def list_jobs(**filters: Unpack[Filters]) -> Iterator[JobDocument]:
    """`Client.list_jobs` on the scheduler at `SCHEDULER_URL`."""
    return _client().list_jobs(**filters)


def wait(job_id: str, timeout_s: float | None = None, **watch: Unpack[Watch]) -> JobDocument:
    """`Client.wait` on the scheduler at `SCHEDULER_URL`."""
    return _client().wait(job_id, timeout_s, **watch)


def cancel(job_id: str) -> JobDocument:
    return _client().cancel(job_id)


def force_start(job_id: str) -> ForceStartAnswer:
    return _client().force_start(job_id)


def _client() -> Client:
    settings = ClientSettings()
    return _client_at(settings.url, settings.token.get_secret_value() if settings.token else None)


@lru_cache(maxsize=8)
def _client_at(url: str, token: str | None) -> Client:
    return Client(url, token)


def _next(flow: Flow[None], answer: Answer) -> Step | None:
    try:
        return flow.send(answer)
    except StopIteration:
        return None
