"""Can the API listen where it is to?  If not, the remedy names the setting that is wrong."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path

import pytest
from pydantic import SecretStr

from scheduler.server import preflight
from scheduler.server.preflight import Check
from scheduler.settings import Settings
from tests.conftest import free_port
from tests.unit.test_api_probe import answering


def port_check(tmp_path: Path, host: str, port: int) -> Check:
    settings = Settings(
        host=host,
        port=port,
        token=SecretStr("x"),
        state_dir=tmp_path / "state",
        storage_path=tmp_path / "storage",
    )
    return next(check for check in preflight.run(settings) if check.name == "API port")


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "0.0.0.0", "::", "localhost"])
def test_a_free_port_is_free_at_each_address(tmp_path: Path, host: str) -> None:
    assert port_check(tmp_path, host, free_port()).ok


@pytest.mark.parametrize(
    "host", ["192.0.2.77", "2001:db8::77", "no.such.host.invalid", "a..b", "x" * 70, "[::1]"]
)
def test_an_address_that_is_not_this_machines_names_the_host_setting(tmp_path: Path, host: str) -> None:
    """R8: `SCHEDULER_HOST` is wrong, and the remedy said to take another port."""
    seen = port_check(tmp_path, host, free_port())
    assert not seen.ok
    assert "SCHEDULER_HOST" in seen.remedy, seen
    assert host in seen.detail


def test_a_port_that_is_in_use_says_by_whom(tmp_path: Path) -> None:
    with answering(200, b"<html>") as (url, _):
        seen = port_check(tmp_path, "127.0.0.1", int(url.rpartition(":")[2]))
    assert not seen.ok
    assert "in use: what answers at http://127.0.0.1" in seen.detail
    assert "--port" in seen.remedy


def test_a_port_whose_owner_is_just_going_is_waited_for(tmp_path: Path) -> None:
    """The proxy of a Ray that died holds the port for a moment after it stopped to listen."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
        threading.Thread(target=lambda: (time.sleep(1.0), server.close()), daemon=True).start()
        assert port_check(tmp_path, "127.0.0.1", port).ok
