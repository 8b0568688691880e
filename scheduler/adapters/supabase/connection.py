"""Calls of database functions through the `supabase` package, and what each kind of answer means."""

from __future__ import annotations

import asyncio
import functools
import importlib
import json
import re
from typing import TYPE_CHECKING, Any, TypeVar

import httpx
from pydantic import TypeAdapter, ValidationError

from scheduler.api.http_clients import by_proxy, http_client
from scheduler.errors import (
    InvalidRequest,
    MirrorRefused,
    MirrorUnavailable,
    Problem,
    SchedulerError,
    Superseded,
)

if TYPE_CHECKING:
    from supabase import AsyncClient

T = TypeVar("T")

SUPERSEDED = "PT409"
NOT_THERE = ("PGRST202", "PGRST205", "42P01", "42883")
"""A function or a table that the database does not have."""
SQLSTATE = re.compile(r"[0-9A-Z]{5}")
PASSING = ("08", "40", "53", "55", "57", "58", "F0", "XX")
"""Classes of SQLSTATE that may be gone the next time: connections, deadlocks, resources, shutdowns, timeouts."""
READ_ONLY = "25006"
TRY_LATER = (408, 425, 429)
NO_PROJECT = (301, 302, 303, 307, 308, 404, 405)
"""Answered by whatever else lives at that address."""
INSTALL = "pip install 'training-scheduler[server]'"
MIGRATE = "run `supabase db push`"
SET_URL = "set SCHEDULER_SUPABASE_URL to the project's URL, such as https://abc.supabase.co"
SET_KEY = (
    "set SCHEDULER_SUPABASE_KEY to a secret key of the project (sb_secret_...), "
    "or to its older key of the role service_role"
)
PUBLISHABLE = "sb_publishable_"
NO_TOKEN = ("sb_secret_", PUBLISHABLE)
"""How keys begin that are no JWT."""


class SupabaseConnection:
    """One project, seen with one key.  It opens with the first call.  No message of its errors holds the key."""

    def __init__(self, url: str, key: str, timeout_s: float) -> None:
        self._url, self._key, self._timeout_s = url.strip(), key.strip(), timeout_s
        self._opening = asyncio.Lock()
        self._client: AsyncClient | None = None
        self._http: httpx.AsyncClient | None = None

    @property
    def where(self) -> str:
        """For people: the host, without what else an URL may hold."""
        return f"Supabase at {httpx.URL(self._url).netloc.decode()}"

    async def call(self, function: str, returns: type[T], **arguments: Any) -> T:
        """Return what *function* answered.

        Raises MirrorUnavailable when it is not known whether it was done, MirrorRefused or Superseded when it was
        not.
        """
        client = await self._opened()
        try:
            async with asyncio.timeout(self._timeout_s):
                answer = await client.rpc(function, arguments).execute()
            return _adapter(returns).validate_python(answer.data)
        except TimeoutError as error:
            words = f"{self.where} did not answer within {self._timeout_s:g} s"
            raise MirrorUnavailable(words) from error
        except httpx.HTTPError as error:
            words = f"{self.where} cannot be reached: {_words(error)}{by_proxy(self._url)}"
            raise MirrorUnavailable(words) from error
        except (ValidationError, UnicodeDecodeError) as error:
            raise MirrorUnavailable(
                f"{self.where} sent an answer to {function} that is cut or none"
            ) from error

    async def close(self) -> None:
        """Let the connections go.  Safe to repeat; the next call opens them again."""
        http, self._http, self._client = self._http, None, None
        if http is not None:
            await http.aclose()

    async def _opened(self) -> AsyncClient:
        async with self._opening:
            if self._client is None:
                self._check_words()
                self._client = await self._open()
            return self._client

    async def _open(self) -> AsyncClient:
        try:
            await asyncio.to_thread(importlib.import_module, "supabase")
            from supabase import AsyncClientOptions, acreate_client
        except ImportError as error:
            raise refused("the package supabase is not installed", INSTALL) from error
        hooks = {"request": [self._sign], "response": [self._look]}
        try:
            self._http = http_client(httpx.AsyncClient, self._url, timeout=self._timeout_s, event_hooks=hooks)
        except InvalidRequest as error:
            raise refused(error.message, "correct or unset the variable") from error
        # The outbox retries, and knows when: a client that does so too only hides an outage.
        options = AsyncClientOptions(
            httpx_client=self._http,
            postgrest_client_retry=False,
            auto_refresh_token=False,
            persist_session=False,
        )
        try:
            return await acreate_client(self._url, self._key, options)
        except ValueError as error:
            raise refused("SCHEDULER_SUPABASE_URL is not a URL", SET_URL) from error

    def _check_words(self) -> None:
        """Refuse here what the libraries below would refuse with the key in their message."""
        try:
            url = httpx.URL(self._url)
        except httpx.InvalidURL:
            url = httpx.URL("")
        if url.scheme not in ("http", "https") or not url.host:
            raise refused("SCHEDULER_SUPABASE_URL is not a URL", SET_URL)
        if not re.fullmatch(r"[!-~]+", self._key):
            raise refused("SCHEDULER_SUPABASE_KEY is empty, or holds characters that no key has", SET_KEY)
        if self._key.startswith(PUBLISHABLE):
            raise refused("SCHEDULER_SUPABASE_KEY is the publishable key, which may write no states", SET_KEY)

    async def _sign(self, request: httpx.Request) -> None:
        """A new key is none of the tokens that `Authorization` carries: the gateway itself exchanges it for one."""
        if self._key.startswith(NO_TOKEN):
            request.headers.pop("Authorization", None)

    async def _look(self, response: httpx.Response) -> None:
        if not response.is_success:
            await response.aread()
            code, message = _said(response)
            told = f"{self.where} answered {response.status_code}: {message}"
            raise _error(told, response.status_code, code, message)


def refused(told: str, remedy: str) -> MirrorRefused:
    """The remedy is also the message of the error's one problem."""
    return MirrorRefused(f"{told}; {remedy}", (Problem("Supabase", remedy),))


def _error(told: str, status: int, code: str, message: str) -> SchedulerError:
    if code == SUPERSEDED:
        return Superseded(
            f"{message}; stop one of the two schedulers, or give it a SCHEDULER_CLUSTER of its own"
        )
    if _is_passing(status, code):
        return MirrorUnavailable(told)
    if code in NOT_THERE:
        return refused(f"{told}; migrations are missing", MIGRATE)
    if status in (401, 403):
        return refused(told, SET_KEY)
    if not code and status in NO_PROJECT:
        return refused(told, SET_URL)
    return MirrorRefused(told)


def _is_passing(status: int, code: str) -> bool:
    if SQLSTATE.fullmatch(code):
        return code.startswith(PASSING) or code == READ_ONLY
    return status >= 500 or status in TRY_LATER


def _said(response: httpx.Response) -> tuple[str, str]:
    """Code and message of the database; no code when something else on the way answered."""
    try:
        body = json.loads(response.content)
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        return "", response.reason_phrase
    return str(body.get("code") or ""), str(body.get("message") or response.reason_phrase)[:500]


@functools.cache
def _adapter(returns: type[T]) -> TypeAdapter[T]:
    return TypeAdapter(returns)


def _words(error: httpx.HTTPError) -> str:
    return str(error) or type(error).__name__
