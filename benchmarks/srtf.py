"""The clairvoyant to compare with: at each instant whoever has the least time left, placed anew, at no cost.

It knows every length from the start and moves runs between nodes for nothing, so no scheduler can do what it does.
"""

from __future__ import annotations

from collections.abc import Sequence

from scheduler.core.replay import Entry

EPSILON_S = 1e-6


def completion_times(entries: Sequence[Entry], nodes: Sequence[int]) -> list[float]:
    """From submission to the end, of each of *entries* (by time of submission), on nodes with so many GPUs."""
    took = [0.0] * len(entries)
    left: dict[int, float] = {}
    runs: list[int] = []
    now_s, coming = 0.0, 0
    while coming < len(entries) or left:
        next_s = entries[coming].submit_s if coming < len(entries) else float("inf")
        next_s = min([next_s, *(now_s + left[number] for number in runs)])
        for number in runs:
            left[number] -= next_s - now_s
            if left[number] <= EPSILON_S:
                took[number] = next_s - entries[number].submit_s
                del left[number]
        now_s = next_s
        while coming < len(entries) and entries[coming].submit_s <= now_s:
            left[coming] = max(entries[coming].duration_s, 2 * EPSILON_S)
            coming += 1
        runs = _placed(sorted(left, key=lambda number: (left[number], number)), entries, list(nodes))
    return took


def _placed(order: Sequence[int], entries: Sequence[Entry], free: list[int]) -> list[int]:
    """Who runs: in order, each on the node that it fills best; one that fits on no empty node, on several."""
    placed: list[int] = []
    rest, largest = sum(free), max(free)  # of the empty nodes
    for number in order:
        if not rest:
            break
        gang = entries[number].gang
        gpus = round(gang.fewest * gang.gpus_per_rank)
        if gpus > rest:
            continue
        if fits := [have for have in free if have >= gpus]:
            free[free.index(min(fits))] -= gpus
        elif gpus > largest:
            _spread(gpus, free)
        else:
            continue
        rest -= gpus
        placed.append(number)
    return placed


def _spread(gpus: int, free: list[int]) -> None:
    for node in sorted(range(len(free)), key=lambda node: -free[node]):
        taken = min(free[node], gpus)
        free[node] -= taken
        gpus -= taken
