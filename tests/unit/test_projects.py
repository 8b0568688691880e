"""Projects in the engine and over HTTP: shares that survive a restart, and what each project holds (S1)."""

from __future__ import annotations

import asyncio
import math
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from scheduler.core.contender import Share
from scheduler.core.model import Gang, Node, NodeId, Status
from scheduler.engine.projects import Projects
from scheduler.errors import InvalidRequest, JournalUnwritable, Superseded
from scheduler.testing.memory import Disk, MemoryJournal
from tests.unit.edge import SUBMIT, client_of, problem_of
from tests.unit.recording_registry import RecordingRegistry, a_project
from tests.unit.test_service import World, a_loop

PROJECTS = f"{SUBMIT}/projects"


async def projects_of(world: World) -> Projects:
    return (await world.life()).projects


def fields_of(error: InvalidRequest) -> list[str]:
    return [one.field for one in error.problems]


class TestShares:
    async def test_what_was_set_is_there_in_the_next_life(self) -> None:
        """S1: a quota that a restart forgets is none."""
        world = World()
        projects = await projects_of(world)
        assert await projects.set("vision", {"weight": 2, "quota": 8}) == Share(weight=2, quota=8)
        assert await projects.set("vision", {"limit": 16}) == Share(weight=2, quota=8, limit=16)
        await projects.set("speech", {"weight": 3})
        await projects.forget("speech")
        assert (await projects_of(world)).shares == {"vision": Share(weight=2, quota=8, limit=16)}

    async def test_null_takes_the_limit_away_and_what_is_left_out_stays(self) -> None:
        projects = await projects_of(World())
        await projects.set("vision", {"quota": 4, "limit": 8})
        assert await projects.set("vision", {}) == Share(quota=4, limit=8)
        assert await projects.set("vision", {"limit": None}) == Share(quota=4)

    @pytest.mark.parametrize(
        ("changes", "field"),
        [
            *(({"weight": bad}, "weight") for bad in (0, -1, math.nan, math.inf, 5e-324, 1e300)),
            *(({"quota": bad}, "quota") for bad in (-0.5, math.nan, math.inf, 1e300)),
            *(({"limit": bad}, "limit") for bad in (-1, 3.5, math.nan, math.inf, 1e300)),
        ],
    )
    async def test_what_cannot_be_a_share_is_refused_by_its_field(
        self, changes: dict[str, Any], field: str
    ) -> None:
        """A weight of nothing, or a limit below the quota (4 here), would starve whoever has it."""
        world = World()
        projects = await projects_of(world)
        await projects.set("vision", {"quota": 4})
        writes = world.disk.num_writes
        with pytest.raises(InvalidRequest) as error:
            await projects.set("vision", changes)  # type: ignore[arg-type]
        assert fields_of(error.value) == [field]
        assert (world.disk.num_writes, projects.shares) == (writes, {"vision": Share(quota=4)})

    @pytest.mark.parametrize("name", ["", "x" * 201, "\ud800"])
    async def test_a_name_that_no_job_could_have_is_refused(self, name: str) -> None:
        projects = await projects_of(World())
        with pytest.raises(InvalidRequest) as error:
            await projects.set(name, {"weight": 2})
        assert fields_of(error.value) == ["name"]

    async def test_nothing_is_true_before_the_journal_has_it(self) -> None:
        """A share that only memory had would decide until the next restart."""
        world = World()
        projects = await projects_of(world)
        await projects.set("vision", {"weight": 2})
        for change in (lambda: projects.set("vision", {"weight": 3}), lambda: projects.forget("vision")):
            world.disk.fail_next = JournalUnwritable("the disk is full")
            with pytest.raises(JournalUnwritable):
                await change()
        assert projects.shares == {"vision": Share(weight=2)}
        MemoryJournal(world.disk)  # a newer life
        with pytest.raises(Superseded):
            await projects.set("vision", {"weight": 3})

    async def test_changes_that_meet_are_both_made(self) -> None:
        projects = await projects_of(World())
        await asyncio.gather(projects.set("vision", {"weight": 2}), projects.set("vision", {"quota": 4}))
        assert projects.shares == {"vision": Share(weight=2, quota=4)}

    async def test_a_caller_that_goes_away_leaves_memory_as_the_journal_is(self) -> None:
        """Else the shares that decide would not be those of the next life."""
        world = World()
        projects = await projects_of(world)
        for turns in range(4):
            asked = asyncio.create_task(projects.set("vision", {"weight": 2 + turns}))
            for _ in range(turns):
                await asyncio.sleep(0)
            asked.cancel()
            await asyncio.gather(asked, return_exceptions=True)
            await asyncio.sleep(0.01)
            assert projects.shares == await MemoryJournal(Disk(projects=world.disk.projects)).projects()

    async def test_a_decision_keeps_the_shares_that_it_began_with(self) -> None:
        """They are replaced as a whole, never changed below somebody who reads them."""
        projects = await projects_of(World())
        await projects.set("vision", {"weight": 2})
        seen = projects.shares
        await projects.set("vision", {"weight": 3})
        await projects.forget("vision")
        assert seen == {"vision": Share(weight=2)}

    async def test_saying_the_same_again_writes_nothing(self) -> None:
        world = World()
        projects = await projects_of(world)
        await projects.set("vision", {"weight": 2})
        writes = world.disk.num_writes
        await projects.set("vision", {"weight": 2})
        await projects.forget("nobody")
        assert world.disk.num_writes == writes


class TestWhatIsHeld:
    async def world(self, *nodes: Node) -> World:
        """Of `vision` one job runs and one waits; one without a project runs; `speech` was set and has no job."""
        world = World()
        world.runner.nodes_now = nodes
        await world.life()
        await world.service.projects.set("speech", {"quota": 2})
        gpus = sum(node.gpus for node in nodes)
        for project, ranks in (("vision", 2), ("", 1), ("vision", 2)):
            gang = Gang(num_ranks=ranks, cpus_per_rank=1, gpus_per_rank=1 if gpus else 0)
            await world.submit(a_loop(project=project, resources=gang))
        await world.settle()
        return world

    @pytest.mark.parametrize(("unit", "gpus"), [("GPU", 3.0), ("CPU", 0.0)])
    async def test_each_project_is_listed_with_what_it_holds(self, unit: str, gpus: float) -> None:
        """In CPUs where there is nothing else to share."""
        world = await self.world(Node(id=NodeId("node-1"), name="node-1", cpus=3.0, gpus=gpus))
        found = await world.service.projects.projects()
        assert found.unit == unit
        rows = [(one.name, one.quota, one.held, one.running, one.queued) for one in found.projects]
        assert rows == [("", 0, 1, 1, 0), ("speech", 2, 0, 0, 0), ("vision", 0, 2, 1, 1)]

    async def test_a_project_whose_jobs_have_ended_is_listed_only_where_it_was_set(self) -> None:
        world = World()
        await world.life()
        await world.ended_run()
        job = next(iter(world.disk.all_jobs()))
        assert job.status is Status.COMPLETED
        assert (await world.service.projects.projects()).projects == []
        await world.service.projects.set("vision", {})
        assert [one.name for one in (await world.service.projects.projects()).projects] == ["vision"]

    async def test_a_change_answers_with_what_the_project_holds(self) -> None:
        world = await self.world(Node(id=NodeId("node-1"), name="node-1", cpus=3.0, gpus=3.0))
        changed = await world.service.projects.set_project("vision", {"weight": 2, "limit": 4}, "ann")
        assert (changed.weight, changed.limit, changed.held, changed.queued) == (2, 4, 2, 1)
        back = await world.service.projects.forget_project("vision", "ann")
        assert (back.weight, back.limit, back.running) == (1, None, 1)


class TestOverHttp:
    @pytest.fixture
    def registry(self) -> RecordingRegistry:
        return RecordingRegistry()

    @pytest.fixture
    def client(self, registry: RecordingRegistry) -> httpx.AsyncClient:
        return client_of(registry)

    async def test_projects_are_listed(self, client: httpx.AsyncClient, registry: RecordingRegistry) -> None:
        registry.known_projects = [a_project(""), a_project("vision", limit=8.0)]
        answer = (await client.get(PROJECTS)).json()
        assert answer["unit"] == "GPU"
        assert [(one["name"], one["limit"], one["held"]) for one in answer["projects"]] == [
            ("", None, 12.0),
            ("vision", 8.0, 12.0),
        ]

    @pytest.mark.parametrize("name", ["vision", "a b", "team/vision", "é", "..", "x?y#z", "50%", "pause"])
    async def test_a_change_reaches_the_registry_whatever_the_name(
        self, name: str, client: httpx.AsyncClient, registry: RecordingRegistry
    ) -> None:
        path = f"{PROJECTS}/{quote(name, safe='').replace('.', '%2E')}"
        changed = await client.put(path, json={"weight": 2, "limit": None}, headers={"X-User": "ann"})
        assert (changed.status_code, changed.json()["name"], changed.json()["weight"]) == (200, name, 2.0)
        assert (await client.delete(path)).json()["weight"] == 1.0
        assert registry.calls == [
            ("set_project", name, {"weight": 2.0, "limit": None}, "ann"),
            ("forget_project", name, "api"),
        ]

    @pytest.mark.parametrize(
        ("body", "field"),
        [
            ('{"weight": 0}', "weight"),
            ('{"weight": null}', "weight"),
            ('{"weight": "2"}', "weight"),
            ('{"quota": -1}', "quota"),
            ('{"quota": true}', "quota"),
            ('{"limit": NaN}', "limit"),
            ('{"limits": 3}', "limits"),
            ('{"quota": 1, "quota": 2}', "quota"),
            ("[]", "body"),
            ("", "body"),
            ("weight=2", "body"),
        ],
    )
    async def test_a_body_that_is_no_share_is_refused_by_its_field(
        self, body: str, field: str, client: httpx.AsyncClient, registry: RecordingRegistry
    ) -> None:
        """In words for a share: nobody who sets a quota wants to hear of a job."""
        headers = {"Content-Type": "application/json"}
        problem = problem_of(await client.put(f"{PROJECTS}/vision", content=body, headers=headers))
        assert (problem.status, problem.code) == (422, "invalid_request")
        assert [one.field for one in problem.errors] == [field]
        assert "job" not in problem.detail
        assert registry.calls == []

    @pytest.mark.parametrize("path", ["", "x" * 201, "a%00b"])
    @pytest.mark.parametrize("method", ["PUT", "DELETE"])
    async def test_a_name_that_no_project_can_have_is_refused(
        self, method: str, path: str, client: httpx.AsyncClient, registry: RecordingRegistry
    ) -> None:
        """A project without a name is listed, and has the default."""
        problem = problem_of(await client.request(method, f"{PROJECTS}/{path}", content="{}"))
        assert (problem.status, [one.field for one in problem.errors]) == (422, ["name"])
        assert registry.calls == []

    async def test_a_page_of_another_site_changes_no_project(
        self, client: httpx.AsyncClient, registry: RecordingRegistry
    ) -> None:
        foreign = {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}
        for method in ("PUT", "DELETE"):
            answer = await client.request(method, f"{PROJECTS}/vision", content="{}", headers=foreign)
            assert problem_of(answer).code == "forbidden"
        assert registry.calls == []
        assert (await client.options(f"{PROJECTS}/vision")).headers["allow"] == "PUT, DELETE, OPTIONS"
