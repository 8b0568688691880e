"""`scheduler every`, `scheduler recurring` and the client's recurring jobs, through a whole scheduler (S8)."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import run
from served import LOOP, Served, scheduler_at

from scheduler.client import AsyncClient, Client
from scheduler.errors import InvalidRequest, InvalidSpec, RecurringJobNotFound

IN_JUNE = "0 3 1 6 *"
"""Not while a test runs, but for a moment of each year."""


@pytest.fixture
def served(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    with scheduler_at(tmp_path_factory.mktemp("served"), tick_every_s=0.05) as served:
        monkeypatch.setenv("SCHEDULER_URL", served.url)
        monkeypatch.delenv("SCHEDULER_TOKEN", raising=False)
        yield served


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "night.yaml"
    path.write_text(f"name: nightly\nloop: {LOOP}\nconfig:\n  seconds: 60\n")
    return str(path)


def test_one_is_made_shown_paused_resumed_and_forgotten(served: Served, file: str) -> None:
    assert run("recurring").err == "there is no recurring job; `scheduler every` makes one\n"
    said = run("every", IN_JUNE, file, "--timezone", "Europe/Berlin")
    begun = "nightly: At 03:00 on June 1 (Europe/Berlin); "
    assert said.out.startswith(f"{begun}next ")
    name, cron, zone, following, job, status, skipped = run("recurring").out.rstrip("\n").split("\t")
    assert (name, cron, zone, job, status, skipped) == (
        "nightly",
        IN_JUNE,
        "Europe/Berlin",
        "-",
        "-",
        "-",
    )
    assert "-06-01 03:00, in " in following
    assert run("recurring", "pause", "nightly").out == f"{begun}paused\n"
    assert run("recurring").out.split("\t")[3] == "paused"
    assert run("recurring", "resume", "nightly").out == said.out
    assert run("recurring", "forget", "nightly").out == "nightly: forgotten\n"
    assert run("recurring", "forget", "nightly").out == "nightly: there was none\n"
    assert run("recurring").out == ""


def test_it_makes_a_job_by_itself_and_shows_it(served: Served, file: str) -> None:
    """S8: through the command line, HTTP, the engine and its journal; the second one waits for the first to end."""
    run("every", "* * * * * *", file, "--name", "often")
    with Client(served.url) as client:
        while not (found := client.recurring_job("often")).skipped:
            time.sleep(0.05)
        (job,) = client.list_jobs(search="recurring=often")
        assert found.last and found.last.job_id == job.job_id
        assert f"job {job.job_id} of " in found.skipped.message
        line = run("recurring").out.split("\t")
        assert line[4] == job.job_id
        client.forget_recurring_job("often")


def test_json_is_one_document(served: Served, file: str) -> None:
    """`... --json | jq` breaks on a single stray line."""
    made = run("every", IN_JUNE, file, "--json").document
    assert (made["name"], made["spec"]["config"]) == ("nightly", {"seconds": 60})
    assert run("recurring", "--json").document == {"recurring_jobs": [made]}
    assert run("recurring", "pause", "nightly", "--json").document["paused"] is True
    assert run("recurring", "forget", "nightly", "--json").document == {"name": "nightly", "existed": True}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["every", "61 * * * *", "FILE"], "its field minute is '61'; it takes 0 to 59"),
        (["every", "0 3 * * *", "FILE", "--timezone", "Berlin"], "there is no time zone 'Berlin'"),
        (["every", "0 3 * * *", "FILE", "--name", "a b"], "must be 1 to 100 letters"),
        (["every", "0 3 * * *"], "nothing to submit: give a FILE"),
        (["every", "0 3 * * *", "FILE", "--set", "loop=nobody:knows"], "'nobody:knows' is not allowed here"),
        (["recurring", "pause", "nobody"], "there is no recurring job 'nobody'"),
        (["recurring", "--json", "forget", "x"], "--url and --json stand after `forget`"),
        (["recurring", "show"], "No such command"),
    ],
)
def test_what_cannot_be_is_answered_in_words(words: list[str], said: str, served: Served, file: str) -> None:
    ran = run(*(file if word == "FILE" else word for word in words))
    assert (ran.code, ran.out) == (2 if "No such" in said or "stand after" in said else ran.code, "")
    assert ran.code != 0
    assert said in ran.err


def test_what_the_server_refuses_of_a_file_has_its_line(served: Served, tmp_path: Path) -> None:
    path = tmp_path / "night.yaml"
    path.write_text("name: nightly\nloop: nobody:knows\n")
    ran = run("every", "0 3 * * *", str(path))
    assert f"{path}, line 2" in ran.err


def test_the_client_speaks_of_them(served: Served) -> None:
    with Client(served.url, user="ana") as client:
        made = client.every(IN_JUNE, {"loop": LOOP}, name="nightly", timezone="Europe/Berlin")
        assert (made.spec.user, made.by, made.next_at and made.next_at.hour) == ("ana", "ana", 3)
        assert client.set_recurring_job("nightly", cron="0 4 * * *").timezone == "Europe/Berlin"
        assert client.set_recurring_job("nightly", spec={"loop": LOOP, "name": "other"}).cron == "0 4 * * *"
        assert [one.spec.name for one in client.recurring_jobs().recurring_jobs] == ["other"]
        for wrong, error in (("a b", InvalidRequest), ("nobody", RecurringJobNotFound)):
            with pytest.raises(error):
                client.recurring_job(wrong)
        with pytest.raises(InvalidSpec):
            client.every(IN_JUNE, {"loop": LOOP, "ranks": 2}, name="nightly")
        assert client.forget_recurring_job("nightly").existed


async def test_the_client_that_is_awaited_speaks_of_them_too(served: Served) -> None:
    async with AsyncClient(served.url) as client:
        made = await client.every(IN_JUNE, {"loop": LOOP}, name="nightly")
        assert (await client.recurring_job("nightly")) == made
        assert json.loads(made.model_dump_json())["timezone"] == "UTC"
