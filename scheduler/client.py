"""The Python client, blocking and async, over HTTP alone.  All times are in seconds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any, TypedDict, TypeVar, Unpack
from uuid import uuid4

import httpx

from scheduler import calls, flows
from scheduler.calls import Call
from scheduler.core.model import JobSpec, Status
from scheduler.documents import (
    EventPage,
    ForceStartAnswer,
    Health,
    JobDocument,
    JobPage,
    LogChunk,
    LoopList,
    SubmittedJob,
)
from scheduler.errors import InvalidRequest, ServerUnreachable
from scheduler.flows import Answer, Flow, Item, Pause, Step
from scheduler.handles import AsyncJobHandle, JobHandle
from scheduler.settings import ClientSettings
from scheduler.specs import login_name, signed, to_spec

T = TypeVar("T")
Spec = JobSpec | Mapping[str, Any]

USER_HEADER = "X-User"
_FIRST_CONTACT_S = 3.0
_STEADY_S = 120.0
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Filters(TypedDict, total=False):
    status: Status | str | Iterable[Status | str]
    user: str
    project: str
    limit: int | None
    """At most so many jobs in all."""


class Watch(TypedDict, total=False):
    poll_s: float
    """The longest time between two looks; the first ones are closer together.  Default 1."""
    on_update: Callable[[JobDocument], None] | None
    """Gets each document that differs from the one before."""


class Where(TypedDict, total=False):
    rank: int
    attempt: int | None
    """Default: the newest, and with `follow` those after it."""
    tail_bytes: int | None
    """Begin so many bytes before the end."""
    poll_s: float


class _Shared:
    """What both clients have in common: everything but sending and sleeping."""

    _transport: Callable[..., Any]

    def __init__(
        self,
        url: str | None = None,
        token: str | None = None,
        *,
        user: str | None = None,
        timeout_s: float = 30.0,
        retry_s: float = 30.0,
    ) -> None:
        """*url* and *token* default to `SCHEDULER_URL` and `SCHEDULER_TOKEN`, *user* to the login name.

        *timeout_s* bounds one request.  *retry_s* is how long a call goes on asking while the server
        restarts; a server that never answered this client gets 3 s at most.
        """
        settings = ClientSettings()
        secret = token or (settings.token.get_secret_value() if settings.token else None)
        bearer = {"Authorization": f"Bearer {secret.strip()}".encode()} if secret else {}
        self.url = _base(url or settings.url)
        self.user = "".join(filter(str.isprintable, user or login_name()))[:200]
        self._retry_s, self._has_met = retry_s, False
        self._http = self._transport(
            base_url=self.url,
            timeout=timeout_s,
            headers={USER_HEADER: self.user.encode(), **bearer},
            # A proxy named in the environment cannot reach this machine's own loopback.
            trust_env=httpx.URL(self.url).host not in _LOOPBACK,
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"

    def _flow(self, call: Call[T]) -> Flow[T]:
        return flows.sending(call, url=self.url, patience_s=self._patience_s)

    def _steady_flow(self, call: Call[T]) -> Flow[T]:
        """For whoever watches a job: a restart of the server is no reason to give up."""
        return flows.sending(call, url=self.url, patience_s=lambda: self._patience_s(_STEADY_S))

    def _patience_s(self, at_least_s: float = 0.0) -> float:
        return max(self._retry_s, at_least_s) if self._has_met else min(self._retry_s, _FIRST_CONTACT_S)

    def _submit_flow(self, spec: Spec | None, key: str | None, fields: dict[str, Any]) -> Flow[JobDocument]:
        ready = signed(to_spec(spec, fields), self.user)
        return self._flow(calls.submit(ready, key or uuid4().hex))

    def _batch_flow(self, specs: Iterable[Spec]) -> Flow[list[SubmittedJob]]:
        ready = [signed(to_spec(spec), self.user) for spec in specs]
        answer = yield from self._flow(calls.submit_batch(ready))
        return answer.jobs

    def _wait_flow(self, job_id: str, timeout_s: float | None, watch: Watch) -> Flow[JobDocument]:
        return flows.waiting(self._steady_flow, job_id, timeout_s=timeout_s, **watch)

    def _pages_flow(self, filters: Filters) -> Flow[None]:
        wanted: Any = {**filters, "statuses": _statuses(filters.get("status"))}
        wanted.pop("status", None)
        return flows.turning_pages(self._flow, **wanted)

    def _log_flow(self, job_id: str, follow: bool, where: Where) -> Flow[None]:
        return flows.reading_log(self._steady_flow if follow else self._flow, job_id, follow=follow, **where)

    def _request(self, call: Call[Any]) -> dict[str, Any]:
        parts = {name: getattr(call, name) for name in ("method", "params", "json", "headers")}
        timeout = {} if call.timeout_s is None else {"timeout": call.timeout_s}
        return {"url": call.path, **parts, **timeout}


class Client(_Shared):
    """Talks to one scheduler, blocking.  May be used by several threads; also a context manager.

    Every method raises a `SchedulerError` in words: ServerUnreachable when no scheduler answers, JobNotFound,
    InvalidSpec, NotAllowed, ...
    """

    _transport = httpx.Client

    def submit(
        self, spec: Spec | None = None, *, idempotency_key: str | None = None, **fields: Any
    ) -> JobHandle:
        """Submit a job: a `JobSpec`, a dict, keyword arguments, or keywords over one of the former.

        When this returns, the job is on the scheduler's disk.  Sent again with the same *idempotency_key* it
        returns the first job; without one a key is made, so that asking again after a lost answer is safe.
        """
        job = self._run(self._submit_flow(spec, idempotency_key, fields))
        return JobHandle(self, job.job_id, job)

    def submit_batch(self, specs: Iterable[Spec]) -> list[JobHandle]:
        """All are accepted, or none.  Not asked again after a lost answer: look at `list_jobs` then."""
        return [JobHandle(self, job.job_id) for job in self._run(self._batch_flow(specs))]

    def get(self, job_id: str) -> JobHandle:
        return JobHandle(self, job_id, self.status(job_id))

    def status(self, job_id: str) -> JobDocument:
        return self._call(calls.status(job_id))

    def wait(self, job_id: str, timeout_s: float | None = None, **watch: Unpack[Watch]) -> JobDocument:
        """Return the job once it is completed, failed or cancelled.

        Raises WaitTimedOut after *timeout_s*; the job goes on.  A restart of the server is sat out.
        """
        return self._run(self._wait_flow(job_id, timeout_s, watch))

    def list_jobs(self, **filters: Unpack[Filters]) -> Iterator[JobDocument]:
        """Jobs, newest first; pages are fetched as you go."""
        for page in self.job_pages(**filters):
            yield from page.jobs

    def job_pages(self, **filters: Unpack[Filters]) -> Iterator[JobPage]:
        """As `list_jobs`, page by page, with whether each was verified."""
        return self._items(self._pages_flow(filters))

    def cancel(self, job_id: str) -> JobDocument:
        """The job as it is now; it becomes `cancelled` once its processes are gone."""
        return self._call(calls.cancel(job_id))

    def force_start(self, job_id: str) -> ForceStartAnswer:
        """Put a pending, queued, failed or cancelled job in the line, from the beginning."""
        return self._call(calls.force_start(job_id))

    def mark_failed(self, job_id: str) -> JobDocument:
        """Give up a job that is pending or queued."""
        return self._call(calls.mark_failed(job_id))

    def events(self, job_id: str) -> EventPage:
        return self._call(calls.events(job_id))

    def logs(self, job_id: str, follow: bool = False, **where: Unpack[Where]) -> Iterator[str]:
        """The log of one rank, piece by piece; with *follow* until it is over, retries included."""
        return (chunk.text for chunk in self.log_chunks(job_id, follow, **where) if chunk.text)

    def log_chunks(self, job_id: str, follow: bool = False, **where: Unpack[Where]) -> Iterator[LogChunk]:
        """As `logs`, with the attempt and the offset of each piece."""
        return self._items(self._log_flow(job_id, follow, where))

    def loops(self) -> LoopList:
        return self._call(calls.loops())

    def health(self) -> Health:
        return self._call(calls.health())

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _call(self, call: Call[T]) -> T:
        return self._run(self._flow(call))

    def _run(self, flow: Flow[T]) -> T:
        answer: Answer = None
        while True:
            try:
                step = flow.send(answer)
            except StopIteration as done:
                return done.value
            answer = self._do(step)

    def _items(self, flow: Flow[None]) -> Iterator[Any]:
        step = next(flow, None)
        while step is not None:
            if isinstance(step, Item):
                yield step.value
                step = next(flow, None)
            else:
                step = _next(flow, self._do(step))

    def _do(self, step: Step) -> Answer:
        if isinstance(step, Pause):
            return time.sleep(step.seconds)
        assert isinstance(step, Call), step
        try:
            answer = self._http.request(**self._request(step))
        except httpx.TransportError as error:
            return error
        self._has_met = True
        return answer


class AsyncClient(_Shared):
    """As `Client`, to be awaited; `list_jobs`, `job_pages`, `logs` and `log_chunks` are async iterators."""

    _transport = httpx.AsyncClient

    async def submit(
        self, spec: Spec | None = None, *, idempotency_key: str | None = None, **fields: Any
    ) -> AsyncJobHandle:
        job = await self._run(self._submit_flow(spec, idempotency_key, fields))
        return AsyncJobHandle(self, job.job_id, job)

    async def submit_batch(self, specs: Iterable[Spec]) -> list[AsyncJobHandle]:
        return [AsyncJobHandle(self, job.job_id) for job in await self._run(self._batch_flow(specs))]

    async def get(self, job_id: str) -> AsyncJobHandle:
        return AsyncJobHandle(self, job_id, await self.status(job_id))

    async def status(self, job_id: str) -> JobDocument:
        return await self._call(calls.status(job_id))

    async def wait(self, job_id: str, timeout_s: float | None = None, **watch: Unpack[Watch]) -> JobDocument:
        return await self._run(self._wait_flow(job_id, timeout_s, watch))

    async def list_jobs(self, **filters: Unpack[Filters]) -> AsyncIterator[JobDocument]:
        async for page in self.job_pages(**filters):
            for job in page.jobs:
                yield job

    def job_pages(self, **filters: Unpack[Filters]) -> AsyncIterator[JobPage]:
        return self._items(self._pages_flow(filters))

    async def cancel(self, job_id: str) -> JobDocument:
        return await self._call(calls.cancel(job_id))

    async def force_start(self, job_id: str) -> ForceStartAnswer:
        return await self._call(calls.force_start(job_id))

    async def mark_failed(self, job_id: str) -> JobDocument:
        return await self._call(calls.mark_failed(job_id))

    async def events(self, job_id: str) -> EventPage:
        return await self._call(calls.events(job_id))

    async def logs(self, job_id: str, follow: bool = False, **where: Unpack[Where]) -> AsyncIterator[str]:
        async for chunk in self.log_chunks(job_id, follow, **where):
            if chunk.text:
                yield chunk.text

    def log_chunks(
        self, job_id: str, follow: bool = False, **where: Unpack[Where]
    ) -> AsyncIterator[LogChunk]:
        return self._items(self._log_flow(job_id, follow, where))

    async def loops(self) -> LoopList:
        return await self._call(calls.loops())

    async def health(self) -> Health:
        return await self._call(calls.health())

    async def close(self) -> None:
        await self._http.aclose()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _call(self, call: Call[T]) -> T:
        return await self._run(self._flow(call))

    async def _run(self, flow: Flow[T]) -> T:
        answer: Answer = None
        while True:
            try:
                step = flow.send(answer)
            except StopIteration as done:
                return done.value
            answer = await self._do(step)

    async def _items(self, flow: Flow[None]) -> AsyncIterator[Any]:
        step = next(flow, None)
        while step is not None:
            if isinstance(step, Item):
                yield step.value
                step = next(flow, None)
            else:
                step = _next(flow, await self._do(step))

    async def _do(self, step: Step) -> Answer:
        if isinstance(step, Pause):
            return await asyncio.sleep(step.seconds)
        assert isinstance(step, Call), step
        try:
            answer = await self._http.request(**self._request(step))
        except httpx.TransportError as error:
            return error
        self._has_met = True
        return answer


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


def _base(url: str) -> str:
    base = url.strip().rstrip("/").removesuffix(calls.API)
    try:
        parts = httpx.URL(base)
    except httpx.InvalidURL:
        parts = httpx.URL()
    if parts.scheme not in ("http", "https") or not parts.host:
        raise ServerUnreachable(
            f"{url!r} is not the address of a scheduler; "
            "set SCHEDULER_URL to something like http://127.0.0.1:8000"
        )
    return base


def _statuses(given: Status | str | Iterable[Status | str] | None) -> frozenset[Status]:
    names = given.split(",") if isinstance(given, str) else (given or ())
    try:
        return frozenset(Status(name) for name in names)
    except ValueError as error:
        raise InvalidRequest(f"{error}; the statuses are {', '.join(Status)}") from None
