"""Which processes of a scheduler live: by pid and birth, by their folders when `up.json` is lost; and how they end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from scheduler.runs.processes import began_s, living
from scheduler.server.api_probe import Life, Seen
from scheduler.server.own_processes import Parts, end, owns, parts
from scheduler.server.up_record import Place, UpInfo
from tests.conftest import is_gone, wait_until

ROOT = Path(__file__).parents[2]
SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]
HAS_A_CHILD = "import subprocess, sys; print(subprocess.Popen(sys.argv[1:]).pid, flush=True); import time; time.sleep(600)"


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(SLEEP)
    yield process
    process.kill()
    process.wait()


def an_info(**processes: tuple[int, float]) -> UpInfo:
    return UpInfo(
        api_url="http://127.0.0.1:8000",
        monitor_url="",
        dashboard_url="",
        ray_address="127.0.0.1:1",
        state_dir="/nowhere/state",
        storage_path="/nowhere/storage",
        ray_token_path=None,
        ray_temp_dir="/tmp/scheduler-nowhere",
        processes=processes,
        place=Place.here(),
    )


def test_a_process_is_its_pid_and_its_birth(sleeper: subprocess.Popen[bytes]) -> None:
    """Pids are used again: one that came later is somebody else."""
    born = began_s(sleeper.pid)
    assert living(sleeper.pid, born)
    assert living(sleeper.pid, born + 1.0) is None
    sleeper.kill()
    wait_until(lambda: is_gone(sleeper.pid), within_s=10, what="it is a zombie")
    assert living(sleeper.pid, born) is None, "a zombie does nothing any more"
    sleeper.wait()
    assert living(sleeper.pid, born) is None


def test_a_clock_that_is_set_does_not_make_it_another(
    sleeper: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """B3: by the time of day all processes change their birth with the clock, and `up` took them for gone."""
    born = began_s(sleeper.pid)
    real = psutil.Process.create_time
    monkeypatch.setattr(psutil.Process, "create_time", lambda self: real(self) + 900)
    assert living(sleeper.pid, born)


def test_what_an_older_release_wrote_down_is_found(sleeper: subprocess.Popen[bytes]) -> None:
    """It kept the time of day: else an upgrade would take what lives for gone."""
    assert living(sleeper.pid, psutil.Process(sleeper.pid).create_time())


@pytest.mark.parametrize(
    ("line", "part"),
    [
        (["raylet", "--store=/tmp/scheduler-a1b2/session/sockets/x"], "ray"),
        (["gcs_server", "--log_dir=/tmp/scheduler-a1b2/logs"], "ray"),
        (["python", "/x/bin/ray", "start", "--head", "--temp-dir=/tmp/scheduler-a1b2"], "ray"),
        (["python", "-m", "scheduler.server.driver", "--address", "x", "--state-dir", "/s/state"], "keeper"),
        (["python", "-m", "scheduler.keeper", "--address", "x", "--state-dir", "/s/state"], "keeper"),
        (["python", "-m", "scheduler.server.driver", "--address", "x", "--state-dir", "/s/state2"], None),
        (["raylet", "--store=/tmp/scheduler-a1b2c3/session/sockets/x"], None),
        (["tail", "-f", "/tmp/scheduler-a1b2/session/logs/raylet.out"], None),
        (["vi", "/s/state"], None),
    ],
)
def test_what_runs_with_its_folders_is_found_without_a_record(line: list[str], part: str | None) -> None:
    """B3: an `up.json` that is lost or torn proves nothing about what lives.  Who only looks is left out of it."""
    process = subprocess.Popen(
        [line[0], "-c", "import time; time.sleep(600)", *line[1:]], executable=sys.executable
    )
    try:
        wait_until(
            lambda: psutil.Process(process.pid).cmdline()[:1] == line[:1], within_s=10, what="it is that"
        )
        found = parts(None, "/tmp/scheduler-a1b2", "/s/state")
        assert [one.pid for one in found.ray] == ([process.pid] if part == "ray" else [])
        assert (found.keeper.pid if found.keeper else None) == (process.pid if part == "keeper" else None)
    finally:
        process.kill()
        process.wait()


def test_a_recorded_process_counts_once(sleeper: subprocess.Popen[bytes]) -> None:
    process = (sleeper.pid, began_s(sleeper.pid))
    found = parts(an_info(ray=process), "/tmp/scheduler-nowhere", "/nowhere/state")
    assert [one.pid for one in found.all] == [sleeper.pid]
    assert not found.has_whole_ray
    assert f"pid {sleeper.pid}" in str(found)
    gone = replace(an_info(), processes={"ray": (sleeper.pid, process[1] + 5)})
    assert parts(gone, "/tmp/scheduler-nowhere", "/nowhere/state").all == ()


def test_the_end_takes_all_that_was_begun_also_what_ignores_signals_and_what_stands_still() -> None:
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + SLEEP[2]
    root = subprocess.Popen(
        [sys.executable, "-c", HAS_A_CHILD, sys.executable, "-c", deaf], stdout=subprocess.PIPE
    )
    assert root.stdout
    child = int(root.stdout.readline())
    os.kill(child, signal.SIGSTOP)
    began = time.monotonic()
    end([psutil.Process(root.pid)])
    assert is_gone(root.pid) and is_gone(child)
    assert time.monotonic() - began < 5
    root.wait()


def test_a_scheduler_is_ours_when_our_ray_began_it(sleeper: subprocess.Popen[bytes]) -> None:
    """Another one may answer at the address of one that is gone, with the same name."""

    def seen(pid: object) -> Seen:
        return Seen(Life.SERVES, "", {"registry": {"pid": pid}})

    ours = Parts(ray=(psutil.Process(os.getpid()),))
    assert owns(ours, seen(sleeper.pid))
    assert not owns(Parts(), seen(sleeper.pid))
    assert not owns(Parts(ray=(psutil.Process(sleeper.pid),)), seen(os.getpid()))
    for nobody in (None, 2**22 + 1, "x"):
        assert not owns(ours, seen(nobody))
