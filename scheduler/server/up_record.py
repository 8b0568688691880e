"""`up.json`: what `scheduler up` left running, where, on which machine, and with which settings."""

from __future__ import annotations

import hashlib
import json
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path
from typing import Any

from scheduler.errors import NotReady
from scheduler.runs.atomic_write import write_whole
from scheduler.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """The machine, since it was switched on, and which of its processes can be seen.  Pids mean nothing elsewhere."""

    host: str = ""
    boot: str = ""
    processes: str = ""

    @classmethod
    def here(cls) -> Place:
        return cls(host=socket.gethostname(), boot=_boot_id(), processes=_namespaces())

    @property
    def is_here(self) -> bool:
        """Whether a pid of that place can be looked up.  Of an unknown one it is believed, as it always was."""
        here = Place.here()
        return not self.host or (self.boot, self.processes) == (here.boot, here.processes)


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
    """Name -> (pid, when it began: see own_processes)."""
    settings: dict[str, str] = field(default_factory=dict)
    """With what it was started; hashes of what is secret."""
    working_dir: str = ""
    """The folder `up` was called in."""
    place: Place = Place()
    has_served: bool = False
    """Since it was started, it was seen to answer."""


class UnreadableRecord(NotReady):
    """There is an `up.json`, and what it says cannot be had."""


def record_file(settings: Settings) -> Path:
    return settings.state_dir / "up.json"


def read_info(settings: Settings) -> UpInfo | None:
    """None when there is none.  Raises UnreadableRecord, in words, when it cannot be read."""
    path = record_file(settings)
    try:
        return _info_of(json.loads(path.read_bytes()))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UnreadableRecord(
            f"{path}, which says what is up, cannot be read ({type(error).__name__}: {error})"
        ) from None


def write_info(info: UpInfo) -> None:
    """Whole or not at all, on disk when this returns, and for nobody else to read."""
    write_whole(Path(info.state_dir) / "up.json", json.dumps(asdict(info)).encode(), mode=0o600)


def forget_info(settings: Settings) -> None:
    record_file(settings).unlink(missing_ok=True)


def ray_temp_dir(settings: Settings) -> str:
    """Known from the state folder alone: what runs is found by it when `up.json` is lost."""
    key = hashlib.sha256(str(settings.state_dir).encode()).hexdigest()[:8]
    return f"/tmp/scheduler-{key}"


@contextmanager
def only_one_at_work(settings: Settings, say: Callable[[str], None]) -> Iterator[None]:
    """Of all `up` and `down` of this state folder.  Whoever comes second waits; a process that dies lets go."""
    path = settings.state_dir / "up.lock"
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            flock(handle, LOCK_EX | LOCK_NB)
        except BlockingIOError:
            say(f"another `scheduler up` or `down` is at work in {settings.state_dir}; waiting for it ...")
            flock(handle, LOCK_EX)
        yield
    finally:
        os.close(handle)


def _info_of(row: Any) -> UpInfo:
    """What a newer release wrote besides is left out."""
    if not isinstance(row, dict):
        raise ValueError("it holds no object")
    known = {one.name for one in fields(UpInfo)}
    values = {name: value for name, value in row.items() if name in known}
    values["place"] = Place(**values.pop("place", {}))
    info = UpInfo(**values)
    began = {name: (int(pid), float(at)) for name, (pid, at) in info.processes.items()}
    info.processes.clear()
    info.processes.update(began)
    return info


def _boot_id() -> str:
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""


def _namespaces() -> str:
    """Of pids, and of the clock by which processes are dated."""
    with suppress(OSError):
        return " ".join(str(Path(f"/proc/self/ns/{kind}").readlink()) for kind in ("pid", "time"))
    return ""
