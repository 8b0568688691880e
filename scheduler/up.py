"""`scheduler up` and `down` on one machine: a Ray head, the actor, the API; and all of it gone again, by pid."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx
import psutil

from scheduler import checks
from scheduler.errors import NotReady
from scheduler.run_folder import write_json
from scheduler.settings import Settings

UP_WITHIN_S = 180.0
RAYLET_KNOBS = {"RAY_worker_maximum_startup_concurrency": "8", "RAY_num_workers_soft_limit": "32"}
"""Room for prepared processes: by default Ray starts, and keeps idle, no more than the machine has cores."""
TAIL_BYTES = 3000


@dataclass(frozen=True, slots=True, kw_only=True)
class UpInfo:
    """What is up, and where.  Kept in the state folder as `up.json`."""

    api_url: str
    monitor_url: str
    dashboard_url: str
    ray_address: str
    state_dir: str
    storage_path: str
    ray_token_path: str | None
    ray_temp_dir: str
    metrics_url: str = ""
    """Where Prometheus fetches what this machine measures."""
    processes: dict[str, tuple[int, float]]
    """Name -> (pid, when it was created in seconds since the epoch)."""


def up(
    settings: Settings, *, block: bool = False, num_cpus: int | None = None, num_gpus: int | None = None
) -> UpInfo:
    """Start what is not there, and return when `/health` answers.  A second call finds the first one's work.

    Raises NotReady, naming each missing thing and its remedy, before anything is started.
    """
    info = running(settings)
    if info is None:
        _require_all_checks(settings)
        info = _start(settings, num_cpus, num_gpus)
    if block:
        _wait_for_end(info)
    return info


def down(settings: Settings) -> bool:
    """End every process that `up` started.  Returns whether there was anything to end."""
    info = read_info(settings)
    if info is None:
        return False
    for process in _alive(info):
        _end_tree(process)
    _info_file(settings).unlink(missing_ok=True)
    shutil.rmtree(info.ray_temp_dir, ignore_errors=True)
    return True


def running(settings: Settings) -> UpInfo | None:
    """What is up for these settings and answers; clears away what an earlier one left half-dead."""
    info = read_info(settings)
    if info is None:
        return None
    if len(_alive(info)) == len(info.processes) and _answers(info.api_url, settings):
        return info
    down(settings)
    return None


def read_info(settings: Settings) -> UpInfo | None:
    with contextlib.suppress(OSError):  # not there, or not to be read: the checks say which, in words
        return UpInfo(**json.loads(_info_file(settings).read_text()))
    return None


def ray_environment(info: UpInfo) -> dict[str, str]:
    """What a process needs in its environment, before it imports ray, to talk to this Ray."""
    if info.ray_token_path is None:
        return {"RAY_AUTH_MODE": "disabled"}
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": info.ray_token_path}


def _require_all_checks(settings: Settings) -> None:
    broken = [check for check in checks.run(settings) if not check.ok]
    if broken:
        lines = (f"  {check.name}: {check.detail}\n    -> {check.remedy}" for check in broken)
        raise NotReady("the scheduler cannot start:\n" + "\n".join(lines))


def _start(settings: Settings, num_cpus: int | None, num_gpus: int | None) -> UpInfo:
    for folder in (settings.state_dir / "logs", settings.storage_path):
        folder.mkdir(parents=True, exist_ok=True)
    processes: dict[str, tuple[int, float]] = {}
    info = _plan(settings, processes)
    environment = os.environ | settings.environment() | ray_environment(info) | RAYLET_KNOBS
    # Ray Train's helper that removes placement groups asks "the" Ray of the machine who lives.  Where there are several it
    # would ask another one, which knows no such actor, and end a healthy run.
    environment["RAY_API_SERVER_ADDRESS"] = info.dashboard_url
    environment.setdefault("SCHEDULER_DASHBOARD_URL", info.dashboard_url)
    environment["PYTHONPATH"] = os.pathsep.join(
        filter(None, [str(Path.cwd()), environment.get("PYTHONPATH")])
    )
    try:
        _launch(settings, info, "ray", _ray_command(info, num_cpus, num_gpus), environment)
        _wait(lambda: _port_open(info.ray_address), settings, info, "ray")
        keeper = [
            sys.executable,
            "-m",
            "scheduler.keeper",
            "--address",
            info.ray_address,
            "--working-dir",
            str(Path.cwd()),
        ]
        _launch(settings, info, "keeper", keeper, environment)
        _wait(lambda: _answers(info.api_url, settings), settings, info, "keeper")
    except BaseException:
        down(settings)
        raise
    return info


def _plan(settings: Settings, processes: dict[str, tuple[int, float]]) -> UpInfo:
    api = f"http://{'127.0.0.1' if settings.host == '0.0.0.0' else settings.host}:{settings.port}"
    key = hashlib.sha256(str(settings.state_dir).encode()).hexdigest()[:8]
    token = None if os.environ.get("RAY_AUTH_MODE") == "disabled" else _ray_token(settings)
    return UpInfo(
        api_url=api,
        monitor_url=f"{api}/training",
        dashboard_url=f"http://127.0.0.1:{_free_port(8265)}",
        ray_address=f"127.0.0.1:{_free_port(0)}",
        state_dir=str(settings.state_dir),
        storage_path=str(settings.storage_path),
        ray_token_path=token,
        ray_temp_dir=f"/tmp/scheduler-{key}",
        metrics_url=f"http://127.0.0.1:{_free_port(0)}/metrics",
        processes=processes,
    )


def _ray_command(info: UpInfo, num_cpus: int | None, num_gpus: int | None) -> list[str]:
    ports = {
        name: str(_free_port(0))
        for name in (
            "node-manager-port",
            "object-manager-port",
            "runtime-env-agent-port",
            "dashboard-agent-listen-port",
            "dashboard-agent-grpc-port",
            "ray-client-server-port",
        )
    }
    options = {
        "port": info.ray_address.rpartition(":")[2],
        "node-ip-address": "127.0.0.1",
        "dashboard-host": "127.0.0.1",
        "dashboard-port": info.dashboard_url.rpartition(":")[2],
        "metrics-export-port": str(httpx.URL(info.metrics_url).port),
        "temp-dir": info.ray_temp_dir,
        "min-worker-port": "0",
        "max-worker-port": "0",
        **ports,
    }
    if num_cpus is not None:
        options["num-cpus"] = str(num_cpus)
    if num_gpus is not None:
        options["num-gpus"] = str(num_gpus)
    ray = str(Path(sys.executable).with_name("ray"))
    return [
        ray,
        "start",
        "--head",
        "--block",
        "--disable-usage-stats",
        *(f"--{key}={value}" for key, value in options.items()),
    ]


def _launch(
    settings: Settings, info: UpInfo, name: str, command: list[str], environment: dict[str, str]
) -> None:
    with (settings.state_dir / "logs" / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    info.processes[name] = (process.pid, psutil.Process(process.pid).create_time())
    write_json(_info_file(settings), asdict(info))


def _wait(done: Callable[[], bool], settings: Settings, info: UpInfo, name: str) -> None:
    until_s = time.monotonic() + UP_WITHIN_S
    while not done():
        pid = info.processes[name][0]
        log = settings.state_dir / "logs" / f"{name}.log"
        if not _is_running(pid):
            raise NotReady(f"{name} ended while starting; the end of {log}:\n{_tail(log)}")
        if time.monotonic() > until_s:
            raise NotReady(f"{name} was not ready within {UP_WITHIN_S:g} s; the end of {log}:\n{_tail(log)}")
        time.sleep(0.1)


def _wait_for_end(info: UpInfo) -> None:
    with contextlib.suppress(KeyboardInterrupt):
        psutil.wait_procs(_alive(info))


def _alive(info: UpInfo) -> list[psutil.Process]:
    found: list[psutil.Process] = []
    for pid, created_at_s in info.processes.values():
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            if abs(process.create_time() - created_at_s) < 1.0 and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def _end_tree(root: psutil.Process) -> None:
    """The children first looked up, then all asked, then all made to go."""
    tree = [root]
    with contextlib.suppress(psutil.NoSuchProcess):
        tree += root.children(recursive=True)
    for process in tree:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    _, left = psutil.wait_procs(tree, timeout=10)
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(left, timeout=5)


def _is_running(pid: int) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def _answers(api_url: str, settings: Settings) -> bool:
    token = settings.token.get_secret_value() if settings.token else None
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        return httpx.get(f"{api_url}/health", headers=headers, timeout=5.0).status_code == 200
    except httpx.HTTPError:
        return False


def _port_open(address: str) -> bool:
    host, _, port = address.rpartition(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0


def _free_port(preferred: int) -> int:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", preferred))
        except OSError:
            return _free_port(0)
        return probe.getsockname()[1]


def _ray_token(settings: Settings) -> str:
    path = settings.state_dir / "ray_token"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_hex(32))
    return str(path)


def _info_file(settings: Settings) -> Path:
    return settings.state_dir / "up.json"


def _tail(path: Path) -> str:
    return path.read_bytes()[-TAIL_BYTES:].decode(errors="replace") if path.exists() else ""
