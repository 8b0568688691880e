"""HEAD and OPTIONS on whatever can be read, and bodies that come under another content type."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from starlette.types import Message

from scheduler.core.model import JobSpec
from scheduler.settings import Settings
from serve_app.app import create_app
from tests.unit.edge import SUBMIT, client_of, problem_of, spec
from tests.unit.recording_registry import JOB_ID, RecordingRegistry
from tests.unit.served import scheduler_at

OF_A_JOB = (
    "status/{id}",
    "{id}/events",
    "{id}/attempts",
    "{id}/checkpoints",
    "{id}/metrics",
    "{id}/logs",
    "{id}/explain",
)
READ = [
    "/", "/training", f"/training/monitor?jobId={JOB_ID}", "/training/health", "/training/repairs", "/training/submit",
    "/training/nowhere", "/docs", "/static/style.css", "/static/nowhere.css", "/openapi.json",
    "/health", "/livez", "/readyz", f"{SUBMIT}/jobs", f"{SUBMIT}/loops", f"{SUBMIT}/repairs", f"{SUBMIT}/queue", "/nowhere",
    *(f"{SUBMIT}/{path.format(id=JOB_ID)}" for path in OF_A_JOB),
]  # fmt: skip
STREAMS = [
    f"{SUBMIT}/changes", f"{SUBMIT}/{JOB_ID}/logs/stream", "/training/live", f"/training/monitor/live?jobId={JOB_ID}",
]  # fmt: skip
APART = ("date", "content-length", "set-cookie")


@pytest.fixture
async def client() -> httpx.AsyncClient:
    registry = RecordingRegistry()
    await registry.submit(JOB_ID, JobSpec(loop="torch_ddp"), None)
    return client_of(registry)


@pytest.mark.parametrize("path", READ)
async def test_head_answers_as_get_does_without_a_body(path: str, client: httpx.AsyncClient) -> None:
    """C: monitors and `curl -I` were told that the method is not allowed."""
    client.cookies.set("scheduler_csrf", "known")
    whole, head = await client.get(path), await client.head(path)
    assert (head.status_code, head.content) == (whole.status_code, b"")
    shown = [{k: v for k, v in one.headers.items() if k not in APART} for one in (whole, head)]
    assert shown[0] == shown[1]


@pytest.mark.parametrize("path", STREAMS)
async def test_head_of_a_stream_opens_none(path: str, client: httpx.AsyncClient) -> None:
    """It would never end."""
    head = await client.head(path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-type"].startswith("text/event-stream")


def test_head_over_a_wire_leaves_the_connection_usable(tmp_path: Path) -> None:
    """A length that is not kept to would make the next answer unreadable."""
    with scheduler_at(tmp_path) as served, httpx.Client(base_url=served.url) as client:
        for path in ("/training", "/static/style.css", f"{SUBMIT}/changes", "/health"):
            assert client.head(path).status_code == 200
            assert client.get("/livez").text == "alive\n"


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        (SUBMIT, "POST, OPTIONS"),
        (f"{SUBMIT}/jobs", "GET, HEAD, OPTIONS"),
        ("/training/repairs", "GET, HEAD, POST, OPTIONS"),
    ],
)
async def test_options_tells_what_a_path_takes(path: str, allowed: str, client: httpx.AsyncClient) -> None:
    answer = await client.options(path)
    assert (answer.status_code, answer.headers["allow"], answer.content) == (204, allowed, b"")
    refused = await client.delete(path)
    assert (problem_of(refused).status, refused.headers["allow"]) == (405, allowed)


async def test_options_of_a_path_that_is_not_there_says_so(client: httpx.AsyncClient) -> None:
    assert problem_of(await client.options("/nowhere")).status == 404


@pytest.mark.parametrize(
    "content_type",
    [None, "application/x-www-form-urlencoded", "text/plain", "application/json; charset=utf-8"],
)
async def test_json_is_taken_under_any_content_type(
    content_type: str | None, client: httpx.AsyncClient
) -> None:
    """C: `curl -d '{...}'` says that it sends a form."""
    headers = {"Content-Type": content_type} if content_type else {}
    for path, body in (
        (SUBMIT, spec()),
        (f"{SUBMIT}/plan", spec()),
        (f"{SUBMIT}/batch", b'{"jobs": [{"loop": "a"}]}'),
    ):
        assert (await client.post(path, content=body, headers=headers)).is_success, path


async def test_a_form_is_refused_in_the_words_for_it(client: httpx.AsyncClient) -> None:
    problem = problem_of(await client.post(SUBMIT, data={"loop": "torch_ddp"}))
    assert problem.status == 422
    assert "application/x-www-form-urlencoded" in problem.detail
    assert "send JSON" in problem.detail


async def test_head_sends_no_body_itself() -> None:
    """A client or server that drops it by itself hides whether it was sent."""
    app, sent = create_app(RecordingRegistry(), Settings()), list[Message]()

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    headers = [(b"host", b"127.0.0.1")]
    scope = {"type": "http", "method": "HEAD", "path": "/livez", "raw_path": b"/livez", "query_string": b""}
    await app({**scope, "headers": headers, "asgi": {"version": "3.0"}, "http_version": "1.1"}, receive, send)
    assert [message["status"] for message in sent if "status" in message] == [200]
    assert b"".join(message.get("body", b"") for message in sent) == b""
