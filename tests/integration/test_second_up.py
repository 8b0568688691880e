"""The most telling of the shells in which people call `scheduler up` once more; all of them are in tests/chaos."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pexpect
import pytest

from tests.conftest import ROOT, is_gone
from tests.second_up import SCHEDULER, Living, living
from tests.shells import KILLED_KEEPER, PROXIES, STOPPED_ACTOR, TELLING, Shell

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def it() -> Iterator[Living]:
    with living() as found:
        yield found


@pytest.mark.parametrize(
    "shell",
    [
        pytest.param(
            shell, marks=() if shell in (PROXIES[0], KILLED_KEEPER, STOPPED_ACTOR) else pytest.mark.long
        )
        for shell in TELLING
    ],
    ids=str,
)
def test_a_second_up_leaves_the_run_alone(it: Living, shell: Shell) -> None:
    """B3: a proxy, a forgotten token, a dead keeper, a stopped actor: each ended the scheduler and its run."""
    shell.meet(it)


def test_down_saves_what_runs_and_up_goes_on_with_it(it: Living) -> None:
    """B3: what an operator ends is nobody's loss; not one is allowed here."""
    before = it.job()["progress"]["step"]
    terminal = pexpect.spawn(
        SCHEDULER, ["down"], env=it.environment, cwd=str(ROOT), timeout=90, encoding="utf-8"
    )
    terminal.expect(r"1 job runs. Let it save first\? .* \[Y/n\]")
    terminal.sendline("")
    terminal.expect("1 running job with it, all saved first")
    terminal.expect(pexpect.EOF)
    assert [name for name, pid in it.pids.items() if not is_gone(pid)] == []
    started = it.call("up", "--json")
    assert started.returncode == 0, started.stderr
    events = json.loads(it.call("events", it.job_id, "--json").stdout)["events"]
    (told,) = [one["reason"] for one in events if one["reason"]["code"] == "operator_down"]
    assert told["message"].startswith("the operator stopped the scheduler; goes on from checkpoint 1."), told
    (attempt, *_) = json.loads(it.call("attempts", it.job_id, "--json").stdout)["attempts"]
    assert (attempt["ending"], attempt["cause"], attempt["steps_lost"]) == ("stopped", None, 0), attempt
    assert attempt["last_step"] >= before
