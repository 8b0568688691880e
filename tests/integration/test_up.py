"""`scheduler up` and `down`, as a user of the command line meets them, beside another scheduler on the same machine."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from scheduler.runs.warm_pool import SET
from tests.conftest import ROOT, Cluster, free_port, is_gone, wait_until

pytestmark = pytest.mark.ray
SCHEDULER = str(Path(sys.executable).with_name("scheduler"))


@pytest.fixture(scope="module")
def second() -> Iterator[dict[str, str]]:
    """The environment of a second scheduler, with prepared processes; whatever it leaves is ended."""
    folder = Path(tempfile.mkdtemp(prefix="sched-"))
    environment = os.environ | {
        "SCHEDULER_STATE_DIR": str(folder / "state"),
        "SCHEDULER_STORAGE_PATH": str(folder / "storage"),
        "SCHEDULER_CLUSTER": "second",
        "SCHEDULER_PORT": str(free_port()),
        "SCHEDULER_ALLOWED_LOOPS": "tests.loops:*",
        "SCHEDULER_WARM_RUNS": "1",
        "SCHEDULER_VOUCH_EVERY_S": "0.5",
    }
    environment["SCHEDULER_URL"] = f"http://127.0.0.1:{environment['SCHEDULER_PORT']}"
    yield environment
    call(environment, "down")
    shutil.rmtree(folder, ignore_errors=True)


def call(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [SCHEDULER, *arguments], env=environment, cwd=ROOT, capture_output=True, text=True, timeout=240
    )


def health(environment: dict[str, str]) -> dict[str, object]:
    return httpx.get(f"{environment['SCHEDULER_URL']}/health", timeout=10).json()


def test_two_schedulers_on_one_machine_do_not_meet(cluster: Cluster, second: dict[str, str]) -> None:
    """Different ports, folders and names: neither sees the other's jobs, and a second `up` finds the first."""
    ours = cluster.submit("quick", {"steps": 1}, name="of the first")
    started = call(second, "up", "--json")
    assert started.returncode == 0, started.stderr
    again = call(second, "up", "--json")
    assert json.loads(again.stdout)["processes"] == json.loads(started.stdout)["processes"]
    assert health(second)["cluster"] == "second"
    listed = call(second, "list", "--json")
    assert ours not in listed.stdout
    assert call(second, "doctor").returncode == 0


def test_a_prepared_run_starts_warm(second: dict[str, str]) -> None:
    """A hit is measured, not assumed: the run's process was there before anybody asked for it."""

    def prepared() -> bool:
        found = [
            process
            for process in psutil.process_iter(["cmdline"])
            if "ray::IDLE" in " ".join(process.info["cmdline"] or [])
        ]
        return health(second)["pool"]["ready"] == 1 and len(found) >= SET  # type: ignore[index]

    wait_until(prepared, within_s=240, what="processes for one run are prepared")
    finished = call(second, "submit", "examples/torch-ddp.yaml", "--wait", "--json")
    assert finished.returncode == 0, finished.stderr
    pool = health(second)["pool"]
    history = call(second, "events", json.loads(finished.stdout)["job_id"]).stdout
    assert pool["hits"] == 1, (pool, history)  # type: ignore[index]


def test_down_ends_every_process_and_up_brings_the_queue_back(second: dict[str, str]) -> None:
    """What was acknowledged is there after the machine was off.  R10: held for a person, where that is the setting."""
    blocker = json.loads(call(second, "submit", "--loop", "tests.loops:ignores_stop", "--json").stdout)[
        "job_id"
    ]
    wide = ("--loop", "tests.loops:quick", "--set", f"resources.num_ranks={os.cpu_count()}")
    waiting = json.loads(call(second, "submit", *wide, "--json").stdout)["job_id"]
    wait_until(
        lambda: json.loads(call(second, "status", blocker, "--json").stdout)["status"] == "running",
        within_s=60,
        what="the job that blocks runs",
    )
    info = json.loads((Path(second["SCHEDULER_STATE_DIR"]) / "up.json").read_text())
    pids = [
        process.pid
        for pid, _ in info["processes"].values()
        for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    ]
    assert len(pids) > 5
    stopped = call(second, "down", "--now")
    assert stopped.returncode == 0
    assert "1 running job with it, 1 of them without saving" in stopped.stdout
    assert [pid for pid in pids if not is_gone(pid)] == []
    refused = call(second, "list")
    assert refused.returncode == 4
    assert "scheduler up" in refused.stderr
    careful = second | {"SCHEDULER_RECOVER_QUEUED": "hold", "SCHEDULER_STALE_AFTER_S": "1"}
    assert call(careful, "up").returncode == 0
    assert blocker in call(second, "list", "--json").stdout
    held = json.loads(call(second, "status", waiting, "--json").stdout)
    assert (held["status"], held["reason"]["code"]) == ("queued", "held"), held
    assert call(second, "force-start", waiting).returncode == 0
    freed = json.loads(call(second, "status", waiting, "--json").stdout)
    assert freed["reason"]["code"] != "held", freed


def test_up_refuses_with_reason_and_remedy(second: dict[str, str], tmp_path: Path) -> None:
    """R8: start-up does not pretend."""
    blocked = tmp_path / "file"
    blocked.touch()
    environment = second | {
        "SCHEDULER_STATE_DIR": str(blocked / "state"),
        "SCHEDULER_SUPABASE_URL": "http://127.0.0.1:1",
        "SCHEDULER_SUPABASE_KEY": "a.b.c",
        "SCHEDULER_WEBHOOK_URL": "example.org",
    }
    refused = call(environment, "up")
    assert refused.returncode != 0
    settings = ("STATE_DIR", "SUPABASE_URL", "WEBHOOK_URL")
    for words in ("state folder", "API port", "--port", *(f"SCHEDULER_{name}" for name in settings)):
        assert words in refused.stderr, refused.stderr
    assert "Traceback" not in refused.stderr
