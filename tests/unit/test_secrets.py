"""Secrets of a job, from what a person submits to everything that is shown of it again."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import wait_until
from tests.unit.edge import SUBMIT, problem_of
from tests.unit.served import LOOP, Served, scheduler_at

SECRET, TOKEN = "hunter-2-hunter", "hf_abcdefghijklmnopqrst"
SPEC: dict[str, Any] = {
    "loop": LOOP,
    "name": "with-secrets",
    "config": {"seconds": 0.3, "password": SECRET, "url": f"postgres://ana:{SECRET}@db/x",
               "log": f"connecting with {SECRET}\nand {TOKEN}\nall is well\n", "fails": 1},
    "labels": {"api_key": SECRET, "team": "blue"},
}  # fmt: skip


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with scheduler_at(tmp_path) as served:
        yield served


@pytest.fixture
def job_id(served: Served) -> str:
    job_id = httpx.post(f"{served.url}{SUBMIT}", json=SPEC).json()["job_id"]

    def status() -> bool:
        return httpx.get(f"{served.url}{SUBMIT}/status/{job_id}").json()["status"] == "failed"

    wait_until(status, within_s=20, what="the job has failed")
    return job_id


@pytest.mark.parametrize(
    "path",
    [
        f"{SUBMIT}/status/{{id}}", f"{SUBMIT}/jobs", f"{SUBMIT}/{{id}}/logs", f"{SUBMIT}/{{id}}/logs/stream",
        f"{SUBMIT}/{{id}}/events", f"{SUBMIT}/{{id}}/attempts", f"{SUBMIT}/{{id}}/explain", "/training",
        "/training/monitor?jobId={id}", "/training/logs/download?jobId={id}", "/training/spec?jobId={id}",
        "/training/logs/stream?jobId={id}", "/training/submit?source={id}",
    ],
)  # fmt: skip
def test_no_answer_about_a_job_holds_its_secrets(served: Served, job_id: str, path: str) -> None:
    """D: masked on one page, they stood in all others, in the log, and in what the API says."""
    answer = httpx.get(served.url + path.format(id=job_id))
    assert answer.status_code == 200
    assert SECRET not in answer.text
    assert TOKEN not in answer.text
    if "logs" in path:
        assert "all is well" in answer.text


@pytest.mark.parametrize("limit", [1, 7, 20])
def test_a_log_read_in_pieces_tells_no_part_of_a_secret(served: Served, job_id: str, limit: int) -> None:
    """D: offsets are those of the file, and each byte of it is told once."""
    offset, told = 0, ""
    while not told.endswith("all is well\n"):
        query = {"offset": offset, "limit": limit}
        chunk = httpx.get(f"{served.url}{SUBMIT}/{job_id}/logs", params=query).json()
        assert (chunk["offset"], chunk["next_offset"]) == (offset, offset + len(chunk["text"].encode()))
        offset, told = chunk["next_offset"], told + chunk["text"]
    assert f"connecting with {'*' * len(SECRET)}\nand {'*' * len(TOKEN)}\n" in told


def test_what_was_covered_is_not_taken_for_a_value(served: Served, job_id: str) -> None:
    """A spec that was read from here and sent again would train with six dots as its password."""
    spec = httpx.get(f"{served.url}{SUBMIT}/status/{job_id}").json()["spec"]
    problem = problem_of(httpx.post(f"{served.url}{SUBMIT}", json={**spec, "code": None}))
    assert problem.status == 422
    assert "is covered" in problem.detail
    assert "config.password" in problem.detail


def test_a_clone_takes_no_secret_over(served: Served, job_id: str) -> None:
    """D: whoever may submit could clone a job into a loop that prints them."""
    with httpx.Client(base_url=served.url, follow_redirects=True) as client:
        page = client.get(f"/training/submit?source={job_id}").text
        fields = dict(re.findall(r'<input type="hidden" name="(csrf|key|source)" value="([^"]*)"', page))
        config = {**SPEC["config"], "password": "••••••", "url": "x"}
        sent = fields | {"do": "submit", "own_loop": LOOP, "config": json.dumps(config, ensure_ascii=False)}
        answer = client.post("/training/submit", data=sent)
        assert answer.status_code == 422
        assert "is covered" in answer.text
