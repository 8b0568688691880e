"""The API's way to the scheduler actor: what it repeats, and what it says when nobody answers."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import ray
from ray.exceptions import ActorDiedError, ActorUnavailableError, RayTaskError

from scheduler.api.scheduler_api import SchedulerApi
from scheduler.errors import JobNotFound, RegistryUnavailable
from serve_app import remote_scheduler
from serve_app.remote_scheduler import ActorRegistry
from tests.unit.recording_registry import RecordingRegistry

GONE = ActorDiedError()
RESTARTING = ActorUnavailableError("restarting", None)


def raised_in_actor(error: Exception) -> Exception:
    return RayTaskError("status", "traceback", error).as_instanceof_cause()


def a_registry() -> ActorRegistry:
    return ActorRegistry("scheduler", "ns", timeout_s=0.2, patience_s=0.1)


class FakeActor:
    """Answers with what it was given, one after the other."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)

    @property
    def status(self) -> FakeActor:
        return self

    changes = health = reconcile = pause = status

    def remote(self, *arguments: Any) -> Awaitable[Any]:
        return self._answer()

    async def _answer(self) -> Any:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return await answer if inspect.isawaitable(answer) else answer


@pytest.fixture
def actor(monkeypatch: pytest.MonkeyPatch) -> Callable[..., FakeActor]:
    monkeypatch.setattr(remote_scheduler, "_PAUSE_S", 0.001)

    def named(*answers: Any) -> FakeActor:
        fake = FakeActor(*answers)
        monkeypatch.setattr(ray, "get_actor", lambda name, namespace: fake)
        return fake

    return named


async def test_a_call_is_repeated_through_a_restart_of_the_actor(actor: Callable[..., FakeActor]) -> None:
    """R1: a client would see an error for every restart of the scheduler."""
    fake = actor(RESTARTING, GONE, "the job")
    assert await a_registry().status("j") == "the job"
    assert fake.answers == []


async def test_changes_are_not_asked_for_again_while_the_actor_is_away(
    actor: Callable[..., FakeActor],
) -> None:
    """P2: who listens is to hear at once that nobody answers; the hub asks again by itself."""
    fake = actor(RESTARTING, "the changes")
    with pytest.raises(RegistryUnavailable, match="restarting"):
        await a_registry().changes(0, 1, 0.0)
    assert fake.answers == ["the changes"]


async def test_a_wait_for_changes_may_last_longer_than_other_calls(
    actor: Callable[..., FakeActor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_scheduler, "_HEALTH_TIMEOUT_S", 30.0)

    async def after_a_while() -> str:
        await asyncio.sleep(0.3)
        return "the changes"

    actor(after_a_while())
    assert await a_registry().changes(0, 1, 5.0) == "the changes"


async def test_the_actors_refusal_comes_out_as_it_went_in(actor: Callable[..., FakeActor]) -> None:
    """Wrapped by Ray, a missing job would be a failure of the server."""
    fake = actor(raised_in_actor(JobNotFound.of("j")), "never asked for")
    with pytest.raises(JobNotFound) as caught:
        await a_registry().status("j")
    assert type(caught.value) is JobNotFound
    assert fake.answers == ["never asked for"], "a refusal is final"


async def test_a_bug_in_the_actor_is_not_taken_for_its_absence(actor: Callable[..., FakeActor]) -> None:
    """Repeated for seconds and called `restarting`, it would never be found."""
    fake = actor(raised_in_actor(KeyError("x")), "never asked for")
    with pytest.raises(RayTaskError):
        await a_registry().status("j")
    assert fake.answers == ["never asked for"]


async def test_an_actor_that_stays_away_is_a_503_in_words(actor: Callable[..., FakeActor]) -> None:
    """L9: the reader should learn what died and what to do."""
    actor(*[GONE] * 1000)
    with pytest.raises(RegistryUnavailable, match=r"ActorDiedError.*ask again"):
        await a_registry().status("j")


async def test_an_actor_that_does_not_exist_is_a_503_in_words(
    actor: Callable[..., FakeActor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before `up` is done, or after `down`."""

    def missing(name: str, namespace: str) -> Any:
        raise ValueError("Failed to look up actor")

    monkeypatch.setattr(ray, "get_actor", missing)
    with pytest.raises(RegistryUnavailable, match="there is no such actor"):
        await a_registry().status("j")


async def test_an_actor_that_hangs_is_given_up(actor: Callable[..., FakeActor]) -> None:
    """Every request would hang with it, up to the last connection."""
    actor(asyncio.Event().wait())
    with pytest.raises(RegistryUnavailable, match=r"did not answer within 0\.2 s; ask again in a moment$"):
        await a_registry().status("j")


async def test_of_a_command_without_an_answer_it_is_not_known_whether_it_was_done(
    actor: Callable[..., FakeActor],
) -> None:
    """And only of a command: a question that stayed open has changed nothing."""
    actor(asyncio.Event().wait())
    with pytest.raises(RegistryUnavailable, match=r"whether it was done is not known \(pause\): ask again$"):
        await a_registry().pause("j", "ann")


async def test_a_reconcile_may_take_longer_than_other_calls(actor: Callable[..., FakeActor]) -> None:
    """L10: a pass over a slow database that is given up half way would look as if it had failed."""
    late = asyncio.sleep(0.3, "what it did")
    actor(late)
    assert await a_registry().reconcile(False) == "what it did"


async def test_health_does_not_wait_for_a_restart(actor: Callable[..., FakeActor]) -> None:
    """L9: whoever asks for health wants to know now."""
    fake = actor(RESTARTING, "never asked for")
    with pytest.raises(RegistryUnavailable):
        await a_registry().health()
    assert fake.answers == ["never asked for"]


@pytest.mark.parametrize("implementation", [RecordingRegistry, ActorRegistry])
def test_every_registry_has_the_methods_of_the_protocol(implementation: type) -> None:
    """A fake with other methods would prove nothing."""
    promised = {name: inspect.signature(method) for name, method in _public(SchedulerApi)}
    assert promised == {name: inspect.signature(method) for name, method in _public(implementation)}


def _public(owner: type) -> list[tuple[str, Any]]:
    return [
        (name, method)
        for name, method in vars(owner).items()
        if inspect.isfunction(method) and name[0] != "_"
    ]
