"""A thousand connections that stay open, on real Ray Serve: the others are answered meanwhile."""

from __future__ import annotations

import asyncio
import resource
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import httpx
import pytest

from serve_app.request_body import MOST_UNDER_WAY_EACH
from tests.conftest import Cluster

pytestmark = pytest.mark.ray

CONNECTIONS = 1000
NEVER = "2999-01-01T00:00:00Z"
STREAM = b"GET /api/training/changes HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
HALF_A_BODY = b'POST /api/training HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n\r\n{"loop"'
WITHIN_S = 20.0
"""Less than a body may take: who waits for these would wait longer, or for ever."""


@pytest.fixture(autouse=True)
def enough_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4096)), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class Crowd:
    """Connections that have sent something and wait."""

    def __init__(self, url: str) -> None:
        self._url = urlsplit(url)
        self._open: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def join(self, count: int, sent: bytes) -> None:
        for _ in range(count):
            reader, writer = await asyncio.open_connection(self._url.hostname, self._url.port)
            writer.write(sent)
            self._open.append((reader, writer))

    async def heard(self, count: int) -> Counter[int]:
        """How many were answered with each status, once *count* of them are answered."""
        statuses: Counter[int] = Counter()
        is_enough = asyncio.Event()

        async def one(reader: asyncio.StreamReader) -> None:
            statuses[int((await reader.readline()).split()[1])] += 1
            if statuses.total() >= count:
                is_enough.set()

        readings = [asyncio.create_task(one(reader)) for reader, _ in self._open]
        async with asyncio.timeout(120):
            await is_enough.wait()
        for reading in readings:
            reading.cancel()
        return statuses

    def leave(self) -> None:
        for _, writer in self._open:
            writer.close()


@asynccontextmanager
async def crowd(cluster: Cluster, sent: bytes) -> AsyncIterator[Crowd]:
    there = Crowd(cluster.info.api_url)
    try:
        await there.join(CONNECTIONS, sent)
        yield there
    finally:
        there.leave()


async def require_room(cluster: Cluster) -> None:
    """What people, programs and probes ask is answered in time."""
    job_id = await asyncio.to_thread(cluster.submit, "quick", {"steps": 1}, start_after=NEVER)
    paths = (
        "/livez",
        "/readyz",
        "/health",
        f"/api/training/status/{job_id}",
        "/api/training/jobs",
        "/training",
    )
    async with httpx.AsyncClient(base_url=cluster.info.api_url, timeout=30) as client:
        for path in paths:
            began_s = time.monotonic()
            answer = await client.get(path)
            assert answer.status_code == 200, (path, answer.text)
            assert time.monotonic() - began_s < WITHIN_S, path
    await asyncio.to_thread(cluster.client.cancel, job_id)


async def test_a_thousand_streams_leave_room_for_everybody_else(cluster: Cluster) -> None:
    """B: at a thousand the API and /health answered nobody."""
    allowed = cluster.settings.max_streams_each
    async with crowd(cluster, STREAM) as there:
        assert await there.heard(CONNECTIONS) == {200: allowed, 429: CONNECTIONS - allowed}
        await require_room(cluster)
    async with httpx.AsyncClient(base_url=cluster.info.api_url) as client, asyncio.timeout(60):
        while True:  # those that have gone hold nothing
            async with client.stream("GET", "/api/training/changes") as answer:
                if answer.status_code == 200:
                    return
            await asyncio.sleep(0.2)


@pytest.mark.long
async def test_a_thousand_half_sent_bodies_leave_room_for_everybody_else(cluster: Cluster) -> None:
    """B: the same; and others can submit meanwhile."""
    async with crowd(cluster, HALF_A_BODY) as there:
        beyond = CONNECTIONS - MOST_UNDER_WAY_EACH
        statuses = await there.heard(beyond)  # so many others are still waited for at most
        assert statuses[429] > 0
        assert (
            statuses[429] + statuses[408] == beyond
        )  # on a slow machine the first ones took too long meanwhile
        await require_room(cluster)
