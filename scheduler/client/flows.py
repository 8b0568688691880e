"""What a client does over several calls: ask again, wait, turn pages, follow a log.

A flow is a generator that yields what is to be done (send a call, pause, hand an item out) and returns
its result; who drives it decides whether that happens by blocking or by awaiting.  Both clients share it all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from functools import partial
from time import monotonic
from typing import Any, TypeVar

import httpx
from httpx_sse import ServerSentEvent

from scheduler.api.jobs import JobDocument, JobPage
from scheduler.api.logs import EndNotice, LogChunk
from scheduler.api.repairs import RepairPage
from scheduler.client import calls
from scheduler.client.calls import Call
from scheduler.errors import RegistryUnavailable, WaitTimedOut

T = TypeVar("T")
Page = TypeVar("Page", JobPage, RepairPage)


@dataclass(frozen=True, slots=True)
class Pause:
    seconds: float


@dataclass(frozen=True, slots=True)
class Item:
    """Something for whoever iterates."""

    value: Any


@dataclass(slots=True)
class Reading:
    """An open stream of events: each time it is yielded, its next event; None at its end."""

    response: httpx.Response
    events: Any = None
    """Whoever reads keeps the iterator here."""


Step = Call[Any] | Pause | Item | Reading
Answer = httpx.Response | httpx.TransportError | ServerSentEvent | None
Flow = Generator[Step, Answer, T]
Send = Callable[[Call[T]], Flow[T]]
"""One call seen through to its result; the client binds `sending` to its URL and its patience."""

_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 2.0
_FIRST_LOOK_S = 0.05
_RECONNECT_S = 0.5
PAGE = 100
_UNVERIFIED_S = 120.0


def sending(call: Call[T], *, url: str, patience_s: Callable[[], float]) -> Flow[T]:
    """Send *call* until it is answered, with growing pauses, for *patience_s* seconds at most.

    Only what is safe to send twice is sent twice.
    """
    began_s, pause_s = monotonic(), _PAUSE_S
    while True:
        answer = yield call
        assert isinstance(answer, httpx.Response | httpx.TransportError), (
            "a call was sent and nothing came back"
        )
        if not calls.worth_repeating(call, answer) or monotonic() - began_s + pause_s > patience_s():
            return calls.result_of(call, answer, url)
        yield Pause(pause_s)
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)


def waiting(
    send: Send[Any],
    job_id: str,
    *,
    timeout_s: float | None = None,
    poll_s: float = 1.0,
    on_update: Callable[[JobDocument], None] | None = None,
) -> Flow[JobDocument]:
    """Look until the job has ended.  Looks often at first, then every *poll_s* seconds.

    An end that nobody has verified is none: the wait goes on until the registry is back, or raises
    RegistryUnavailable when it stays away for two minutes.
    """
    until_s = math.inf if timeout_s is None else monotonic() + timeout_s
    pause_s, seen, verified_at_s = min(_FIRST_LOOK_S, poll_s), None, monotonic()
    while True:
        job: JobDocument = yield from send(_in_time(calls.status(job_id), until_s))
        if on_update and job != seen:
            on_update(job)
        verified_at_s = _last_verified_s(job, verified_at_s)
        if job.verified and job.status.is_terminal:
            return job
        left_s = until_s - monotonic()
        if left_s <= 0:
            raise WaitTimedOut(
                f"job {job_id} is {job.status} after {timeout_s:g} s: {job.reason.message}; "
                f"it goes on; `scheduler wait {job_id}` waits again"
            )
        yield Pause(min(pause_s, left_s))
        pause_s, seen = min(1.5 * pause_s, poll_s), job


def _last_verified_s(job: JobDocument, before_s: float) -> float:
    now_s = monotonic()
    if not job.verified and now_s - before_s > _UNVERIFIED_S:
        raise RegistryUnavailable(
            f"job {job.job_id} could not be verified for {_UNVERIFIED_S:g} s: {job.evidence}"
        )
    return now_s if job.verified else before_s


def turning_pages(
    send: Send[Any], ask: Callable[[str | None, int], Call[Page]], limit: int | None = None
) -> Flow[None]:
    """Hand out pages until there are no more, or *limit* items; *ask* makes the call from cursor and size."""
    cursor, left = None, math.inf if limit is None else limit
    while left > 0:
        page: Page = yield from send(ask(cursor, int(min(PAGE, left))))
        yield Item(page)
        items = page.jobs if isinstance(page, JobPage) else page.repairs
        cursor, left = page.next_cursor, left - len(items)
        if cursor is None:
            return


def reading_logs(
    send: Send[Any],
    job_id: str,
    *,
    ranks: tuple[int, ...] | None,
    attempt: int | None = None,
    tail_bytes: int | None = None,
) -> Flow[None]:
    """Hand out the logs of *ranks*, None for all, as they are now, one after the other and piece by piece."""
    if ranks is None:
        job: JobDocument = yield from send(calls.status(job_id))
        ranks, attempt = tuple(range(job.spec.resources.most)), attempt or job.attempt or None
    for rank in ranks:
        yield from _reading_log(send, job_id, rank, attempt, -tail_bytes if tail_bytes else 0)


def _reading_log(send: Send[Any], job_id: str, rank: int, attempt: int | None, offset: int) -> Flow[None]:
    while True:
        chunk: LogChunk = yield from send(calls.logs(job_id, rank=rank, attempt=attempt, offset=offset))
        yield Item(chunk)
        # Offsets belong to one attempt's file: stay with it even when a newer one begins.
        attempt, offset = chunk.attempt, chunk.next_offset
        if chunk.ended or not chunk.text:
            return


def following_logs(
    send: Send[Any],
    job_id: str,
    *,
    ranks: tuple[int, ...] | None,
    attempt: int | None = None,
    tail_bytes: int | None = None,
) -> Flow[None]:
    """Hand out each event of the stream of logs, once, until its end; *ranks* None is for all.

    A connection that breaks is opened again where it broke.
    """
    ask = partial(calls.log_stream, job_id, ranks=ranks, attempt=attempt, tail_bytes=tail_bytes)
    return following(send, lambda last_id: ask(last_event_id=last_id), calls.log_event)


def following(
    send: Send[Any],
    ask: Callable[[str], Call[httpx.Response | None]],
    read: Callable[[ServerSentEvent], Any],
) -> Flow[None]:
    """Hand out what *read* makes of each event, once, until the server says it was the last.

    A connection that breaks is opened again: *ask* makes the call from the id of the newest event.
    """
    last_id = ""
    while True:
        response = yield from send(ask(last_id))
        if response is None:
            return
        reading = Reading(response)
        while isinstance(event := (yield reading), ServerSentEvent):
            last_id = event.id or last_id
            if document := read(event):
                yield Item(document)
            if isinstance(document, EndNotice):
                return
        yield Pause(_RECONNECT_S)


def following_step(flow: Flow[None], answer: Answer) -> Step | None:
    """What *flow* wants done after *answer*; None when it is over."""
    try:
        return flow.send(answer)
    except StopIteration:
        return None


def _in_time(call: Call[T], until_s: float) -> Call[T]:
    return call if until_s == math.inf else replace(call, timeout_s=max(0.5, until_s - monotonic()))
