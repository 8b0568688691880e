"""Curves as a page gets them: over HTTP, from a scheduler whose jobs run."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from scheduler.client import Client
from scheduler.core.model import JobId
from scheduler.errors import StorageUnavailable
from scheduler.runs.ray_runner import RayRunner
from tests.unit.served import LOOP, scheduler_at


def test_a_job_is_submitted_and_its_curve_is_there(tmp_path: Path) -> None:
    """U2: with the samples, and after a retry with both attempts."""
    says = [
        {"time": 1000.0, "phase": "loading", "step": 2},
        {"time": 1001.0, "phase": "training", "step": 3, "loss": 0.5, "tokens_per_s": 99},
        {"time": 1002.0, "step": 3, "samples": [{"prompt": "2+2?", "text": "4"}]},
    ]
    with scheduler_at(tmp_path) as served:
        job = Client(served.url).submit(loop=LOOP, config={"says": says, "fails": 1}, max_failures=1)
        job.wait(20)
        job_id = job.id
        said = httpx.get(f"{served.url}/api/training/{job_id}/metrics?points=2").raise_for_status().json()
        assert said["attempt"] == [1, 2]
        assert said["step"] == [3, 3]
        assert said["series"] == {"loss": [0.5, 0.5], "tokens_per_s": [99, 99]}
        assert [(mark["attempt"], mark["step"]) for mark in said["resumptions"]] == [(2, 2)]
        assert [(one["attempt"], one["text"]) for one in said["samples"]] == [(2, "4"), (1, "4")]
        assert served.call(served.service.queries.trends([job_id], 32)) == {job_id: [0.5]}


async def test_a_storage_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    """An empty chart would say that nothing was measured."""
    (tmp_path / "storage").write_text("a file where a folder should be")
    runner = RayRunner(
        storage=tmp_path / "storage",
        checkpoint_url=str(tmp_path),
        namespace="n",
        env_vars={},
        function_of=str,
        observe_timeout_s=1.0,
        stop_grace_s=1.0,
        on_start=lambda _node, _warm: None,
    )
    with pytest.raises(StorageUnavailable, match="what job j measured cannot be read"):
        await runner.metrics(JobId("j"), 100)
    with pytest.raises(StorageUnavailable, match="what the jobs measured cannot be read"):
        await runner.trends([JobId("j")], 32)
