"""What befalls the machines: crashes, frozen processes, lost disks and nodes, and hands in the database."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from typing import TYPE_CHECKING, Any

from scheduler.testing.memory import Disk
from tests.sim.faults import Trouble

if TYPE_CHECKING:
    from tests.sim.world import World


def all_of(world: World) -> Iterator[Coroutine[Any, Any, None]]:
    happens = {
        Trouble.CRASH: crashes,
        Trouble.FREEZE: freezes,
        Trouble.CLUSTER: nodes_come_and_go,
    }
    return (story(world) for trouble, story in happens.items() if trouble in world.scenario.troubles)


async def crashes(world: World) -> None:
    """Some steps after a moment that the seed chose, whatever the life is doing then."""
    for _ in range(world.rng.randint(1, 4)):
        await asyncio.sleep(world.rng.random() * world.scenario.length_s / 2)
        if world.weather.is_calm:
            return
        if world.life and world.life.process.steps_left is None:
            world.life.process.steps_left = world.rng.choice((0, 1, 3, 10, 30, 100))


async def freezes(world: World) -> None:
    """A process stands still.  It may be replaced meanwhile, and then wakes up as the old one of two."""
    for _ in range(world.rng.randint(1, 2)):
        await asyncio.sleep(world.rng.random() * world.scenario.length_s / 2)
        if world.weather.is_calm or world.life is None or world.life.process.is_dead:
            return
        life = world.life
        world.note(life.process.name, "freezes")
        life.process.freeze()
        await asyncio.sleep(world.rng.choice((1.0, 10.0, 70.0)))
        if world.rng.random() < 0.7:
            life.over.set()
        await asyncio.sleep(world.rng.choice((1.0, 30.0, 200.0)))
        world.note(life.process.name, "thaws")
        life.process.thaw()


async def nodes_come_and_go(world: World) -> None:
    for _ in range(world.rng.randint(0, 2)):
        await asyncio.sleep(world.rng.random() * world.scenario.length_s / 2)
        nodes = world.cluster.nodes_now
        if world.weather.is_calm or not nodes:
            return
        gone = world.rng.choice(nodes)
        world.note("node is gone", gone.id)
        world.cluster.lose_node(gone.id)
        await asyncio.sleep(world.rng.choice((5.0, 60.0)))
        if not world.weather.is_calm:
            world.cluster.nodes_now += (gone,)


def time_to_restart_s(world: World) -> float:
    if world.weather.is_calm:
        return 5.0
    return world.rng.choice((1.0, 5.0, 20.0, 1.5 * world.settings.stale_after_s))


def perhaps_lose_journal(world: World) -> None:
    if Trouble.JOURNAL_LOST in world.scenario.troubles and world.rng.random() < 0.3:
        world.note("the journal is lost")
        world.disk = Disk()
        world.checks.journal_lost()
