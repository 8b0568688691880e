"""What both clients share: everything but sending and sleeping."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any, Literal, TypedDict, TypeVar, Unpack
from urllib.parse import quote
from uuid import uuid4

import httpx

from scheduler.api.arrays import ArrayDocument
from scheduler.api.forecasts import PlanAnswer
from scheduler.api.http_clients import http_client
from scheduler.api.jobs import JobDocument, SubmittedJob
from scheduler.api.problems import not_valid
from scheduler.api.recurring import RecurringJobDocument
from scheduler.client import array_calls, calls, flows, recurring_calls
from scheduler.client.calls import Call, shown
from scheduler.client.flows import Flow
from scheduler.client.shipping import fields_of
from scheduler.client.specs import is_sendable_text, login_name, signed, to_spec
from scheduler.core.model import After, CheckpointPolicy, Gang, JobSpec, Status
from scheduler.errors import InvalidRequest, InvalidSpec, Problem, ServerUnreachable
from scheduler.settings import NOT_SENDABLE, ClientSettings, is_sendable

T = TypeVar("T")
Spec = JobSpec | Mapping[str, Any]
TrainFunction = Callable[[Any], Any]
"""Called on every rank with the job's `config`."""

USER_HEADER = "X-User"
_FIRST_CONTACT_S = 3.0
_STEADY_S = 120.0
_GLANCE_S = 3.0
_MAX_PORT = 65_535
_MAX_PARAM_CHARS = 2_000
"""Of one parameter in a URL; what is longer no server takes."""


class SpecFields(TypedDict, total=False):
    """The fields of a `JobSpec`, as keyword arguments."""

    loop: str
    name: str
    config: Mapping[str, Any]
    resources: Gang | Mapping[str, Any]
    priority: int
    user: str
    project: str
    max_failures: int
    max_runtime_s: float | None
    hang_after_s: float | None
    after: Sequence[str | After | Mapping[str, Any]]
    start_after: datetime | str | None
    deadline: datetime | str | None
    preemptible: bool
    checkpoints: CheckpointPolicy | Mapping[str, Any]
    labels: Mapping[str, str]


class Filters(TypedDict, total=False):
    status: Status | str | Iterable[Status | str]
    user: str
    project: str
    search: str
    """Part of the name, the beginning of the id, or a whole label: `value` or `key=value`."""
    sort: str
    """`submitted`, `name`, `user`, `status` or `updated`; with `-` before it the last or newest first."""
    limit: int | None
    """At most so many jobs in all."""


class Moments(TypedDict, total=False):
    cron: str
    """As `0 3 * * *`; six fields begin with seconds."""
    timezone: str
    """As `Europe/Berlin`; UTC for a new one."""
    paused: bool


class Whose(TypedDict, total=False):
    status: Status | str | Iterable[Status | str]
    """Jobs in these; and those that leave them, once they were sent."""
    user: str
    project: str
    job_id: str


class Watch(TypedDict, total=False):
    poll_s: float
    """The longest time between two looks; the first ones are closer together.  Default 1."""
    on_update: Callable[[JobDocument], None] | None
    """Gets each document that differs from the one before."""


class Where(TypedDict, total=False):
    rank: int | Literal["all"]
    """Default 0."""
    attempt: int | None
    """Default: the newest, and with `follow` those after it."""
    tail_bytes: int | None
    """Begin so many bytes before the end; with `follow` at the first line after that."""


class Connection:
    """To one scheduler: where it is, who asks, how patiently; and each question as a flow."""

    http_client: Callable[..., Any]
    """httpx's: the blocking one or the one to be awaited."""

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
        settings = ClientSettings.read()
        secret = token or (settings.token.get_secret_value() if settings.token else "")
        self.url = _base(url or settings.url)
        if secret and httpx.URL(self.url).userinfo:
            words = "holds a user name, and SCHEDULER_TOKEN is set; one header cannot carry both: leave out one of them"
            raise InvalidRequest(f"SCHEDULER_URL {words}", (Problem("SCHEDULER_URL", words),))
        self.user = "".join(filter(str.isprintable, user or login_name()))[:200]
        self._retry_s, self.has_met = retry_s, False
        self._http = http_client(
            self.http_client,
            self.url,
            base_url=self.url,
            timeout=timeout_s,
            headers={USER_HEADER: self.user.encode(), **_bearer(secret.strip())},
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({shown(self.url)!r})"

    def page_of(self, job_id: str) -> str:
        """The page of a job in the web monitor."""
        return f"{self.url}/training/monitor?jobId={quote(job_id)}"

    def flow(self, call: Call[T]) -> Flow[T]:
        return flows.sending(call, url=self.url, patience_s=self._patience_s)

    def glance_flow(self, job_id: str) -> Flow[JobDocument]:
        """For a display: an answer at once, or none."""
        return flows.sending(
            replace(calls.status(job_id), timeout_s=_GLANCE_S), url=self.url, patience_s=lambda: 0.0
        )

    def _steady_flow(self, call: Call[T]) -> Flow[T]:
        """For whoever watches a job: a restart of the server is no reason to give up."""
        return flows.sending(call, url=self.url, patience_s=lambda: self._patience_s(_STEADY_S))

    def _patience_s(self, at_least_s: float = 0.0) -> float:
        return max(self._retry_s, at_least_s) if self.has_met else min(self._retry_s, _FIRST_CONTACT_S)

    def submit_flow(
        self, spec: Spec | TrainFunction | None, key: str | None, fields: Mapping[str, Any]
    ) -> Flow[JobDocument]:
        return self.flow(calls.submit(self._ready(spec, fields), key or uuid4().hex))

    def batch_flow(self, specs: Iterable[Spec | TrainFunction]) -> Flow[list[SubmittedJob]]:
        answer = yield from self.flow(calls.submit_batch([self._ready(spec, {}) for spec in specs]))
        return answer.jobs

    def array_flow(
        self,
        spec: Spec | TrainFunction | None,
        parameters: Mapping[str, Sequence[Any]],
        fields: Mapping[str, Any],
        **wanted: Any,
    ) -> Flow[ArrayDocument]:
        """*wanted*: as `array_calls.submit_array` takes it."""
        key = wanted.pop("idempotency_key") or uuid4().hex
        call = array_calls.submit_array(self._ready(spec, fields), parameters, idempotency_key=key, **wanted)
        return self.flow(call)

    def plan_flow(self, spec: Spec | TrainFunction | None, fields: Mapping[str, Any]) -> Flow[PlanAnswer]:
        """What is refused before it is sent is an answer, too."""
        try:
            call = calls.plan(self._ready(spec, fields))
        except InvalidSpec as error:
            return not_valid(error)
        return (yield from self.flow(call))

    def recurring_flow(
        self, name: str, spec: Spec | TrainFunction | None, **changes: Unpack[Moments]
    ) -> Flow[RecurringJobDocument]:
        ready = None if spec is None else self._ready(spec, {})
        return self.flow(recurring_calls.set_recurring_job(name, ready, changes))

    def _ready(self, spec: Spec | TrainFunction | None, fields: Mapping[str, Any]) -> JobSpec:
        if callable(spec):
            return signed(to_spec(fields_of(spec), fields), self.user)
        return signed(to_spec(spec, fields), self.user)

    def wait_flow(self, job_id: str, timeout_s: float | None, watch: Watch) -> Flow[JobDocument]:
        return flows.waiting(self._steady_flow, job_id, timeout_s=timeout_s, **watch)

    def pages_flow(self, filters: Filters) -> Flow[None]:
        wanted: Any = {**filters, "statuses": _statuses(filters.get("status"))}
        wanted.pop("status", None)
        limit = wanted.pop("limit", None)
        return flows.turning_pages(
            self.flow, lambda cursor, size: calls.jobs(**wanted, cursor=cursor, limit=size), limit
        )

    def changes_flow(self, whose: Whose) -> Flow[None]:
        wanted: Any = {**whose, "statuses": _statuses(whose.get("status"))}
        wanted.pop("status", None)
        ask = partial(calls.change_stream, **wanted)
        return flows.following(
            self._steady_flow, lambda last_id: ask(last_event_id=last_id), calls.change_event
        )

    def repairs_flow(self, limit: int | None) -> Flow[None]:
        return flows.turning_pages(
            self.flow, lambda cursor, size: calls.repairs(cursor=cursor, limit=size), limit
        )

    def log_flow(self, job_id: str, follow: bool, where: Where) -> Flow[None]:
        wanted: Any = {**where, "ranks": _ranks(where.get("rank", 0))}
        wanted.pop("rank", None)
        if follow:
            return flows.following_logs(self._steady_flow, job_id, **wanted)
        return flows.reading_logs(self.flow, job_id, **wanted)

    def request(self, call: Call[Any]) -> dict[str, Any]:
        for name, value in call.params.items():
            if isinstance(value, str) and not (is_sendable_text(value) and len(value) <= _MAX_PARAM_CHARS):
                raise InvalidRequest(
                    f"{name} holds bytes that are no text, or more than {_MAX_PARAM_CHARS:,} characters; give less"
                )
        parts = {name: getattr(call, name) for name in ("method", "params", "json", "headers")}
        timeout = {} if call.timeout_s is None else {"timeout": call.timeout_s}
        return {"url": call.path, **parts, **timeout}


def _bearer(token: str) -> dict[str, bytes]:
    if token and not is_sendable(token):
        words = f"SCHEDULER_TOKEN cannot be sent: {NOT_SENDABLE}"
        raise InvalidRequest(words, (Problem("SCHEDULER_TOKEN", NOT_SENDABLE),))
    return {"Authorization": f"Bearer {token}".encode()} if token else {}


def _base(url: str) -> str:
    base = url.strip().rstrip("/").removesuffix(calls.API)
    if not _is_address(base):
        brackets = (
            "; an IPv6 address stands in brackets, as http://[::1]:8000"
            if "::" in base or base.count(":") > 3
            else ""
        )
        raise ServerUnreachable(
            f"{shown(url)!r} is not the address of a scheduler; "
            f"set SCHEDULER_URL to something like http://127.0.0.1:8000{brackets}"
        )
    return base


def _ranks(rank: int | Literal["all"]) -> tuple[int, ...] | None:
    return None if rank == "all" else (rank,)


def _is_address(url: str) -> bool:
    try:
        parts = httpx.URL(url)
    except (
        httpx.InvalidURL,
        ValueError,
    ):  # a control character, a bracket that does not close, a host of no country
        return False
    fits = (parts.port is None or 0 < parts.port <= _MAX_PORT) and not (parts.query or parts.fragment)
    return parts.scheme in ("http", "https") and bool(parts.host) and not set(parts.host) & set(" %") and fits


def _statuses(given: Status | str | Iterable[Status | str] | None) -> frozenset[Status]:
    names = given.split(",") if isinstance(given, str) else (given or ())
    try:
        return frozenset(Status(name.strip()) for name in names if name.strip())
    except ValueError as error:
        raise InvalidRequest(f"{error}; the statuses are {', '.join(Status)}") from None
