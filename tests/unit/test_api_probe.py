"""What answers at an address is life, whatever it is; only where nothing listens there is none."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from scheduler.server import api_probe
from scheduler.server.api_probe import Life, api_url, probe
from scheduler.settings import Settings

HERE = Settings(cluster="ours", token=SecretStr("right"))
OURS = {"status": "healthy", "version": "1", "cluster": "ours", "registry": {"pid": 1}}


@contextmanager
def answering(status: int, body: Any, host: str = "127.0.0.1") -> Iterator[tuple[str, list[Any]]]:
    """A real server that answers everything with this."""
    asked: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append((self.path, self.headers.get("Authorization")))
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            return None

    class Server(HTTPServer):
        address_family = socket.AF_INET6 if ":" in host else socket.AF_INET

    server = Server((host, 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield api_url(host, server.server_address[1]), asked
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("status", "body", "life", "words"),
    [
        (200, OURS, Life.SERVES, "answers"),
        (200, OURS | {"status": "degraded"}, Life.SERVES, "answers"),
        (401, {"detail": "this server wants its token"}, Life.REFUSES, "401: this server wants its token"),
        (403, b"<html>no", Life.REFUSES, "403: refused"),
        (
            503,
            {"status": "degraded", "version": "1", "problems": ["it restarts"]},
            Life.NOT_READY,
            "it restarts",
        ),
        (
            200,
            {"status": "degraded", "version": "1", "problems": ["superseded"]},
            Life.NOT_READY,
            "superseded",
        ),
        (200, OURS | {"cluster": "theirs"}, Life.FOREIGN, "cluster 'theirs'"),
        (200, b"<html>a proxy's page", Life.FOREIGN, "no scheduler"),
        (200, ["list"], Life.FOREIGN, "no scheduler"),
        (302, b"", Life.FOREIGN, "status 302"),
        (500, b"Internal Server Error", Life.FOREIGN, "status 500"),
    ],
)
def test_each_answer_is_told_apart(status: int, body: Any, life: Life, words: str) -> None:
    """B3: `up` took everything but a 200 for dead, and ended what lived."""
    with answering(status, body) as (url, asked):
        seen = probe(url, HERE)
    assert seen.life is life
    assert words in seen.words and url in seen.words
    assert asked == [("/health", "Bearer right")]


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "HTTPS_PROXY"])
@pytest.mark.parametrize("proxy", ["http://127.0.0.1:9", "socks5://127.0.0.1:9", "no proxy at all"])
def test_no_proxy_comes_between(monkeypatch: pytest.MonkeyPatch, name: str, proxy: str) -> None:
    """B3: neither a dead one, nor one whose package is missing, nor a word that is no address."""
    monkeypatch.setenv(name, proxy)
    with answering(200, OURS) as (url, _):
        assert probe(url, HERE).life is Life.SERVES


def test_nothing_is_silent_and_slow_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_probe, "PROBE_WITHIN_S", 0.2)
    monkeypatch.setattr(api_probe, "client", lambda settings: httpx.Client(timeout=0.2, trust_env=False))
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        url = api_url("127.0.0.1", server.getsockname()[1])
        assert probe(url, HERE).life is Life.SILENT
        server.listen()
        assert probe(url, HERE).life is Life.SLOW


def test_what_speaks_no_http_is_somebody(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()

        def shout() -> None:
            met, _ = server.accept()
            met.recv(100)
            met.sendall(b"SSH-2.0-OpenSSH_9.9\r\n")
            met.close()

        threading.Thread(target=shout, daemon=True).start()
        assert probe(api_url("127.0.0.1", server.getsockname()[1]), HERE).life is Life.FOREIGN


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8000"),
        ("0.0.0.0", "http://127.0.0.1:8000"),
        ("::1", "http://[::1]:8000"),
        ("::", "http://[::1]:8000"),
        ("trainer.example", "http://trainer.example:8000"),
    ],
)
def test_the_url_of_an_address(host: str, url: str) -> None:
    assert api_url(host, 8000) == url
    assert str(httpx.URL(url)) == url


def test_ipv6_is_asked_like_any_other() -> None:
    with answering(200, OURS, host="::1") as (url, _):
        assert probe(url, HERE).life is Life.SERVES


def test_an_address_that_is_none_is_silent() -> None:
    assert probe(api_url("no such host", 8000), HERE).life is Life.SILENT
