"""`scheduler usage` and the clients' usage, through a whole scheduler (O5)."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import pytest
from command_line import run
from served import LOOP, Served

from scheduler.client import AsyncClient, Client
from scheduler.errors import InvalidRequest


def filled(served: Served) -> None:
    """A run of two ranks goes on, of a project whose name is a formula."""
    with Client(served.url) as client:
        runs = client.submit(
            loop=LOOP, project="=1+1", user="ann", config={"seconds": 60}, resources={"num_ranks": 2}
        )
        while client.status(runs.id).status == "queued" or not client.usage().total.cpu_hours:
            time.sleep(0.05)


def test_a_line_for_each_group_and_how_far_the_numbers_go(served: Served) -> None:
    filled(served)
    ran = run("usage", "--by", "user,project,day")
    *_, line = ran.out.splitlines()  # midnight may have come meanwhile
    project, user, day, gpu_hours, cpu_hours, jobs = line.split("\t")
    assert (project, user, gpu_hours, jobs) == ("=1+1", "ann", "0.00", "1")
    assert day <= str(datetime.now(UTC).date())
    assert float(cpu_hours) >= 0
    whole, goes_on = ran.err.splitlines()
    assert "no run is missing since" in whole
    assert goes_on.startswith("1 run had not ended, and is counted until")


def test_csv_is_for_spreadsheets_and_json_for_programs(served: Served) -> None:
    """No name is carried out as a formula; the JSON has it as it is."""
    filled(served)
    titles, line = run("usage", "--csv").out.splitlines()
    assert titles == "project,gpu_hours,cpu_hours,num_jobs"
    assert line.startswith("'=1+1,0.000000,")
    document = run("usage", "--json").document
    assert (document["by"], document["rows"][0]["project"]) == (["project"], "=1+1")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--by", "team"), "'team' is not any of project, user, day"),
        (("--from", "2026-02-30"), "'2026-02-30' is no day"),
        (("--from", "2020-01-01"), "366 are the most"),
        (("--csv", "--json"), "give one of them"),
    ],
)
def test_what_cannot_be_told_is_refused_in_words(
    served: Served, arguments: tuple[str, ...], words: str
) -> None:
    ran = run("usage", *arguments)
    assert ran.code != 0
    assert words in ran.err + ran.out


async def test_the_async_client_asks_the_same_and_no_usage_is_no_row(served: Served) -> None:
    today = datetime.now(UTC).date()
    async with AsyncClient(served.url) as client:
        found = await client.usage(today, str(today), by="day,user")
        assert (found.rows, found.by, found.total.num_jobs) == ([], ["user", "day"], 0)
        with pytest.raises(InvalidRequest, match="last_day: 'tomorrow' is no day"):
            await client.usage(last_day="tomorrow")
        with pytest.raises(InvalidRequest, match="by"):
            await client.usage(by=())
    assert run("usage").out == ""
