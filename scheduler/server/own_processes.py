"""The processes of a local scheduler: which of them live, by pid and birth and never by name alone; and their end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from scheduler.errors import NotReady
from scheduler.runs.processes import living
from scheduler.server.api_probe import Seen
from scheduler.server.up_record import UpInfo

KILLED_WITHIN_S = 10.0
_DRIVERS = {"scheduler.server.driver", "scheduler.keeper"}
"""The module that stays beside the actor; its name in releases before this one, for what they left running."""
_RAY_BINARIES = frozenset({"gcs_server", "raylet"})
_RAY_SCRIPTS = ("/ray/", "/bin/ray")


@dataclass(frozen=True, slots=True)
class Parts:
    """What lives of a scheduler on this machine."""

    ray: tuple[psutil.Process, ...] = ()
    keeper: psutil.Process | None = None

    @property
    def all(self) -> tuple[psutil.Process, ...]:
        return (*self.ray, *([self.keeper] if self.keeper else []))

    @property
    def has_whole_ray(self) -> bool:
        return {_name(process) for process in self.ray} >= _RAY_BINARIES

    def __str__(self) -> str:
        return ", ".join(f"{_name(process)} (pid {process.pid})" for process in self.all)


def parts(info: UpInfo | None, temp_dir: str, state_dir: str) -> Parts:
    """By what `up.json` says, and by what runs with the folders of this scheduler: either may be lost."""
    recorded = (
        {name: found for name, process in info.processes.items() if (found := living(*process))}
        if info
        else {}
    )
    strays = _strays(temp_dir, state_dir)
    ray = {one.pid: one for one in (*_ray_of(strays), *filter(None, [recorded.get("ray")]))}
    keeper = recorded.get("keeper") or next((one for one in strays if _is_keeper(one, state_dir)), None)
    return Parts(tuple(ray.values()), keeper)


def owns(found: Parts, seen: Seen) -> bool:
    """Whether the scheduler that answered is the one of these processes: they began it."""
    pid = (seen.health.get("registry") or {}).get("pid")
    with suppress(psutil.NoSuchProcess, TypeError, ValueError):
        return not {one.pid for one in psutil.Process(pid).parents()}.isdisjoint(one.pid for one in found.ray)
    return False


def end(roots: Iterable[psutil.Process]) -> None:
    """These processes and all that they began.  Raises NotReady when some may not be ended, or do not go."""
    kill(freeze(roots))


def freeze(roots: Iterable[psutil.Process]) -> list[psutil.Process]:
    """Stop them all, and all that they began, where they are: nobody sees another one die, and nobody begins a new one."""
    frozen: dict[int, psutil.Process] = {}
    while new := [one for one in _trees(roots) if one.pid not in frozen]:
        for process in new:
            frozen[process.pid] = process
            with _in_words(process):
                process.suspend()
    return list(frozen.values())


def kill(processes: Iterable[psutil.Process]) -> None:
    processes = list(processes)
    for process in processes:
        with _in_words(process):
            process.kill()
    _, left = psutil.wait_procs(processes, timeout=KILLED_WITHIN_S)
    if left:
        pids = ", ".join(str(process.pid) for process in left)
        raise NotReady(
            f"processes {pids} outlive a SIGKILL: the kernel holds them, often for a disk or a GPU that hangs"
        )


def _trees(roots: Iterable[psutil.Process]) -> Iterator[psutil.Process]:
    for root in roots:
        with suppress(psutil.NoSuchProcess):
            yield root
            yield from root.children(recursive=True)


def _strays(temp_dir: str, state_dir: str) -> list[psutil.Process]:
    found = psutil.process_iter(["cmdline", "status"])
    return [
        one
        for one in found
        if one.info["status"] != psutil.STATUS_ZOMBIE and _belongs(one, temp_dir, state_dir)
    ]


def _belongs(process: psutil.Process, temp_dir: str, state_dir: str) -> bool:
    """Part of a Ray that keeps its things in *temp_dir*, or the keeper of *state_dir*; not who only looks at them."""
    line: list[str] = process.info["cmdline"] or []
    return _is_keeper(process, state_dir) or (_names(temp_dir, line) and _is_ray(line))


def _names(folder: str, line: list[str]) -> bool:
    return any(f"{folder}/" in one or one.endswith(f"={folder}") for one in line[1:])


def _is_ray(line: list[str]) -> bool:
    runs = " ".join(line[1:4])
    return Path(line[0]).name in _RAY_BINARIES or any(part in runs for part in _RAY_SCRIPTS)


def _is_keeper(process: psutil.Process, state_dir: str) -> bool:
    line: list[str] = process.info["cmdline"] or []
    return not _DRIVERS.isdisjoint(line) and state_dir in line


def _ray_of(strays: Iterable[psutil.Process]) -> list[psutil.Process]:
    return [one for one in strays if _DRIVERS.isdisjoint(one.info["cmdline"] or [])]


def _name(process: psutil.Process) -> str:
    with suppress(psutil.Error):
        return process.name()
    return "gone"


@contextmanager
def _in_words(process: psutil.Process) -> Iterator[None]:
    """Who has gone is gone; what the system does not allow is said with whose process it is."""
    try:
        yield
    except psutil.NoSuchProcess:
        return
    except psutil.AccessDenied:
        raise NotReady(
            f"process {process.pid} belongs to {process.username()}: only that user, or root, may end it"
        ) from None
