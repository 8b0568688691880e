"""What befalls the machines: crashes, frozen processes, lost disks and nodes, and hands in the database."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from copy import deepcopy
from typing import TYPE_CHECKING, Any

from scheduler.core.model import OPERATOR_DOWN, Ending, JobId, Outcome, Reason, Status
from scheduler.testing.fake_runner import LOST
from scheduler.testing.memory import Disk
from tests.sim.faults import Trouble

if TYPE_CHECKING:
    from tests.sim.world import World


OPERATORS_WORD = Outcome(ending=Ending.STOPPED, reason=Reason(code=OPERATOR_DOWN, message="stopped"))


def all_of(world: World) -> Iterator[Coroutine[Any, Any, None]]:
    happens = (
        (Trouble.CRASH, crashes),
        (Trouble.FREEZE, freezes),
        (Trouble.JOURNAL_LOST, backups),
        (Trouble.SKEW, clocks_are_set),
        (Trouble.CLUSTER, nodes_come_and_go),
        (Trouble.CLUSTER, old_runs_speak_again),
        (Trouble.TAMPER, hands_in_the_database),
        (Trouble.POISON, refused_jobs),
        (Trouble.OPERATOR, the_operator_stops_it),
    )
    return (story(world) for trouble, story in happens if trouble in world.scenario.troubles)


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
        await world.calm_or_after(world.rng.choice((1.0, 10.0, 70.0)))
        if world.rng.random() < 0.7:
            life.over.set()
        await world.calm_or_after(world.rng.choice((1.0, 30.0, 200.0)))
        world.note(life.process.name, "thaws")
        life.process.thaw()


async def the_operator_stops_it(world: World) -> None:
    """As `scheduler down` does: the scheduler is told, if it answers; then word is left, and everything is ended."""
    for _ in range(world.rng.randint(1, 2)):
        await asyncio.sleep(world.rng.random() * world.scenario.length_s / 2)
        if world.weather.is_calm or world.life is None:
            return
        save = world.rng.random() < 0.7
        answer = await world.ask(f"shutdown {save=}", lambda it: it.commands.shutdown(save, "operator"))  # noqa: B023
        await world.calm_or_after(world.rng.choice((0.0, 1.0, 2 * world.settings.stop_grace_s)))
        if world.weather.is_calm or world.rng.random() < 0.1:
            return  # killed in the middle, before it ended anything
        leaves_word = answer.value is None or world.rng.random() < 0.8
        world.note("the operator ends everything", f"{leaves_word=}")
        world.life.process.kill()
        world.cluster.end_all(OPERATORS_WORD if leaves_word else LOST)


async def clocks_are_set(world: World) -> None:
    """Somebody sets the clock of the scheduler's machine, far forwards or back; in the end it is right again."""
    for _ in range(world.rng.randint(0, 2)):
        await asyncio.sleep(world.rng.random() * world.scenario.length_s / 2)
        if world.weather.is_calm or world.life is None:
            return
        life, by_s = world.life, world.rng.choice((-3600.0, -900.0, 900.0, 3600.0))
        world.note(life.process.name, "has its clock set by", by_s)
        life.clock.jump(by_s)
        await world.calm_or_after(world.rng.choice((30.0, 200.0)))
        life.clock.jump(-by_s)


async def nodes_come_and_go(world: World) -> None:
    """Some are drained before they go."""
    for _ in range(world.rng.randint(0, 2)):
        await asyncio.sleep(world.rng.random() * world.scenario.length_s / 2)
        nodes = world.cluster.nodes_now
        if world.weather.is_calm or not nodes:
            return
        gone = world.rng.choice(nodes)
        if world.rng.random() < 0.5:
            world.note("node is being drained", gone.id)
            world.cluster.drain_node(gone.id)
            await world.calm_or_after(world.rng.choice((5.0, 60.0)))
            if world.weather.is_calm:
                return
        world.note("node is gone", gone.id)
        world.cluster.lose_node(gone.id)
        await asyncio.sleep(world.rng.choice((5.0, 60.0)))
        if not world.weather.is_calm:
            world.cluster.nodes_now += (gone,)


async def old_runs_speak_again(world: World) -> None:
    """The end of a run is heard once more, when its job may have had another run since."""
    for _ in range(5):
        await asyncio.sleep(world.rng.random() * world.scenario.length_s / 3)
        life, over = world.life, world.checks.ledger.admitted
        if world.weather.is_calm:
            return
        if life and life.serves and over:
            job = world.rng.choice(over)
            world.note("an old run speaks again", job.id, job.fence)
            life.process.start(life.follow(job))


async def hands_in_the_database(world: World) -> None:
    """Somebody writes states that only a scheduler may write, or deletes what is not theirs."""
    for _ in range(world.rng.randint(1, 6)):
        await asyncio.sleep(world.rng.random() * world.scenario.length_s / 3)
        if world.weather.is_calm:
            return
        if rows := sorted(job_id for job_id in world.database.rows if _is_visible(world, job_id)):
            tamper(world, world.rng.choice(rows))


def _is_visible(world: World, job_id: JobId) -> bool:
    """A reconciler reads active rows, and finished ones with a copy that they contradict: what was spoiled must be such
    that it can be seen."""
    return not world.checks.copies.is_by_hand(job_id)


def tamper(world: World, job_id: JobId) -> None:
    rows, version = world.database, world.database.rows[job_id]["version"]
    deeds: dict[str, Callable[[], None]] = {
        "set running": lambda: rows.set(job_id, status="running"),
        "set completed": lambda: rows.set(job_id, status="completed"),
        "deleted": lambda: rows.delete(job_id),
        "version raised": lambda: rows.set(job_id, version=version + world.rng.choice((1, 1000))),
        "copy spoiled": lambda: rows.set(job_id, job={"id": job_id, "spec": "?"}),
    }
    if Status(rows.rows[job_id]["status"]).is_terminal:
        del deeds["deleted"]  # of a job that is over nobody would notice
        deeds["set cancelled"] = lambda: rows.set(job_id, status="cancelled")
    deed = world.rng.choice(list(deeds))
    world.note("by hand", job_id, deed)
    deeds[deed]()
    world.checks.tampered(job_id)


async def refused_jobs(world: World) -> None:
    """The database does not take some jobs, whatever is tried; later it does."""
    for _ in range(2):
        await asyncio.sleep(world.rng.random() * world.scenario.length_s / 2)
        if world.weather.is_calm or not world.job_ids:
            return
        job_id = world.rng.choice(world.job_ids)
        world.note("the database refuses", job_id)
        world.poisoned.add(job_id)


def time_to_restart_s(world: World) -> float:
    return world.rng.choice((1.0, 1.0, 5.0, 5.0, 20.0, 20.0, 1.5 * world.settings.stale_after_s))


def perhaps_lose_journal(world: World) -> None:
    """Sometimes there is a backup, which is older.  Without a database nobody but whoever puts it in place can tell an
    older life that its journal is gone: they end it first."""
    if Trouble.JOURNAL_LOST not in world.scenario.troubles or world.rng.random() < 0.5:
        return
    if not world.scenario.has_database:
        for life in world.lives:
            life.process.kill()
    backup = world.backup if world.rng.random() < 0.5 else None
    world.note("the journal is lost", "and restored from a backup" if backup else "")
    world.disk = deepcopy(backup) if backup else Disk()
    world.checks.journal_lost()


async def backups(world: World) -> None:
    """Now and then somebody copies the journal; the newest copy is kept."""
    while not world.weather.is_calm:
        await asyncio.sleep(world.rng.random() * world.scenario.length_s / 3)
        world.backup = deepcopy(world.disk)
