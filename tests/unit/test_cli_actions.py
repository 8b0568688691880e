"""Jobs by id, by the beginning of it and by name; and several at once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest
from command_line import run
from recording_registry import a_document
from served import LOOP, Served, scheduler_at

from scheduler.api.jobs import JobPage
from scheduler.cli.columns import COLUMNS
from scheduler.cli.keys import keys_in
from scheduler.cli.naming import job_id_of
from scheduler.cli.top import look
from scheduler.client import Client, JobHandle
from scheduler.core.model import Status
from scheduler.errors import RegistryUnavailable


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with scheduler_at(tmp_path_factory.mktemp("served")) as served:
        Client(served.url).submit(
            loop=LOOP, name="blocker", config={"seconds": 3600}, resources={"num_ranks": 4}
        )
        yield served


@pytest.fixture(autouse=True)
def _at(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCHEDULER_URL", served.url)
    monkeypatch.delenv("SCHEDULER_TOKEN", raising=False)


def waiting(served: Served, name: str, user: str | None = None) -> JobHandle:
    return Client(served.url, user=user).submit(loop=LOOP, name=name, resources={"num_ranks": 4})


# Which job


def test_a_job_is_found_by_its_name_and_by_the_beginning_of_its_id(served: Served) -> None:
    job = waiting(served, "one-of-a-kind")
    for text in (job.id, job.id[:13], job.id[:13].upper(), "one-of-a-kind"):
        assert run("status", text, "--json").document["job_id"] == job.id
    for text in ("one-of-a", "kind", job.id[:3]):  # a part of a name is no name
        assert run("status", text).code == 3, text


def test_a_name_of_several_jobs_does_nothing_and_names_them(served: Served) -> None:
    """The wrong one of two must not be cancelled."""
    twins = [waiting(served, "twin") for _ in range(2)]
    ran = run("cancel", "--yes", "twin")
    assert (ran.code, ran.out) == (2, "")
    for twin in twins:
        assert f"  {twin.id}: twin, queued, submitted 20" in ran.err
        assert twin.status().status is Status.QUEUED
    assert ran.err.endswith("next: give more of the id\n")
    assert json.loads(run("cancel", "twin", "--json").err)["code"] == "ambiguous_job"


def test_more_candidates_than_anybody_reads_are_counted_not_listed(served: Served) -> None:
    for _ in range(8):
        waiting(served, "octuplet")
    err = run("status", "octuplet").err
    assert "may be one of at least 6 jobs" in err
    assert err.count("octuplet, queued") == 6


def test_without_the_registry_a_name_is_not_guessed() -> None:
    """The database lists its newest jobs alone: an older one may have the same name, and be the one that is meant."""
    page = JobPage(jobs=[a_document(name="twin")], verified=False, note="the registry did not answer")
    client: Any = SimpleNamespace(job_pages=lambda **_: iter([page]))
    with pytest.raises(RegistryUnavailable, match=r"give the whole id.*did not answer"):
        job_id_of(client, "twin")


# Several jobs


def test_several_jobs_get_a_line_each(served: Served) -> None:
    jobs = [waiting(served, f"several-{index}") for index in range(3)]
    ran = run("cancel", jobs[0].id, "several-1", jobs[2].id[:13], "several-0")
    assert (ran.code, ran.err) == (0, "")
    assert [line.split("  ")[0] for line in ran.out.splitlines()] == [job.id for job in jobs]  # each once
    assert all("cancelled" in line for line in ran.out.splitlines())
    assert run("force-start", "several-0", "several-1").out.count("it was cancelled") == 2
    assert run("restart", "several-0", "several-2", "--json").code == 0


def test_one_that_is_refused_does_not_keep_the_others_from_it(served: Served) -> None:
    first, over, last = (waiting(served, f"mixed-{index}") for index in range(3))
    over.cancel()
    ran = run("fail", first.id, over.id, last.id)
    assert ran.code == 5
    assert [line.split("  ")[0] for line in ran.out.splitlines()] == [first.id, last.id]
    assert over.id in ran.err
    answer = run("resume", first.id, "blocker", over.id, "--json")
    assert answer.code == 5
    assert [job["job_id"] for job in answer.document["done"]] == [first.id, over.id]
    assert [one["code"] for one in answer.document["refused"]] == ["not_allowed"]


def test_nothing_is_done_when_one_of_the_jobs_is_not_there(served: Served) -> None:
    """A mistyped line is put right and sent again as it is."""
    job = waiting(served, "not-alone")
    ran = run("cancel", job.id, "nobody-has-this-name")
    assert (ran.code, ran.out) == (3, "")
    assert job.status().status is Status.QUEUED
    assert run("resume", job.id, str(uuid4()), "--checkpoint", "1.1").code == 2


# list


def test_a_list_can_be_of_ones_own_jobs_in_ones_own_columns(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("USER", "bea")
    monkeypatch.setenv("LOGNAME", "bea")
    for name, user in (("columns-b", "bea"), ("columns-a", "bea"), ("columns-c", "ana")):
        waiting(served, name, user)
    ran = run(
        "list",
        "--mine",
        "--sort",
        "name",
        "--search",
        "columns",
        "--columns",
        "name,user",
        "--columns",
        "ranks",
    )
    assert ran.out.splitlines() == ["columns-a\tbea\t4", "columns-b\tbea\t4"]
    assert run("list", "--mine", "--user", "ana").code == 2
    assert "the columns are id, name" in run("list", "--columns", "name,colour").err
    assert run("list", "--sort", "colour").code == 2


def test_a_list_that_is_cut_says_so(served: Served) -> None:
    """`scheduler list | wc -l` must not pass for the number of jobs."""
    for index in range(3):
        waiting(served, f"cut-{index}")
    ran = run("list", "--search", "cut-", "--limit", "2")
    assert len(ran.out.splitlines()) == 2
    assert "2 are shown, more match; --limit" in ran.err
    document = run("list", "--search", "cut-", "--limit", "2", "--json").document
    assert (document["has_more"], document["counts"]["queued"]) == (True, 3)
    assert run("list", "--search", "cut-").err == ""


def test_every_column_says_something_of_every_job(served: Served) -> None:
    row = run("list", "--columns", ",".join(COLUMNS), "--limit", "1").out.rstrip("\n").split("\t")
    assert len(row) == len(COLUMNS)
    assert all(row)


# open, top


def test_a_page_is_opened_in_the_browser_of_the_user(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = waiting(served, "opened")
    opened = tmp_path / "opened"
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > {opened}\n')
    browser.chmod(0o755)
    monkeypatch.setattr("webbrowser._tryorder", None)  # it remembers the browsers that it found first
    monkeypatch.setenv("BROWSER", f"{browser} %s")
    ran = run("open", "opened")
    page = f"{served.url}/training/monitor?jobId={job.id}"
    assert (ran.code, ran.out, ran.err) == (0, f"{page}\n", "")
    assert opened.read_text() == f"{page}\n"
    assert run("open", "--json").document == {"url": f"{served.url}/training", "opened": True}


def test_without_a_browser_the_address_is_printed(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over ssh a text browser would take over the terminal."""
    for name in ("BROWSER", "DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    ran = run("open")
    assert (ran.code, ran.out) == (0, f"{served.url}/training\n")
    assert ran.err.startswith("no browser was found here")


def test_top_in_a_pipe_is_printed_once_and_whole(served: Served) -> None:
    job = waiting(served, "a-name-for-top")
    page = run("top").out
    assert "blocker of" in page
    assert "a-name-for-top" in page
    assert "…" not in page.split("WAITING")[0]
    document = run("top", "--json").document
    assert [one["name"] for one in document["running"]] == ["blocker"]
    positions = [one["queue_position"] for one in document["waiting"]]
    assert positions == sorted(positions)
    assert job.id in {one["job_id"] for one in document["waiting"]}
    assert document["health"]["nodes"][0]["held_by"][0]["name"] == "blocker"


def test_top_turns_the_pages_of_long_lists_and_says_where_it_stops() -> None:
    """A run that is not shown must not look as if it were not there."""

    def job_pages(status: Any, limit: int, **_: Any) -> Iterator[JobPage]:
        for number in range(limit // 100):
            jobs = [a_document(str(UUID(int=100 * number + one))) for one in range(100)]
            yield JobPage(jobs=jobs, next_cursor="more", counts={Status.RUNNING: 1000})

    client: Any = SimpleNamespace(job_pages=job_pages, health=lambda: None)
    seen = look(client)
    assert (len(seen.running), len(seen.waiting)) == (500, 200)
    assert seen.notes == (
        "of those that run, the 500 that were submitted first are shown",
        "of those that wait, the 200 that were submitted first are shown",
    )


def test_keys_that_come_in_one_piece_are_told_apart() -> None:
    """A key that is held down comes faster than the page is drawn."""
    assert keys_in("\x1b[6~\x1b[BjG\x1b") == ["page down", "down", "j", "G", "escape"]
