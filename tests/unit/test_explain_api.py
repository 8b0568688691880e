"""`explain`, `effect` and `plan` over HTTP and on the command line, against a whole scheduler with scripted runs."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import typer
from served import LOOP, Served, scheduler_at
from typer.testing import CliRunner

from scheduler.api.forecasts import EffectDocument, Explanation, PlanAnswer
from scheduler.cli.explain import explain, plan
from scheduler.cli.options import Command
from tests.unit.edge import SUBMIT, client_of, problem_of
from tests.unit.recording_registry import JOB_ID, RecordingRegistry, a_document

NOBODY = "0b2f1c9e-2a55-4d0c-8c4f-6a1f1a1c9999"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with scheduler_at(tmp_path_factory.mktemp("served")) as served:
        yield served


@pytest.fixture(scope="module")
def http(served: Served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=served.url) as http:
        yield http


@pytest.fixture(scope="module")
def waiting(http: httpx.Client) -> str:
    """A job that waits behind one that fills the node and says nothing of its steps."""
    whole = {"num_ranks": 4}
    for name in ("endless", "waiting"):
        spec = {"loop": LOOP, "name": name, "config": {"seconds": 600}, "resources": whole}
        job_id = http.post(SUBMIT, json=spec).json()["job_id"]
        if name == "endless":
            _until_it_runs(http, job_id)
    return job_id


def _until_it_runs(http: httpx.Client, job_id: str) -> None:
    until_s = time.monotonic() + 10
    while http.get(f"{SUBMIT}/status/{job_id}").json()["status"] != "running":
        assert time.monotonic() < until_s, "the first job did not start"
        time.sleep(0.01)


class TestApi:
    def test_a_waiting_job_is_explained(self, http: httpx.Client, waiting: str) -> None:
        answer = http.get(f"{SUBMIT}/{waiting}/explain")
        told = Explanation.model_validate_json(answer.content)
        assert told.forecast is not None
        assert told.forecast.message == "next; it is not known when: endless has not reported its steps"
        assert told.message.startswith(told.forecast.message)

    def test_an_effect_is_told_and_nothing_is_done(self, http: httpx.Client, waiting: str) -> None:
        before = http.get(f"{SUBMIT}/status/{waiting}").json()["version"]
        answer = http.get(f"{SUBMIT}/{waiting}/effect", params={"action": "cancel"})
        assert EffectDocument.model_validate_json(answer.content).allowed
        assert http.get(f"{SUBMIT}/status/{waiting}").json()["version"] == before

    def test_what_may_not_be_done_is_answered_not_refused(self, http: httpx.Client, waiting: str) -> None:
        """The page asks before it shows a button: that is no error."""
        answer = http.get(f"{SUBMIT}/{waiting}/effect", params={"action": "resume", "checkpoint": "2.3"})
        told = EffectDocument.model_validate_json(answer.content)
        assert (answer.status_code, told.allowed) == (200, False)
        assert "has no complete checkpoint '2.3'" in told.message

    @pytest.mark.parametrize("path", ["explain", "effect?action=cancel"])
    def test_a_job_that_nobody_knows_is_404(self, http: httpx.Client, path: str) -> None:
        assert problem_of(http.get(f"{SUBMIT}/{NOBODY}/{path}")).code == "job_not_found"

    @pytest.mark.parametrize("query", ["", "?action=explode", "?action=cancel&checkpoint=last"])
    def test_a_question_that_is_none_is_422(self, http: httpx.Client, waiting: str, query: str) -> None:
        assert problem_of(http.get(f"{SUBMIT}/{waiting}/effect{query}")).status == 422

    def test_a_plan_is_a_submit_that_is_not_made(self, http: httpx.Client, waiting: str) -> None:
        count = len(http.get(f"{SUBMIT}/jobs").json()["jobs"])
        told = planned(http, json.dumps({"loop": LOOP, "resources": {"num_ranks": 4}}))
        assert (told.valid, told.fits) == (True, False)
        assert told.forecast is not None
        assert told.forecast.position == 2
        assert len(http.get(f"{SUBMIT}/jobs").json()["jobs"]) == count

    @pytest.mark.parametrize(
        ("body", "fields"),
        [
            ('{"loop": "torch_ddp", "config": {"steps": 0}, "resources": {"num_ranks": 99}}', ["config.steps", "resources"]),
            ('{"loop": 7, "priority": "high", "nme": "x"}', ["loop", "priority", "nme"]),
            ('{"loop": "nobody:knows"}', ["loop"]),
            ("[1, 2]", ["body"]),
            ("not json", ["body"]),
            ("", ["body"]),
            ('{"loop": "a", "config": {"lr": NaN}}', ["config.lr"]),
        ],
    )  # fmt: skip
    def test_what_is_no_spec_is_told_field_by_field(
        self, http: httpx.Client, body: str, fields: list[str]
    ) -> None:
        """200: the question was fine, the answer is no."""
        told = planned(http, body)
        assert not told.valid
        assert sorted(error.field for error in told.errors) == sorted(fields)
        assert (told.fits, told.spec, told.forecast) == (None, None, None)

    async def test_a_body_that_is_too_large_is_refused(self) -> None:
        client = client_of(RecordingRegistry(), max_body_bytes=1000)
        assert (await client.post(f"{SUBMIT}/plan", content=b"x" * 2000)).status_code == 413

    async def test_whoever_asks_is_the_user_of_the_plan(self) -> None:
        """As with a submit: else quotas and fair shares would be those of nobody."""
        registry = RecordingRegistry()
        answer = await client_of(registry).post(
            f"{SUBMIT}/plan", json={"loop": "a"}, headers={"X-User": "ada"}
        )
        assert answer.status_code == 200
        assert registry.calls[0][1].user == "ada"

    async def test_a_question_reaches_the_registry_as_it_was_asked(self) -> None:
        registry = RecordingRegistry()
        registry.known[JOB_ID] = a_document()
        client = client_of(registry)
        await client.get(f"{SUBMIT}/{JOB_ID}/explain")
        await client.get(f"{SUBMIT}/{JOB_ID}/effect?action=force-start")
        await client.get(f"{SUBMIT}/{JOB_ID}/effect?action=resume&checkpoint=2.3")
        assert registry.calls == [
            ("explain", JOB_ID),
            ("effect", JOB_ID, "force-start", None, False),
            ("effect", JOB_ID, "resume", "2.3", False),
        ]


def planned(http: httpx.Client, body: str) -> PlanAnswer:
    answer = http.post(f"{SUBMIT}/plan", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 200, answer.text
    return PlanAnswer.model_validate_json(answer.content)


commands = typer.Typer()
commands.command("explain", cls=Command)(explain)
commands.command("plan", cls=Command)(plan)


class TestCommands:
    @pytest.fixture(autouse=True)
    def _at(self, served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SCHEDULER_URL", served.url)
        monkeypatch.delenv("SCHEDULER_TOKEN", raising=False)

    def run(self, *arguments: str) -> Any:
        return CliRunner().invoke(commands, list(arguments))

    def test_explain_says_why_and_the_next_command(self, waiting: str) -> None:
        done = self.run("explain", waiting)
        assert done.exit_code == 0, done.output
        assert "next; it is not known when: endless has not reported its steps" in done.stdout
        assert f"`scheduler wait {waiting}`" in done.stdout

    def test_explain_is_one_json_document(self, waiting: str) -> None:
        assert json.loads(self.run("explain", waiting, "--json").stdout)["job_id"] == waiting

    def test_explain_of_nobodys_job_ends_with_3(self) -> None:
        assert self.run("explain", NOBODY).exit_code == 3

    def test_a_plan_shows_what_would_run(self, waiting: str) -> None:
        done = self.run("plan", "--loop", "torch_ddp", "--set", "steps=7")
        assert done.exit_code == 0, done.output
        assert "there is no room for it now" in done.stdout
        assert "position 2, behind waiting" in done.stdout
        assert "    steps: 7\n" in done.stdout
        assert "    batch_size: 32\n" in done.stdout

    @pytest.mark.parametrize("loop", ["torch_ddp", "7"], ids=["found by the server", "found here"])
    def test_a_plan_that_is_not_valid_ends_with_2_and_names_the_line(
        self, waiting: str, tmp_path: Path, loop: str
    ) -> None:
        file = tmp_path / "job.yaml"
        file.write_text(f"name: it\nloop: {loop}\nconfig:\n  steps: 0\n")
        line = 4 if loop == "torch_ddp" else 2
        done = self.run("plan", str(file))
        assert done.exit_code == 2
        assert f"(job.yaml, line {line})" in done.stdout.replace(str(tmp_path) + "/", "")
        document = json.loads(self.run("plan", str(file), "--json").stdout)
        assert document["valid"] is False
        assert f"line {line}" in document["errors"][0]["message"]
