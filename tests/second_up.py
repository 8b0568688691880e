"""A second `scheduler up`, in shells that are not the first one's, beside a job that runs."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

from scheduler.settings import Settings
from scheduler.up_record import UpInfo, read_info
from tests.conftest import ROOT, free_port, is_gone, wait_until

SCHEDULER = str(Path(sys.executable).with_name("scheduler"))
TOKEN = "correct-horse"
DEAD = "127.0.0.1:9"
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
        from scheduler.own_processes import parts

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


# The shells


@dataclass(frozen=True)
class Shell:
    """How a second `up` is called, what has befallen the scheduler before, and what it must answer."""

    name: str
    environment: Mapping[str, str | None] = field(default_factory=dict)
    arguments: tuple[str, ...] = ()
    befalls: Callable[[Living], object] | None = None
    afterwards: Callable[[Living], object] | None = None
    in_another_folder: bool = False
    full_disk: bool = False
    code: int = 0
    says: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.name

    def meet(self, it: Living) -> None:
        """Call it; what lives must live on, and be found well when all is as before."""
        if self.befalls:
            self.befalls(it)
        try:
            cwd = it.folder if self.in_another_folder else ROOT
            ran = it.call("up", *self.arguments, shell=self.environment, cwd=cwd, full_disk=self.full_disk)
            it.assert_untouched()
        finally:
            if self.afterwards:
                self.afterwards(it)
        assert ran.returncode == self.code, (ran.stdout, ran.stderr)
        assert "Traceback" not in ran.stderr
        assert TOKEN not in ran.stdout + ran.stderr
        for words in self.says:
            assert words in ran.stderr, ran.stderr
        it.assert_well()


def send(signal_: signal.Signals, whom: Callable[[Living], int]) -> Callable[[Living], None]:
    return lambda it: os.kill(whom(it), signal_)


def kill(whom: Callable[[Living], int]) -> Callable[[Living], None]:
    def killed(it: Living) -> None:
        pid = whom(it)
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: is_gone(pid), within_s=20, what=f"process {pid} is gone")

    return killed


def actor(it: Living) -> int:
    return it.pid_of("ray::SchedulerActor")


def keep_aside(it: Living) -> Path:
    return shutil.copy2(it.state / "up.json", it.folder / "up.json.aside")


def put_back(it: Living) -> None:
    path = it.state / "up.json"
    if path.is_dir():
        path.rmdir()
    shutil.copy2(it.folder / "up.json.aside", path)


def lose_record(it: Living) -> None:
    keep_aside(it)
    (it.state / "up.json").unlink()


def tear_record(it: Living) -> None:
    keep_aside(it)
    os.truncate(it.state / "up.json", 100)


def hide_record(it: Living) -> None:
    """Nobody can read a folder, root neither."""
    lose_record(it)
    (it.state / "up.json").mkdir()


def shift_clock(it: Living) -> None:
    """As if the clock of the machine had been set since: by the time of day every process began at another moment."""
    path = keep_aside(it)
    row = json.loads(path.read_text())
    row["processes"] = {name: (pid, began + 900) for name, (pid, began) in row["processes"].items()}
    (it.state / "up.json").write_text(json.dumps(row))


DIFFERS = ("with other settings than here", "Nothing was touched", "up --replace")
IN_USE = ("API port", "is in use", "--port PORT")
LEFT = ("Nothing was touched", "scheduler down")
PROXIES = [
    Shell(f"{name}={value}", {name: value})
    for name, value in (
        ("HTTP_PROXY", f"http://{DEAD}"),
        ("http_proxy", f"http://{DEAD}"),
        ("HTTPS_PROXY", f"http://{DEAD}"),
        ("ALL_PROXY", f"socks5://{DEAD}"),
        ("all_proxy", f"http://{DEAD}"),
        ("HTTP_PROXY", "no address at all"),
    )
]
NO_TOKEN = Shell(
    "no token", {"SCHEDULER_TOKEN": None}, code=1, says=(*DIFFERS, "SCHEDULER_TOKEN: set there, not set here")
)
OTHER_PORT = Shell("another port", arguments=("--port", "8123"), code=1, says=(*DIFFERS, "SCHEDULER_PORT"))
OTHER_FOLDER = Shell("another folder", in_another_folder=True, says=("it was started in",))
FULL_DISK = Shell("a full disk", full_disk=True)
STOPPED_ACTOR = Shell(
    "a stopped actor",
    befalls=send(signal.SIGSTOP, actor),
    afterwards=send(signal.SIGCONT, actor),
    code=1,
    says=(*LEFT, "does not serve", "503"),
)
KILLED_KEEPER = Shell(
    "a killed keeper", befalls=kill(Living.keeper_pid), says=("keeper was gone", "nothing else")
)
TORN_RECORD = Shell(
    "a torn up.json",
    befalls=tear_record,
    afterwards=put_back,
    code=1,
    says=(*LEFT, "cannot be read", "raylet"),
)
TELLING = [
    PROXIES[0],
    PROXIES[3],
    NO_TOKEN,
    OTHER_PORT,
    OTHER_FOLDER,
    FULL_DISK,
    TORN_RECORD,
    KILLED_KEEPER,
    STOPPED_ACTOR,
]
ALL = [
    Shell("the same"),
    *PROXIES,
    Shell(
        "a proxy and NO_PROXY for something else", {"HTTP_PROXY": f"http://{DEAD}", "NO_PROXY": "example.org"}
    ),
    OTHER_FOLDER,
    Shell("another HOME", {"HOME": "/tmp"}),
    Shell("RAY_ADDRESS of another Ray", {"RAY_ADDRESS": DEAD}),
    Shell("RAY_AUTH_MODE said", {"RAY_AUTH_MODE": "token"}),
    Shell("a default said", {"SCHEDULER_TICK_EVERY_S": "1.0"}),
    Shell("the port said again", {"SCHEDULER_HOST": "127.0.0.1"}),
    Shell("no PYTHONPATH and another language", {"PYTHONPATH": None, "LANG": "C", "LC_ALL": "C"}),
    FULL_DISK,
    NO_TOKEN,
    Shell(
        "another token",
        {"SCHEDULER_TOKEN": "battery-staple"},
        code=1,
        says=(*DIFFERS, "SCHEDULER_TOKEN: set there, another one here"),
    ),
    OTHER_PORT,
    Shell("another host", {"SCHEDULER_HOST": "0.0.0.0"}, code=1, says=(*DIFFERS, "SCHEDULER_HOST")),
    Shell("IPv6", {"SCHEDULER_HOST": "::1"}, code=1, says=(*DIFFERS, "'::1' here")),
    Shell(
        "another storage",
        {"SCHEDULER_STORAGE_PATH": "/tmp/elsewhere"},
        code=1,
        says=(*DIFFERS, "SCHEDULER_STORAGE_PATH"),
    ),
    Shell("another cluster", arguments=("--cluster", "other"), code=1, says=(*DIFFERS, "SCHEDULER_CLUSTER")),
    Shell(
        "another grace", {"SCHEDULER_STOP_GRACE_S": "1"}, code=1, says=(*DIFFERS, "SCHEDULER_STOP_GRACE_S")
    ),
    Shell(
        "a database",
        {"SCHEDULER_SUPABASE_URL": f"http://{DEAD}"},
        code=1,
        says=(*DIFFERS, "SCHEDULER_SUPABASE_URL"),
    ),
    Shell("Ray without its token", {"RAY_AUTH_MODE": "disabled"}, code=1, says=(*DIFFERS, "RAY_AUTH_MODE")),
    Shell(
        "--replace without the token",
        {"SCHEDULER_TOKEN": None},
        arguments=("--replace",),
        code=1,
        says=("protected better", "Nothing was touched"),
    ),
    Shell("a port that is none", {"SCHEDULER_PORT": "x"}, code=2, says=("SCHEDULER_PORT",)),
    Shell("another state folder", {"SCHEDULER_STATE_DIR": "/tmp/sched-elsewhere/state"}, code=1, says=IN_USE),
    Shell(
        "another HOME and no state folder",
        {"HOME": "/tmp/sched-elsewhere", "SCHEDULER_STATE_DIR": None, "SCHEDULER_STORAGE_PATH": None},
        code=1,
        says=IN_USE,
    ),
    STOPPED_ACTOR,
    Shell("a killed actor", befalls=kill(actor)),
    KILLED_KEEPER,
    Shell(
        "a killed keeper, and no token",
        {"SCHEDULER_TOKEN": None},
        befalls=kill(Living.keeper_pid),
        afterwards=lambda it: it.call("up"),
        code=1,
        says=DIFFERS,
    ),
    Shell(
        "a stopped keeper",
        befalls=send(signal.SIGSTOP, Living.keeper_pid),
        afterwards=send(signal.SIGCONT, Living.keeper_pid),
    ),
    Shell("a killed replica", befalls=kill(lambda it: it.pid_of("ray::ServeReplica:scheduler:Api"))),
    Shell("a killed controller", befalls=kill(lambda it: it.pid_of("ray::ServeController"))),
    Shell("a killed proxy", befalls=kill(lambda it: it.pid_of("ray::ProxyActor"))),
    TORN_RECORD,
    Shell("no up.json", befalls=lose_record, afterwards=put_back, code=1, says=(*LEFT, "is gone", "raylet")),
    Shell(
        "an unreadable up.json",
        befalls=hide_record,
        afterwards=put_back,
        code=1,
        says=(*LEFT, "cannot be read"),
    ),
    Shell("a clock that was set", befalls=shift_clock, afterwards=put_back),
]
