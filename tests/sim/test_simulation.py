"""The whole shell under seeds that decide everything: what happens, when, and what goes wrong.

Safety is checked at every commit, at every write to the database and at every call to a run; rest once all is calm.
`make sim SEEDS=5000` plays more of them, `make sim FIRST=17 SEEDS=1` tells the story of one.
"""

from __future__ import annotations

import pytest

from tests.sim import bugs
from tests.sim.play import play, story, verdict
from tests.sim.world import World

SEEDS = 300
SLICE = 120
"""So many are in `make test`; all are in `make test-all`."""
CHUNK = 20
ENOUGH = 200
"""Seeds within which a planted bug must show."""


@pytest.mark.parametrize(
    "first",
    [
        pytest.param(first, marks=() if first < SLICE else pytest.mark.long)
        for first in range(0, SEEDS, CHUNK)
    ],
)
def test_no_promise_is_broken(first: int) -> None:
    """R1 to R7, P1 to P5: crashes between any two steps, outages, late and repeated requests, a lost journal."""
    broken = list(filter(None, map(verdict, range(first, first + CHUNK))))
    assert not broken, "\n\n".join(broken)


def test_a_seed_decides_everything() -> None:
    """Else a failure could not be played again."""
    worlds = [World(42), World(42)]
    assert [play(world) for world in worlds] == [None, None]
    assert story(worlds[0]) == story(worlds[1])


@pytest.mark.parametrize(("plant", "troubles"), bugs.ALL, ids=lambda value: getattr(value, "__name__", ""))
def test_a_planted_bug_is_caught(
    plant: bugs.Plant, troubles: bugs.Troubles, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A simulation that no mistake can fail is decoration."""
    plant(monkeypatch)
    assert any(verdict(seed, troubles) for seed in range(ENOUGH))
