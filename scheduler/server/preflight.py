"""Is everything there that a scheduler needs?  Each check names what is missing and the remedy."""

from __future__ import annotations

import asyncio
import errno
import importlib.util
import os
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from scheduler.adapters.journal.files import inspect
from scheduler.adapters.supabase import mirror_of
from scheduler.adapters.supabase.connection import SET_KEY
from scheduler.adapters.supabase.mirror import SupabaseMirror
from scheduler.adapters.webhook import webhook_of
from scheduler.engine.periodic import SystemClock
from scheduler.errors import JournalUnusable, MirrorRefused, MirrorUnavailable, NotReady
from scheduler.server.api_probe import Life, api_url, probe
from scheduler.settings import Settings

PACKAGES = ("ray", "torch", "transformers", "peft", "accelerate", "fastapi", "jinja2", "psutil")
MIN_FREE_BYTES = 1_000_000_000
PORT_FREE_WITHIN_S = 10.0
MAX_SUPABASE_S = 5.0
"""Someone is waiting for the answer."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at.  `remedy` is a command or a setting; empty when all is well."""

    name: str
    ok: bool
    detail: str
    remedy: str = ""


def run(settings: Settings, *, ours_is_up: bool = False) -> list[Check]:
    """All checks, in the order in which they are worth repairing."""
    return list(_all(settings, ours_is_up))


def _all(settings: Settings, ours_is_up: bool) -> Iterator[Check]:
    yield _python()
    yield from (_package(name) for name in PACKAGES)
    yield _loops()
    yield _folder("state folder", settings.state_dir, "SCHEDULER_STATE_DIR")
    yield _folder("storage folder", settings.storage_path, "SCHEDULER_STORAGE_PATH")
    yield _journal(settings.state_dir / "journal.db")
    yield _port(settings, ours_is_up)
    yield _supabase(settings)
    yield _webhook(settings)
    yield _gpu()


def _python() -> Check:
    version = ".".join(map(str, sys.version_info[:3]))
    return Check("Python", sys.version_info >= (3, 11), version, "install Python 3.11 or newer")


def _package(name: str) -> Check:
    found = importlib.util.find_spec(name) is not None
    return Check(
        f"package {name}",
        found,
        "found" if found else "not installed",
        "pip install 'training-scheduler[server]'",
    )


def _loops() -> Check:
    found = importlib.util.find_spec("train_loops") is not None
    return Check(
        "training loops", found, "found" if found else "train_loops cannot be imported", "make install"
    )


def _folder(name: str, path: Path, setting: str) -> Check:
    remedy = f"make {path} writable for this user, or set {setting} to a folder that is"
    probe = path / f".probe-{os.getpid()}"
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"x")
        probe.unlink()
        free = shutil.disk_usage(path).free
    except OSError as error:
        return Check(name, False, f"{path} cannot be written: {error.strerror}", remedy)
    if free < MIN_FREE_BYTES:
        return Check(
            name, False, f"{path} has only {free / 1e9:.1f} GB free", f"free some space, or set {setting}"
        )
    return Check(name, True, f"{path}, {free / 1e9:.0f} GB free")


def _journal(path: Path) -> Check:
    try:
        return Check("journal", True, inspect(path))
    except JournalUnusable as error:
        return Check(
            "journal", False, str(error), f"restore {path} from a backup, or move it away to start empty"
        )


def _port(settings: Settings, ours_is_up: bool) -> Check:
    where = f"{settings.host}:{settings.port}"
    if ours_is_up:
        return Check("API port", True, f"{where} is ours")
    until_s = time.monotonic() + PORT_FREE_WITHIN_S
    while (error := _bind(settings)) and time.monotonic() < until_s and _is_just_going(settings, error):
        time.sleep(0.2)
    if error:
        return Check("API port", False, *_why_not_bound(settings, error))
    return Check("API port", True, f"{where} is free")


def _bind(settings: Settings) -> OSError | UnicodeError | None:
    """Why nobody can listen there; None when one could."""
    with socket.socket(socket.AF_INET6 if ":" in settings.host else socket.AF_INET) as asked:
        asked.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            asked.bind((settings.host, settings.port))
        except (OSError, UnicodeError) as error:
            return error
    return None


def _is_just_going(settings: Settings, error: OSError | UnicodeError) -> bool:
    """The port is taken, and nobody listens: the process that had it is on its way out."""
    in_use = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
    return in_use and probe(api_url(settings.host, settings.port), settings).life is Life.SILENT


def _why_not_bound(settings: Settings, error: OSError | UnicodeError) -> tuple[str, str]:
    """What was seen, and what to set otherwise: the port, or the address."""
    where = f"{settings.host}:{settings.port}"
    number = error.errno if isinstance(error, OSError) and not isinstance(error, socket.gaierror) else None
    if number == errno.EADDRINUSE:
        seen = probe(api_url(settings.host, settings.port), settings)
        return f"{where} is in use: {seen.words}", "scheduler up --port PORT, with a free one"
    if number == errno.EACCES:
        return f"{where}: {error}", "scheduler up --port PORT, with one above 1023"
    words = error.strerror if isinstance(error, OSError) else error
    remedy = "set SCHEDULER_HOST to an address of this machine: 127.0.0.1, ::1, or 0.0.0.0 for all of them"
    return f"{where}: {words}", remedy


def _supabase(settings: Settings) -> Check:
    if settings.supabase_url is None:
        return Check("Supabase", True, "not configured; the journal on disk is the only store")
    if settings.supabase_key is None:
        return Check("Supabase", False, "SCHEDULER_SUPABASE_URL is set, and no key", SET_KEY)
    timeout_s = min(settings.supabase_timeout_s, MAX_SUPABASE_S)
    try:
        mirror = mirror_of(settings, timeout_s)
        assert mirror is not None, "a URL is set"
        return Check("Supabase", True, asyncio.run(_ask(mirror)))
    except (ImportError, ValueError) as error:  # httpx, of a proxy that it cannot use
        remedy = "correct or unset HTTPS_PROXY and ALL_PROXY; `pip install 'httpx[socks]'` for a socks proxy"
        return Check("Supabase", False, str(error), remedy)
    except MirrorUnavailable as error:
        remedy = "see that the project runs and can be reached from here, or correct SCHEDULER_SUPABASE_URL"
        return Check("Supabase", False, error.message, remedy)
    except MirrorRefused as error:
        remedy = error.problems[0].message if error.problems else "see the logs of the project"
        return Check("Supabase", False, error.message.removesuffix(f"; {remedy}"), remedy)


def _webhook(settings: Settings) -> Check:
    try:
        found = webhook_of(settings, SystemClock())
    except NotReady as error:
        detail, _, remedy = error.message.partition("; ")
        return Check("webhook", False, detail, remedy)
    return Check(
        "webhook", True, "set" if found else "not configured; nobody is notified of what the system does"
    )


async def _ask(mirror: SupabaseMirror) -> str:
    try:
        return await mirror.check()
    finally:
        await mirror.close()


def _gpu() -> Check:
    """A driver that torch cannot use is the mistake that costs days."""
    if shutil.which("nvidia-smi") is None:
        return Check("GPU", True, "none here; jobs run on the CPU")
    import torch

    words = f"{torch.cuda.device_count()} seen by torch {torch.__version__}"
    return Check(
        "GPU", torch.cuda.is_available(), words, "install a torch built for CUDA: see https://pytorch.org"
    )
