"""A job array on a real Ray: at most so many of its jobs run at once, all complete, and the best is found (S8)."""

from __future__ import annotations

from datetime import datetime

import pytest

from scheduler.api.arrays import ArrayDocument
from scheduler.core.model import Status
from tests.conftest import Cluster, wait_until

pytestmark = [pytest.mark.ray, pytest.mark.long, pytest.mark.timeout(900)]

SIZE, AT_MOST = 12, 2


def most_at_once(cluster: Cluster, array: ArrayDocument) -> int:
    """As the histories of its jobs tell it: where one ends at the moment at which another is admitted, it ended first."""
    moves: list[tuple[datetime, int]] = []
    for job in array.jobs:
        for event in cluster.events(job.job_id):
            if event.to_status is Status.RUNNING and event.from_status is not Status.RUNNING:
                moves.append((event.at, 1))
            elif event.from_status is Status.RUNNING and event.to_status is not Status.RUNNING:
                moves.append((event.at, -1))
    running = most = 0
    for _, change in sorted(moves):
        running += change
        most = max(most, running)
    return most


def test_an_array_of_twelve_runs_two_at_a_time(cluster: Cluster) -> None:
    """S8: there is room for four.  `quick` reports the loss 1/step, so that the job with the most steps is the best."""
    made = cluster.client.submit_array(
        {"steps": range(1, SIZE + 1)}, {"loop": "tests.loops:quick", "name": "sweep"}, at_most=AT_MOST
    )
    assert (made.size, made.counts) == (SIZE, {Status.QUEUED: SIZE})

    def ended() -> ArrayDocument | None:
        found = cluster.client.array(made.array_id)
        running = found.counts.get(Status.RUNNING, 0)
        assert running <= AT_MOST, found.message
        return found if found.has_ended else None

    done = wait_until(ended, within_s=800, what=f"array {made.array_id} has ended")
    assert done.counts == {Status.COMPLETED: SIZE}
    assert most_at_once(cluster, done) == AT_MOST
    assert [job.values["steps"] for job in done.jobs] == list(range(1, SIZE + 1))
    assert [job.metric for job in done.jobs] == [pytest.approx(1 / step) for step in range(1, SIZE + 1)]
    assert done.best == SIZE
