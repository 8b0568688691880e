"""`scheduler submit --array`, `scheduler array` and the client's arrays, through a whole scheduler (S8)."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import run
from served import LOOP, Served

import scheduler
from scheduler.api.arrays import ArrayDocument
from scheduler.client import AsyncClient, Client
from scheduler.errors import ArrayNotFound, InvalidRequest, InvalidSpec


@pytest.fixture
def spec(tmp_path: Path) -> str:
    file = tmp_path / "f.yaml"
    file.write_text(f"loop: {LOOP}\nname: sweep\nconfig:\n  seconds: 60\n  progress: {{}}\n")
    return str(file)


def until(served: Served, array_id: str, is_so: Callable[[ArrayDocument], bool]) -> ArrayDocument:
    with Client(served.url) as client:
        while not is_so(found := client.array(array_id)):
            time.sleep(0.05)
        return found


def test_a_grid_is_submitted_shown_with_its_best_and_cancelled(served: Served, spec: str) -> None:
    """S8, as the README says it."""
    words = ["--array", "progress.loss=0.5,1e-1,0.3", "--array", "seed=1..2", "--at-most", "4"]
    made = run("submit", spec, *words, "--json").document
    assert (made["size"], made["at_most"], made["name"]) == (6, 4, "sweep")
    assert made["jobs"][3]["values"] == {"progress.loss": 0.1, "seed": 2}
    until(served, made["array_id"], lambda found: sum(job.metric is not None for job in found.jobs) == 4)
    shown = run("array", made["array_id"])
    rows = [line.split("\t") for line in shown.out.splitlines()]
    assert [row[0] for row in rows] == ["", "", "*", "", "", ""]
    assert rows[2][1:6] == ["3", made["jobs"][2]["job_id"], "running", "progress.loss=0.1, seed=1", "0.1"]
    assert rows[5][3:] == [
        *("queued", "progress.loss=0.3, seed=2", "-"),
        "4 of 4 jobs of this array run; it may start when one of them ends",
    ]
    assert shown.err == (
        f"array {made['array_id']}  sweep: 6 jobs, 4 at once at most: 2 queued, 4 running; "
        "best loss so far: 0.1, of job 3\n"
    )
    assert run("array", "sweep-2").err == shown.err
    run("array", made["array_id"], "--cancel")
    gone = until(served, made["array_id"], lambda found: found.has_ended)
    assert {str(status) for status in gone.counts} == {"cancelled"}
    assert "6 cancelled" in run("array", made["array_id"], "--cancel").err


def test_the_best_may_be_the_greatest(served: Served, spec: str) -> None:
    made = run(
        *("submit", spec, "--array", "progress.score=1,3,2", "--metric", "score:max", "--json")
    ).document
    assert (made["metric"], made["metric_is"], made["at_most"]) == ("score", "max", 3)
    assert (
        until(
            served,
            made["array_id"],
            lambda found: found.best is not None and None not in [job.metric for job in found.jobs],
        ).best
        == 2
    )


def test_a_key_returns_the_first_array(served: Served, spec: str) -> None:
    words = ("submit", spec, "--array", "seed=1,2", "--idempotency-key", "night", "--json")
    assert run(*words).document["array_id"] == run(*words).document["array_id"]
    assert len(run("list", "--json").document["jobs"]) == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--array", "seed"], "write it as KEY=VALUES"),
        (["--array", "seed="], "write it as KEY=VALUES"),
        (["--array", "seed=8..1"], "the least first"),
        (["--array", "seed=1..1000000000"], "give 1 to 1,000"),
        (["--array", "seed=1..40", "--array", "x=1..40"], "make 1,600 jobs"),
        (["--array", "seed=1", "--array", "seed=2"], "one key is given twice"),
        (["--array", "seed=1,1"], "has the value 1 twice"),
        (["--array", "seed=[1"], "--array seed=[1"),
        (["--array", "priority=1,2"], "is a field of the job"),
        (["--array", "seconds.x=1,2"], "config.seconds has no parts"),
        (["--at-most", "2"], "give --array"),
        (["--metric", "loss"], "give --array"),
        (["--array", "seed=1..8", "--wait"], "scheduler array ID"),
        (["--array", "seed=1..8", "--metric", "loss:most"], "NAME:max"),
        (["--array", "seed=1..8", "--at-most", "0"], "greater than or equal to 1"),
    ],
)
def test_what_cannot_be_an_array_is_answered_in_words(
    words: list[str], said: str, served: Served, spec: str
) -> None:
    ran = run("submit", spec, *words)
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err
    assert run("list").out == ""


def test_what_the_server_finds_is_told_with_its_line(served: Served, tmp_path: Path) -> None:
    file = tmp_path / "f.yaml"
    file.write_text("loop: torch_ddp\nconfig:\n  steps: 5\n  stepps: 7\n")
    ran = run("submit", str(file), "--array", "seed=1..3")
    assert (ran.code, run("list").out) == (2, "")
    assert f"({file}, line 4)" in ran.err
    assert ran.err.count("stepps") == run("submit", str(file)).err.count("stepps")


def test_an_array_that_is_not_there(served: Served, spec: str) -> None:
    unknown = run("array", "6c1d4a52-53b7-4a55-9f5a-2f8b2a0e0001")
    assert (unknown.code, "no array" in unknown.err) == (3, True)
    job_id = run("submit", spec, "--json").document["job_id"]
    alone = run("array", job_id)
    assert (alone.code, "is of no array" in alone.err) == (3, True)


def test_the_names_of_the_package_reach_the_scheduler(served: Served) -> None:
    made = scheduler.submit_array({"seed": range(1, 4)}, loop=LOOP, config={"seconds": 60}, at_most=1)
    assert [job.values for job in made.jobs] == [{"seed": 1}, {"seed": 2}, {"seed": 3}]
    assert scheduler.array(made.array_id).size == 3
    assert scheduler.get(made.jobs[2].job_id).status().spec.array.index == 3  # type: ignore[union-attr]
    scheduler.cancel_array(made.array_id)
    assert until(served, made.array_id, lambda found: found.has_ended).best is None


@pytest.mark.parametrize("parameters", [{}, {"seed": "12"}, {"seed": 3}, {1: [2]}, {"seed": [object()]}])
def test_what_cannot_be_sent_is_refused_here(parameters: Any, served: Served) -> None:
    with pytest.raises(InvalidSpec) as refused:
        scheduler.submit_array(parameters, loop=LOOP)
    assert refused.value.problems[0].field.startswith("parameters")


async def test_the_async_client_does_the_same(served: Served) -> None:
    async with AsyncClient(served.url) as client:
        made = await client.submit_array({"seed": [1, 2]}, {"loop": LOOP, "config": {"seconds": 60}})
        assert (await client.array(made.array_id)).size == 2
        await client.cancel_array(made.array_id)
        with pytest.raises(InvalidRequest):
            await client.array("../jobs")
        with pytest.raises(ArrayNotFound):
            await client.array("6c1d4a52-53b7-4a55-9f5a-2f8b2a0e0001")
