"""What a client may ask about a job before it acts, and the stream of what changes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from served import LOOP, Served, scheduler_at

from scheduler.api.jobs import Changes
from scheduler.client import AsyncClient, Client
from scheduler.core.model import Status
from scheduler.errors import InvalidRequest, JobNotFound

NOBODY = "0b2f1c9e-2a55-4d0c-8c4f-6a1f1a1c0001"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with scheduler_at(tmp_path_factory.mktemp("served")) as served:
        yield served


@pytest.fixture
def client(served: Served) -> Iterator[Client]:
    with Client(served.url, user="ann") as client:
        yield client


def test_a_plan_queues_nothing(client: Client) -> None:
    answer = client.plan(loop=LOOP, name="only planned")
    assert (answer.valid, answer.fits) == (True, True)
    assert list(client.list_jobs(search="only planned")) == []


@pytest.mark.parametrize("spec", [{"loop": LOOP, "priority": "high"}, {"loop": "sfft"}])
def test_a_plan_of_a_bad_spec_is_an_answer_wherever_it_was_found(
    client: Client, spec: dict[str, object]
) -> None:
    """The first is refused here, the second by the server: a form shows both in the same way."""
    answer = client.plan(spec)
    assert not answer.valid
    assert [one.field for one in answer.errors] == [list(spec)[-1]]


def test_a_job_is_explained_and_effects_are_told_first(client: Client) -> None:
    job = client.submit(loop=LOOP, config={"seconds": 60})
    assert job.explain().job_id == job.id
    assert job.effect("pause").allowed
    assert job.status().stop is None
    job.cancel()
    job.wait(10)
    assert not job.effect("pause").allowed
    assert job.explain().status is Status.CANCELLED


def test_questions_about_nobody_are_refused_by_class(client: Client) -> None:
    for ask in (client.explain, client.metrics, lambda job_id: client.effect(job_id, "cancel")):
        with pytest.raises(JobNotFound):
            ask(NOBODY)


def test_metrics_are_asked_for_by_number_of_points(client: Client) -> None:
    job = client.submit(loop=LOOP)
    assert client.metrics(job.id, points=10).job_id == job.id


def test_lists_are_searched_and_sorted_by_the_server(client: Client) -> None:
    for name in ("zeta-search", "alpha-search"):
        client.submit(loop=LOOP, name=name)
    found = [job.name for job in client.list_jobs(search="-search", sort="name")]
    assert found == sorted(found) == ["alpha-search", "zeta-search"]
    with pytest.raises(InvalidRequest):
        list(client.list_jobs(sort="weight"))


def test_changes_are_followed_as_they_happen(client: Client) -> None:
    """The first says where the stream begins, so that nothing after it can be missed."""
    stream = client.changes(user="ann", status="running,completed")
    first = next(stream)
    assert isinstance(first, Changes)
    other = Client(client.url, user="bob").submit(loop=LOOP)
    job = client.submit(loop=LOOP)
    seen: dict[str, Status] = {}
    for said in stream:
        assert isinstance(said, Changes)
        seen |= {one.job_id: one.status for one in said.jobs}
        if seen.get(job.id) is Status.COMPLETED:
            break
    assert other.id not in seen
    stream.close()


def test_changes_go_on_after_a_cut(served: Served, client: Client) -> None:
    """A restart of the server must not end a page that is left open over night."""
    stream = client.changes()
    next(stream)
    job = client.submit(loop=LOOP)
    served.call(served.wire.cut())
    served.call(served.wire.open())
    ids = (one.job_id for said in stream if isinstance(said, Changes) for one in said.jobs)
    assert job.id in ids


async def test_the_async_client_asks_the_same(served: Served) -> None:
    async with AsyncClient(served.url, user="ann") as client:
        assert (await client.plan(loop=LOOP)).valid
        stream = client.changes()
        await anext(stream)
        job = await client.submit(loop=LOOP)
        assert (await job.explain()).job_id == job.id
        assert (await job.effect("fail")).action == "fail"
        assert list(await job.metrics(table=True)) == ["attempt", "step", "at"]
        said = await anext(stream)
        assert isinstance(said, Changes)
        await stream.aclose()
