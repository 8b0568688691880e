"""`down` where no scheduler answers: what is ended, and whose end that is said to be."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from scheduler.adapters.journal.sqlite import SqliteJournal
from scheduler.core.model import OPERATOR_DOWN, Ending, Job, Outcome, Reason, Status
from scheduler.runs.run_dir import RunDir
from scheduler.server.local_shutdown import abandon, down
from scheduler.server.up_record import ray_temp_dir, write_info
from scheduler.settings import Settings
from scheduler.testing.builders import a_change, a_job
from tests.conftest import free_port, is_gone, wait_until
from tests.unit.test_own_processes import an_info

SLEEPS = "import time; time.sleep(600)"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    settings = Settings(
        state_dir=tmp_path / "state", storage_path=tmp_path / "storage", port=free_port(), stop_grace_s=0.1
    )
    settings.state_dir.mkdir()
    write_info(
        replace(
            an_info(),
            api_url=f"http://127.0.0.1:{settings.port}",
            state_dir=str(settings.state_dir),
            storage_path=str(settings.storage_path),
        )
    )
    return settings


@pytest.fixture
async def running(settings: Settings) -> Job:
    """By the journal, and by the folder of its run."""
    journal = await SqliteJournal.open(settings.state_dir / "journal.db")
    job = a_job(Status.RUNNING)
    await journal.commit([a_change(job)])
    await journal.close()
    folder_of(settings, job).begin("node-1")
    return job


@pytest.fixture
def raylet(settings: Settings) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is called as Ray's is, with the folder of this scheduler."""
    process = subprocess.Popen(
        ["raylet", "-c", SLEEPS, f"--x={ray_temp_dir(settings)}/session"], executable=sys.executable
    )
    wait_until(lambda: psutil.Process(process.pid).cmdline()[:1] == ["raylet"], within_s=10, what="it runs")
    yield process
    process.kill()
    process.wait()


def folder_of(settings: Settings, job: Job) -> RunDir:
    return RunDir.of(settings.storage_path, job.id, job.fence)


@pytest.mark.parametrize("save", [True, False])
async def test_a_run_that_is_ended_with_ray_finds_word_of_it_in_its_folder(
    settings: Settings,
    running: Job,
    raylet: subprocess.Popen[bytes],
    save: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """B3: nobody answers, so nobody can write it into the journal."""
    monkeypatch.setattr("scheduler.server.local_shutdown.MARGIN_S", 0.5)
    said: list[str] = []
    stopped = down(settings, save=save, say=said.append)
    assert stopped is not None and (stopped.running, stopped.unsaved) == (1, 1)
    assert is_gone(raylet.pid)
    ended = folder_of(settings, running).ended()
    assert ended is not None and ended.code == OPERATOR_DOWN
    assert folder_of(settings, running).stop_file.exists() is save
    assert "cannot be reached (nothing listens at" in said[0]
    assert not (settings.state_dir / "up.json").exists()


async def test_a_run_that_died_with_its_machine_is_not_said_to_be_the_operators(
    settings: Settings, running: Job
) -> None:
    """A `down` after a crash ends nothing: what ran was lost, and that has to be seen."""
    stopped = down(settings)
    assert stopped is not None and stopped.running == 0
    assert folder_of(settings, running).ended() is None


async def test_a_start_that_fails_is_no_stop_by_the_operator(
    settings: Settings, running: Job, raylet: subprocess.Popen[bytes]
) -> None:
    abandon(settings)
    assert is_gone(raylet.pid)
    assert folder_of(settings, running).ended() is None


async def test_what_had_ended_before_keeps_its_own_end(
    settings: Settings, running: Job, raylet: subprocess.Popen[bytes]
) -> None:
    """Its final record waits to be read by the next life."""
    outcome = Outcome(ending=Ending.LOST, reason=Reason(code="killed", message="rank 0 was killed"))
    folder_of(settings, running).write_final(outcome)
    down(settings, save=True)
    assert folder_of(settings, running).ended() is None


def test_where_nothing_was_up_nothing_is_ended(tmp_path: Path) -> None:
    assert down(Settings(state_dir=tmp_path / "nowhere")) is None
    assert list(tmp_path.iterdir()) == []
