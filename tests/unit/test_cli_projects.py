"""`scheduler projects` and the client's projects, through a whole scheduler (S1)."""

from __future__ import annotations

import time

import pytest
from command_line import run
from served import LOOP, Served

import scheduler
from scheduler.client import AsyncClient, Client
from scheduler.errors import InvalidRequest


def test_a_share_is_set_shown_and_forgotten(served: Served) -> None:
    assert run("projects").err == "no project was set, and no job that has not ended has one\n"
    said = run("projects", "set", "vision", "--weight", "2.5", "--quota", "8", "--limit", "16")
    assert said.out == "vision: weight 2.5, quota 8, limit 16; holds 0\n"
    assert run("projects", "set", "vision", "--limit", "none").out.split(";")[0] == (
        "vision: weight 2.5, quota 8, limit none"
    )
    assert run("projects").out == "vision\t2.5\t8\tnone\t0\t0\t0\n"
    assert run("projects", "forget", "vision").out == "vision: weight 1, quota 0, limit none; holds 0\n"
    assert run("projects").out == ""


def test_json_is_one_document(served: Served) -> None:
    """`... --json | jq` breaks on a single stray line."""
    done = run("projects", "set", "team/a b", "--quota", "2", "--json").document
    assert (done["name"], done["quota"], done["limit"]) == ("team/a b", 2.0, None)
    assert run("projects", "--json").document == {"unit": "CPU", "projects": [done]}
    assert run("projects", "forget", "team/a b", "--json").document["quota"] == 0


def test_what_runs_is_held_by_its_project(served: Served) -> None:
    with Client(served.url) as client:
        for name in ("vision", ""):
            client.submit(loop=LOOP, project=name, config={"seconds": 60})
        for job in client.list_jobs():
            while client.status(job.job_id).status == "queued":
                time.sleep(0.05)
    assert run("projects").out == "(no project)\t1\t0\tnone\t1\t1\t0\nvision\t1\t0\tnone\t1\t1\t0\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["set", "vision"], "give --weight, --quota or --limit"),
        (["set", "vision", "--limit", "much"], "'much' is no number of GPUs; give one, or `none`"),
        (["set", "vision", "--weight", "0"], "weight"),
        (["set", "vision", "--quota", "nan"], "quota"),
        (["set", "vision", "--quota", "4", "--limit", "3"], "raise the limit, or lower the quota"),
        (["set", "", "--quota", "4"], "1 to 200 characters"),
        (["forget", "x" * 201], "1 to 200 characters"),
        (["--json", "forget", "vision"], "--url and --json stand after `forget`"),
        (["show"], "No such command"),
    ],
)
def test_what_cannot_be_is_answered_in_words(words: list[str], said: str, served: Served) -> None:
    ran = run("projects", *words)
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err
    assert run("projects").out == ""


def test_the_names_of_the_package_reach_the_scheduler(served: Served) -> None:
    """As `scheduler.submit` does."""
    assert scheduler.set_project("vision", weight=2, quota=8, limit=16).limit == 16
    assert scheduler.set_project("vision", limit=None).limit is None
    assert [(one.name, one.quota) for one in scheduler.projects().projects] == [("vision", 8)]
    assert scheduler.forget_project("vision").weight == 1


def test_what_cannot_be_sent_is_refused_here(served: Served) -> None:
    for share in ({"weight": float("nan")}, {"quota": "8"}, {"limits": 3}, {"weight": None}):
        with pytest.raises(InvalidRequest) as error:
            scheduler.set_project("vision", **share)  # type: ignore[arg-type]
        assert [one.field for one in error.value.problems] == list(share)


async def test_the_async_client_does_the_same(served: Served) -> None:
    async with AsyncClient(served.url) as client:
        await client.set_project("..", quota=2)
        assert [one.name for one in (await client.projects()).projects] == [".."]
        await client.forget_project("..")
        assert (await client.projects()).projects == []
