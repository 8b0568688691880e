"""Once nothing disturbs any more, everything comes to rest in bounded time, and stays so."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any

from scheduler.api.nodes import NodeDocument
from scheduler.core.model import JobId
from scheduler.engine.service import Engine
from tests.sim.rest import unrest

if TYPE_CHECKING:
    from tests.sim.lives import Life
    from tests.sim.world import World

LOOKS_EVERY_S = 10.0
MAX_LOOKS = 4
"""So often may a waiting job be seen without a reason, while placement comes round every `tick_every_s`."""
RESTART_S = 60.0


async def come_to_rest(world: World) -> None:
    """All agree; then nothing moves any more, and a restart finds nothing to do."""
    await _reach(world, lambda: unrest(world))
    await _nothing_to_repair(world)
    num_changes = world.disk.last_seq
    await asyncio.sleep(2 * world.settings.reconcile_every_s)
    assert world.life
    world.life.process.kill()
    await asyncio.sleep(RESTART_S)
    world.checks.tell(unrest(world))
    if world.disk.last_seq != num_changes:
        world.broken("all was at rest, and then something changed by itself")


async def refused_jobs_hold_up_nobody(world: World) -> None:
    """While the database refuses some jobs, all the others come to rest."""

    def others() -> list[str]:
        left = [words for words in unrest(world) if not any(job_id in words for job_id in world.poisoned)]
        return [words for words in left if "the outbox" not in words and "the relay loop" not in words]

    await _reach(world, others)


async def watch_the_line(world: World) -> None:
    """L5: who waits knows why, a few passes of placement later at most."""
    unexplained: dict[tuple[Life, JobId, int], int] = {}
    while True:
        await asyncio.sleep(LOOKS_EVERY_S)
        unexplained = {one: unexplained.get(one, 0) + 1 for one in _unexplained(world.life)}
        if any(looks > MAX_LOOKS for looks in unexplained.values()):
            world.broken(f"nobody can say why these wait: {sorted(one[1] for one in unexplained)}")


def _unexplained(life: Life | None) -> list[tuple[Life, JobId, int]]:
    if life is None or life.service is None or life.process.is_dead or life.process.is_frozen:
        return []
    waits, queued = life.service.views.waits, life.service.registry.queued()
    return [(life, job.id, job.version) for job in queued if waits(job.id) is None]


async def _reach(world: World, left_over: Callable[[], list[str]]) -> None:
    until_s = world.loop.time() + world.scenario.patience_s
    while left := left_over():
        await _let_nodes_back(world)
        if world.loop.time() > until_s:
            world.broken(f"no rest within {world.scenario.patience_s:g} s: {'; '.join(left)}")
        await asyncio.sleep(LOOKS_EVERY_S)


async def _let_nodes_back(world: World) -> None:
    """What was set aside is looked at by somebody; for some jobs there may be no other node."""
    for node in sorted(world.cluster.set_aside()):
        await world.ask(f"allow {node}", partial(_allow, node=node))


def _allow(engine: Engine, node: str) -> Coroutine[Any, Any, NodeDocument]:
    return engine.bad_nodes.allow_node(node, "ann")


async def _nothing_to_repair(world: World) -> None:
    """R7"""
    for dry_run in (True, False, False):
        answer = await world.ask(f"reconcile {dry_run=}", lambda it: it.sync.reconcile(dry_run))  # noqa: B023
        if answer.value is None or answer.value.repairs:
            world.broken(f"at rest, reconcile({dry_run=}) gave {answer}")
