"""The logs of real ranks, followed over HTTP through Ray Serve while they are written, cut and killed."""

from __future__ import annotations

import os
import re
import signal
import threading
from collections.abc import Iterator

import httpx
import pytest
from httpx_sse import EventSource

from scheduler.api.logs import LOG_EVENTS, AttemptNotice, EndNotice, LogEvent, LogLines
from tests.conftest import Cluster, wait_until

pytestmark = pytest.mark.ray


class Watcher:
    """Follows a job's logs with a connection that it cuts after every few events."""

    def __init__(self, cluster: Cluster, job_id: str, events_a_connection: int) -> None:
        self._url = f"{cluster.info.api_url}/api/training/{job_id}/logs/stream"
        self._most, self.connections = events_a_connection, 0
        self.seen: list[LogEvent] = []

    def follow(self) -> None:
        last_id = ""
        while not (self.seen and isinstance(self.seen[-1], EndNotice)):
            for event, event_id in self._connection(last_id):
                self.seen.append(event)
                last_id = event_id

    def _connection(self, last_id: str) -> Iterator[tuple[LogEvent, str]]:
        self.connections += 1
        left = self._most
        headers = {"Last-Event-ID": last_id} if last_id else {}
        with httpx.stream("GET", self._url, headers=headers, timeout=60) as answer:
            answer.raise_for_status()
            for event in filter(lambda event: event.data, EventSource(answer).iter_sse()):
                yield LOG_EVENTS[event.event].model_validate_json(event.data), event.id
                left -= 1
                if not left:
                    return

    def text(self, rank: int, attempt: int) -> str:
        lines = [one for one in self.seen if isinstance(one, LogLines)]
        return "".join(one.text for one in lines if (one.rank, one.attempt) == (rank, attempt))


def numbers(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"ä…😀 line (\d+)\n", text)]


@pytest.mark.long
def test_every_line_of_every_rank_is_followed_once_through_cuts_and_a_kill(cluster: Cluster) -> None:
    """L8: a rank is killed while everybody prints; the watcher's connection breaks all the time."""
    job_id = cluster.submit(
        "counts_aloud", {"lines": 150, "pause_s": 0.1}, resources={"num_ranks": 2}, name="noisy"
    )
    watcher = Watcher(cluster, job_id, events_a_connection=7)
    follower = threading.Thread(target=watcher.follow, daemon=True)
    follower.start()
    wait_until(
        lambda: min(len(numbers(watcher.text(rank, 1))) for rank in (0, 1)) >= 20,
        within_s=90,
        what=f"20 lines of each rank are seen while it runs; {cluster.status(job_id)}",
    )
    assert cluster.status(job_id).status == "running"
    os.kill(cluster.rank_pids(job_id)[1], signal.SIGKILL)
    follower.join(150)
    assert not follower.is_alive(), watcher.seen[-3:]
    assert watcher.connections > 5
    for attempt in (1, 2):
        for rank in (0, 1):
            assert watcher.text(rank, attempt) == cluster.folder(job_id, attempt).log_file(rank).read_text()
            seen = numbers(watcher.text(rank, attempt))
            assert seen == list(range(len(seen)))
    assert len(numbers(watcher.text(0, 2))) == 150
    notices = [one for one in watcher.seen if isinstance(one, AttemptNotice)]
    assert [(one.attempt, one.state) for one in notices] == [
        (1, "began"),
        (1, "ended"),
        (2, "began"),
        (2, "ended"),
    ]
    lost = notices[1].reason
    assert lost is not None
    assert "rank 1" in lost.message or "lost" in lost.code, lost
    end = watcher.seen[-1]
    assert isinstance(end, EndNotice)
    assert (end.over, end.status, end.attempt) == ("job", "completed", 2)
    # Kept after the run, for whoever comes later, by attempt.
    assert "".join(cluster.client.logs(job_id, follow=True, attempt=1, rank=1)) == watcher.text(1, 1)
