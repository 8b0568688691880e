"""Ports picked once, all different, and kept from everybody else until they are used."""

from __future__ import annotations

import random
import socket
import sys
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain, islice
from pathlib import Path
from types import TracebackType

from scheduler.errors import NotReady

FIRST_PORT, FALLBACK_LAST = 20_000, 32_767
MIN_CHOICE = 200
_TRIES = 2_000


class HeldPorts:
    """Each port is bound, so that nobody takes it, and claimed, so that no other `scheduler up` even tries.

    `release` gives the bindings up, at the moment when whoever is to have the ports starts; the claims last until the
    end, which covers the time until it listens.
    """

    def __init__(self) -> None:
        self._held: list[socket.socket] = []
        self._claims: list[socket.socket] = []
        self._candidates = _candidates()

    def __enter__(self) -> HeldPorts:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
        while self._claims:
            self._claims.pop().close()

    def take(self, preferred: int = 0) -> int:
        """A port that is free on every address: *preferred* if it is."""
        for port in islice(chain([preferred] if preferred else [], self._candidates), _TRIES):
            if (claim := _claim(port)) and (held := _bound(port)):
                self._claims.append(claim)
                self._held.append(held)
                return port
        raise NotReady(
            f"no free port was found in {_TRIES} tries; see what listens here: `ss -ltnp`, and try again"
        )

    def claim(self, port: int) -> None:
        """For a port that was chosen by a person.  Raises NotReady when another `scheduler up` is about to use it."""
        claim = _claim(port)
        if claim is None:
            raise NotReady(
                f"another `scheduler up` is about to use port {port}; wait for it, or choose another: "
                "scheduler up --port PORT"
            )
        self._claims.append(claim)

    def release(self) -> None:
        while self._held:
            self._held.pop().close()


def _candidates() -> Iterator[int]:
    """In random order, and outside of the range from which the kernel gives ports to connections: there a port that is
    free now may be somebody's a moment later."""
    last = _first_ephemeral() - 1
    if last - FIRST_PORT < MIN_CHOICE:
        return (_any_port() for _ in range(_TRIES))
    return iter(random.Random().sample(range(FIRST_PORT, last + 1), last + 1 - FIRST_PORT))


def _first_ephemeral() -> int:
    with suppress(OSError, ValueError, IndexError):
        return int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    return FALLBACK_LAST + 1


def _any_port() -> int:
    with socket.socket() as asked:
        asked.bind(("", 0))
        return asked.getsockname()[1]


def _bound(port: int) -> socket.socket | None:
    held = socket.socket()
    try:
        held.bind(("", port))
    except OSError:
        held.close()
        return None
    return held


def _claim(port: int) -> socket.socket | None:
    """A name that one process of this network can have, and that goes with it: no file to be left behind."""
    claim = socket.socket(socket.AF_UNIX)
    if sys.platform != "linux":
        return claim
    try:
        claim.bind(f"\0training-scheduler-port-{port}")
    except OSError:
        claim.close()
        return None
    return claim
