"""Plays seeds, and tells what went wrong in them."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from scheduler.errors import SchedulerError
from tests.sim.faults import Trouble
from tests.sim.world import World

LAST_LINES = 60
"""How much of the story a failure shows."""


def verdict(seed: int, troubles: Collection[Trouble] | None = None) -> str | None:
    """Which promise was broken, after the end of the story; None when all were kept."""
    world = World(seed, None if troubles is None else frozenset(troubles))
    words = play(world)
    return words and f"{story(world, LAST_LINES)}\n{words}\nThe whole story: make sim FIRST={seed} SEEDS=1"


def play(world: World) -> str | None:
    """Which promise was broken, in one line."""
    try:
        with _listening(world):
            world.run()
    except Exception as error:  # noqa: BLE001  a mistake of the simulation itself is told like any other
        return f"seed {world.seed}: {type(error).__name__}: {_named(str(error), world)}"
    return None


def story(world: World, last: int | None = None) -> str:
    """One line for each thing that happened; jobs are called by their number."""
    lines = [f"{at_s:>10.3f}  {' '.join(map(str, words))}" for at_s, *words in world.history]
    return "\n".join(_named(line, world) for line in lines[-last if last else None :])


def scenario(world: World) -> str:
    drawn = world.scenario
    troubles = ", ".join(sorted(drawn.troubles)) or "none"
    nodes = ", ".join(f"{node.name} {node.cpus:g} CPU" for node in drawn.nodes)
    outages = "".join(f"\n  {outage}" for outage in drawn.outages)
    return f"{drawn.length_s:g} s of troubles: {troubles}\n{nodes}\n{drawn.settings!r}{outages}"


def _named(line: str, world: World) -> str:
    for number, job_id in enumerate(world.job_ids, start=1):
        line = line.replace(job_id, f"job-{number}")
    return line


class Mistakes(logging.Handler):
    """A loop survives every error, and so would hide a mistake: errors that are not ours by name break the seed."""

    def __init__(self, world: World) -> None:
        super().__init__(logging.ERROR)
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        if error is not None and not isinstance(error, SchedulerError):
            self._world.broken(f"{record.getMessage()}: {error!r}")


@contextmanager
def _listening(world: World) -> Iterator[None]:
    """Nothing is printed: most of what the service logs is about errors that are made on purpose."""
    logger, mistakes = logging.getLogger("scheduler"), Mistakes(world)
    before = logger.level, logger.propagate
    logger.setLevel(logging.ERROR)
    logger.propagate = False
    logger.addHandler(mistakes)
    try:
        yield
    finally:
        logger.removeHandler(mistakes)
        logger.level, logger.propagate = before
