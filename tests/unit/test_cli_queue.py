"""`scheduler queue` and the client's queue, through a whole scheduler (S1, S10)."""

from __future__ import annotations

import time

from command_line import run
from served import LOOP, Served

from scheduler.client import AsyncClient, Client


def filled(served: Served) -> str:
    """The one that waits, of four CPUs that are held."""
    with Client(served.url) as client:
        runs = client.submit(loop=LOOP, project="speech", config={"seconds": 60}, resources={"num_ranks": 4})
        while client.status(runs.id).status == "queued":
            time.sleep(0.05)
        job = client.submit(loop=LOOP, name="waits", project="vision", resources={"num_ranks": 4})
        while client.status(job.id).reason.code in ("accepted", ""):
            time.sleep(0.05)
        return job.id


def test_projects_and_who_waits_are_printed_in_two_blocks(served: Served) -> None:
    """S10: `cut -f` reads them."""
    job_id = filled(served)
    projects, waiting = (block.splitlines() for block in run("queue").out.split("\n\n"))
    assert [line.split("\t")[0] for line in projects] == ["speech", "vision"]
    speech = projects[0].split("\t")
    assert (speech[1], speech[4:6], speech[7:]) == ("4", ["0", "none"], ["1", "0"])
    (line,) = waiting
    assert line.split("\t")[:5] == ["1", job_id, "waits", "vision", "4"]
    assert line.split("\t")[6]


def test_json_is_one_document(served: Served) -> None:
    job_id = filled(served)
    done = run("queue", "--json").document
    assert (done["policy"], done["unit"], done["size"]) == ("fair", "CPU", 4)
    assert [one["job_id"] for one in done["waiting"]] == [job_id]
    assert [one["project"] for one in done["holding"]] == ["speech"]


async def test_an_empty_queue_says_so_and_the_async_client_reads_it(served: Served) -> None:
    ran = run("queue")
    assert (ran.out, ran.err) == ("\n", "no job waits\n")
    async with AsyncClient(served.url) as client:
        assert (await client.queue()).num_waiting == 0
