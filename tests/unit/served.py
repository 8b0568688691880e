"""A whole scheduler on a loopback port: the real API, service and journal; only the runs are scripted."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import uvicorn

from scheduler.adapters.journal.sqlite import SqliteJournal
from scheduler.api.metrics import MetricsDocument
from scheduler.api.scheduler_api import operation
from scheduler.core.checkpoints import Checkpoint, checkpoint_id
from scheduler.core.lifecycle import StartRun, StopRun
from scheduler.core.model import (
    Cause,
    Ending,
    Fence,
    Job,
    JobId,
    JobSpec,
    Node,
    NodeId,
    Outcome,
    Phase,
    Reason,
    Saved,
)
from scheduler.engine.periodic import SystemClock
from scheduler.engine.service import Engine
from scheduler.engine.spec_validation import SpecValidator
from scheduler.ports import LogPart, Observation, Run
from scheduler.runs.metric_history import Reported, reported_by
from scheduler.server import health
from scheduler.server.dispatch import method_of
from scheduler.settings import Settings
from serve_app.app import create_app
from serve_app.concurrency_limit import ConcurrencyLimit

LOOP = "tests:scripted"
TOKEN = "correct-horse"


@dataclass
class _ScriptedRun:
    spec: JobSpec
    stopped: asyncio.Event = field(default_factory=asyncio.Event)
    progress: Any = None
    """What it says now; until something is put here, what its config has."""
    printed: str = ""
    """What was put here after what its config has."""
    began_at: datetime = field(default_factory=lambda: datetime.now(UTC))


class ScriptedRunner:
    """Runs do what their spec's config says: `seconds`, `fails`, `log`, `progress`; rank 0 writes the log.

    `says` is the list of progress lines of each of its runs, for the curves, or those of each attempt by its number;
    `saves` the steps after which attempt 1 completed checkpoints; `phases` how many seconds each phase took."""

    def __init__(self) -> None:
        self.runs: dict[Run, _ScriptedRun] = {}
        self.gone: set[Run] = set()

    def tell(self, job_id: str, **progress: Any) -> None:
        """The newest run of the job has come so far."""
        newest = max(run for run in self.runs if run[0] == job_id)
        self.runs[newest].progress = progress

    def write(self, job_id: str, text: str) -> None:
        """The newest run of the job prints *text*."""
        self.runs[max(run for run in self.runs if run[0] == job_id)].printed += text

    async def start(self, action: StartRun) -> None:
        self.runs.setdefault((action.job_id, action.fence), _ScriptedRun(action.spec))

    async def stop(self, action: StopRun) -> None:
        if run := self.runs.get((action.job_id, action.fence)):
            run.stopped.set()

    async def wait(self, run: Run) -> Outcome:
        config = self.runs[run].spec.config
        with suppress(TimeoutError):
            await asyncio.wait_for(self.runs[run].stopped.wait(), config.get("seconds", 0.05))
        self.gone.add(run)
        if self.runs[run].stopped.is_set():
            stopped = Reason(code="stopped", message="stopped when asked")
            return Outcome(ending=Ending.STOPPED, reason=stopped, saved=self._saved(run))
        if run[1] <= config.get("fails", 0):
            reason = Reason(code="exception", message="ValueError: a bad batch", detail="Traceback: ...")
            return Outcome(ending=Ending.FAILED, cause=Cause.USER, reason=reason, saved=self._saved(run))
        done = Reason(code="completed", message="every rank returned")
        result = {"output_dir": "/storage/out", "metrics": {"loss": 0.5}}
        return Outcome(ending=Ending.COMPLETED, reason=done, result=result)

    async def recall(self, run: Run) -> Job | None:
        return None

    async def newest(self, job_id: JobId) -> Fence:
        return max((fence for of, fence in self.runs if of == job_id), default=Fence(0))

    async def observe(self, run: Run) -> Observation:
        said = self.runs[run].progress or self.runs[run].spec.config.get("progress")
        return Observation(
            phase=Phase.TRAINING, progress=said, saved=self._saved(run), phases=self._phases(self.runs[run])
        )

    def _phases(self, run: _ScriptedRun) -> dict[str, float]:
        at, began = run.began_at.timestamp(), dict[str, float]()
        for name, seconds in run.spec.config.get("phases", {}).items():
            began[name] = at
            at += seconds
        return began

    def _saved(self, run: Run) -> Saved | None:
        found = [one for one in self._checkpoints_of(run[0]) if one.fence == run[1]]
        return Saved(checkpoint=found[-1].id, step=found[-1].step, at=found[-1].at) if found else None

    def _checkpoints_of(self, job_id: str) -> list[Checkpoint]:
        first = self.runs.get((JobId(job_id), Fence(1)))
        steps = first.spec.config.get("saves", []) if first else []
        return [
            Checkpoint(
                id=checkpoint_id(Fence(1), number),
                fence=Fence(1),
                number=number,
                step=step,
                at=first.began_at if first else datetime.now(UTC),
                seconds=0.5,
                num_bytes=4_100_000,
                num_files=3,
                metrics={"loss": 3 / step},
                path=f"/storage/{number}",
            )
            for number, step in enumerate(steps, 1)
        ]

    async def examine(self, run: Run) -> dict[str, Any]:
        return {}

    async def checkpoints(self, job_id: str) -> list[Checkpoint]:
        return self._checkpoints_of(job_id)

    async def live(self) -> frozenset[Run]:
        return frozenset(self.runs) - self.gone

    async def read_log(self, run: Run, rank: int, offset: int, limit: int) -> LogPart:
        said = self.runs[run].spec.config.get("log", "") if rank == 0 else ""
        printed = self.runs[run].printed if rank == 0 else ""
        log = f"attempt {run[1]}\n{said}{printed}".encode()
        start = max(0, len(log) + offset) if offset < 0 else offset
        part = log[start : start + limit]
        end = start + len(part)
        return LogPart(text=part.decode(), offset=start, next_offset=end, is_end=end >= len(log))

    async def metrics(self, job_id: JobId, points: int) -> MetricsDocument:
        return self._told_by(job_id).document(job_id, points)

    async def trends(self, job_ids: Collection[JobId], points: int) -> dict[JobId, list[float]]:
        found = {job_id: self._told_by(job_id).table.trend(points) for job_id in job_ids}
        return {job_id: values for job_id, values in found.items() if values}

    def _told_by(self, job_id: JobId) -> Reported:
        runs = sorted(run for run in self.runs if run[0] == job_id)
        return reported_by({fence: self._says(self.runs[job_id, fence], fence) for _, fence in runs})

    def _says(self, run: _ScriptedRun, attempt: int) -> list[Any]:
        says = run.spec.config.get("says", [])
        return says.get(str(attempt), []) if isinstance(says, dict) else says

    async def nodes(self) -> tuple[Node, ...]:
        return (Node(id=NodeId("node-1"), name="node-1", cpus=4.0),)


class Wire:
    """A TCP hop before the API that can lose answers, and can be cut."""

    def __init__(self, api_port: int) -> None:
        self._api_port = api_port
        self._lose = 0
        self.lost = 0
        self._server: asyncio.Server | None = None
        self.port = 0
        self._open: set[asyncio.StreamWriter] = set()

    def lose_answers(self, count: int) -> None:
        """The next *count* requests arrive and are carried out; their answers do not come back."""
        self._lose, self.lost = count, 0

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._open:
            writer.close()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._api_port)
        self._open.add(writer)
        there = asyncio.create_task(self._pump(reader, up_writer, may_lose=False))
        await self._pump(up_reader, writer, may_lose=True)
        there.cancel()
        self._open.discard(writer)

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, may_lose: bool
    ) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65536):
                if may_lose and self._lose:
                    self._lose, self.lost = self._lose - 1, self.lost + 1
                    break
                writer.write(data)
                await writer.drain()
        writer.close()


class Unready:
    """ASGI: answers 503, as a proxy does while the server behind it restarts."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.times = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if not self.times or scope["type"] != "http":
            return await self.app(scope, receive, send)
        self.times -= 1
        await send(
            {"type": "http.response.start", "status": 503, "headers": [(b"content-type", b"text/plain")]}
        )
        return await send({"type": "http.response.body", "body": b"no healthy upstream"})


class Served:
    """One running scheduler; tests reach into it through `call`."""

    def __init__(self, folder: Path, token: str | None, changes: dict[str, Any]) -> None:
        self._folder, self._token, self._changes = folder, token, changes
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()), daemon=True)

    url: str
    wire: Wire
    unready: Unready
    streams: ConcurrencyLimit
    service: Engine
    registry: Any
    """What the API asks.  An error put into `registry.away` is raised by every call from then on."""
    runner: ScriptedRunner

    def call(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)

    def start(self) -> None:
        self._thread.start()
        assert self._ready.wait(30), "the scheduler under test did not start"

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(10)

    async def _main(self) -> None:
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        settings = Settings(
            state_dir=self._folder,
            storage_path=self._folder,
            token=self._token,
            **({"observe_every_s": 0.05, "retry_backoff_s": 0.05} | self._changes),
        )
        journal = await SqliteJournal.open(self._folder / "journal.db")
        self.runner = ScriptedRunner()
        self.service = Engine(
            journal=journal,
            runner=self.runner,
            clock=SystemClock(),
            settings=settings,
            validator=SpecValidator((LOOP,), (self._folder,)),
        )
        await self.service.recover()
        self.registry = registry_of(self.service)
        app = create_app(self.registry, settings)
        self.streams, self.unready = app.state.streams, Unready(app)
        server = uvicorn.Server(uvicorn.Config(self.unready, port=0, log_level="error", lifespan="off"))
        serving, ticking = (
            asyncio.create_task(server.serve()),
            asyncio.create_task(self.service.run_forever()),
        )
        while not server.started:
            await asyncio.sleep(0.01)
        self.wire = Wire(server.servers[0].sockets[0].getsockname()[1])
        await self.wire.open()
        self.url = f"http://127.0.0.1:{self.wire.port}"
        self._ready.set()
        await self._end.wait()
        server.should_exit = True
        ticking.cancel()
        await serving
        await self.service.background.close()
        await journal.close()


def registry_of(engine: Engine) -> Any:
    """What the actor offers, in this process."""
    started_at = datetime.now(UTC)

    class InProcess:
        away: Exception | None = None

        def __getattr__(self, name: str) -> Any:
            operation(name)

            async def ask(*args: Any, **kwargs: Any) -> Any:
                if self.away:
                    raise self.away
                if name == "health":
                    return health.health(await engine.state(), started_at=started_at, pool=None)
                return await method_of(engine, name)(*args, **kwargs)

            return ask

    return InProcess()


@contextmanager
def app_at_port(app: Any) -> Iterator[str]:
    """*app* behind real HTTP, in a thread of its own; gives its URL."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until_s = time.monotonic() + 10
    while not server.started:
        assert time.monotonic() < until_s, "the app under test did not start"
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)


@contextmanager
def scheduler_at(folder: Path, token: str | None = None, **changes: Any) -> Iterator[Served]:
    """*changes*: of its settings."""
    served = Served(folder, token, changes)
    served.start()
    try:
        yield served
    finally:
        served.stop()
