"""Modules imported ahead of need, beside a main thread that imports too."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

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
