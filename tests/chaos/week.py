"""A scripted week: jobs of all kinds and everything that can happen to them, from one seed, on a real Ray.

python -m tests.chaos.week --jobs 20 --seed 7
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import torch

from tests.chaos.driver import NODE_CPUS, TROUBLES, Driver, PlannedJob, Trouble
from tests.history.checker import broken_promises
from tests.history.recording import History, story
from tests.nodes import cluster_with_nodes

KINDS = (*TROUBLES, "raise")
LAST = ("cancel", "raise")
"""After these nothing more can happen to a job."""
AT_ONCE = 2
SAVES_EVERY = 5


def plan(
    seed: int, num_jobs: int, kinds: Sequence[str] = KINDS, steps: int = 60, quiet_jobs: float = 0.1
) -> tuple[PlannedJob, ...]:
    """*num_jobs* jobs; each kind of trouble comes as often as every other, *quiet_jobs* of the jobs have none."""
    rng = random.Random(seed)
    in_turn = cycle(rng.sample(kinds, len(kinds)))
    jobs: list[PlannedJob] = []
    for number in range(num_jobs):
        quiet = number >= len(kinds) and rng.random() < quiet_jobs
        drawn = [] if quiet else [next(in_turn)]
        if drawn and drawn[0] not in LAST and number >= len(kinds) and rng.random() < 0.4:
            drawn.append(next(in_turn))
        jobs.append(_job(rng, number, drawn, steps))
    return tuple(jobs)


def _job(rng: random.Random, number: int, kinds: Sequence[str], steps: int) -> PlannedJob:
    at = sorted(rng.sample(range(2 * SAVES_EVERY, steps - 3 * SAVES_EVERY), len(kinds)))
    loop = rng.choice(("tests.witness:walk", "train_loops.torch_ddp:train"))
    config: dict[str, Any] = {
        "steps": steps,
        "seed": rng.randrange(1000),
        "checkpoint_every_steps": SAVES_EVERY,
        "step_time_s": 0.1,
    }
    may_end = {"cancel": ("cancelled", "completed"), "raise": ("failed",)}
    return PlannedJob(
        name=f"job-{number:02}",
        loop=loop,
        num_ranks=rng.choice((1, 2)),
        config=config,
        troubles=tuple(Trouble(kind, step) for kind, step in zip(kinds, at, strict=True) if kind != "raise"),
        raise_at=next((step for kind, step in zip(kinds, at, strict=True) if kind == "raise"), None),
        may_end=may_end.get(kinds[-1] if kinds else "", ("completed",)),
    )


def live(seed: int, jobs: tuple[PlannedJob, ...], folder: Path, *, patience_s: float = 300.0) -> list[str]:
    """Live through *jobs* on a cluster of its own; returns the broken promises.  *folder* has the history then."""
    torch.set_num_threads(1)
    history = History(folder)
    cpus = [NODE_CPUS] * AT_ONCE
    with cluster_with_nodes("week", cpus, max_losses=100, set_aside_share=0.0, retry_backoff_max_s=1.0) as (
        cluster,
        nodes,
    ):
        Driver(cluster, nodes, history, seed=seed, patience_s=patience_s).live_through(jobs, AT_ONCE)
    return broken_promises(history.lines())


def told(seed: int, jobs: Sequence[PlannedJob], broken: Sequence[str], folder: Path) -> str:
    """All that is needed to look into a week that went wrong."""
    planned = "\n".join(
        f"{job.name}: {job.loop} on {job.num_ranks}, "
        + (", ".join(f"{t.what} at {t.at_step}" for t in job.troubles) or "no trouble")
        + (f", raises at {job.raise_at}" if job.raise_at else "")
        for job in jobs
    )
    words = "\n".join(f"  {one}" for one in broken) or "  none"
    return (
        f"seed {seed}\n\n{planned}\n\n{story(History(folder).lines())}\n\nbroken promises:\n{words}\n"
        f"history: {folder}\n"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=None, help="default: a new one each time")
    arguments = parser.parse_args()
    seed = random.randrange(10_000) if arguments.seed is None else arguments.seed
    jobs = plan(seed, arguments.jobs)
    folder = Path(tempfile.mkdtemp(prefix="week-"))
    print(f"seed {seed}: {len(jobs)} jobs; the history grows in {folder}", flush=True)
    began_s = time.monotonic()
    broken = live(seed, jobs, folder)
    print(told(seed, jobs, broken, folder))
    print(f"{len(jobs)} jobs in {time.monotonic() - began_s:.0f} s, {len(broken)} broken promises")
    if not broken:
        shutil.rmtree(folder)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
