"""The stack ends with whoever started it, however that happens; `make supabase` keeps its data."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import psycopg
import pytest

from tests.conftest import ROOT, is_gone, wait_until
from tests.stack import Stack

HOLDER = """
import json, sys
from tests.stack import Stack
with Stack.start(migrate=False) as stack:
    print(json.dumps(stack.pids), flush=True)
    sys.stdin.read()
"""

Held = tuple[subprocess.Popen[str], dict[str, int]]


@pytest.fixture
def hold() -> Iterator[Callable[[], Held]]:
    """Starts a process that holds a stack; returns it with the pids of the stack."""
    started: list[subprocess.Popen[str]] = []

    def start() -> Held:
        process = run("-c", HOLDER)
        started.append(process)
        assert process.stdout is not None
        return process, json.loads(process.stdout.readline())

    yield start
    for process in started:
        process.communicate(timeout=30)


def run(*arguments: str) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, *arguments], stdin=pipe, stdout=pipe, text=True, cwd=ROOT)


def family(pids: dict[str, int]) -> list[int]:
    return [
        member.pid
        for pid in pids.values()
        for member in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True))
    ]


@pytest.mark.parametrize("who", ["the holder", "the plane"])
def test_a_kill_9_leaves_no_process_behind(hold: Callable[[], Held], who: str) -> None:
    holder, pids = hold()
    everyone = family(pids)
    assert len(set(everyone)) > 4, "PostgreSQL has children of its own"
    os.kill(holder.pid if who == "the holder" else pids["plane"], signal.SIGKILL)
    wait_until(lambda: all(map(is_gone, everyone)), within_s=15, what="every process of the stack is gone")


def test_an_ordinary_end_leaves_neither_process_nor_folder() -> None:
    with Stack.start(migrate=False) as stack:
        everyone = family(stack.pids)
    assert all(map(is_gone, everyone))
    assert not stack.folder.exists()


@contextmanager
def make_supabase(data: Path) -> Iterator[dict[str, str]]:
    """`python -m tests.stack`, as the Makefile runs it, on any port; gives what it tells its user."""
    process = run("-m", "tests.stack", "--data", str(data), "--port", "0")
    assert process.stdout is not None
    told: dict[str, str] = {}
    while "psql" not in told:
        line = process.stdout.readline()
        assert line, "it ended before it had told everything"
        if match := re.match(r"export (?P<name>\w+)=(?P<value>.+)|#   (?P<psql>psql) '(?P<dsn>.+)'", line):
            told[match["name"] or match["psql"]] = match["value"] or match["dsn"]
    yield told
    process.terminate()
    assert process.wait(30) == 0


def count_of_visits(dsn: str) -> int:
    with psycopg.connect(dsn) as connection:
        connection.execute("create table if not exists visits (at timestamptz default now())")
        connection.execute("insert into visits default values")
        return connection.execute("select from visits").rowcount


@pytest.fixture
def data() -> Iterator[Path]:
    """A folder that `nobody` can enter, who runs PostgreSQL when we are root."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def test_make_supabase_tells_what_to_export_and_keeps_data_and_keys(data: Path) -> None:
    keys = set()
    for visit in (1, 2):
        with make_supabase(data) as told:
            keys.add(told["SCHEDULER_SUPABASE_KEY"])
            assert count_of_visits(told["psql"]) == visit
            headers = {"apikey": told["SUPABASE_ANON_KEY"]}
            assert httpx.get(f"{told['SCHEDULER_SUPABASE_URL']}/rest/v1/", headers=headers).status_code == 200
    assert len(keys) == 1
