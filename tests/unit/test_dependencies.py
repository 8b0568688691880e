"""Jobs that wait for a moment, or for other jobs (S8)."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.client.specs import to_spec, to_wire
from scheduler.core.commands import JobAction
from scheduler.core.dependencies import waits_for, will_never_start
from scheduler.core.model import SPEC, After, Fence, JobId, Status
from scheduler.errors import InvalidSpec
from scheduler.testing.builders import a_job, a_spec
from scheduler.testing.clock import NOON
from scheduler.testing.fake_runner import COMPLETED, failed
from tests.unit.test_service import World, a_loop

PARENT = "the-parent"
How = Literal["completed", "failed", "ended"]


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    await world.life()
    yield world


@given(st.sampled_from(["completed", "failed", "ended"]), st.sampled_from([*Status, None]))
def test_a_job_waits_starts_or_has_waited_in_vain(how: How, status: Status | None) -> None:
    """S8: one of the three, whatever becomes of the other job; else it could start too soon, or wait for ever."""
    job = a_job(spec=a_spec(after=[After(job=PARENT, on=how)]))
    waits, in_vain = waits_for(job, NOON, {PARENT: status}), will_never_start(job, {PARENT: status})
    may_start = status is not None and (status.is_terminal if how == "ended" else status == how)
    is_over = status is None or status.is_terminal
    assert (waits is None, in_vain is not None) == (may_start, is_over and not may_start)


def test_what_is_not_known_at_the_moment_ends_nothing() -> None:
    """The database may be away; a job fails only when it is known that its wait is in vain."""
    job = a_job(spec=a_spec(after=[After(job=PARENT)]))
    assert will_never_start(job, {}) is None
    waits = waits_for(job, NOON, {})
    assert waits and waits.message == (
        "waits for job the-parent to complete; how it stands is not known at the moment"
    )


def test_a_moment_is_told_with_what_is_left_until_then() -> None:
    job = a_job(spec=a_spec(start_after=NOON + timedelta(hours=3)))
    waits = waits_for(job, NOON, {})
    assert waits and waits.code == "not_before"
    assert waits.message.endswith(", which is in 3.0 h")
    assert waits_for(job, NOON + timedelta(hours=3), {}) is None


def test_a_short_form_says_the_same() -> None:
    """The command line has no other."""
    wanted = [After(job="a"), After(job="b", on="failed"), After(job="c", on="ended")]
    short = SPEC.validate_python({"loop": "sft", "after": ["a", "b:failed", {"job": "c", "on": "ended"}]})
    assert short.after == wanted
    assert SPEC.validate_python(to_wire(short)).after == wanted


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"after": ["a:done"]}, "after.0.on"),
        ({"after": [{"job": "a", "when": "failed"}]}, "after.0.when"),
        ({"start_after": "2027-01-31T03:00:00"}, "start_after"),
        ({"start_after": "tomorrow"}, "start_after"),
        ({"deadline": "2027-01-31T03:00:00"}, "deadline"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_its_field(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidSpec) as refused:
        to_spec({"loop": "sft", **fields})
    assert [problem.field for problem in refused.value.problems] == [named]


def test_a_spec_without_them_can_be_read_by_a_server_of_an_earlier_release() -> None:
    """It refuses fields that it does not know."""
    wire = to_wire(a_spec())
    assert not {"after", "start_after", "deadline"} & wire.keys()
    assert not {"after", "start_after", "deadline"} & SPEC.dump_python(a_spec(), mode="json").keys()


async def test_a_job_starts_when_the_other_one_is_completed(world: World) -> None:
    """S8, with the reason of the pass that decided (S10)."""
    parent = await world.submit()
    child = await world.submit(a_loop(after=[After(job=parent)]))
    await world.settle()
    said = await world.service.queries.status(child)
    assert (said.status, said.reason.code) == ("queued", "after")
    assert said.reason.message == f"waits for job {parent} to complete; it is running"
    world.runner.end((JobId(parent), Fence(1)), COMPLETED)
    await world.settle()
    assert await world.status(child) == "running"


async def test_a_job_whose_parent_failed_fails_in_words_and_is_no_news_for_the_operator(world: World) -> None:
    parent = await world.submit()
    child = await world.submit(a_loop(after=[After(job=parent)]))
    grandchild = await world.submit(a_loop(after=[After(job=child)]))
    on_failure = await world.submit(a_loop(after=[After(job=parent, on="failed")]))
    await world.settle()
    world.runner.end((JobId(parent), Fence(1)), failed("boom"))
    await world.settle()
    said = await world.service.queries.status(child)
    assert (said.status, said.reason.code) == ("failed", "after_not_met")
    assert said.reason.message.startswith(f"job {parent}, which was to complete, is failed; ")
    assert await world.status(grandchild) == "failed"
    assert await world.status(on_failure) == "running"


async def test_a_held_job_is_not_failed(world: World) -> None:
    """A person keeps it, and may want to let its parent go on first."""
    parent = await world.submit()
    child = await world.submit(a_loop(after=[After(job=parent)]))
    await world.settle()
    await world.service.commands.act(child, JobAction.PAUSE, "ann")
    await world.service.commands.act(parent, JobAction.CANCEL, "ann")
    await world.settle()
    assert await world.status(child) == "queued"
    await world.service.commands.act(child, JobAction.RESUME, "ann")
    await world.settle()
    assert await world.status(child) == "failed"


async def test_a_parent_that_is_forgotten_by_memory_is_found_in_the_journal(world: World) -> None:
    world.settings = world.settings.model_copy(update={"finished_in_memory": 0})
    await world.life()
    job_id, _ = await world.ended_run()
    await world.life()
    child = await world.submit(a_loop(after=[After(job=job_id)]))
    await world.settle()
    assert await world.status(child) == "running"


async def test_a_job_that_is_not_there_is_refused(world: World) -> None:
    """It would wait for ever; and as only jobs that are there may be named, none waits for itself."""
    unknown = str(uuid.uuid4())
    with pytest.raises(InvalidSpec, match=f"after.0.job.*there is no job '{unknown}'"):
        await world.submit(a_loop(after=[After(job=unknown)]))
    answer = await world.service.queries.plan(a_loop(after=[After(job=unknown)]))
    assert not answer.valid


async def test_the_start_of_a_child_is_forecast_by_the_end_of_its_parent(world: World) -> None:
    """S10: position and start estimate are right for it too."""
    parent = await world.submit(a_loop(max_runtime_s=600.0))
    child = await world.submit(a_loop(after=[After(job=parent)], max_runtime_s=60.0))
    await world.settle()
    forecast = (await world.service.queries.explain(child)).forecast
    assert forecast and forecast.starts_in_s == pytest.approx(600, abs=5)


async def test_a_job_with_a_moment_starts_then(world: World) -> None:
    at = world.clock.now() + timedelta(minutes=10)
    job = await world.submit(a_loop(start_after=at))
    await world.settle()
    said = await world.service.queries.status(job)
    assert (said.reason.code, said.status) == ("not_before", "queued")
    forecast = (await world.service.queries.explain(job)).forecast
    assert forecast and forecast.starts_in_s == pytest.approx(600, abs=5)
    world.clock.advance(600)
    await world.settle()
    assert await world.status(job) == "running"
