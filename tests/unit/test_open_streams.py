"""Streams that stay open and bodies that do not come: they are bounded, refused in words, and end."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from scheduler.errors import RegistryUnavailable
from tests.conftest import wait_until
from tests.unit.edge import SUBMIT, problem_of
from tests.unit.served import TOKEN, Served, scheduler_at

CHANGES = f"{SUBMIT}/changes"


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with scheduler_at(tmp_path, max_streams=5, max_streams_each=3, body_timeout_s=0.5) as served:
        yield served


def open_streams(
    stack: ExitStack, served: Served, count: int, path: str = CHANGES, user: str = "ada"
) -> None:
    for _ in range(count):
        client = stack.enter_context(httpx.Client(base_url=served.url, headers={"X-User": user}))
        answer = stack.enter_context(client.stream("GET", path))
        assert answer.status_code == 200, answer.read()


@pytest.mark.parametrize("path", [CHANGES, "/training/live", "/training/monitor/live?jobId={id}"])
def test_one_user_has_so_many_streams_and_others_have_theirs(served: Served, path: str) -> None:
    """B: a loop in one script that opens streams would take them from everybody."""
    path = path.format(id="0b2f1c9e-2a55-4d0c-8c4f-6a1f1a1c0001")
    with ExitStack() as stack:
        open_streams(stack, served, 3, path)
        answer = httpx.get(f"{served.url}{path}", headers={"X-User": "ada"})
        problem = problem_of(answer)
        assert (problem.status, problem.code) == (429, "too_many_open")
        assert int(answer.headers["retry-after"]) >= 1
        assert "SCHEDULER_MAX_STREAMS_EACH" in problem.detail
        open_streams(stack, served, 2, path, user="ben")
        full = problem_of(httpx.get(f"{served.url}{path}", headers={"X-User": "cleo"}))
        assert full.status == 503
        assert "5 live streams are open here" in full.detail
        assert httpx.get(f"{served.url}/health").status_code == 200
    wait_until(lambda: len(served.streams) == 0, within_s=15, what="closed streams are counted no more")


def test_a_body_that_does_not_come_is_given_up(served: Served) -> None:
    """B: half-sent bodies would hold the places of all others."""
    address = urlsplit(served.url)
    with closing(socket.create_connection((address.hostname, address.port), timeout=15)) as half:
        head = f"POST {SUBMIT} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n\r\n"
        half.sendall(head.encode() + b'{"loop"')
        said = b""
        while piece := half.recv(4096):  # to the end: the connection is closed, too
            said += piece
    assert said.startswith(b"HTTP/1.1 408 ")
    assert b"SCHEDULER_BODY_TIMEOUT_S" in said


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_probes_are_answered_without_a_token_and_say_nothing_else(tmp_path: Path, method: str) -> None:
    """B: what watches over processes has no token, and knows the machine by any name."""
    with scheduler_at(tmp_path, TOKEN) as served:
        for path, words in (("/livez", "alive\n"), ("/readyz", "ready\n")):
            answer = httpx.request(method, f"{served.url}{path}", headers={"Host": "10.1.2.3:8000"})
            assert (answer.status_code, answer.text) == (200, words if method == "GET" else "")


def test_a_replica_lives_while_the_registry_is_away_and_is_not_ready(served: Served) -> None:
    served.registry.away = RegistryUnavailable("it restarts")
    assert httpx.get(f"{served.url}/livez").status_code == 200
    problem = problem_of(httpx.get(f"{served.url}/readyz"))
    assert (problem.status, problem.code) == (503, "registry_unavailable")
