"""What 200 open pages cost whoever submits, and how soon they see a change.

Durable submits over HTTP, one at a time, with and without 200 listeners, alternating; then how long after a submit was
answered all listeners have its event.  Server and listeners are processes of their own; the server is the real service,
journal and API with scripted runs, or all of it on Ray with `--ray`.  Writes benchmarks/results/open_pages.json.
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from benchmarks.cluster import free_port
from benchmarks.record import write
from scheduler.client import Client
from scheduler.server import local_cluster
from scheduler.settings import Settings
from tests.unit.served import scheduler_at

PAGES = 200
PAIRS = 5
SUBMITS = 40
SEEN = 10
MAX_SLOWDOWN = 1.2
MAX_SEEN_S = 1.0
SPEC = {"loop": "torch_ddp", "config": {"steps": 1}, "resources": {"cpus_per_rank": 2}}
STREAM = "/api/training/changes"


def main() -> None:
    with _on_ray() if "--ray" in sys.argv else _scripted() as url:
        client = Client(url=url)
        client.submit(SPEC)
        pairs = [_pair(client, url) for _ in range(PAIRS)]
        with _pages(url) as pages:
            seen_s = [pages.seen_after(client.submit(SPEC).id) for _ in range(SEEN)]
    write(
        "open_pages",
        {
            "pages": PAGES,
            "server": "ray" if "--ray" in sys.argv else "in one process",
            "targets": {"max_slowdown": MAX_SLOWDOWN, "max_seen_s": MAX_SEEN_S},
            "slowdown": statistics.median(pair["with_s"] / pair["without_s"] for pair in pairs),
            "seen_by_all_s": {"median": statistics.median(seen_s), "worst": max(seen_s)},
            "pairs": pairs,
        },
    )


def _pair(client: Client, url: str) -> dict[str, float]:
    without_s = _submit_s(client)
    with _pages(url):
        with_s = _submit_s(client)
    print(without_s, with_s, flush=True)
    return {"without_s": without_s, "with_s": with_s}


def _submit_s(client: Client) -> float:
    seconds: list[float] = []
    for _ in range(SUBMITS):
        began_s = time.perf_counter()
        client.submit(SPEC)
        seconds.append(time.perf_counter() - began_s)
    return statistics.median(seconds)


class Pages:
    """The process in which the listeners are; it prints the id of each job that all of them have heard of."""

    def __init__(self, said: IO[str]) -> None:
        self._said = said
        self._seen_s: dict[str, float] = {}
        self._is_seen = threading.Condition()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in self._said:
            with self._is_seen:
                self._seen_s[line.strip()] = time.perf_counter()
                self._is_seen.notify_all()

    def seen_after(self, job_id: str) -> float:
        """Seconds from now until all have seen the job."""
        began_s = time.perf_counter()
        with self._is_seen:
            if not self._is_seen.wait_for(lambda: job_id in self._seen_s, 60):
                raise TimeoutError(f"not every page heard of job {job_id} within 60 s")
        return max(0.0, self._seen_s[job_id] - began_s)


@contextmanager
def _pages(url: str) -> Iterator[Pages]:
    with _child("listen", url) as listeners:
        assert listeners.stdout is not None
        if listeners.stdout.readline().strip() != "ready":
            raise RuntimeError("the listeners did not begin")
        yield Pages(listeners.stdout)


@contextmanager
def _scripted() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, _child("serve", folder) as server:
        assert server.stdout is not None
        yield server.stdout.readline().strip()


@contextmanager
def _on_ray() -> Iterator[str]:
    folder = Path(tempfile.mkdtemp(prefix="bench-"))
    settings = Settings(
        state_dir=folder / "state",
        storage_path=folder / "storage",
        cluster="bench",
        port=free_port(),
        warm_runs=0,
    )
    try:
        yield local_cluster.up(settings).api_url
    finally:
        local_cluster.down(settings)


@contextmanager
def _child(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "benchmarks.open_pages", *arguments]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield child
    finally:
        assert child.stdin is not None
        child.stdin.close()  # it ends by that
        child.wait(30)


def serve(folder: str) -> None:
    with scheduler_at(Path(folder)) as served:
        print(served.url, flush=True)
        sys.stdin.read()


async def listen(url: str) -> None:
    ended = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    heard: dict[str, int] = {}
    began = asyncio.Semaphore(0)
    listeners = [asyncio.create_task(_listen(url, heard, began)) for _ in range(PAGES)]
    for _ in listeners:
        await began.acquire()
    print("ready", flush=True)
    await ended
    for listener in listeners:
        listener.cancel()


async def _listen(url: str, heard: dict[str, int], began: asyncio.Semaphore) -> None:
    """Plain sockets: 200 clients of httpx would be the slowest part of it all."""
    at = urlsplit(url)
    reader, writer = await asyncio.open_connection(at.hostname, at.port, limit=2**24)
    writer.write(f"GET {STREAM} HTTP/1.1\r\nHost: {at.netloc}\r\n\r\n".encode())
    known: set[bytes] = set()
    is_first = True
    while line := await reader.readline():
        if not line.startswith(b"data: "):
            continue
        if is_first:
            is_first = False
            began.release()
        for part in line.split(b'"job_id": "')[1:]:
            _count(part[:36], known, heard)


def _count(job_id: bytes, known: set[bytes], heard: dict[str, int]) -> None:
    if job_id in known:
        return
    known.add(job_id)
    name = job_id.decode()
    heard[name] = heard.get(name, 0) + 1
    if heard[name] == PAGES:
        print(name, flush=True)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["serve", folder]:
            serve(folder)
        case ["listen", url]:
            asyncio.run(listen(url))
        case _:
            main()
