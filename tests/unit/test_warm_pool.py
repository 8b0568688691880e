"""Prepared processes: what is ready is what says so, and no failure turns the pool off."""

from __future__ import annotations

import logging
from collections.abc import Collection

import pytest

from scheduler.core.model import Node, NodeId
from scheduler.runs import ray_internals, warm_pool
from scheduler.runs.warm_pool import CHILDREN, SET, WarmPool

N1, N2 = NodeId("n1"), NodeId("n2")


def a_node(node_id: NodeId = N1, cpus: float = 4.0) -> Node:
    return Node(id=node_id, name=node_id, cpus=8.0, gpus=0.0, available_cpus=cpus, available_gpus=0.0)


class World:
    """Ray's nodes as the pool asks them, and the processes on them."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.requests: list[tuple[str, int]] = []
        self.environments: set[str] = set()
        self.announced: set[tuple[str, int]] = set()
        self.dead: set[int] = set()
        self.refuses: Exception | None = None
        self.is_silent: Exception | None = None

    def prestart_processes(self, node_id: str, environment: str, count: int, keep_s: int) -> None:
        if self.refuses:
            raise self.refuses
        self.requests.append((node_id, count))
        self.environments.add(environment)

    def prepared_processes(self) -> frozenset[tuple[str, int]]:
        if self.is_silent:
            raise self.is_silent
        return frozenset(self.announced)

    def pids_on(self, node_id: str) -> frozenset[int]:
        return frozenset(pid for node, pid in self.announced if node == node_id) - self.dead

    def withdraw_prepared(self, node_id: str, pid: int) -> None:
        self.announced.discard((node_id, pid))

    def come_up(self, node: NodeId = N1, count: int = SET) -> list[int]:
        """Processes have imported everything, and say so."""
        first = 100 + len(self.announced) + len(self.requests) * 100
        pids = list(range(first, first + count))
        self.announced |= {(node, pid) for pid in pids}
        return pids


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    world = World()
    for name in ("prestart_processes", "prepared_processes", "pids_on", "withdraw_prepared"):
        monkeypatch.setattr(ray_internals, name, getattr(world, name))
    return world


def a_pool(world: World, size: int = 1) -> WarmPool:
    return WarmPool(size, {"A": "1"}, lambda: world.now_s)


async def look(
    world: World, pool: WarmPool, *nodes: Node, after_s: float = 2.0, busy: Collection[NodeId] = ()
) -> int:
    """One pass; returns how many sets it asked for."""
    before = len(world.requests)
    world.now_s += after_s
    await pool.refill_once(nodes or (a_node(),), frozenset(busy))
    return (len(world.requests) - before) // 2


async def test_what_was_only_asked_for_is_not_ready(world: World) -> None:
    """They counted as ready when they were asked for: a run that came then paid a cold start all the same."""
    pool = a_pool(world)
    assert await look(world, pool) == 1
    assert world.requests == [(N1, 1), (N1, CHILDREN)]
    assert world.environments == {'{"env_vars": {"A": "1"}}', '{"env_vars":{"A":"1"}}'}
    assert (pool.health().ready, pool.health().note) == (0, "1 more is being prepared")

    world.come_up(count=SET - 1)
    assert await look(world, pool) == 0, "the rest is on its way"
    assert pool.health().ready == 0, "a run that finds only some of its processes starts cold"

    world.come_up(count=1)
    assert await look(world, pool) == 0
    assert (pool.health().ready, pool.health().note) == (1, "")


async def test_what_a_run_took_is_made_anew(world: World) -> None:
    pool = a_pool(world)
    await look(world, pool)
    taken = world.come_up()
    await look(world, pool)
    pool.took(N1, warm=True)
    for pid in taken:
        world.withdraw_prepared(N1, pid)
    assert await look(world, pool, busy={N1}) == 0, "not beside a start"
    assert pool.health().ready == 0
    assert await look(world, pool) == 1
    assert (pool.health().hits, pool.health().misses) == (1, 0)


async def test_one_request_that_fails_does_not_turn_the_pool_off(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """One raylet that did not answer in time, once, and every later start was cold until the actor restarted."""
    pool = a_pool(world)
    world.refuses = TimeoutError("the raylet does not answer")
    with caplog.at_level(logging.WARNING):
        await look(world, pool)
        await look(world, pool, after_s=5)
    assert pool.health().size == 1
    assert pool.health().note == "processes cannot be prepared: TimeoutError: the raylet does not answer"
    assert len(caplog.records) == 1, "the same words again and again hide all others"

    world.refuses = None
    assert await look(world, pool, after_s=10) == 1
    world.come_up()
    await look(world, pool)
    assert (pool.health().ready, pool.health().note) == (1, "")


async def test_a_node_that_refuses_is_asked_less_and_less(world: World) -> None:
    """Else a Ray that has no such call any more is asked for ever, every two seconds."""
    pool, tries = a_pool(world), 0

    def refuse(*_: object) -> None:
        nonlocal tries
        tries += 1
        raise RuntimeError("no such call")

    ray_internals.prestart_processes = refuse  # the fixture puts it back
    for _ in range(3600 // 2):
        await look(world, pool)
    assert 4 <= tries <= 8


async def test_one_node_that_refuses_does_not_keep_others_cold(world: World) -> None:
    pool = a_pool(world)

    def refuse_n1(node_id: str, environment: str, count: int, keep_s: int) -> None:
        if node_id == N1:
            raise TimeoutError
        World.prestart_processes(world, node_id, environment, count, keep_s)

    ray_internals.prestart_processes = refuse_n1  # the fixture puts it back
    await look(world, pool, a_node(N1), a_node(N2))
    assert world.requests == [(N2, 1), (N2, CHILDREN)]


async def test_a_request_that_a_node_drops_is_said_and_made_again(world: World) -> None:
    """A raylet starts what it has room for, and does not say that it dropped the rest."""
    pool = a_pool(world)
    await look(world, pool)
    assert await look(world, pool, after_s=warm_pool.UP_WITHIN_S - 1) == 0
    assert await look(world, pool, after_s=2) == 0, "and not at once, on a machine that is so busy"
    assert "did not come up" in pool.health().note
    assert await look(world, pool, after_s=warm_pool.LATE_PAUSE_S) == 1


async def test_after_a_miss_all_is_made_anew(world: World) -> None:
    """The environment was not what the run asked for: what is there would never be taken."""
    pool = a_pool(world)
    await look(world, pool)
    world.come_up()
    await look(world, pool)
    pool.took(N1, warm=False)
    assert pool.health().ready == 0
    assert await look(world, pool) == 1
    world.come_up()
    await look(world, pool)
    assert (pool.health().ready, pool.health().misses) == (1, 1)


async def test_processes_that_died_are_not_ready(world: World) -> None:
    """The memory killer of Ray takes idle processes first, and they say nothing any more."""
    pool = a_pool(world)
    await look(world, pool)
    pids = world.come_up()
    await look(world, pool)
    assert pool.health().ready == 1
    world.dead |= set(pids)
    assert await look(world, pool, after_s=warm_pool.CHECK_EVERY_S) == 1
    assert pool.health().ready == 0
    assert world.announced == set()


async def test_a_node_that_left_takes_its_processes_with_it(world: World) -> None:
    pool = a_pool(world)
    await look(world, pool, a_node(N1), a_node(N2))
    world.come_up(N1)
    world.come_up(N2)
    await look(world, pool, a_node(N1), a_node(N2))
    assert pool.health().ready == 2
    await look(world, pool, a_node(N1))
    assert pool.health().ready == 1


async def test_what_nobody_looks_at_any_more_is_not_ready(world: World) -> None:
    """Ray ends the prepared processes of a driver that has gone, and then nobody fills the pool."""
    pool = a_pool(world)
    await look(world, pool)
    world.come_up()
    await look(world, pool)
    world.now_s += warm_pool.FORGOTTEN_AFTER_S + 1
    assert pool.health().ready == 0
    assert "gone" in pool.health().note


async def test_a_gcs_that_is_away_is_said_and_asked_again(world: World) -> None:
    pool = a_pool(world)
    world.is_silent = ConnectionError("the GCS is away")
    assert await look(world, pool) == 0
    assert pool.health().note == "what is prepared cannot be seen: ConnectionError: the GCS is away"
    world.is_silent = None
    assert await look(world, pool) == 1
    assert "GCS" not in pool.health().note


async def test_a_pool_that_is_turned_off_asks_nobody(world: World) -> None:
    world.is_silent = AssertionError("asked")
    pool = a_pool(world, size=0)
    assert await look(world, pool) == 0
    assert pool.health().note == ""
