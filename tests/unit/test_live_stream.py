"""Changes over real HTTP: a submit is seen at once, a lost connection goes on where it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from httpx_sse import EventSource

from scheduler.api.jobs import CHANGE_EVENTS, Changes
from scheduler.client import Client
from scheduler.core.model import Status
from serve_app.change_hub import ChangeBatch, ChangedJob
from serve_app.change_stream import ChangesQuery, Wanted
from tests.unit.edge import client_of, problem_of
from tests.unit.recording_registry import RecordingRegistry, a_document
from tests.unit.served import LOOP, Served, scheduler_at

URL = "/api/training/changes"


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with scheduler_at(tmp_path) as it:
        yield it


class Stream:
    """The events of one connection; `until` reads on."""

    def __init__(self, answer: httpx.Response) -> None:
        self.answer, self.last_id = answer, ""
        self._events = (event for event in EventSource(answer).iter_sse() if event.data)

    def next(self) -> Any:
        event = next(self._events)
        self.last_id = event.id
        return CHANGE_EVENTS[event.event].model_validate_json(event.data)

    def until(self, job_id: str, status: str) -> Changes:
        while True:
            told = self.next()
            if any((job.job_id, job.status) == (job_id, status) for job in getattr(told, "jobs", ())):
                return told


@contextmanager
def stream(served: Served, last_id: str = "", **query: str) -> Iterator[Stream]:
    headers = {"Last-Event-ID": last_id} if last_id else {}
    with httpx.stream("GET", served.url + URL, params=query, headers=headers, timeout=30) as answer:
        answer.raise_for_status()
        yield Stream(answer)


def a_spec(**fields: Any) -> dict[str, Any]:
    return {"loop": LOOP, "config": {"seconds": 30}, **fields}


def test_a_job_is_followed_from_its_submit_to_its_end(served: Served) -> None:
    """L6: each change comes by itself, with the job as it is now and how many stand where."""
    client = Client(served.url)
    with stream(served) as changes:
        assert changes.answer.headers["content-type"].startswith("text/event-stream")
        assert changes.answer.headers["x-accel-buffering"] == "no"
        first = changes.next()
        assert (first.jobs, first.missed) == ([], False)
        job = client.submit(a_spec(name="seen"))
        seen = changes.until(job.id, "running")
        assert seen.counts == {Status.RUNNING: 1}
        assert (seen.jobs[0].name, seen.jobs[0].version) == ("seen", client.status(job.id).version)
        client.cancel(job.id)
        assert changes.until(job.id, "cancelled").counts == {Status.CANCELLED: 1}


def test_a_lost_connection_goes_on_after_its_last_event(served: Served) -> None:
    """Nothing of what changed while a browser connected again is lost."""
    client = Client(served.url)
    with stream(served) as changes:
        changes.next()
        last_id = changes.last_id
    job = client.submit(a_spec())
    client.cancel(job.id)
    for again in (stream(served, last_id), stream(served, **{"from": last_id})):
        with again as changes:
            told = changes.next()
            assert [known.job_id for known in told.jobs] == [job.id]
            assert told.missed is False
    with stream(served, "999.3") as changes:
        assert changes.next().missed is True


def test_only_what_was_asked_for_is_told(served: Served) -> None:
    client = Client(served.url)
    with (
        stream(served, user="ada") as of_ada,
        stream(served, project="p") as of_p,
        stream(served) as of_all,
    ):
        for one in (of_ada, of_p, of_all):
            one.next()
        other = client.submit(a_spec(user="bob", project="p"))
        mine = client.submit(a_spec(user="ada", project="q"))
        of_all.until(mine.id, "running")
        with stream(served, job_id=mine.id) as of_mine:
            of_mine.next()
            client.cancel(other.id)
            client.cancel(mine.id)
            told = of_mine.until(mine.id, "cancelled")
            assert {job.job_id for job in told.jobs} == {mine.id}
        assert {job.user for job in _specs(of_ada, mine.id)} == {"ada"}
        assert {job.user for job in _specs(of_p, other.id)} == {"bob"}


def _specs(changes: Stream, job_id: str) -> list[Any]:
    """Of all jobs that are told until this one has ended."""
    found: list[Any] = []
    while True:
        told = changes.next()
        found += [job.spec for job in told.jobs]
        if any((job.job_id, job.status) == (job_id, "cancelled") for job in told.jobs):
            return found


def test_progress_and_places_in_the_line_are_told(served: Served) -> None:
    """What moves without a change of the job's state: the row of a table is about that."""
    client = Client(served.url)
    with stream(served) as changes:
        changes.next()
        first = client.submit(
            a_spec(config={"seconds": 30, "progress": {"step": 3}}, resources={"cpus_per_rank": 4})
        )
        waiting = [client.submit(a_spec(resources={"cpus_per_rank": 4})) for _ in range(2)]
        known: dict[str, Any] = {}
        _read(changes, known, lambda: (known[first.id].progress or {}).get("step") == 3)
        _read(changes, known, lambda: known[waiting[1].id].queue_position == 2)
        client.cancel(waiting[0].id)
        _read(changes, known, lambda: known[waiting[1].id].queue_position == 1)
        assert known[waiting[1].id].reason.code not in ("accepted", "submitted")


def test_progress_alone_is_told(served: Served) -> None:
    """A run makes thousands of steps without a change of its state."""
    client = Client(served.url)
    with stream(served) as changes:
        changes.next()
        job = client.submit(a_spec())
        changes.until(job.id, "running")
        for step in (5, 6):
            (run,) = served.service.runner.runs.values()  # type: ignore[attr-defined]
            run.spec.config["progress"] = {"step": step}
            _read(changes, known := {}, lambda step=step: known[job.id].progress == {"step": step})


def _read(changes: Stream, known: dict[str, Any], is_seen: Any) -> None:
    while True:
        with suppress(KeyError):
            if is_seen():
                return
        known |= {job.job_id: job for job in changes.next().jobs}


def test_a_job_that_leaves_the_statuses_is_told_once_more() -> None:
    """Else a list of running jobs would keep what runs no longer."""
    wanted = Wanted(ChangesQuery(status="running"))
    for status, is_told in [("queued", False), ("running", True), ("completed", True), ("completed", False)]:
        news = ChangeBatch(1, 1, (ChangedJob(a_document(status=Status(status)), 1),), {}, missed=False)
        assert bool(wanted.of(news)) == is_told, status


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("?status=runing", "status"),
        ("?from=abc", "from"),
        ("?job_id=7", "job_id"),
        ("?statuses=running", "statuses"),
    ],
)
async def test_what_cannot_be_followed_is_refused_before_the_stream_begins(query: str, field: str) -> None:
    async with client_of(RecordingRegistry()) as client:
        response = await client.get(URL + query)
    assert response.status_code == 422
    assert problem_of(response).errors[0].field == field


def test_an_event_is_one_line_of_data_however_odd_a_name_is(served: Served) -> None:
    """A line end within the data would end the event."""
    client = Client(served.url)
    with stream(served) as changes:
        changes.next()
        job = client.submit(a_spec(name="a\nb\r\u2028c ✓"))
        told = changes.until(job.id, "running")
        assert told.jobs[0].name == "a\nb\r\u2028c ✓"
