"""Modules imported ahead of need, beside a main thread that imports too."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

from scheduler.runs import ray_internals, warm_worker
from tests.conftest import wait_until

PACKAGE = {
    "slow/__init__.py": "",
    "slow/part.py": "import time; time.sleep(1.0)\nVALUE = 7\n",
}
SCRIPT = """
import builtins, threading, time
from scheduler.runs import warm_worker
before = builtins.__import__
warm_worker.LOOK_EVERY_S = 0.0
warm_worker.MODULES = ("slow.part",)
warm_worker._has_work = lambda: False
warm_worker.begin()
time.sleep(0.3)
began = time.monotonic()
import json.tool
waited = time.monotonic() - began
import slow
print(slow.part.VALUE, waited > 0.3)
time.sleep(0.2)
print(builtins.__import__ is before)
"""


def test_the_main_thread_sees_no_module_that_is_half_there(tmp_path: Path) -> None:
    """Without turns, `slow.part` is not there yet: a process taken while it prepared failed its run."""
    for name, text in PACKAGE.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    root = Path(__file__).resolve().parents[2]
    ran = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        capture_output=True,
        text=True,
        timeout=60,
        env={"PYTHONPATH": f"{tmp_path}:{root}", "PATH": ""},
    )
    assert ran.stdout.split() == ["7", "True", "True"], ran.stderr


class FakeRay:
    """What a process may ask Ray, and what it said of itself."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.actor_id: str | None = None
        self.said: list[tuple[str, str, int]] = []
        context = SimpleNamespace(get_actor_id=lambda: self.actor_id, get_node_id=lambda: "n1")
        monkeypatch.setattr(warm_worker, "ray", SimpleNamespace(get_runtime_context=lambda: context))
        monkeypatch.setattr(warm_worker, "LOOK_EVERY_S", 0.01)
        monkeypatch.setattr(warm_worker, "MODULES", ())
        monkeypatch.setattr(warm_worker, "_has_task", threading.Event())
        for name in ("announce_prepared", "withdraw_prepared"):
            monkeypatch.setattr(ray_internals, name, partial(self._say, name.partition("_")[0]))

    def _say(self, what: str, node_id: str, pid: int) -> None:
        self.said.append((what, node_id, pid))


@pytest.fixture
def fake_ray(monkeypatch: pytest.MonkeyPatch) -> FakeRay:
    return FakeRay(monkeypatch)


def prepared() -> threading.Thread:
    thread = threading.Thread(target=warm_worker._go_on_while_idle, args=(warm_worker.ImportGate(),))
    thread.start()
    return thread


def test_a_process_counts_as_ready_from_its_last_import_until_it_has_work(fake_ray: FakeRay) -> None:
    """Else /health shows as ready what is still importing, or what a run has taken long ago."""
    thread = prepared()
    wait_until(lambda: fake_ray.said, within_s=10, what="it is announced")
    assert fake_ray.said == [("announce", "n1", os.getpid())]
    fake_ray.actor_id = "a1"
    thread.join(10)
    assert fake_ray.said == [("announce", "n1", os.getpid()), ("withdraw", "n1", os.getpid())]


def test_a_process_that_got_work_at_once_was_never_ready(fake_ray: FakeRay) -> None:
    fake_ray.actor_id = "a1"
    prepared().join(10)
    assert fake_ray.said == []


def test_a_process_that_ran_a_task_is_not_ready(fake_ray: FakeRay, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray never gives it to an actor."""
    monkeypatch.setattr(ray_internals, "make_cluster_wide_actors", lambda: None)
    warm_worker.prepare_cluster()
    prepared().join(10)
    assert fake_ray.said == []


def test_a_process_that_cannot_announce_itself_lives_on(
    fake_ray: FakeRay, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise ConnectionError("the GCS is away")

    monkeypatch.setattr(ray_internals, "announce_prepared", fail)
    prepared().join(10)
    assert "could not announce" in caplog.text
