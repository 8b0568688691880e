"""A second `scheduler up`, in shells that are not the first one's, beside a job that runs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

from scheduler.server.up_record import UpInfo, read_info
from scheduler.settings import Settings
from tests.conftest import ROOT, free_port, is_gone, wait_until

SCHEDULER = str(Path(sys.executable).with_name("scheduler"))
TOKEN = "correct-horse"
NO_FILE_GROWS = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
os.execv(sys.argv[1], sys.argv[1:])
"""
"""As on a disk that is full: whoever writes a byte is refused."""


@dataclass
class Living:
    """A scheduler that is up, and a job that must not notice anything."""

    folder: Path
    environment: dict[str, str]
    job_id: str = ""
    pids: dict[str, int] = field(default_factory=dict)

    def call(
        self,
        *arguments: str,
        shell: Mapping[str, str | None] | None = None,
        cwd: Path = ROOT,
        full_disk: bool = False,
    ) -> subprocess.CompletedProcess[str]:
        """As typed in a shell with these changes to its environment; None takes a variable away."""
        environment = {**self.environment, **(shell or {})}
        given = {name: value for name, value in environment.items() if value is not None}
        limit = [sys.executable, "-c", NO_FILE_GROWS] if full_disk else []
        command = [*limit, SCHEDULER, *arguments]
        return subprocess.run(command, env=given, cwd=cwd, capture_output=True, text=True, timeout=240)

    @property
    def state(self) -> Path:
        return Path(self.environment["SCHEDULER_STATE_DIR"])

    @property
    def record(self) -> UpInfo:
        info = read_info(Settings(state_dir=self.state, cluster="living"))
        assert info is not None
        return info

    def health(self) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        answer = httpx.get(f"{self.environment['SCHEDULER_URL']}/health", headers=headers, timeout=10)
        return answer.json() if answer.status_code == 200 else {}

    def serves(self) -> bool:
        try:
            return bool(self.health().get("registry"))
        except httpx.HTTPError:
            return False

    def pid_of(self, title: str) -> int:
        """Of the process of this Ray that has such a title."""

        def found() -> list[int]:
            raylet = self.part("raylet")
            children = raylet.children(recursive=True)
            return [one.pid for one in children if title in " ".join(one.cmdline())]

        return wait_until(found, within_s=60, what=f"there is a process {title}")[0]

    def part(self, name: str) -> psutil.Process:
        from scheduler.server.own_processes import parts

        found = parts(None, self.record.ray_temp_dir, str(self.state))
        return next(one for one in found.all if one.name() == name)

    def keeper_pid(self) -> int:
        return self.record.processes["keeper"][0]

    def submit(self) -> None:
        """A job that runs for an hour, and saves when it is asked to."""
        config = (
            "--set",
            "steps=36000",
            "--set",
            "step_time_s=0.1",
            "--set",
            "checkpoint_every_steps=100000",
        )
        submitted = self.call("submit", "--loop", "tests.loops:quick", *config, "--json")
        assert submitted.returncode == 0, submitted.stderr
        self.job_id = json.loads(submitted.stdout)["job_id"]
        wait_until(
            lambda: (self.job()["progress"] or {}).get("step", 0) > 2,
            within_s=120,
            what="the job makes steps",
        )
        run = self.run_folder
        self.pids = {
            "rank": json.loads((run / "rank-0.json").read_text())["pid"],
            "run": json.loads((run / "started.json").read_text())["pid"],
            "raylet": self.part("raylet").pid,
        }

    @property
    def run_folder(self) -> Path:
        return Path(self.environment["SCHEDULER_STORAGE_PATH"]) / self.job_id / "run-1"

    def job(self) -> dict[str, Any]:
        told = self.call("status", self.job_id, "--json")
        assert told.returncode == 0, told.stderr
        return json.loads(told.stdout)

    def assert_untouched(self) -> None:
        """The very processes of the run live, and make steps."""
        assert [name for name, pid in self.pids.items() if is_gone(pid)] == []
        lines = (self.run_folder / "progress.jsonl").stat().st_size
        wait_until(
            lambda: (self.run_folder / "progress.jsonl").stat().st_size > lines,
            within_s=30,
            what="another step is made",
        )
        assert not (self.run_folder / "ended.json").exists()
        assert not (self.run_folder / "stop").exists()

    def assert_well(self) -> None:
        wait_until(self.serves, within_s=90, what="the scheduler serves")
        job = self.job()
        assert (job["status"], job["attempt"]) == ("running", 1), job
        self.assert_untouched()


@contextmanager
def living() -> Iterator[Living]:
    """Started as people start it: with a token, and with Ray's own."""
    folder = Path(tempfile.mkdtemp(prefix="sched-"))
    port = str(free_port())
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "SCHEDULER_"))
    }
    environment |= {
        "SCHEDULER_STATE_DIR": str(folder / "state"),
        "SCHEDULER_STORAGE_PATH": str(folder / "storage"),
        "SCHEDULER_CLUSTER": "living",
        "SCHEDULER_PORT": port,
        "SCHEDULER_TOKEN": TOKEN,
        "SCHEDULER_URL": f"http://127.0.0.1:{port}",
        "SCHEDULER_ALLOWED_LOOPS": "tests.loops:*",
        "SCHEDULER_WARM_RUNS": "0",
        "SCHEDULER_STOP_GRACE_S": "20",
        "SCHEDULER_MAX_LOSSES": "1",
        "SCHEDULER_RETRY_BACKOFF_S": "0.2",
    }
    it = Living(folder, environment)
    try:
        started = it.call("up", "--json")
        assert started.returncode == 0, started.stderr
        it.submit()
        yield it
    finally:
        it.call("down", "--now")
        shutil.rmtree(folder, ignore_errors=True)
