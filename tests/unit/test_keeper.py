"""The keeper tries again what it cannot do yet, less and less often, and says what it waits for."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from scheduler.server.driver import EVERY_S, Driver
from scheduler.settings import Settings


class Troubled(Driver):
    """What it sees to is as the test says; how it goes on is its own."""

    def __init__(self, actor: Callable[[], None], api: Callable[[], None]) -> None:
        super().__init__(Settings(), Path("/"))
        self._see_to_actor, self._see_to_api = actor, api  # type: ignore[method-assign]


def well() -> None:
    return None


def test_what_fails_is_tried_again_with_backoff_and_said(caplog: pytest.LogCaptureFixture) -> None:
    """A boot that failed once left a scheduler without an API for ever."""
    left = [f"port 8000 is taken, {n}" for n in range(8)]

    def api() -> None:
        if left:
            raise RuntimeError(left.pop(0))

    keeper = Troubled(well, api)
    with caplog.at_level(logging.INFO):
        pauses = [keeper.pass_once() for _ in range(9)]
    longest = [min(60.0, 2.0**n) for n in range(8)]
    assert all(most / 2 <= pause <= most for pause, most in zip(pauses, longest, strict=False))
    assert pauses[8] == EVERY_S
    said = [record.getMessage() for record in caplog.records]
    assert said[0].startswith("the API is not up (RuntimeError: port 8000 is taken, 0); retry in")
    assert said[-1] == "actor and API are up again"
    assert keeper.pass_once() == EVERY_S


def test_without_an_actor_no_api_is_begun(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[str] = []

    def no_actor() -> None:
        raise TimeoutError("it recovers")

    keeper = Troubled(no_actor, lambda: seen.append("api"))
    assert keeper.pass_once() < EVERY_S
    assert seen == []
    assert "waiting for the scheduler actor (TimeoutError: it recovers)" in caplog.text
