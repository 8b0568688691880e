"""Notices to a real HTTP server, which checks the signature by itself and misbehaves when it is told to."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import pytest

from scheduler.adapters.webhook import HttpWebhook
from scheduler.core.model import Job, Reason, Status
from scheduler.errors import NotDelivered, NoticeRefused, NotReady
from scheduler.ports import OutboxRow
from scheduler.testing import ManualClock, a_change, a_job, a_spec, advanced
from scheduler.testing.clock import NOON

KEY = bytes(range(32))
SECRET = "whsec_" + base64.b64encode(KEY).decode()
PATH = "/services/T0/a-secret-path?token=a-secret-token"
HANG, HANG_UP, DRIP = 0, -1, -2


@dataclass
class Request:
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Receiver:
    """Answers with the status it was given; HANG never answers, HANG_UP ends the connection instead, and
    DRIP sends a header now and then and never comes to the end of them."""

    port: int = 0
    status: int = 204
    seen: list[Request] = field(default_factory=list)
    has_asked: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}{PATH}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            self.seen.append(await _read(reader))
            self.has_asked.set()
            if self.status == HANG:
                await reader.read()
            elif self.status == DRIP:
                await _drip(writer)
            elif self.status != HANG_UP:
                there = "location: /elsewhere\r\n" if 300 <= self.status < 400 else ""
                writer.write(f"HTTP/1.1 {self.status} X\r\n{there}content-length: 0\r\n\r\n".encode())
                await writer.drain()
        finally:
            writer.close()


async def _drip(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n")
    with suppress(ConnectionError):
        while True:
            writer.write(b"x: y\r\n")
            await writer.drain()
            await asyncio.sleep(0.02)


async def _read(reader: asyncio.StreamReader) -> Request:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = dict(_header(line) for line in head[1:] if line)
    body = await reader.readexactly(int(headers["content-length"]))
    return Request(path=head[0].split()[1], headers=headers, body=body)


def _header(line: str) -> tuple[str, str]:
    name, value = line.split(": ", 1)
    return name.lower(), value


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0)
    receiver.port = server.sockets[0].getsockname()[1]
    yield receiver
    server.close()


@asynccontextmanager
async def a_webhook(url: str, secret: str = SECRET, **changes: Any) -> AsyncIterator[HttpWebhook]:
    options = {"cluster": "lab", "timeout_s": 20.0, "clock": ManualClock()} | changes
    webhook = HttpWebhook(url, secret, **options)
    try:
        yield webhook
    finally:
        await webhook.close()


def a_notice(status: Status = Status.FAILED) -> OutboxRow:
    running = a_job("running", spec=a_spec(name="zoë's run", project="p"))
    reason = Reason(code="run_lost", message="its node is gone", detail="a traceback of the user's code")
    after: Job = advanced(running, status=status, reason=reason)
    return OutboxRow(seq=7, job=after, event=a_change(after, before=running).event)


def is_signed(request: Request, key: bytes = KEY) -> bool:
    """As a receiver checks it, from what arrived alone."""
    names = ("webhook-id", "webhook-timestamp")
    content = ".".join(request.headers[name] for name in names).encode() + b"." + request.body
    wanted = base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode()
    return request.headers["webhook-signature"].split(" ") == [f"v1,{wanted}"]


# What is sent


async def test_a_notice_says_what_happened_to_which_job(receiver: Receiver) -> None:
    """R10: enough to find the job and to decide whether to get up; never a traceback, never the spec."""
    notice = a_notice()
    async with a_webhook(receiver.url) as webhook:
        await webhook.send(notice)
    (request,) = receiver.seen
    assert (request.path, request.headers["content-type"]) == (PATH, "application/json")
    assert json.loads(request.body) == {
        "type": "job.failed",
        "timestamp": notice.event.at.isoformat().replace("+00:00", "Z"),
        "data": {
            "job_id": notice.job.id,
            "name": "zoë's run",
            "user": "ann",
            "project": "p",
            "cluster": "lab",
            "status": "failed",
            "previous_status": "running",
            "reason": {"code": "run_lost", "message": "its node is gone"},
            "attempt": 1,
            "version": 2,
        },
    }


async def test_a_job_that_goes_on_was_recovered(receiver: Receiver) -> None:
    """R10: recovered and failed are told apart without knowing our statuses."""
    async with a_webhook(receiver.url) as webhook:
        await webhook.send(a_notice(Status.QUEUED))
    assert json.loads(receiver.seen[0].body)["type"] == "job.recovered"


@pytest.mark.parametrize("secret", [SECRET, SECRET.removeprefix("whsec_")], ids=["with whsec_", "without"])
async def test_a_receiver_can_check_who_sent_it(receiver: Receiver, secret: str) -> None:
    """R10: else anybody could tell the operator that jobs failed."""
    async with a_webhook(receiver.url, secret) as webhook:
        await webhook.send(a_notice())
    (request,) = receiver.seen
    assert is_signed(request)
    assert request.headers["webhook-timestamp"] == str(int(NOON.timestamp()))
    assert not is_signed(request, key=KEY[::-1])
    assert not is_signed(replace(request, body=request.body + b" "))


def test_the_check_of_these_tests_agrees_with_the_published_example() -> None:
    """The example of the reference libraries: sender and test could otherwise share one mistake."""
    key = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    headers = {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }
    assert is_signed(Request("/", headers, b'{"test": 2432232314}'), key=key)
    assert not is_signed(Request("/", headers, b'{"test": 2432232315}'), key=key)


async def test_the_same_notice_keeps_its_id_and_another_has_another(receiver: Receiver) -> None:
    """R10: after a lost answer it is sent again; the receiver drops what it has by this id."""
    notice, clock = a_notice(), ManualClock()
    later = replace(notice, job=replace(notice.job, version=3))
    async with a_webhook(receiver.url, clock=clock) as webhook:
        await webhook.send(notice)
        clock.advance(60)
        await webhook.send(notice)
        await webhook.send(later)
    ids = [request.headers["webhook-id"] for request in receiver.seen]
    assert ids[0] == ids[1] != ids[2]
    assert "." not in ids[0], "a full stop divides what is signed"
    times = [int(request.headers["webhook-timestamp"]) for request in receiver.seen]
    assert times == [int((NOON + timedelta(seconds=seconds)).timestamp()) for seconds in (0, 60, 60)]
    assert all(map(is_signed, receiver.seen))


# Taken or not


@pytest.mark.parametrize("status", [200, 202, 204])
async def test_any_success_is_taken(receiver: Receiver, status: int) -> None:
    """Receivers differ in how they say yes."""
    receiver.status = status
    async with a_webhook(receiver.url) as webhook:
        await webhook.send(a_notice())
    assert len(receiver.seen) == 1


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (500, "answered 500"),
        (429, "answered 429"),
        (404, "answered 404"),
        (410, "gone for good .* SCHEDULER_WEBHOOK_URL"),
        (302, "sends on to another place"),
        (308, "sends on to another place"),
        (HANG_UP, "cannot be reached"),
    ],
)
async def test_anything_else_is_not_delivered(receiver: Receiver, status: int, words: str) -> None:
    """R10: what was not taken is told again; and the log and /health must not publish the secret URL."""
    receiver.status = status
    async with a_webhook(receiver.url) as webhook:
        with pytest.raises(NotDelivered, match=words) as refused:
            await webhook.send(a_notice())
    assert len(receiver.seen) == 1, "a redirect is not followed"
    assert f"http://127.0.0.1:{receiver.port} " in str(refused.value)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("status", "of_this_notice"),
    [
        (400, True),
        (404, True),
        (422, True),
        (500, True),
        (408, False),
        (429, False),
        (503, False),
        (302, False),
    ],
)
async def test_what_is_said_of_one_notice_is_told_from_what_is_said_of_all(
    receiver: Receiver, status: int, of_this_notice: bool
) -> None:
    """R10: one that is refused for ever must not hold up the others; a receiver that is busy holds up all."""
    receiver.status = status
    async with a_webhook(receiver.url) as webhook:
        with pytest.raises(NotDelivered) as refused:
            await webhook.send(a_notice())
    assert isinstance(refused.value, NoticeRefused) is of_this_notice


@pytest.mark.parametrize("status", [HANG, DRIP], ids=["silent", "dripping"])
async def test_a_receiver_that_hangs_is_given_up_in_time(receiver: Receiver, status: int) -> None:
    """R10: one server must not hold up all later notices, neither in silence nor a byte at a time."""
    receiver.status = status
    async with a_webhook(receiver.url, timeout_s=0.1) as webhook:
        with pytest.raises(NotDelivered, match=r"did not answer within 0\.1 s"):
            await webhook.send(a_notice())


async def test_a_receiver_that_is_down_is_not_delivered_and_later_is() -> None:
    """R10: a webhook that was away gets the notice when it is back, on the same adapter."""
    receiver = Receiver()
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0)
    receiver.port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    async with a_webhook(receiver.url) as webhook:
        with pytest.raises(NotDelivered, match="cannot be reached"):
            await webhook.send(a_notice())
        async with await asyncio.start_server(receiver.serve, "127.0.0.1", receiver.port):
            await webhook.send(a_notice())
    assert len(receiver.seen) == 1


async def test_a_caller_that_goes_away_is_not_held(receiver: Receiver) -> None:
    """A shutdown must not wait for a silent server."""
    receiver.status = HANG
    async with a_webhook(receiver.url) as webhook:
        sending = asyncio.create_task(webhook.send(a_notice()))
        await receiver.has_asked.wait()
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending


# Settings that cannot work


@pytest.mark.parametrize(
    "url",
    [
        "",
        "example.org/hook",
        "ftp://example.org",
        "file:///etc/passwd",
        "http://",
        "http://[::1",
        "http://127.0.0.1:99999",
        "http://xn--/",
    ],
)
def test_a_url_that_cannot_be_posted_to_is_refused_at_once(url: str) -> None:
    """R8: at start-up, not with the first job that fails."""
    with pytest.raises(NotReady, match="SCHEDULER_WEBHOOK_URL"):
        HttpWebhook(url, SECRET, cluster="lab", timeout_s=1.0, clock=ManualClock())


@pytest.mark.parametrize("secret", ["", "whsec_", "a pass phrase", "whsec_c2hvcnQ=", "é" * 40])
def test_a_secret_that_is_none_is_refused_and_not_repeated(secret: str) -> None:
    """R8: a weak or mistyped key would sign what nobody can check."""
    with pytest.raises(NotReady, match=r"SCHEDULER_WEBHOOK_SECRET .* `openssl") as refused:
        HttpWebhook("https://example.org", secret, cluster="lab", timeout_s=1.0, clock=ManualClock())
    assert len(secret) < 8 or secret not in str(refused.value)
