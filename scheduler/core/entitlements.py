"""What each project is entitled to: its quota, then an equal level of what is left, by weight, over demand.

Weighted max-min fairness ("water-filling"): the level rises for all alike until the cluster is full; who wants
no more drops out, and what it leaves raises the others.  Weights are moved by usage: who had less than its part
in the last days gets up to four times its weight, who had more down to a quarter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from scheduler.core.contender import Share

FACTOR = 4.0
DEFAULT = Share()


@dataclass(frozen=True, slots=True)
class Claim:
    """What one of those who share wants, and how much it counts."""

    demand: float
    weight: float = 1.0
    quota: float = 0.0


def entitle(claims: Mapping[str, Claim], total: float) -> dict[str, float]:
    """Divide *total*: the sum is the lesser of it and all demands; nobody gets more than it wants."""
    assured = {name: min(claim.demand, claim.quota) for name, claim in claims.items()}
    promised = sum(assured.values())
    if promised > total:  # quotas are promises of a cluster that was larger: all shrink alike
        return {name: part * total / promised for name, part in assured.items()}
    wants = {name: claim.demand - assured[name] for name, claim in claims.items()}
    poured = fill(wants, {name: claim.weight for name, claim in claims.items()}, max(0.0, total - promised))
    return {name: assured[name] + poured[name] for name in claims}


def fill(wants: Mapping[str, float], weights: Mapping[str, float], total: float) -> dict[str, float]:
    """Pour *total* over *wants*, so that the level (got / weight) is equal for all who want more than they got."""
    got: dict[str, float] = {}
    weight = sum(weights.values())
    for name in sorted(wants, key=lambda name: (wants[name] / weights[name], name)):
        got[name] = min(wants[name], total * weights[name] / weight) if weight > 0 else 0.0
        total -= got[name]
        weight -= weights[name]
    return got


def by_usage(weights: Mapping[str, float], usage: Mapping[str, float]) -> dict[str, float]:
    """The weights, moved towards those who had less of late than they were due."""
    whole, used = sum(weights.values()), sum(usage.get(name, 0.0) for name in weights)
    if used <= 0 or whole <= 0:
        return dict(weights)
    moved: dict[str, float] = {}
    for name, weight in weights.items():
        due, had = weight / whole, usage.get(name, 0.0) / used
        moved[name] = weight * (min(FACTOR, max(1 / FACTOR, due / had)) if had > 0 else FACTOR)
    return moved


def decayed(usage: float, held: float, passed_s: float, half_life_s: float) -> float:
    """Decayed GPU seconds after *passed_s* in which *held* GPUs were used."""
    rest = 0.5 ** (passed_s / half_life_s)
    return usage * rest + held * (1 - rest) * half_life_s / 0.6931471805599453
