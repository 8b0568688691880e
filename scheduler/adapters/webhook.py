"""Notices over HTTP, signed as Standard Webhooks 1.0 describes it (https://www.standardwebhooks.com)."""

from __future__ import annotations

import asyncio
import base64
from contextlib import suppress
from http import HTTPStatus

import httpx
from pydantic_core import to_json
from standardwebhooks import Webhook

from scheduler.api.http_clients import by_proxy, http_client
from scheduler.core.model import Json, Status
from scheduler.core.redaction import Redactor
from scheduler.errors import InvalidRequest, NotDelivered, NoticeRefused, NotReady
from scheduler.ports import Clock, OutboxRow
from scheduler.settings import Settings

PREFIX = "whsec_"
MIN_KEY_BYTES = 24
MAX_PORT = 65_535
TRY_LATER = (408, 425, 429)
"""Said to whoever asks too much or too soon, whatever is asked."""


def webhook_of(settings: Settings, clock: Clock) -> HttpWebhook | None:
    """The one that the settings name, if any.  Raises NotReady when it could never work."""
    if settings.webhook_url is None:
        return None
    secret = settings.webhook_secret.get_secret_value() if settings.webhook_secret else ""
    return HttpWebhook(
        settings.webhook_url,
        secret,
        cluster=settings.cluster,
        timeout_s=settings.supabase_timeout_s,
        clock=clock,
    )


class HttpWebhook:
    """A `scheduler.ports.Webhook`: one POST for each notice, to one URL.

    Only an answer of 2xx within *timeout_s* seconds counts as taken; a redirect is not followed, since the
    notice was signed for the one who was named.  `webhook-id` is the same each time a notice is sent, so that
    a receiver can drop what it has.  No error tells more of the URL than the host: paths of webhooks are secrets.
    """

    def __init__(self, url: str, secret: str, *, cluster: str, timeout_s: float, clock: Clock) -> None:
        """Raises NotReady when *url* or *secret* cannot be used; *secret* is base64, `whsec_` before it or not."""
        self._url, self._host = _checked(url)
        self._signer = Webhook(_key(secret))
        self._cluster, self._timeout_s, self._clock = cluster, timeout_s, clock
        try:
            self._client = http_client(httpx.AsyncClient, url, timeout=timeout_s, follow_redirects=False)
        except InvalidRequest as error:
            raise NotReady(error.message) from None

    async def send(self, notice: OutboxRow) -> None:
        body = to_json(_payload(notice, self._cluster))
        status = await self._post(body, self._headers(notice, body))
        if (400 <= status < 500 and status not in TRY_LATER) or status == HTTPStatus.INTERNAL_SERVER_ERROR:
            words = f"the webhook at {self._host} {_in_words(status)}; it is sent again, with growing pauses"
            raise NoticeRefused(words)
        if not 200 <= status < 300:
            raise self._not_delivered(_in_words(status))

    async def close(self) -> None:
        await self._client.aclose()

    async def _post(self, body: bytes, headers: dict[str, str]) -> int:
        """Return the status of the answer; whatever it says besides is not read."""
        try:
            async with (
                asyncio.timeout(self._timeout_s),
                self._client.stream("POST", self._url, content=body, headers=headers) as answer,
            ):
                return answer.status_code
        except (TimeoutError, httpx.TimeoutException):
            raise self._not_delivered(f"did not answer within {self._timeout_s:g} s") from None
        except httpx.HTTPError as error:
            words = f"cannot be reached ({type(error).__name__}: {error}){by_proxy(str(self._url))}"
            raise self._not_delivered(words) from None

    def _not_delivered(self, words: str) -> NotDelivered:
        return NotDelivered(
            f"the webhook at {self._host} {words}; it is sent again until it takes the notice"
        )

    def _headers(self, notice: OutboxRow, body: bytes) -> dict[str, str]:
        message_id = f"msg_{notice.job.id}_{notice.job.version}"
        now = self._clock.now()
        return {
            "content-type": "application/json",
            "webhook-id": message_id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": self._signer.sign(message_id, now, body.decode()),
        }


def _payload(notice: OutboxRow, cluster: str) -> Json:
    job, event = notice.job, notice.event
    message = Redactor.of(job.spec).text(event.reason.message)
    return {
        "type": "job.failed" if event.to_status is Status.FAILED else "job.recovered",
        "timestamp": event.at,
        "data": {
            "job_id": job.id,
            "name": job.spec.name,
            "user": job.spec.user,
            "project": job.spec.project,
            "cluster": cluster,
            "status": event.to_status,
            "previous_status": event.from_status,
            "reason": {"code": event.reason.code, "message": message},
            "attempt": job.attempt,
            "version": job.version,
        },
    }


def _in_words(status: int) -> str:
    if status == HTTPStatus.GONE:
        return "is gone for good (410): put another into SCHEDULER_WEBHOOK_URL, or take it out"
    if 300 <= status < 400:
        return f"sends on to another place ({status}): put the final one into SCHEDULER_WEBHOOK_URL"
    return f"answered {status}"


def _checked(url: str) -> tuple[httpx.URL, str]:
    """The URL, and what may be shown of it."""
    with suppress(httpx.InvalidURL, ValueError):
        parsed = httpx.URL(url)
        scheme, host, port = parsed.scheme, parsed.host, parsed.port
        if scheme in ("http", "https") and host and (port or 0) <= MAX_PORT:
            return parsed, f"{scheme}://{host}" + (f":{port}" if port else "")
    raise NotReady(
        "SCHEDULER_WEBHOOK_URL must be a URL with a host, such as https://example.org/hooks/training; "
        "correct it, or take it out if nobody is to be notified"
    )


def _key(secret: str) -> bytes:
    key = b""
    with suppress(ValueError):  # of which binascii.Error is one
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    if len(key) < MIN_KEY_BYTES:
        raise NotReady(
            f"SCHEDULER_WEBHOOK_SECRET must be base64 of at least {MIN_KEY_BYTES} bytes, with or without "
            f"{PREFIX} before it; make one with `openssl rand -base64 32`"
        )
    return key
