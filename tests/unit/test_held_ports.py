"""Ports that are picked once: all different, nobody else's, and not two times at the same second."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from scheduler.errors import NotReady
from scheduler.server.held_ports import HeldPorts

MANY = 40
TAKES_AND_WAITS = f"""
import sys
from scheduler.server.held_ports import HeldPorts
with HeldPorts() as ports:
    print(*[ports.take() for _ in range({MANY})], flush=True)
    ports.release()
    sys.stdin.read()
"""


@contextmanager
def listening(port: int = 0) -> Iterator[int]:
    with socket.socket() as server:
        server.bind(("127.0.0.1", port))
        server.listen()
        yield server.getsockname()[1]


def test_they_are_all_different_and_nobody_else_can_have_them() -> None:
    with HeldPorts() as ports:
        taken = [ports.take() for _ in range(MANY)]
        assert len(set(taken)) == MANY
        for port in taken:
            with pytest.raises(OSError, match="in use"), listening(port):
                pass
        ports.release()
        with listening(taken[0]):
            pass


def test_two_ups_at_the_same_second_never_meet_also_between_release_and_use() -> None:
    """B3: dashboard and metrics were given the same port; and what one gave up for its Ray, another took."""
    users = [
        subprocess.Popen(
            [sys.executable, "-c", TAKES_AND_WAITS],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(Path.cwd())},
        )
        for _ in range(4)
    ]
    taken = [port for user in users if user.stdout for port in user.stdout.readline().split()]
    for user in users:
        user.communicate("")
    assert len(taken) == len(set(taken)) == 4 * MANY


def test_the_preferred_one_is_taken_where_it_is_free() -> None:
    with HeldPorts() as ports, listening() as busy:
        free = ports.take()
        with HeldPorts() as others:
            assert others.take(preferred=free) != free, "held"
            assert others.take(preferred=busy) != busy
    with HeldPorts() as ports:
        assert ports.take(preferred=free) == free


def test_a_port_that_another_up_is_about_to_use_is_refused_in_words() -> None:
    with HeldPorts() as first, HeldPorts() as second:
        first.claim(8000)
        with pytest.raises(NotReady, match=r"another `scheduler up` is about to use port 8000.*--port PORT"):
            second.claim(8000)
    with HeldPorts() as later:
        later.claim(8000)
