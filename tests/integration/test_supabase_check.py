"""R8: what start-up finds when it looks at Supabase, and the remedy it names."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from scheduler.adapters.supabase.mirror import SCHEMA_VERSION
from scheduler.server import preflight
from scheduler.settings import Settings
from tests.conftest import ROOT, free_port
from tests.stack.stack import Stack

BLOCKED = """
import importlib.machinery, json, sys

class NotInstalled:
    '''Only this folder is searched: it holds migrations in `supabase/`, which Python takes for a package.'''

    def find_spec(self, name, path=None, target=None):
        if name == "supabase":
            return importlib.machinery.PathFinder.find_spec(name, ["."])

sys.meta_path.insert(0, NotInstalled())
from scheduler.server import preflight
from scheduler.settings import Settings
check = next(check for check in preflight.run(Settings()) if check.name == "Supabase")
print(json.dumps([check.ok, check.detail, check.remedy]))
"""


def look(tmp_path: Path, **settings: Any) -> preflight.Check:
    everything = Settings(
        state_dir=tmp_path / "state", storage_path=tmp_path / "storage", port=free_port(), **settings
    )
    return next(check for check in preflight.run(everything) if check.name == "Supabase")


def test_no_supabase_is_fine(tmp_path: Path) -> None:
    """Without it the journal is the only store, and nothing is missing."""
    assert look(tmp_path).ok


def test_a_project_that_has_all_is_fine(fresh_stack: Stack, tmp_path: Path) -> None:
    """Said with what was found, so that it can be seen that something was looked at."""
    found = look(tmp_path, supabase_url=fresh_stack.url, supabase_key=fresh_stack.service_key)
    assert found.ok
    assert f"schema version {SCHEMA_VERSION}" in found.detail


@pytest.mark.parametrize(
    ("wrong", "detail", "remedy"),
    [
        ({"supabase_key": None}, "no key", "SCHEDULER_SUPABASE_KEY"),
        ({"supabase_key": ""}, "SCHEDULER_SUPABASE_KEY is empty", "SCHEDULER_SUPABASE_KEY"),
        ({"supabase_key": "sb_secret_wrong"}, "Invalid API key", "SCHEDULER_SUPABASE_KEY"),
        ({"supabase_url": "abc"}, "not a URL", "SCHEDULER_SUPABASE_URL"),
        ({"supabase_url": "http://127.0.0.1:1"}, "cannot be reached", "SCHEDULER_SUPABASE_URL"),
    ],
)
def test_a_wrong_setting_is_named(
    fresh_stack: Stack, tmp_path: Path, wrong: dict[str, Any], detail: str, remedy: str
) -> None:
    """P6: found before anything starts, not by writes that fail for days."""
    right = {"supabase_url": fresh_stack.url, "supabase_key": fresh_stack.service_key}
    found = look(tmp_path, **right | wrong)
    assert not found.ok
    assert detail in found.detail
    assert remedy in found.remedy
    assert "sb_secret_wrong" not in found.detail + found.remedy


def test_the_public_key_is_not_enough(fresh_stack: Stack, tmp_path: Path) -> None:
    """The mistake that is easiest to make: both keys stand on one page."""
    found = look(tmp_path, supabase_url=fresh_stack.url, supabase_key=fresh_stack.anon_key)
    assert not found.ok
    assert "permission denied" in found.detail
    assert "service_role" in found.remedy


def test_a_project_that_hangs_does_not_hang_the_start(fresh_stack: Stack, tmp_path: Path) -> None:
    """Someone sits before the terminal."""
    fresh_stack.gateway.fault("hang")
    patience = {"supabase_timeout_s": 0.3}
    found = look(tmp_path, supabase_url=fresh_stack.url, supabase_key=fresh_stack.service_key, **patience)
    assert not found.ok
    assert "did not answer within 0.3 s" in found.detail


def test_a_missing_migration_and_its_remedy(tmp_path: Path) -> None:
    """The table alone is not enough: functions come with the migrations."""
    with Stack.start(migrate=False) as stack:
        found = look(tmp_path, supabase_url=stack.url, supabase_key=stack.service_key)
    assert not found.ok
    assert "migrations are missing" in found.detail
    assert found.remedy == "run `supabase db push`"


def test_the_package_that_is_not_installed_and_its_remedy(fresh_stack: Stack, tmp_path: Path) -> None:
    """P6: a folder that happens to be called `supabase` is not the package."""
    environment = {
        "SCHEDULER_STATE_DIR": str(tmp_path),
        "SCHEDULER_STORAGE_PATH": str(tmp_path),
        "SCHEDULER_SUPABASE_URL": fresh_stack.url,
        "SCHEDULER_SUPABASE_KEY": fresh_stack.service_key,
    }
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    ok, detail, remedy = json.loads(done.stdout)
    assert not ok
    assert detail == "the package supabase is not installed"
    assert "pip install" in remedy
