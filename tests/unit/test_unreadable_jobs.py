"""One job's data never disturbs another job, a list or a page: the whole service behind the real API."""

from __future__ import annotations

import asyncio
import sqlite3
import uuid
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from scheduler.adapters.journal import SqliteJournal
from scheduler.core.codec import UNREADABLE
from scheduler.core.lifecycle import RunEnded, StartRun
from scheduler.core.model import Ending, Fence, Gang, JobId, JobSpec, Outcome, Reason
from scheduler.engine.periodic import SystemClock
from scheduler.engine.service import Engine
from scheduler.engine.spec_validation import SpecValidator
from scheduler.ports import Observation
from scheduler.settings import Settings
from scheduler.testing.fake_runner import COMPLETED, FakeRunner
from serve_app.app import create_app
from tests.unit.served import registry_of

BASE = "/api/training"
QUESTIONS = ("status/{}", "{}/events", "{}/attempts", "{}/explain", "{}/effect?action=cancel")


def nested(levels: int) -> Any:
    return {"a": nested(levels - 1)} if levels else 1


SAID: dict[str, Any] = {
    "a key that is no text": {"metrics": {1: 0.5}},
    "half a surrogate pair": {"metrics": {"text": "\ud83d"}},
    "fields that results do not have": {"loss": 1.0, "model": "x"},
    "metrics that are none": {"metrics": "fine"},
    "a huge number": {"metrics": {"n": 10**5000}},
    "nested": {"metrics": nested(300)},
    "not a number": {"metrics": {"loss": float("nan")}},
    "an object": {"metrics": {"model": object()}},
    "no object at all": [1, 2, 3],
}


@dataclass
class System:
    path: Path
    runner: FakeRunner
    service: Engine
    client: httpx.AsyncClient

    async def submit(self, **fields: Any) -> JobId:
        spec = JobSpec(loop="tests.loops:quick", **fields)
        return JobId((await self.service.commands.submit(str(uuid.uuid4()), spec, None))[0].job_id)

    async def settle(self) -> None:
        for _ in range(5):
            await self.service.scheduling.once()
            await asyncio.sleep(0.01)

    async def until(self, job_id: JobId, status: str) -> Any:
        async with asyncio.timeout(30):
            while (said := (await self.client.get(f"{BASE}/status/{job_id}")).json())["status"] != status:
                await asyncio.sleep(0.01)
        return said

    async def listed(self) -> dict[str, Any]:
        answer = await self.client.get(f"{BASE}/jobs")
        assert answer.status_code == 200, answer.text
        return {job["job_id"]: job for job in answer.json()["jobs"]}

    async def health(self) -> Any:
        return (await self.client.get("/health")).json()

    def break_job(self, job_id: JobId, doc: str = "broken") -> None:
        with closing(sqlite3.connect(self.path)) as file, file:
            file.execute("UPDATE jobs SET doc = ? WHERE id = ?", (doc, job_id))


async def life(path: Path, runner: FakeRunner) -> System:
    settings = Settings()
    service = Engine(
        journal=await SqliteJournal.open(path),
        runner=runner,
        clock=SystemClock(),
        settings=settings,
        validator=SpecValidator(["tests.loops:*"], [Path("/tmp")]),
    )
    await service.recover()
    app = create_app(registry_of(service), settings, None)
    client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1:8000")
    return System(path, runner, service, client)


@pytest.fixture
async def system(tmp_path: Path) -> AsyncIterator[System]:
    system = await life(tmp_path / "journal.db", FakeRunner())
    yield system
    await system.client.aclose()
    await system.service.journal.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("said", SAID)
async def test_whatever_a_loop_returned_its_job_completes_and_every_list_answers(
    system: System, said: str
) -> None:
    """B1, B2: `{1: 0.5}` was 500 for everybody until a restart; a surrogate kept the run from ending for ever."""
    job_id = await system.submit()
    await system.settle()
    neighbour = await system.submit(resources=Gang(num_ranks=4))
    system.runner.end((job_id, Fence(1)), replace(COMPLETED, result=SAID[said]))
    first = await system.until(job_id, "completed")
    listed = await system.listed()
    assert listed.keys() == {neighbour, job_id}
    for question in QUESTIONS:
        assert (await system.client.get(f"{BASE}/{question.format(job_id)}")).status_code == 200
    assert (await system.client.get("/training")).status_code == 200
    await system.service.journal.close()  # type: ignore[attr-defined]
    after = await life(system.path, system.runner)
    again = (await after.listed())[job_id]
    assert again == first | {"verified_at": again["verified_at"]}, "memory said what the disk says"
    system.service = after.service


async def test_what_a_run_says_of_itself_takes_no_list_down(system: System) -> None:
    """B2: progress is shown before it is journalled."""
    job_id = await system.submit()
    await system.settle()
    said = {"step": 1, 2: "two", "text": "\ud83d", "loss": float("nan"), "huge": 10**5000, "o": object()}
    system.runner.tells[job_id, Fence(1)] = {"progress": said}
    await system.service.monitor.once()
    progress = (await system.listed())[job_id]["progress"]
    assert progress.keys() == {"step", "2", "text", "loss", "huge", "o"}
    assert (progress["step"], progress["loss"]) == (1, None)


async def test_an_end_with_words_that_nobody_can_keep_is_an_end(system: System) -> None:
    """B1, P1: reasons and evidence too; what the journal refuses costs the words and not the state."""
    job_id = await system.submit()
    await system.settle()
    wrong: Any = object()
    outcome = Outcome(
        ending=Ending.FAILED,
        reason=Reason(code="loop_failed", message="half \ud83d", detail="\udc00"),
        signature=wrong,
        evidence={"logs": {0: "\ud83d", 1: object()}},
    )
    job = system.service.registry.get(job_id)
    assert job is not None
    end = RunEnded(at=job.updated_at, by="scheduler", fence=job.fence, outcome=outcome, end_of_line=9)
    await system.service.store.apply(job, end)  # past whatever makes values plain before
    said = await system.until(job_id, "failed")
    assert "what was said with it could not be kept" in said["reason"]["message"]
    assert (await system.client.get(f"{BASE}/{job_id}/attempts")).json()["attempts"][0]["ending"] == "failed"


async def test_a_broken_document_is_one_of_the_list_and_health_names_it(system: System) -> None:
    """B2: also at start-up; the line goes on past it, and a person can end it."""
    nodes, system.runner.nodes_now = system.runner.nodes_now, ()
    broken, other = await system.submit(), await system.submit()
    system.break_job(broken)
    await system.service.journal.close()  # type: ignore[attr-defined]
    after = await life(system.path, system.runner)
    listed = await after.listed()
    assert listed[broken]["reason"]["code"] == UNREADABLE
    assert (listed[broken]["status"], listed[other]["reason"]["code"]) == ("queued", "accepted")
    (problem,) = [words for words in (await after.health())["problems"] if "cannot be read whole" in words]
    assert broken in problem
    assert other not in problem
    after.runner.nodes_now = nodes
    await after.settle()
    assert (await after.listed())[other]["status"] == "running"
    assert not any(isinstance(one, StartRun) and one.job_id == broken for one in after.runner.started)
    refused = await after.client.post(f"{BASE}/{broken}/force-start")
    assert (refused.status_code, "spec" in refused.text) == (400, True)
    assert (await after.client.post(f"{BASE}/{broken}/cancel")).status_code == 200
    assert (await after.listed())[broken]["status"] == "cancelled"
    assert not any("cannot be read whole" in words for words in (await after.health())["problems"])
    system.service = after.service


async def test_a_job_that_cannot_be_shown_is_shown_as_such_alone(system: System) -> None:
    """B2: whatever is in memory, as from a bug of a later day."""
    odd, fine = await system.submit(), await system.submit()
    await system.settle()
    job = system.service.registry.get(odd)
    assert job is not None
    system.service.registry.put(replace(job, result={"metrics": "no numbers"}))
    listed = await system.listed()
    assert listed[odd]["reason"]["code"] == UNREADABLE
    assert "metrics" in listed[odd]["reason"]["message"]
    assert listed[fine]["reason"]["code"] != UNREADABLE
    assert any(odd in words for words in (await system.health())["problems"])
    system.service.registry.put(job)
    await system.listed()
    assert not any(odd in words for words in (await system.health())["problems"])


async def test_a_running_job_that_cannot_be_read_ends_as_its_run_does(system: System) -> None:
    """B2, R1: its run is alive; its own final record is the truth about it, whatever became of the document."""
    job_id = await system.submit()
    await system.settle()
    system.break_job(job_id)
    await system.service.journal.close()  # type: ignore[attr-defined]
    after = await life(system.path, system.runner)
    assert (await after.listed())[job_id]["status"] == "running"
    assert isinstance(await after.runner.observe((job_id, Fence(1))), Observation)
    after.runner.end((job_id, Fence(1)), COMPLETED)
    await after.until(job_id, "completed")
    system.service = after.service


@pytest.mark.parametrize("broken", [1, 3])
async def test_a_job_of_an_array_that_cannot_be_read_takes_no_other_with_it(
    system: System, broken: int
) -> None:
    """B2: it stands in its place and says so, also where it is the first, which is asked what array it is."""
    body = {"spec": {"loop": "tests.loops:quick", "name": "sweep"}, "parameters": {"seed": [1, 2, 3]}}
    made = (await system.client.post(f"{BASE}/arrays", json=body)).json()
    system.break_job(made["jobs"][broken - 1]["job_id"])
    await system.service.journal.close()  # type: ignore[attr-defined]
    after = await life(system.path, system.runner)
    found = (await after.client.get(f"{BASE}/arrays/{made['array_id']}")).json()
    assert [job["job_id"] for job in found["jobs"]] == [job["job_id"] for job in made["jobs"]]
    assert "cannot be read" in found["jobs"][broken - 1]["reason"]
    assert (found["name"], found["size"], found["counts"]) == ("sweep", 3, {"queued": 3})
    assert (await after.client.get(f"/training/array/{made['array_id']}")).status_code == 200
    system.service = after.service
