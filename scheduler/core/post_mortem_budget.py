"""How much of what was seen is kept with an attempt: the worst ranks first, and all of it within a budget."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import cast

from scheduler.core.diagnosis import Died, Raised
from scheduler.core.model import Json

LIMIT_BYTES = 256 * 1024


def worst_first(raised: Iterable[Raised], died: Iterable[Died]) -> list[int]:
    """Who raised, the earliest first, then who died: the others mostly waited for them."""
    in_time = sorted(raised, key=lambda one: (one.at_s or 0.0, one.rank))
    return list(dict.fromkeys([*(one.rank for one in in_time), *(one.rank for one in died)]))


def within_budget(evidence: Json, worst: Sequence[int] = (), limit_bytes: int = LIMIT_BYTES) -> Json | None:
    """What of *evidence* (logs, stacks: each by the number of the rank) is kept, in at most *limit_bytes* of JSON and a
    note; None when there is nothing.

    The ranks of *worst* come first, then the others by number, each with all that is there of it or not at all; only
    the very first is cut, to its end, where it alone is too long.  `note` names those that were left out.
    """
    sections = {
        name: cast("Json", by_rank)
        for name, by_rank in evidence.items()
        if isinstance(by_rank, dict) and by_rank
    }
    if not sections:
        return evidence or None
    kept: dict[str, Json] = {name: {} for name in sections}
    left_bytes, out = limit_bytes, list[int]()
    for rank in _order(sections, worst):
        seen = {name: by_rank[str(rank)] for name, by_rank in sections.items() if str(rank) in by_rank}
        if left_bytes == limit_bytes:
            seen = {name: _end(told, limit_bytes // len(seen)) for name, told in seen.items()}
        cost_bytes = sum(map(_size, seen.values()))
        if cost_bytes > left_bytes:
            out.append(rank)
            continue
        left_bytes -= cost_bytes
        for name, told in seen.items():
            kept[name][str(rank)] = told
    return evidence | kept | ({"note": _note(out, limit_bytes)} if out else {})


def _order(sections: Mapping[str, Json], worst: Sequence[int]) -> list[int]:
    there = {int(rank) for by_rank in sections.values() for rank in by_rank}
    first = [rank for rank in worst if rank in there]
    return [*first, *sorted(there.difference(first))]


def _size(told: object) -> int:
    return len(json.dumps(told, ensure_ascii=False).encode(errors="replace"))


def _end(told: object, limit_bytes: int) -> object:
    while isinstance(told, str) and (size := _size(told)) > limit_bytes:
        told = told[int(len(told) * (1 - limit_bytes / size)) + 1 :]
    return told


def _note(out: list[int], limit_bytes: int) -> str:
    named = ", ".join(map(str, out[:20])) + (", ..." if len(out) > 20 else "")
    size = f"{limit_bytes // 1024} KB in all"
    return f"nothing is kept here of {len(out)} ranks ({named}), beyond {size}; their logs are whole"
