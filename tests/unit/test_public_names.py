"""What `import scheduler` promises, and what it costs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import scheduler

ROOT = Path(__file__).resolve().parents[2]
PUBLIC = {
    *("submit", "get", "plan", "list_jobs", "wait", "cancel", "force_start", "load_spec"),
    *("projects", "set_project", "forget_project", "submit_array", "array", "cancel_array"),
    *("Client", "AsyncClient", "JobHandle", "AsyncJobHandle", "JobSpec", "JobDocument", "Gang", "Status"),
    *("SchedulerError", "InvalidSpec", "InvalidRequest", "BodyTooLarge", "NotAllowed", "JobNotFound"),
    *("Unauthorized", "RegistryUnavailable", "ServerUnreachable", "WaitTimedOut"),
    *("JobNotCompleted", "JobFailed"),
    "__version__",
}
HEAVY = ("ray", "torch", "transformers", "fastapi", "supabase", "pandas", "IPython", "cloudpickle")


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_public_names_are_these() -> None:
    """Adding one is a promise, taking one away breaks somebody: either should be a decision."""
    assert set(scheduler.__all__) == PUBLIC
    assert sorted(scheduler.__all__) == list(scheduler.__all__)


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_each_public_name_is_there(name: str) -> None:
    """They are loaded on first use, so a wrong table would be found by a user."""
    assert getattr(scheduler, name) is getattr(scheduler, name)
    assert name in dir(scheduler)


def test_an_unknown_name_is_an_attribute_error() -> None:
    """`hasattr` and star imports depend on it."""
    assert not hasattr(scheduler, "sumbit")
    assert "from scheduler import *" and run("from scheduler import *; print(submit.__name__)") == "submit\n"


def test_the_client_and_the_command_line_need_no_ray() -> None:
    """D5: they run on a laptop where only httpx, pydantic, typer and rich are installed."""
    heavy = run(
        "import sys, scheduler, scheduler.cli; scheduler.Client('http://127.0.0.1:9')\n"
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    assert heavy == "[]\n"


def test_importing_costs_nothing() -> None:
    """Every process of a run imports it too; heavy parts come on first use."""
    assert min(_cpu_s("import scheduler") for _ in range(3)) < 0.3


def test_the_first_use_is_quick_too() -> None:
    """A shell loop over `scheduler status` must not feel like starting an editor."""
    used = "import scheduler, scheduler.cli; scheduler.Client('http://127.0.0.1:9')"
    assert min(_cpu_s(used) for _ in range(3)) < 1.5


def _cpu_s(code: str) -> float:
    """Processor time, which a busy machine changes little."""
    clock = "time.process_time()"
    return float(run(f"import time; began = {clock}; {code}; print({clock} - began)"))
