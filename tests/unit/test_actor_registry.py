"""The API's way to the scheduler actor: what it repeats, and what it says when nobody answers."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from typing import Any, Protocol

import pytest
import ray
from ray.exceptions import ActorDiedError, ActorUnavailableError, RayTaskError

from scheduler.api.operations import operations_of
from scheduler.api.scheduler_api import OPERATIONS, SchedulerApi
from scheduler.core.commands import JobAction
from scheduler.engine.periodic import SystemClock
from scheduler.engine.service import Engine
from scheduler.engine.spec_validation import SpecValidator
from scheduler.errors import InvalidRequest, JobNotFound, RegistryUnavailable
from scheduler.server.dispatch import method_of
from scheduler.settings import Settings
from scheduler.testing.fake_runner import FakeRunner
from scheduler.testing.memory import MemoryJournal
from serve_app import remote_scheduler
from serve_app.remote_scheduler import remote
from tests.unit.recording_registry import RecordingRegistry

GONE = ActorDiedError()
RESTARTING = ActorUnavailableError("restarting", None)


def raised_in_actor(error: Exception) -> Exception:
    return RayTaskError("status", "traceback", error).as_instanceof_cause()


def a_registry() -> SchedulerApi:
    return remote("scheduler", "ns", timeout_s=0.2, patience_s=0.1)


class FakeActor:
    """Answers with what it was given, one after the other."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.named: list[str] = []
        self.calls: list[tuple[Any, ...]] = []

    @property
    def call(self) -> FakeActor:
        return self

    def options(self, *, name: str) -> FakeActor:
        self.named.append(name)
        return self

    def remote(self, *call: Any) -> Awaitable[Any]:
        self.calls.append(call)
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
    """Whoever listens would be told every two seconds that nobody answers."""
    monkeypatch.setitem(OPERATIONS, "changes", replace(OPERATIONS["changes"], timeout_s=0.1))

    async def after_a_while() -> str:
        await asyncio.sleep(0.3)
        return "the changes"

    actor(after_a_while(), asyncio.Event().wait())
    assert await a_registry().changes(0, 1, 5.0) == "the changes"
    with pytest.raises(RegistryUnavailable, match=r"did not answer within 0\.2 s"):
        await a_registry().changes(0, 1, wait_s=0.1)


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
    with pytest.raises(RegistryUnavailable, match=r"whether it was done is not known \(act\): ask again$"):
        await a_registry().act("j", JobAction.PAUSE, "ann")


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


async def test_the_dashboard_shows_what_was_asked(actor: Callable[..., FakeActor]) -> None:
    """All calls are of one method of the actor: without a name of their own they could not be told apart."""
    fake = actor("the job")
    await a_registry().logs("j", 0, None, offset=0, limit=10)
    assert fake.named == ["logs"]
    assert fake.calls == [("logs", ("j", 0, None), {"offset": 0, "limit": 10})]


async def test_only_what_is_promised_can_be_asked(actor: Callable[..., FakeActor]) -> None:
    """A misspelled question is an error where it is asked, not in the actor."""
    fake = actor()
    with pytest.raises(AttributeError, match="no operation 'stauts'"):
        a_registry().stauts  # type: ignore[attr-defined]  # noqa: B018
    with pytest.raises(TypeError, match="too many positional"):
        await a_registry().status("j", "k")  # type: ignore[call-arg]
    assert fake.calls == []


@pytest.mark.parametrize("name", ["recover", "run_forever", "journal", "_ask", "__class__", "tick_once"])
def test_the_actor_answers_nothing_but_what_is_promised(name: str) -> None:
    """Whoever reaches the actor could reach through it into the engine."""
    with pytest.raises(InvalidRequest, match="no operation"):
        method_of(an_engine(), name)


@pytest.mark.parametrize("name", [name for name in OPERATIONS if name != "health"])
def test_the_engine_answers_each_operation_as_it_is_promised(name: str) -> None:
    """Nothing between the API and the engine knows the arguments: they would differ when they are used."""
    promised = list(OPERATIONS[name].signature.parameters.values())[1:]  # without self
    assert _without_types(inspect.signature(method_of(an_engine(), name)).parameters.values()) == (
        _without_types(promised)
    )


def test_the_recording_fake_has_the_methods_of_the_protocol() -> None:
    """A fake with other methods would prove nothing."""
    public = {
        name: inspect.signature(method) for name, method in vars(RecordingRegistry).items() if name[0] != "_"
    }
    assert public == {name: operation.signature for name, operation in OPERATIONS.items()}


def test_a_method_without_a_mark_is_refused() -> None:
    """A command that is taken for a query would be called harmless when nobody answers."""

    class Careless(Protocol):
        async def explode(self) -> None: ...

    with pytest.raises(TypeError, match="whether explode changes anything"):
        operations_of(Careless)


def an_engine() -> Engine:
    return Engine(
        journal=MemoryJournal(),
        runner=FakeRunner(),
        clock=SystemClock(),
        settings=Settings(),
        validator=SpecValidator((), ()),
    )


def _without_types(parameters: Iterable[inspect.Parameter]) -> list[tuple[str, Any, Any]]:
    return [(one.name, one.kind, one.default) for one in parameters]
