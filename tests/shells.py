"""The shells in which `scheduler up` is called a second time, and what it must answer in each."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.conftest import ROOT, is_gone, wait_until
from tests.second_up import TOKEN, Living

DEAD = "127.0.0.1:9"


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
    "a killed keeper", befalls=kill(Living.keeper_pid), says=("driver was gone", "nothing else")
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
