"""What a restart reads is kept away from the garbage collector, and nothing else is."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from scheduler.server.collector import set_aside


class Ring:
    """Only the collector can free it."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    yield
    gc.unfreeze()


def test_what_start_up_read_is_not_looked_at_again() -> None:
    """L5: with 100,000 jobs each full collection would hold up every answer for 0.3 s."""
    with set_aside():
        assert not gc.isenabled()
        jobs = [[number] for number in range(10_000)]
    assert gc.isenabled()
    assert gc.get_freeze_count() >= len(jobs)
    assert not any(found is jobs for found in gc.get_objects())


def test_what_comes_later_is_collected_as_ever() -> None:
    """Else the scheduler would grow until it is killed."""
    with set_aside():
        pass
    gone = weakref.ref(Ring())
    gc.collect()
    assert gone() is None


def test_a_start_up_that_fails_turns_the_collector_on_again() -> None:
    """The process may live on to say why."""
    with pytest.raises(OSError), set_aside():
        raise OSError("the disk is away")
    assert gc.isenabled()
