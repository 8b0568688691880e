"""The environment that clients find: proxies, addresses and tokens, each told by its variable, and no traceback."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from scheduler.adapters.supabase.mirror import SupabaseMirror
from scheduler.adapters.webhook import HttpWebhook
from scheduler.api.http_clients import is_loopback, proxy_of
from scheduler.client import AsyncClient, Client
from scheduler.engine.periodic import SystemClock
from scheduler.errors import (
    InvalidRequest,
    MirrorRefused,
    MirrorUnavailable,
    NotReady,
    SchedulerError,
    ServerUnreachable,
)
from tests.conftest import free_port
from tests.unit.served import Served, scheduler_at

REMOTE = "http://scheduler.example.invalid:8000"
SECRET = "whsec_" + "QUFB" * 10


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
        "NO_PROXY",
        "SSL_CERT_FILE",
        "SCHEDULER_URL",
        "SCHEDULER_TOKEN",
    ):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with scheduler_at(tmp_path_factory.mktemp("served")) as served:
        yield served


BAD_PROXIES = {
    "socks5://127.0.0.1:9": "httpx\\[socks\\]",
    "foo://x:1": "is not the address of a proxy",
    "http://:::": "is not the address of a proxy",
    "http://a b:1": "is not the address of a proxy",
    "http://proxy:99999": "is not the address of a proxy",
    "://": "is not the address of a proxy",
    "h\x07ttp://x": "is not the address of a proxy",
}


@pytest.mark.parametrize("variable", ["ALL_PROXY", "all_proxy", "HTTP_PROXY", "http_proxy"])
@pytest.mark.parametrize("proxy", BAD_PROXIES)
def test_a_proxy_that_cannot_be_is_named_and_loopback_needs_none(
    served: Served, monkeypatch: pytest.MonkeyPatch, proxy: str, variable: str
) -> None:
    """B: `ALL_PROXY=socks5://...` was an ImportError, even for a scheduler on this machine."""
    monkeypatch.setenv(variable, proxy)
    assert Client(served.url).health().status == "healthy"
    for client in (Client, AsyncClient):
        with pytest.raises(InvalidRequest, match=f"{variable} .*{BAD_PROXIES[proxy]}.*NO_PROXY"):
            client(REMOTE)


@pytest.mark.parametrize("proxy", ["http://127.0.0.1:{}", "127.0.0.1:{}", "http://user:s3cret@127.0.0.1:{}"])
def test_a_dead_proxy_is_named_where_it_stands_in_the_way(
    served: Served, monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    """ "No scheduler answers at URL" sent people to look at a scheduler that was well."""
    monkeypatch.setenv("HTTP_PROXY", proxy.format(free_port()))
    monkeypatch.setenv("HTTPS_PROXY", proxy.format(free_port()))
    assert Client(served.url).health().status == "healthy"
    for url, variable in ((REMOTE, "HTTP_PROXY"), (REMOTE.replace("http", "https"), "HTTPS_PROXY")):
        with pytest.raises(
            ServerUnreachable, match=f"{variable} .*127.0.0.1.*example.invalid to NO_PROXY"
        ) as seen:
            Client(url, retry_s=0).health()
        assert "s3cret" not in str(seen.value)


def test_the_database_and_the_webhook_go_the_same_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """One place builds all clients: what holds for one holds for the others."""
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    dead = f"http://127.0.0.1:{free_port()}"

    async def ask(url: str) -> None:
        mirror = SupabaseMirror(url, "sb_secret_x", "c", 2.0)
        try:
            await mirror.check()
        finally:
            await mirror.close()

    with pytest.raises(MirrorUnavailable, match=r"cannot be reached: (?!.*proxy)"):
        asyncio.run(ask(dead))
    with pytest.raises(MirrorRefused, match="ALL_PROXY"):
        asyncio.run(ask("http://abc.example.invalid"))
    given: Any = {"cluster": "c", "timeout_s": 1.0, "clock": SystemClock()}
    HttpWebhook(dead, SECRET, **given)
    with pytest.raises(NotReady, match="ALL_PROXY"):
        HttpWebhook("https://example.invalid/hook", SECRET, **given)


@pytest.mark.parametrize(
    ("host", "is_one"),
    [
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("localhost", True),
        ("LOCALHOST.", True),
        ("api.localhost", True),
        ("::1", True),
        ("[::1]", True),
        ("::ffff:127.0.0.1", True),
        ("0.0.0.0", True),
        ("128.0.0.1", False),
        ("localhost.example.org", False),
        ("127.0.0.1.nip.io", False),
        ("", False),
    ],
)
def test_what_is_this_machine(host: str, is_one: bool) -> None:
    assert is_loopback(host) is is_one


@pytest.mark.parametrize(
    ("no_proxy", "url", "is_used"),
    [
        ("localhost,::1", "http://10.1.2.3:8000", True),
        ("10.0.0.0/8", "http://10.1.2.3:8000", False),
        ("10.0.0.0/8,::1/128,", "http://11.1.2.3:8000", True),
        (".internal", "http://a.internal", False),
        ("*", "http://a.example.org", False),
        ("2001:db8::1", "http://[2001:db8::1]:80", False),
    ],
)
def test_no_proxy_is_read_as_people_write_it(
    monkeypatch: pytest.MonkeyPatch, no_proxy: str, url: str, is_used: bool
) -> None:
    monkeypatch.setenv("http_proxy", "http://proxy.example.org:3128")
    monkeypatch.setenv("NO_PROXY", no_proxy)
    assert (proxy_of(url) is not None) is is_used


def test_a_small_variable_that_is_empty_turns_the_large_one_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.example.org:3128")
    monkeypatch.setenv("http_proxy", "")
    assert proxy_of(REMOTE) is None


@pytest.mark.parametrize("file", ["/nowhere/at/all.pem", "{here}"])
def test_certificates_that_are_none_are_named(monkeypatch: pytest.MonkeyPatch, file: str) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", file.format(here=__file__))
    Client("http://127.0.0.1:1")
    with pytest.raises(InvalidRequest, match=r"SSL_CERT_FILE.* names what cannot be used for certificates"):
        Client("https://127.0.0.1:1")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://::1:8000", r"http://\[::1\]:8000"),
        ("::1", r"http://\[::1\]:8000"),
        ("127.0.0.1:8000", "is not the address"),
        ("http://", "is not the address"),
        ("http://:8000", "is not the address"),
        ("http://a:0", "is not the address"),
        ("http://a:99999", "is not the address"),
        ("http://a:port", "is not the address"),
        ("http://a\x07b", "is not the address"),
        ("http://a b", "is not the address"),
        ("http://[::1", "is not the address"),
        ("http://host:8000/?a=b", "is not the address"),
        ("ftp://host", "is not the address"),
        ("http://" + "ü" * 70, "is not the address"),
        ("http://me:s3cret@", "is not the address"),
        ("http://host/" + "a" * 70_000, "is not the address"),
        ("http://a\udcff", "."),
    ],
)
def test_an_address_that_is_none_is_told_with_its_variable(
    monkeypatch: pytest.MonkeyPatch, url: str, words: str
) -> None:
    """SCHEDULER_HOST=::1 reached the client as an InvalidURL."""
    monkeypatch.setenv("SCHEDULER_URL", url)
    with pytest.raises(SchedulerError, match=words) as seen:
        Client()
    assert "SCHEDULER_URL" in str(seen.value) + str(seen.value.problems)
    assert "s3cret" not in str(seen.value)


@pytest.mark.parametrize("token", ["two words", "a\nb", "Schlüssel", "a\x07", "\udcff"])
def test_a_token_that_cannot_be_sent_is_told_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    """It ended in "illegal header value", with the token in the message."""
    monkeypatch.setenv("SCHEDULER_TOKEN", token)
    for client in (Client, AsyncClient):
        with pytest.raises(InvalidRequest) as seen:
            client("http://127.0.0.1:1")
        assert "SCHEDULER_TOKEN" in str(seen.value.problems)
        assert token not in str(seen.value) + str(seen.value.problems)


def test_a_token_and_a_password_cannot_both_be_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """The password in the URL took the place of the token, and the answer was 401 without a reason."""
    monkeypatch.setenv("SCHEDULER_TOKEN", "right")
    with pytest.raises(InvalidRequest, match="one header cannot carry both"):
        Client("http://me:s3cret@127.0.0.1:8000")
