"""The keeper tries again what it cannot do yet, less and less often, and says what it waits for."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import ray
from ray.exceptions import RayTaskError
from ray.serve.schema import ApplicationStatus, ProxyStatus

from scheduler.server import driver
from scheduler.server.actor import SchedulerActor
from scheduler.server.driver import EVERY_S, Driver
from scheduler.settings import Settings


class Troubled(Driver):
    """What it sees to is as the test says; how it goes on is its own."""

    def __init__(self, actor: Callable[[], None], api: Callable[[], None]) -> None:
        super().__init__(Settings(), Path("/"))
        self._see_to_actor, self._see_to_api = actor, api  # type: ignore[method-assign]


def an_actor(module: str) -> SimpleNamespace:
    """A handle as Ray gives it."""
    made_of = SimpleNamespace(module_name=module, class_name="SchedulerActor")
    return SimpleNamespace(
        ready="ready", keep_warm="keep_warm", _ray_actor_creation_function_descriptor=made_of
    )


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
    assert "the scheduler actor is not up (TimeoutError: it recovers)" in caplog.text


def test_an_actor_of_another_release_is_made_anew_and_the_api_with_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """After an upgrade Ray brought the actor back from a module that had moved: it had its name, and answered nothing,
    for ever."""
    killed: list[str] = []
    old, new = an_actor("scheduler.actor"), an_actor(SchedulerActor.__module__)

    def kill(actor: object, *, no_restart: bool) -> None:
        assert no_restart
        killed.append("old" if actor is old else "new")

    keeper = Driver(Settings(), Path("/"))
    monkeypatch.setattr(keeper, "_actor", lambda: new if killed else old)
    monkeypatch.setattr(keeper, "_prepare_cluster", lambda: "the task")
    monkeypatch.setattr(keeper, "_is_prepared", lambda: True)
    monkeypatch.setattr(driver, "_get", lambda *_: 2)
    monkeypatch.setattr(ray, "kill", kill)

    deployed: list[str] = []
    up = SimpleNamespace(
        applications={driver.APP_NAME: SimpleNamespace(status=ApplicationStatus.RUNNING)},
        proxies={"head": ProxyStatus.HEALTHY},
    )
    serve = SimpleNamespace(
        status=lambda: up,
        start=lambda **_: None,
        run=lambda app, **options: deployed.append(options["name"]),
    )
    monkeypatch.setattr(driver, "serve", serve)
    monkeypatch.setattr(driver, "bind", lambda *_: None)

    assert keeper.pass_once() < EVERY_S, "the end of the old one is no success"
    assert (killed, deployed) == (["old"], [])
    assert "of another release" in caplog.text
    assert keeper.pass_once() == EVERY_S
    assert deployed == [driver.APP_NAME]
    assert keeper.pass_once() == EVERY_S
    assert (killed, deployed) == (["old"], [driver.APP_NAME]), "once"


def test_no_process_is_kept_prepared_before_the_cluster_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """What prepares the cluster runs in the same environment: it took the first processes, and the pool waited for more
    minutes than a start takes."""
    prepared, asked = [False], []
    keeper = Driver(Settings(), Path("/"))
    actor = an_actor(SchedulerActor.__module__)
    monkeypatch.setattr(keeper, "_actor", lambda: actor)
    monkeypatch.setattr(keeper, "_prepare_cluster", lambda: "the task")
    monkeypatch.setattr(ray, "wait", lambda refs, timeout: (refs if prepared[0] else [], []))
    monkeypatch.setattr(driver, "_get", lambda method, *_: asked.append(method))
    keeper._see_to_actor()
    assert asked == [actor.ready]
    prepared[0] = True
    keeper._see_to_actor()
    assert asked == [actor.ready, actor.keep_warm]


def test_an_actor_that_fails_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """It tries its start again by itself, and a start that a full disk prevents must not become a kill each time."""

    def fail(*_: object) -> int:
        raise RayTaskError("ready", "", RuntimeError("no space left on device"))

    monkeypatch.setattr(driver, "_get", fail)
    monkeypatch.setattr(ray, "kill", lambda *_, **__: pytest.fail("killed"))
    keeper = Driver(Settings(), Path("/"))
    monkeypatch.setattr(keeper, "_actor", lambda: an_actor(SchedulerActor.__module__))
    assert keeper.pass_once() < EVERY_S
