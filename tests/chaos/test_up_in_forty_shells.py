"""Some forty shells in which people call `scheduler up` once more, beside a job whose processes must not change."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scheduler.server.local_cluster import ray_environment
from tests.conftest import ROOT, free_port, is_gone, wait_until
from tests.second_up import SCHEDULER, Living, living
from tests.shells import ALL, Shell

pytestmark = [pytest.mark.ray, pytest.mark.long]


@pytest.fixture(scope="module")
def it() -> Iterator[Living]:
    with living() as found:
        yield found


@pytest.mark.parametrize("shell", ALL, ids=str)
def test_a_second_up_leaves_the_run_alone(it: Living, shell: Shell) -> None:
    """B3"""
    shell.meet(it)


def test_two_at_the_same_second_are_one(it: Living) -> None:
    """B3: whoever comes second finds the first one's work."""
    os.kill(it.keeper_pid(), signal.SIGKILL)
    both = [
        subprocess.Popen([SCHEDULER, "up", "--json"], env=it.environment, cwd=ROOT, stdout=subprocess.PIPE)
        for _ in range(2)
    ]
    told = [json.loads(one.communicate(timeout=120)[0])["processes"] for one in both]
    assert [one.returncode for one in both] == [0, 0]
    assert told[0] == told[1]
    it.assert_well()


@pytest.mark.parametrize(
    "deed",
    ["serve.delete('scheduler')", "ray.kill(ray.get_actor('scheduler', namespace='scheduler-living'))"],
    ids=["the API", "the actor"],
)
def test_what_ray_does_not_bring_back_the_keeper_does(it: Living, deed: str) -> None:
    """Neither an API that was deleted nor an actor that was ended for good is restarted by Ray."""
    info = it.record
    program = (
        f"import ray; from ray import serve; ray.init('{info.ray_address}', log_to_driver=False); {deed}"
    )
    environment = it.environment | ray_environment(info)
    subprocess.run([sys.executable, "-c", program], env=environment, cwd=ROOT, check=True, timeout=60)
    again = it.call("up", "--json")
    assert again.returncode == 0, again.stderr
    it.assert_well()


def test_a_down_without_a_scheduler_that_answers_saves_all_the_same(it: Living) -> None:
    """B3: the runs are told by their folders, and the next life reads there who ended them."""
    os.kill(it.pid_of("ray::SchedulerActor"), signal.SIGSTOP)
    stopped = it.call("down")
    assert stopped.returncode == 0, stopped.stderr
    assert "the scheduler cannot be reached" in stopped.stderr
    assert "1 running job with it, all saved first" in stopped.stdout
    assert [name for name, pid in it.pids.items() if not is_gone(pid)] == []
    goes_on(it)


@pytest.mark.parametrize("answers", [True, False])
def test_a_down_that_does_not_wait_costs_no_job_anything(it: Living, answers: bool) -> None:
    """B3: neither where the scheduler could write it down, nor where it could not."""
    if not answers:
        os.kill(it.pid_of("ray::SchedulerActor"), signal.SIGSTOP)
    stopped = it.call("down", "--now")
    assert stopped.returncode == 0, stopped.stderr
    assert "1 of them without saving" in stopped.stdout
    goes_on(it)


def goes_on(it: Living) -> None:
    """The job runs again, and the attempt before is on nobody's account."""
    started = it.call("up", "--json")
    assert started.returncode == 0, started.stderr
    attempts = wait_until(lambda: the_ended(it), within_s=60, what="the attempt before is over")
    assert (attempts[-1]["cause"], attempts[-1]["reason"]["code"]) == (None, "operator_down"), attempts[-1]
    began = len(attempts) + 1
    wait_until(
        lambda: it.job()["attempt"] == began and (it.job()["progress"] or {}).get("step", 0) > 2,
        within_s=120,
        what=f"attempt {began} makes steps",
    )


def the_ended(it: Living) -> list[dict[str, Any]]:
    told = json.loads(it.call("attempts", it.job_id, "--json").stdout)["attempts"]
    return sorted((one for one in told if one["ended_at"]), key=lambda one: one["attempt"])


def test_replace_changes_the_settings_and_costs_no_job_anything(it: Living) -> None:
    """B3: it is what a person says to change them; runs save first."""
    it.environment["SCHEDULER_STOP_GRACE_S"] = "15"
    refused = it.call("up")
    assert refused.returncode == 1 and "SCHEDULER_STOP_GRACE_S: '20.0' there, '15.0' here" in refused.stderr
    changed = it.call("up", "--replace")
    assert changed.returncode == 0, changed.stderr
    assert "waiting for 1 job to save" in changed.stderr
    goes_on(it)


def test_a_ray_that_is_gone_is_started_again_and_says_so(it: Living) -> None:
    """B3: what runs went with it, and that is a loss; nothing else is asked of anybody."""
    attempt = it.job()["attempt"]
    os.kill(it.record.processes["ray"][0], signal.SIGKILL)
    again = it.call("up", "--json")
    assert again.returncode == 0, again.stderr
    assert "Ray is gone" in again.stderr or "starting the scheduler" in again.stderr
    wait_until(lambda: it.job()["attempt"] == attempt + 1, within_s=90, what="it is tried again")


@pytest.mark.parametrize("round_", range(10))
def test_two_schedulers_that_start_at_the_same_second_do_not_meet(
    it: Living, tmp_path: Path, round_: int
) -> None:
    """B3: `up` failed, because dashboard and metrics were given the same port."""
    shells = [
        it.environment
        | {
            "SCHEDULER_STATE_DIR": str(tmp_path / name / "state"),
            "SCHEDULER_STORAGE_PATH": str(tmp_path / name / "storage"),
            "SCHEDULER_CLUSTER": name,
            "SCHEDULER_PORT": str(free_port()),
            "SCHEDULER_HOST": host,
        }
        for name, host in (("left", "127.0.0.1"), ("right", "::1"))
    ]
    ups = [
        subprocess.Popen([SCHEDULER, "up"], env=shell, cwd=ROOT, stderr=subprocess.PIPE, text=True)
        for shell in shells
    ]
    said = [one.communicate(timeout=240)[1] for one in ups]
    for shell in shells:
        subprocess.run([SCHEDULER, "down", "--now"], env=shell, cwd=ROOT, timeout=120, check=True)
    assert [one.returncode for one in ups] == [0, 0], said
    assert not any("trying again" in words for words in said), said
