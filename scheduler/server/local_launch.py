"""What `scheduler up` begins: a Ray head and the keeper, each in a session of its own, with a log in the state folder."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from scheduler.errors import NotReady
from scheduler.runs.processes import began_s, living
from scheduler.server import preflight
from scheduler.server.api_probe import Life, api_url, probe
from scheduler.server.held_ports import HeldPorts
from scheduler.server.local_shutdown import Say, abandon
from scheduler.server.own_processes import end, owns, parts
from scheduler.server.settings_fingerprint import fingerprint, ray_auth_mode
from scheduler.server.up_record import Place, UpInfo, ray_temp_dir, write_info
from scheduler.settings import Settings

UP_WITHIN_S = 180.0
RAY_TRIES = 3
LOOK_EVERY_S = 0.1
TAIL_BYTES = 3000
RAYLET_KNOBS = {"RAY_worker_maximum_startup_concurrency": "8", "RAY_num_workers_soft_limit": "32"}
"""Room for prepared processes: by default Ray starts, and keeps idle, no more than the machine has cores."""
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_STEERS_RAY = ("RAY_ADDRESS", "RAY_NAMESPACE", "RAY_API_SERVER_ADDRESS")
"""What a shell may have set for another Ray."""
_RAY_PORTS = (
    "node-manager-port",
    "object-manager-port",
    "runtime-env-agent-port",
    "dashboard-agent-listen-port",
    "dashboard-agent-grpc-port",
    "ray-client-server-port",
)


class _RayEnded(NotReady):
    """Ray is gone before it was ready."""


def begin(settings: Settings, num_cpus: int | None, num_gpus: int | None, say: Say) -> UpInfo:
    require_all_checks(settings)
    say(f"starting the scheduler on {settings.host}:{settings.port} ...")
    for folder in (settings.state_dir / "logs", settings.storage_path):
        folder.mkdir(parents=True, exist_ok=True)
    with HeldPorts() as claims:
        claims.claim(settings.port)
        for left in reversed(range(RAY_TRIES)):
            try:
                return _try(settings, num_cpus, num_gpus)
            except _RayEnded as error:
                if not left:
                    raise
                say(f"{error.message.partition(';')[0]}; trying again with other ports")
    raise AssertionError("unreachable")


def _try(settings: Settings, num_cpus: int | None, num_gpus: int | None) -> UpInfo:
    """Raises _RayEnded when Ray ended while it started.  Whatever was begun is ended then."""
    with HeldPorts() as ports:
        info = _plan(settings, ports)
        command = _ray_command(info, ports, num_cpus, num_gpus)
        try:
            ports.release()
            info = _launch(settings, info, "ray", command)
            _wait(lambda: is_open(info.ray_address), info, "Ray does not listen")
            info = launch_keeper(settings, info)
            _wait(lambda: _serves(settings, info), info, "the API does not answer")
        except TimeoutError as late:
            words = "it goes on starting; `scheduler up` waits for it again, `scheduler down` ends it"
            raise NotReady(f"{late}{words}") from None
        except BaseException:
            abandon(settings)
            raise
    return note_served(info)


def note_served(info: UpInfo) -> UpInfo:
    """It was seen to serve: from now on silence is no start that takes its time."""
    if not info.has_served:
        info = replace(info, has_served=True)
        write_info(info)
    return info


def require_all_checks(settings: Settings) -> None:
    broken = [check for check in preflight.run(settings) if not check.ok]
    if broken:
        lines = (f"  {check.name}: {check.detail}\n    -> {check.remedy}" for check in broken)
        raise NotReady("the scheduler cannot start:\n" + "\n".join(lines))


def _plan(settings: Settings, ports: HeldPorts) -> UpInfo:
    api = api_url(settings.host, settings.port)
    return UpInfo(
        api_url=api,
        monitor_url=f"{api}/training",
        dashboard_url=f"http://127.0.0.1:{ports.take(8265)}",
        ray_address=f"127.0.0.1:{ports.take()}",
        state_dir=str(settings.state_dir),
        storage_path=str(settings.storage_path),
        ray_token_path=None if ray_auth_mode() == "disabled" else _ray_token(settings),
        ray_temp_dir=ray_temp_dir(settings),
        metrics_url=f"http://127.0.0.1:{ports.take()}/metrics",
        processes={},
        settings=fingerprint(settings),
        working_dir=str(Path.cwd()),
        place=Place.here(),
    )


def ray_environment(info: UpInfo) -> dict[str, str]:
    """What a process needs in its environment, before it imports ray, to talk to this Ray."""
    if info.ray_token_path is None:
        return {"RAY_AUTH_MODE": "disabled"}
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": info.ray_token_path}


def is_open(address: str) -> bool:
    """Whether something listens at *address*, `host:port`."""
    parts = urlsplit(f"//{address}")
    try:
        with socket.create_connection((parts.hostname, parts.port or 0), timeout=2.0):
            return True
    except TimeoutError:
        return True
    except OSError:
        return False


def launch_keeper(settings: Settings, info: UpInfo) -> UpInfo:
    """Returns *info* with the keeper in it, as it is written down."""
    return _launch(
        settings,
        info,
        "keeper",
        [
            *(sys.executable, "-m", "scheduler.server.driver"),
            *("--address", info.ray_address),
            *("--working-dir", info.working_dir or str(Path.cwd())),
            *("--state-dir", info.state_dir),
        ],
    )


def _launch(settings: Settings, info: UpInfo, name: str, command: list[str]) -> UpInfo:
    with _log(info, name).open("ab") as log:
        process = subprocess.Popen(
            command,
            env=_environment(settings, info),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        info = replace(info, processes=info.processes | {name: (process.pid, began_s(process.pid))})
        write_info(info)
    except BaseException:  # nobody would find it again
        end([psutil.Process(process.pid)])
        raise
    return info


def _environment(settings: Settings, info: UpInfo) -> dict[str, str]:
    environment = os.environ | settings.environment() | ray_environment(info) | RAYLET_KNOBS
    for name in _STEERS_RAY:
        environment.pop(name, None)
    # Ray Train's helper that removes placement groups asks "the" Ray of the machine who lives.  Where there are several it
    # would ask another one, which knows no such actor, and end a healthy run.
    environment["RAY_API_SERVER_ADDRESS"] = info.dashboard_url
    environment.setdefault("SCHEDULER_DASHBOARD_URL", info.dashboard_url)
    paths = (info.working_dir or str(Path.cwd()), environment.get("PYTHONPATH"))
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    never = ",".join(filter(None, [environment.get("NO_PROXY") or environment.get("no_proxy"), *_LOOPBACK]))
    return environment | {"NO_PROXY": never, "no_proxy": never}


def _serves(settings: Settings, info: UpInfo) -> bool:
    seen = probe(info.api_url, settings)
    return seen.life is Life.SERVES and owns(parts(info, info.ray_temp_dir, info.state_dir), seen)


def _wait(done: Callable[[], bool], info: UpInfo, late: str) -> None:
    """Raises NotReady when a process is gone meanwhile, TimeoutError when it takes too long."""
    until_s = time.monotonic() + UP_WITHIN_S
    while not done():
        if gone := [name for name, process in info.processes.items() if not living(*process)]:
            words = f"{gone[0]} ended while starting; the end of {_log(info, gone[0])}:\n{_tail(_log(info, gone[0]))}"
            raise (_RayEnded if "ray" in gone else NotReady)(words)
        if time.monotonic() > until_s:
            log = _log(info, next(reversed(info.processes)))
            raise TimeoutError(f"{late} within {UP_WITHIN_S:g} s; the end of {log}:\n{_tail(log)}\n")
        time.sleep(LOOK_EVERY_S)


def _log(info: UpInfo, name: str) -> Path:
    return Path(info.state_dir) / "logs" / f"{name}.log"


def _tail(log: Path) -> str:
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - TAIL_BYTES))
        return file.read().decode(errors="replace").strip()


def _ray_token(settings: Settings) -> str:
    path = settings.state_dir / "ray_token"
    if not path.exists() or path.stat().st_size == 0:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(secrets.token_hex(32))
    return str(path)


def _ray_command(info: UpInfo, ports: HeldPorts, num_cpus: int | None, num_gpus: int | None) -> list[str]:
    options = {
        "port": info.ray_address.rpartition(":")[2],
        "node-ip-address": "127.0.0.1",
        "dashboard-host": "127.0.0.1",
        "dashboard-port": info.dashboard_url.rpartition(":")[2],
        "metrics-export-port": str(urlsplit(info.metrics_url).port),
        "temp-dir": info.ray_temp_dir,
        "min-worker-port": "0",
        "max-worker-port": "0",
        **{name: str(ports.take()) for name in _RAY_PORTS},
    }
    if num_cpus is not None:
        options["num-cpus"] = str(num_cpus)
    if num_gpus is not None:
        options["num-gpus"] = str(num_gpus)
    ray = str(Path(sys.executable).with_name("ray"))
    return [
        *(ray, "start", "--head", "--block", "--disable-usage-stats"),
        *(f"--{key}={value}" for key, value in options.items()),
    ]
