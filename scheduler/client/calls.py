"""Every call of the API as a value: what to send, and how to read the answer.  Neither sync nor async."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar, cast

import httpx
from httpx_sse import ServerSentEvent
from pydantic import ValidationError

from scheduler import errors
from scheduler.api.base import Document, DoubtNotice, ProblemDocument
from scheduler.api.forecasts import EffectDocument, Explanation, PlanAnswer, WhatIfDocument
from scheduler.api.health import Health, LoopList
from scheduler.api.http_clients import by_proxy
from scheduler.api.jobs import (
    CHANGE_EVENTS,
    AttemptPage,
    BatchAnswer,
    Changes,
    CheckpointPage,
    EventPage,
    ForceStartAnswer,
    JobDocument,
    JobPage,
)
from scheduler.api.logs import LOG_EVENTS, LogChunk, LogEvent
from scheduler.api.metrics import MetricsDocument
from scheduler.api.repairs import ReconcileAnswer, RepairPage
from scheduler.client.specs import to_wire
from scheduler.core.model import JobSpec, Status
from scheduler.errors import InvalidRequest, Problem, SchedulerError, ServerUnreachable, Unauthorized

T = TypeVar("T")
D = TypeVar("D", bound=Document)

API = "/api/training"
_KEY = re.compile(r"[!-~]{1,200}")
_ID = re.compile(r"[0-9A-Za-z-]{1,100}")  # nothing that would make another path
_LOST_ON_THE_WAY = frozenset({502, 503, 504})
_RECONCILE_S = 130.0
_STREAM_SILENCE_S = 40.0
"""A stream of events that says nothing for so long is cut: the server says something every 15 s."""
_NOT_DELIVERED = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError)
_PASSWORD = re.compile(r"//[^/@]*@")


@dataclass(frozen=True, slots=True, kw_only=True)
class Call(Generic[T]):
    """One request and the reading of its answer."""

    method: str
    path: str
    read: Callable[[bytes], T]
    params: Mapping[str, str | int] = field(default_factory=dict[str, "str | int"])
    json: Any = None
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    is_repeatable: bool = True
    """Sending it twice does what sending it once does, so a lost answer may be asked for again."""
    timeout_s: float | None = None
    """Where it must be another than the client's own."""
    answers: frozenset[int] = frozenset()
    """Statuses beside 2xx that carry an answer, not a problem."""
    is_stream: bool = False
    """The result is the response itself, not yet read: its body comes as it is made."""


def keyed(idempotency_key: str) -> dict[str, str]:
    """The header of a submit that may be sent again."""
    if not _KEY.fullmatch(idempotency_key):
        raise InvalidRequest("idempotency_key must be 1 to 200 visible ASCII characters; a UUID will do")
    return {"Idempotency-Key": idempotency_key}


def submit(spec: JobSpec, idempotency_key: str) -> Call[JobDocument]:
    return Call(
        method="POST",
        path=API,
        json=to_wire(spec),
        headers=keyed(idempotency_key),
        read=JobDocument.model_validate_json,
    )


def submit_batch(specs: Iterable[JobSpec]) -> Call[BatchAnswer]:
    body = {"jobs": [to_wire(spec, f"jobs.{index}.") for index, spec in enumerate(specs)]}
    return Call(
        method="POST",
        path=f"{API}/batch",
        json=body,
        read=BatchAnswer.model_validate_json,
        is_repeatable=False,  # a batch has no idempotency key: sent twice it would be there twice
    )


def status(job_id: str) -> Call[JobDocument]:
    return _get(f"{API}/status/{_segment(job_id)}", JobDocument)


def jobs(
    *,
    statuses: frozenset[Status],
    cursor: str | None,
    limit: int,
    user: str | None = None,
    project: str | None = None,
    search: str | None = None,
    sort: str | None = None,
) -> Call[JobPage]:
    joined = ",".join(sorted(statuses)) or None
    chosen = {"status": joined, "user": user, "project": project, "search": search, "sort": sort}
    return _get(f"{API}/jobs", JobPage, **chosen, cursor=cursor, limit=limit)


def plan(spec: JobSpec) -> Call[PlanAnswer]:
    return Call(method="POST", path=f"{API}/plan", json=to_wire(spec), read=PlanAnswer.model_validate_json)


def explain(job_id: str) -> Call[Explanation]:
    return _get(f"{API}/{_segment(job_id)}/explain", Explanation)


def effect(
    job_id: str, action: str, checkpoint: str | None = None, preempt: bool = False
) -> Call[EffectDocument]:
    wish = {"checkpoint": checkpoint, "preempt": "true" if preempt else None}
    return _get(f"{API}/{_segment(job_id)}/effect", EffectDocument, action=action, **wish)


def what_if(job_id: str, *, priority: int | None, front: bool, preempt: bool) -> Call[WhatIfDocument]:
    given = {name: "true" for name, is_asked in (("front", front), ("preempt", preempt)) if is_asked}
    return _get(f"{API}/{_segment(job_id)}/what-if", WhatIfDocument, priority=priority, **given)


def metrics(job_id: str, points: int) -> Call[MetricsDocument]:
    return _get(f"{API}/{_segment(job_id)}/metrics", MetricsDocument, points=points)


def cancel(job_id: str) -> Call[JobDocument]:
    return _post(job_id, "cancel", JobDocument)


def pause(job_id: str) -> Call[JobDocument]:
    return _post(job_id, "pause", JobDocument)


def resume(job_id: str, checkpoint: str | None = None) -> Call[JobDocument]:
    call = _post(job_id, "resume", JobDocument)
    return replace(call, params={"checkpoint": checkpoint}) if checkpoint else call


def restart(job_id: str) -> Call[JobDocument]:
    return _post(job_id, "restart", JobDocument)


def preempt(job_id: str) -> Call[JobDocument]:
    return _post(job_id, "preempt", JobDocument)


def attempts(job_id: str) -> Call[AttemptPage]:
    return _get(f"{API}/{_segment(job_id)}/attempts", AttemptPage)


def checkpoints(job_id: str) -> Call[CheckpointPage]:
    return _get(f"{API}/{_segment(job_id)}/checkpoints", CheckpointPage)


def force_start(job_id: str, preempt: bool = False) -> Call[ForceStartAnswer]:
    call = _post(job_id, "force-start", ForceStartAnswer)
    return replace(call, params={"preempt": "true"}) if preempt else call


def mark_failed(job_id: str) -> Call[JobDocument]:
    return _post(job_id, "fail", JobDocument)


def events(job_id: str) -> Call[EventPage]:
    return _get(f"{API}/{_segment(job_id)}/events", EventPage)


def logs(job_id: str, *, rank: int, attempt: int | None, offset: int, limit: int = 65536) -> Call[LogChunk]:
    path = f"{API}/{_segment(job_id)}/logs"
    return _get(path, LogChunk, rank=rank, attempt=attempt, offset=offset, limit=limit)


def log_stream(
    job_id: str,
    *,
    ranks: tuple[int, ...] | None,
    attempt: int | None,
    tail_bytes: int | None,
    last_event_id: str = "",
) -> Call[httpx.Response | None]:
    """Follow the logs of *ranks*, None for all; after the event *last_event_id*, if any.

    The result is the response, still open; None when all of it was sent before.
    """
    chosen = None if ranks is None else ",".join(map(str, ranks))
    given = {"rank": chosen, "attempt": attempt, "tail_bytes": tail_bytes}
    path = f"{API}/{_segment(job_id)}/logs/stream"
    return _stream(path, {name: value for name, value in given.items() if value is not None}, last_event_id)


def change_stream(
    *,
    statuses: frozenset[Status] = frozenset(),
    user: str | None = None,
    project: str | None = None,
    job_id: str | None = None,
    last_event_id: str = "",
) -> Call[httpx.Response | None]:
    """As `log_stream`, of what changes in the registry."""
    joined = ",".join(sorted(statuses)) or None
    given = {"status": joined, "user": user, "project": project, "job_id": job_id}
    params = {name: value for name, value in given.items() if value is not None}
    return _stream(f"{API}/changes", params, last_event_id)


def log_event(event: ServerSentEvent) -> LogEvent | None:
    """None for a kind that this release does not know.  Raises ServerUnreachable when its data is not of its kind."""
    return _event(event, LOG_EVENTS, "logs")


def change_event(event: ServerSentEvent) -> Changes | DoubtNotice | None:
    """As `log_event`, for the stream of changes."""
    return _event(event, CHANGE_EVENTS, "changes")


def loops() -> Call[LoopList]:
    return _get(f"{API}/loops", LoopList)


def reconcile(*, dry_run: bool) -> Call[ReconcileAnswer]:
    """The pass may take long: the answer is waited for a little longer than the server waits for it."""
    return Call(
        method="POST",
        path=f"{API}/reconcile",
        params={"dry_run": str(dry_run).lower()},
        read=ReconcileAnswer.model_validate_json,
        timeout_s=_RECONCILE_S,
    )


def repairs(*, cursor: str | None, limit: int) -> Call[RepairPage]:
    return _get(f"{API}/repairs", RepairPage, cursor=cursor, limit=limit)


def health() -> Call[Health]:
    """Of a server whose registry does not answer, too: that comes with 503."""
    return Call(method="GET", path="/health", read=Health.model_validate_json, answers=frozenset({503}))


def worth_repeating(call: Call[Any], answer: httpx.Response | httpx.TransportError) -> bool:
    """Whether the same call may be sent again, and may fare better."""
    if isinstance(answer, Exception):
        is_ours = isinstance(answer, httpx.LocalProtocolError | httpx.UnsupportedProtocol)
        return isinstance(answer, _NOT_DELIVERED) or (call.is_repeatable and not is_ours)
    if answer.status_code == 502 and _is_problem(answer):
        return False  # the database refuses, and will again
    return call.is_repeatable and answer.status_code in _LOST_ON_THE_WAY - call.answers


def result_of(call: Call[T], answer: httpx.Response | httpx.TransportError, url: str) -> T:
    """Raises the `SchedulerError` that the server named, or ServerUnreachable when no scheduler answered."""
    if isinstance(answer, Exception):
        raise _unreachable(call, answer, url)
    if not answer.is_success and answer.status_code not in call.answers:
        raise _refusal(answer, url)
    if call.is_stream and is_event_stream(answer):
        return cast("T", answer)
    try:
        return call.read(answer.content)
    except ValidationError as error:
        what = error.errors(include_url=False)[0]
        where = ".".join(map(str, what["loc"])) or "the whole answer"
        raise ServerUnreachable(
            f"{call.method} {shown(url)}{call.path} was answered, but not as a training scheduler answers "
            f"({where}: {what['msg']}); check SCHEDULER_URL, and that client and server are of one release"
        ) from None


def is_event_stream(answer: httpx.Response) -> bool:
    return answer.is_success and answer.headers.get("content-type", "").startswith("text/event-stream")


def _nothing(content: bytes) -> None:
    if content:
        raise ServerUnreachable(
            "a stream of events was asked for, and something else came; check SCHEDULER_URL, and that client and "
            "server are of one release"
        )


def _stream(path: str, params: Mapping[str, str | int], last_event_id: str) -> Call[httpx.Response | None]:
    after = {"Last-Event-ID": last_event_id} if last_event_id else {}
    return Call(
        method="GET",
        path=path,
        params=params,
        headers={"Accept": "text/event-stream", **after},
        read=_nothing,
        timeout_s=_STREAM_SILENCE_S,
        is_stream=True,
    )


def _event(event: ServerSentEvent, known: Mapping[str, type[Any]], stream: str) -> Any:
    document = known.get(event.event)
    try:
        return document.model_validate_json(event.data) if document else None
    except ValidationError as error:
        what = error.errors(include_url=False)[0]["msg"]
        raise ServerUnreachable(
            f"the stream of {stream} sent the event {event.event!r} in a form that is not known: {what}"
        ) from None


def _get(path: str, document: type[D], **params: str | int | None) -> Call[D]:
    given = {name: value for name, value in params.items() if value is not None}
    return Call(method="GET", path=path, params=given, read=document.model_validate_json)


def _post(job_id: str, action: str, document: type[D]) -> Call[D]:
    return Call(method="POST", path=f"{API}/{_segment(job_id)}/{action}", read=document.model_validate_json)


def _segment(job_id: str) -> str:
    if not _ID.fullmatch(job_id):
        raise InvalidRequest(
            f"{job_id!r} is not a job id; a job id is a UUID, as `scheduler list` shows them"
        )
    return job_id


def _unreachable(call: Call[Any], error: httpx.TransportError, url: str) -> ServerUnreachable:
    if isinstance(error, _NOT_DELIVERED):
        remedy = by_proxy(url) or "; start one with `scheduler up`, or set SCHEDULER_URL to where it runs"
        return ServerUnreachable(f"no scheduler answers at {shown(url)} ({_in_words(error)}){remedy}")
    doubt = (
        ""
        if call.is_repeatable
        else "; it may have been accepted all the same: look at `scheduler list` before you send it again"
    )
    return ServerUnreachable(
        f"the scheduler at {shown(url)} gave no answer to {call.method} {call.path} "
        f"({_in_words(error)}){by_proxy(url)}{doubt}; `scheduler health` says how it is"
    )


def _in_words(error: httpx.TransportError) -> str:
    return str(error) or type(error).__name__


def _is_problem(answer: httpx.Response) -> bool:
    return answer.headers.get("content-type", "").startswith("application/problem+json")


def _refusal(answer: httpx.Response, url: str) -> SchedulerError:
    try:
        document = ProblemDocument.model_validate_json(answer.content)
    except ValidationError:
        return _stranger(answer, url)
    problems = tuple(Problem(one.field, one.message) for one in document.errors)
    known = _ERROR_OF.get(document.code, SchedulerError)
    error = known(document.detail or document.title, problems)
    if known is SchedulerError:
        error.code, error.http_status = document.code, document.status
    return error


def _stranger(answer: httpx.Response, url: str) -> SchedulerError:
    """It does not speak as a scheduler does: a proxy, or another program on that port."""
    asked = f"{answer.request.method} {shown(str(answer.request.url))}"
    words = f"{asked} was answered {answer.status_code} {answer.reason_phrase}{by_proxy(url)}"
    if answer.status_code == 401:
        return Unauthorized(f"{words}; set SCHEDULER_TOKEN to the token of this scheduler")
    return ServerUnreachable(
        f"{words}, which is no answer of a training scheduler; check that one runs at {shown(url)}, "
        "or set SCHEDULER_URL to where it does"
    )


def shown(url: str) -> str:
    """*url* as it may be printed: without a password."""
    return _PASSWORD.sub("//...@", url)


def _tree(root: type[SchedulerError]) -> Iterator[type[SchedulerError]]:
    yield root
    for child in root.__subclasses__():
        yield from _tree(child)


_ERROR_OF = {kind.code: kind for kind in _tree(errors.SchedulerError) if kind.__module__ == errors.__name__}
"""By code.  Only those of the tree that is promised: other modules have kinds of their own, under the codes of these."""
