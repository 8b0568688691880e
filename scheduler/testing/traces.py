"""Traces made up from a seed: what clusters look like to a policy, without anybody's file.

Lengths have no typical value (most jobs take minutes, a few take days), people come in bursts and in sweeps, and
some days bring more than the cluster can do.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass

from scheduler.core.model import Gang
from scheduler.core.replay import Entry

DAY_S = 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What is typical of a cluster."""

    sizes: tuple[tuple[int, float], ...] = ((1, 0.7), (2, 0.1), (4, 0.08), (8, 0.1), (16, 0.02))
    """GPUs of a job, and how often."""
    median_s: float = 900.0
    spread: float = 2.2
    """Of the logarithm of the length."""
    longest_s: float = 14 * DAY_S
    load: float = 0.9
    """GPU time asked for, of what there is."""
    sweeps: float = 0.3
    """Part of the jobs that come many at once, of about equal length."""
    bursts: float = 0.5
    """How uneven the hours of a day are, from 0 to 1."""
    backlog: float = 0.0
    """Part of the jobs that are all there on the first day."""


KINDS = {
    "bursts": Kind(bursts=0.9, sweeps=0.1),
    "sweeps": Kind(sweeps=0.8, sizes=((1, 0.9), (2, 0.07), (8, 0.03))),
    "backlog": Kind(backlog=0.5, load=0.95),
    "large gangs": Kind(
        sizes=((1, 0.35), (4, 0.1), (8, 0.3), (16, 0.15), (32, 0.1)), median_s=2400.0, spread=1.9
    ),
}


def trace(
    kind: Kind, *, gpus: int, days: float, jobs: int, seed: int, projects: int = 1, users: int = 1
) -> list[Entry]:
    """About *jobs* jobs over *days*, stretched so that together they ask for `kind.load` of so many *gpus*."""
    rng = random.Random(f"{seed} {kind}")
    drawn = list(_drawn(kind, days, jobs, rng))
    asked = sum(duration_s * ranks for _, duration_s, ranks in drawn)
    stretch = kind.load * gpus * days * DAY_S / asked
    weights = [1 / (1 + number) for number in range(projects)]
    names = [f"project-{number}" if projects > 1 else "" for number in range(projects)]
    return [
        Entry(
            submit_s=submit_s,
            duration_s=max(1.0, duration_s * stretch),
            gang=Gang(num_ranks=ranks, gpus_per_rank=1.0),
            project=rng.choices(names, weights)[0],
            user=f"user-{rng.randrange(users)}" if users > 1 else "",
        )
        for submit_s, duration_s, ranks in sorted(drawn)
    ]


def _drawn(kind: Kind, days: float, jobs: int, rng: random.Random) -> Iterator[tuple[float, float, int]]:
    """(submitted, length, GPUs) of each job."""
    sizes, often = zip(*kind.sizes, strict=True)
    made = 0
    while made < jobs:
        at_s = 0.2 * DAY_S * rng.random() if rng.random() < kind.backlog else _moment(kind, days, rng)
        length_s = min(kind.longest_s, kind.median_s * math.exp(rng.gauss(0, kind.spread)))
        ranks = rng.choices(sizes, often)[0]
        together = rng.choice([8, 16, 40, 100]) if rng.random() < kind.sweeps / 20 else 1
        for number in range(together):
            yield (
                round(at_s + number * rng.random(), 1),
                length_s * (rng.uniform(0.7, 1.3) if together > 1 else 1),
                ranks,
            )
        made += together


def _moment(kind: Kind, days: float, rng: random.Random) -> float:
    """Some time of these days: in the afternoon rather than at night, and on some days rather than on others."""
    while True:
        at_s = rng.random() * days * DAY_S
        hour, day = at_s % DAY_S / 3600, int(at_s / DAY_S)
        busy = 0.5 + 0.5 * math.sin((hour - 9) * math.pi / 12)
        busy *= 0.4 + 0.6 * (math.sin(day * 2.4) > 0.2)
        if rng.random() < 1 - kind.bursts + kind.bursts * busy:
            return at_s
