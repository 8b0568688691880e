"""What the runner does beside a start, with nobody waiting for it."""

from __future__ import annotations

import asyncio
import gc
import logging
import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from scheduler.core.lifecycle import StartRun
from scheduler.core.model import Allocation, Fence, NodeId, Origin
from scheduler.runs.ray_runner import RayRunner
from scheduler.testing import a_job

N1 = NodeId("n1")


class Answers:
    """An actor of a run that says whether it was warm when the test lets it; only who waits for the answer holds it."""

    def __init__(self) -> None:
        self.run = SimpleNamespace(remote=lambda: None)
        self.was_warm = SimpleNamespace(remote=self._was_warm)
        self.answer: weakref.ref[asyncio.Future[bool]] | None = None

    def _was_warm(self) -> asyncio.Future[bool]:
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.answer = weakref.ref(future)
        return future


@pytest.fixture
def started() -> list[tuple[NodeId, bool]]:
    return []


async def a_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, on_start: Any
) -> tuple[RayRunner, asyncio.Future[bool]]:
    """Start a run; returns the runner and what it waits for, once nothing but the runner holds on to that."""
    runner = RayRunner(
        storage=tmp_path,
        checkpoint_url=str(tmp_path),
        namespace="test",
        env_vars={},
        function_of=lambda name: name,
        observe_timeout_s=1.0,
        stop_grace_s=1.0,
        on_start=on_start,
    )
    actor, job = Answers(), a_job()
    monkeypatch.setattr(RayRunner, "_create", lambda self, plan: actor)
    await runner.start(
        StartRun(
            job_id=job.id,
            fence=Fence(1),
            spec=job.spec,
            allocation=Allocation(ranks=((N1, 1),)),
            origin=Origin(),
        )
    )
    await asyncio.sleep(0)
    gc.collect()
    future = actor.answer() if actor.answer else None
    assert future is not None, "the task was thrown away with the garbage"
    return runner, future


async def test_whether_a_run_started_warm_is_heard_however_long_it_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, started: list[tuple[NodeId, bool]]
) -> None:
    """The loop does not keep a task alive that nobody holds: the hit was not counted, and the pool not refilled."""
    runner, future = await a_start(tmp_path, monkeypatch, lambda node, warm: started.append((node, warm)))
    future.set_result(True)
    await asyncio.sleep(0.01)
    assert started == [(N1, True)], runner


async def test_an_error_beside_a_start_is_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It was said when the task was thrown away, if ever, and by no part of the scheduler."""
    runner, future = await a_start(tmp_path, monkeypatch, lambda node, warm: None)
    with caplog.at_level(logging.ERROR, "scheduler.runs.ray_runner"):
        future.set_exception(RuntimeError("the answer cannot be read"))
        await asyncio.sleep(0.01)
    assert "the answer cannot be read" in caplog.text, runner
