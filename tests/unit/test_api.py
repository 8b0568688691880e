"""The HTTP edge: what is asked of the registry, and what is refused before it hears of it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from scheduler.core.model import JobSpec, Status
from scheduler.documents import (
    Health,
    ProblemDocument,
    ReasonDocument,
)
from scheduler.errors import (
    InvalidSpec,
    JournalUnwritable,
    NotAllowed,
    Problem,
    RegistryUnavailable,
)
from scheduler.settings import Settings
from serve_app.app import create_app
from tests.unit.recording_registry import JOB_ID, NOW, RecordingRegistry, a_document

SITE = "http://127.0.0.1:8000"
SUBMIT = "/api/training"
TOKEN = "correct-horse"


@pytest.fixture
def registry() -> RecordingRegistry:
    return RecordingRegistry()


def client_of(registry: RecordingRegistry, *, mishaps: bool = True, **settings: Any) -> httpx.AsyncClient:
    app = create_app(registry, Settings(**settings))
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app=app, raise_app_exceptions=mishaps), base_url=SITE
    )


@pytest.fixture
async def client(registry: RecordingRegistry) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(registry) as client:
        yield client


def problem_of(response: httpx.Response) -> ProblemDocument:
    """The answer as a problem document that agrees with itself."""
    assert response.headers["content-type"] == "application/problem+json", response.text
    document = ProblemDocument.model_validate_json(response.content)
    assert document.status == response.status_code
    assert len(response.content) < 20_000, "a refusal must not send back what it was sent"
    return document


class TestAnswers:
    async def test_a_submit_answers_201_with_the_job_and_where_it_is(
        self, client: httpx.AsyncClient, registry: RecordingRegistry
    ) -> None:
        """L1: without the status, the position and the place, a client could not follow its job."""
        response = await client.post(SUBMIT, json={"loop": "torch_ddp", "config": {"steps": 3}})
        job = response.json()
        assert (response.status_code, job["status"], job["queue_position"]) == (201, "queued", 1)
        assert response.headers["location"] == f"/api/training/status/{job['job_id']}"
        assert (await client.get(response.headers["location"])).json() == job

    async def test_a_submit_with_a_known_key_answers_200_with_the_first_job(
        self, client: httpx.AsyncClient
    ) -> None:
        """L1: a repeated submit would look like a second job."""
        first = await client.post(SUBMIT, json={"loop": "a"}, headers={"Idempotency-Key": "k1"})
        again = await client.post(SUBMIT, json={"loop": "a"}, headers={"Idempotency-Key": "k1"})
        assert (first.status_code, again.status_code) == (201, 200)
        assert first.json()["job_id"] == again.json()["job_id"]

    async def test_a_batch_answers_with_its_jobs_in_order(
        self, client: httpx.AsyncClient, registry: RecordingRegistry
    ) -> None:
        """Otherwise a client could not tell which id is whose."""
        body = {"jobs": [{"loop": "a", "name": f"job {index}"} for index in range(3)]}
        response = await client.post(f"{SUBMIT}/batch", json=body)
        assert response.status_code == 201
        ids = [job["job_id"] for job in response.json()["jobs"]]
        assert [registry.known[job_id].name for job_id in ids] == ["job 0", "job 1", "job 2"]

    async def test_force_start_answers_as_promised(
        self, client: httpx.AsyncClient, registry: RecordingRegistry
    ) -> None:
        """L3: the page shows the position from this answer."""
        registry.known[JOB_ID] = a_document()
        response = await client.post(f"{SUBMIT}/{JOB_ID}/force-start")
        assert response.status_code == 200
        assert response.json() == {
            "success": True,
            "job_id": JOB_ID,
            "previous_status": "pending",
            "new_status": "queued",
            "queue_position": 1,
            "message": "Job queued successfully (position 1)",
        }

    @pytest.mark.parametrize(
        ("path", "call"),
        [("cancel", "cancel"), ("force-start", "force_start"), ("fail", "mark_failed")],
    )
    async def test_an_action_says_who_asked(
        self, path: str, call: str, client: httpx.AsyncClient, registry: RecordingRegistry
    ) -> None:
        """L7: the history of a job would not know who touched it."""
        registry.known[JOB_ID] = a_document()
        await client.post(f"{SUBMIT}/{JOB_ID}/{path}")
        await client.post(f"{SUBMIT}/{JOB_ID}/{path}", headers={"X-User": "Jörg".encode()})
        assert registry.calls == [(call, JOB_ID, "api"), (call, JOB_ID, "Jörg")]

    async def test_a_submit_without_a_user_belongs_to_who_asked(
        self, client: httpx.AsyncClient, registry: RecordingRegistry
    ) -> None:
        """A spec that names its user keeps it; otherwise a proxy could take jobs away from their users."""
        await client.post(SUBMIT, json={"loop": "a"}, headers={"X-User": "ada"})
        await client.post(SUBMIT, json={"loop": "a", "user": "bob"}, headers={"X-User": "ada"})
        assert [call[2].user for call in registry.calls] == ["ada", "bob"]

    async def test_filters_reach_the_registry(
        self, client: httpx.AsyncClient, registry: RecordingRegistry
    ) -> None:
        """L6: a filter that is dropped shows jobs of others."""
        query = "status=running,queued&user=ada&project=p&limit=7&cursor=c"
        assert (await client.get(f"{SUBMIT}/jobs?{query}")).status_code == 200
        await client.get(f"{SUBMIT}/jobs")
        both = frozenset({Status.RUNNING, Status.QUEUED})
        assert registry.calls == [
            ("jobs", both, "ada", "p", "c", 7),
            ("jobs", frozenset(), None, None, None, 50),
        ]

    async def test_a_log_is_read_from_its_end_with_a_negative_offset(
        self, client: httpx.AsyncClient, registry: RecordingRegistry
    ) -> None:
        """`logs -f` starts there."""
        registry.known[JOB_ID] = a_document()
        response = await client.get(f"{SUBMIT}/{JOB_ID}/logs?rank=1&attempt=2&offset=-100&limit=50")
        assert (response.status_code, response.json()["text"]) == (200, "log of job")
        assert registry.calls == [("logs", JOB_ID, 1, 2, -100, 50)]

    async def test_history_and_loops_are_answered(
        self, client: httpx.AsyncClient, registry: RecordingRegistry
    ) -> None:
        """Otherwise nobody sees why a job is where it is, or what can be submitted."""
        registry.known[JOB_ID] = a_document()
        assert (await client.get(f"{SUBMIT}/{JOB_ID}/events")).json()["events"][0]["kind"] == "Submitted"
        assert (await client.get(f"{SUBMIT}/loops")).json()["loops"][0]["name"] == "sft"

    async def test_a_loss_that_is_not_a_number_does_not_break_the_answer(
        self, client: httpx.AsyncClient, registry: RecordingRegistry
    ) -> None:
        """A diverged job would be the one whose status cannot be asked for."""
        registry.known[JOB_ID] = a_document(progress={"step": 3, "loss": float("nan")})
        response = await client.get(f"{SUBMIT}/status/{JOB_ID}")
        progress = json.loads(response.content, parse_constant=pytest.fail)["progress"]
        assert progress == {"step": 3, "loss": None}


class TestHealth:
    async def test_degraded_answers_200_while_the_registry_answers(
        self, client: httpx.AsyncClient, registry: RecordingRegistry, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """L9: a probe that restarts on 5xx would restart a scheduler whose database is away."""

        async def degraded() -> Health:
            return Health(status="degraded", problems=["the database refuses"], version="1")

        monkeypatch.setattr(registry, "health", degraded)
        response = await client.get("/health")
        assert (response.status_code, response.json()["problems"]) == (200, ["the database refuses"])

    async def test_it_answers_503_in_words_when_the_registry_is_away(
        self, client: httpx.AsyncClient, registry: RecordingRegistry
    ) -> None:
        """L9: health is asked for exactly then."""
        registry.refuses = RegistryUnavailable("the scheduler actor does not answer")
        response = await client.get("/health")
        health = Health.model_validate_json(response.content)
        assert (response.status_code, health.status) == (503, "degraded")
        assert health.problems == ["the scheduler actor does not answer"]
        assert response.headers["retry-after"]


def nested(levels: int) -> bytes:
    return b'{"loop": "a", "config": ' + b'{"a": ' * levels + b"1" + b"}" * levels + b"}"


def spec(**fields: Any) -> bytes:
    return json.dumps({"loop": "a", **fields}).encode()


BAD_BODIES: dict[str, tuple[bytes, str, str]] = {
    "no body": (b"", "body", "is empty; send a job spec as JSON"),
    "blanks": (b"  \n", "body", "is empty; send a job spec as JSON"),
    "broken JSON": (b'{"loop": "a",}', "body", "is not JSON (line 1, column 1"),
    "cut off": (b'{"loop": "a', "body", "is not JSON (line 1, column 10: "),
    "invalid UTF-8": (b'{"loop": "\xff"}', "body", "is not UTF-8 text (byte 10)"),
    "a list": (b"[]", "body", "must be an object, not a list"),
    "null": (b"null", "body", "must be an object, not null"),
    "nothing asked for": (b"{}", "loop", "is required; add it"),
    "a typing mistake": (
        spec(nmae="x"),
        "nmae",
        "is not known here; did you mean `name`? known are: loop, name",
    ),
    "an unknown resource": (
        spec(resources={"gpus": 1}),
        "resources.gpus",
        "is not known here; did you mean `gpus_per_rank`? known are: num_ranks",
    ),
    "wrong type": (spec(priority="high"), "priority", "must be a whole number, not a string"),
    "a number as a string": (
        spec(resources={"cpus_per_rank": "2"}),
        "resources.cpus_per_rank",
        "must be a number, not a string",
    ),
    "true as a number": (
        spec(resources={"cpus_per_rank": True}),
        "resources.cpus_per_rank",
        "must be a number, not true or false",
    ),
    "half a rank": (
        spec(resources={"num_ranks": 1.5}),
        "resources.num_ranks",
        "must be a whole number, not a number with decimals",
    ),
    "negative ranks": (
        spec(resources={"num_ranks": -1}),
        "resources.num_ranks",
        "is -1; it must be 1 or more",
    ),
    "no time at all": (spec(max_runtime_s=0), "max_runtime_s", "is 0; it must be above 0"),
    "one and a half GPUs": (
        spec(resources={"gpus_per_rank": 1.5}),
        "resources",
        "gpus_per_rank=1.5 is neither a whole number nor a fraction below 1",
    ),
    "a config that is a list": (spec(config=[]), "config", "must be an object, not a list"),
    "resources that are a string": (spec(resources="big"), "resources", "must be an object, not a string"),
    "NaN": (b'{"loop": "a", "config": {"lr": [1, NaN]}}', "config.lr.1", "is not a finite number"),
    "-Infinity": (b'{"loop": "a", "config": {"lr": -Infinity}}', "config.lr", "is not a finite number"),
    "a float beyond all floats": (b'{"loop": "a", "config": {"lr": 1e999}}', "config.lr", "is not a finite"),
    "an integer of 30 digits": (
        spec(config={"seed": 10**30}),
        "config.seed",
        "is a whole number of more than 64 bits; send it as a string",
    ),
    "an integer of 9,000 digits": (
        b'{"loop": "a", "priority": ' + b"9" * 9000 + b"}",
        "body",
        "holds a number that cannot be read",
    ),
    "a name of 1 MB": (
        spec(name="n" * 1_000_000),
        "name",
        "is 1,000,000 characters long; at most 200 are allowed",
    ),
    "an empty name": (spec(name=""), "name", "is empty; give at least 1 character"),
    "a field name of 1 MB": (spec(**{"k" * 1_000_000: 1}), "k" * 57 + "...", "is not known here"),
    "a label name of 1 MB": (
        spec(labels={"k" * 1_000_000: ""}),
        f"labels.{'k' * 57}...",
        "is 1,000,000 characters long",
    ),
    "nested a little too deep": (nested(80), "config.a.a", "is nested more than 64 levels deep; flatten it"),
    "nested far too deep": (nested(100_000), "body", "is nested more than 64 levels deep; flatten it"),
    "a list nested far too deep": (b"[" * 100_000, "body", "is nested more than 64 levels deep"),
    "the character NUL": (
        spec(name="a\x00b"),
        "name",
        "holds the character NUL, which a database cannot store",
    ),
    "NUL in a key": (spec(labels={"a\x00": ""}), "labels.a\x00", "holds the character NUL"),
    "half a surrogate pair": (
        b'{"loop": "a", "config": {"x": ["\\ud800"]}}',
        "config.x.0",
        "holds half of a surrogate pair",
    ),
    "half a surrogate pair as a field": (
        b'{"loop": "a", "\\udfff": 1}',
        "\\udfff",
        "holds half of a surrogate pair",
    ),
    "a field given twice": (b'{"loop": "a", "loop": "b"}', "loop", "is given twice in one object; keep one"),
}


class TestBadInput:
    @pytest.mark.parametrize("case", BAD_BODIES)
    async def test_a_bad_spec_is_refused_with_its_field_and_the_remedy(
        self, case: str, client: httpx.AsyncClient, registry: RecordingRegistry
    ) -> None:
        """Otherwise it would queue, crash the server, or leave its author guessing."""
        body, field, sentence = BAD_BODIES[case]
        response = await client.post(SUBMIT, content=body, headers={"Content-Type": "application/json"})
        problem = problem_of(response)
        assert problem.status == 422
        assert [one.field for one in problem.errors] == [field]
        assert problem.errors[0].message.startswith(sentence)
        assert registry.calls == [], "nothing may be queued"

    async def test_every_bad_field_is_named_at_once(self, client: httpx.AsyncClient) -> None:
        """Otherwise a spec with five mistakes takes five tries."""
        body = spec(priority=5000, max_failures=-1, resources={"num_ranks": 0, "gpus": 1}, nmae="x")
        problem = problem_of(await client.post(SUBMIT, content=body))
        assert {one.field for one in problem.errors} == {
            "priority",
            "max_failures",
            "resources.num_ranks",
            "resources.gpus",
            "nmae",
        }
        assert problem.detail.endswith("; and 2 more")

    async def test_a_bad_job_of_a_batch_is_named_by_its_place(
        self, client: httpx.AsyncClient, registry: RecordingRegistry
    ) -> None:
        """Among a thousand specs the bad one could not be found."""
        jobs = [{"loop": "a"}, {"loop": "a", "resources": {"num_ranks": -2}}]
        problem = problem_of(await client.post(f"{SUBMIT}/batch", json={"jobs": jobs}))
        assert [one.field for one in problem.errors] == ["jobs.1.resources.num_ranks"]
        assert registry.calls == []

    @pytest.mark.parametrize(
        ("body", "field", "sentence"),
        [
            ({}, "jobs", "is required; add it"),
            ({"jobs": []}, "jobs", "has 0 items; give at least 1"),
            ({"jobs": [{"loop": "a"}] * 5001}, "jobs", "has 5001 items; at most 5000 are allowed"),
            ({"jobs": {"loop": "a"}}, "jobs", "must be a list, not an object"),
            (
                {"jobs": [{"loop": "a"}], "job": 1},
                "job",
                "is not known here; did you mean `jobs`? known are: jobs",
            ),
        ],
    )
    async def test_a_bad_batch_is_refused(
        self, body: Any, field: str, sentence: str, client: httpx.AsyncClient
    ) -> None:
        """All or none: what cannot be read whole is not taken in part."""
        problem = problem_of(await client.post(f"{SUBMIT}/batch", json=body))
        assert [(one.field, one.message) for one in problem.errors] == [(field, sentence)]

    async def test_thousands_of_mistakes_are_counted_not_listed(self, client: httpx.AsyncClient) -> None:
        """The answer must not be larger than the question."""
        problem = problem_of(await client.post(f"{SUBMIT}/batch", json={"jobs": [{}] * 5000}))
        assert len(problem.errors) == 100
        assert problem.detail.endswith("; and 4997 more")

    async def test_json_under_another_content_type_is_taken(self, client: httpx.AsyncClient) -> None:
        """`curl -d` sends JSON as a form; the refusal would be about nothing."""
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        assert (await client.post(SUBMIT, content=spec(), headers=headers)).status_code == 201

    async def test_what_is_not_json_is_told_its_content_type(self, client: httpx.AsyncClient) -> None:
        """A form is not a spec, and its sender should learn what is."""
        problem = problem_of(await client.post(SUBMIT, data={"loop": "a"}))
        assert "its Content-Type is 'application/x-www-form-urlencoded'" in problem.detail
        assert problem.detail.endswith("send JSON with Content-Type: application/json")

    @pytest.mark.parametrize("announced", [True, False])
    async def test_a_body_over_the_limit_answers_413(
        self, announced: bool, client: httpx.AsyncClient, registry: RecordingRegistry
    ) -> None:
        """Announced by Content-Length or sent in chunks, it must not fill the memory."""
        block = b" " * 1_000_000

        async def chunks() -> AsyncIterator[bytes]:
            for _ in range(9):
                yield block

        problem = problem_of(await client.post(SUBMIT, content=block * 9 if announced else chunks()))
        assert (problem.status, problem.code) == (413, "body_too_large")
        assert "larger than 8,000,000 bytes" in problem.detail
        assert "SCHEDULER_MAX_BODY_BYTES" in problem.errors[0].message
        assert registry.calls == []

    @pytest.mark.parametrize(
        "call",
        [
            "GET status/{}",
            "GET {}/events",
            "GET {}/logs",
            "POST {}/cancel",
            "POST {}/force-start",
            "POST {}/fail",
        ],
    )
    async def test_an_id_that_is_none_answers_422_and_an_unknown_one_404(
        self, call: str, client: httpx.AsyncClient, registry: RecordingRegistry
    ) -> None:
        """L4, L5: a mistyped id and a job that is gone need different remedies."""
        method, path = call.split()
        malformed = problem_of(await client.request(method, f"{SUBMIT}/{path.format('job-7')}"))
        assert (malformed.status, malformed.errors[0].field) == (422, "job_id")
        assert malformed.errors[0].message.startswith("is 'job-7', which is not a job id; a job id is a UUID")
        assert registry.calls == []
        unknown = problem_of(await client.request(method, f"{SUBMIT}/{path.format(JOB_ID)}"))
        assert (unknown.status, unknown.code) == (404, "job_not_found")

    @pytest.mark.parametrize(
        ("query", "field", "sentence"),
        [
            ("jobs?status=runing", "status", "'runing' is not a status; known are: pending, queued, running"),
            ("jobs?limit=0", "limit", "is '0'; it must be 1 or more"),
            ("jobs?limit=many", "limit", "must be a whole number, not 'many'"),
            ("jobs?limit=" + "9" * 5000, "limit", "is too large a number"),
            (
                "jobs?stauts=running",
                "stauts",
                "is not known here; did you mean `status`? known are: status, user",
            ),
            ("jobs?cursor=" + "x" * 501, "cursor", "is 501 characters long; at most 500 are allowed"),
            (f"{JOB_ID}/logs?rank=-1", "rank", "is '-1'; it must be 0 or more"),
            (f"{JOB_ID}/logs?offset=a", "offset", "must be a whole number, not 'a'"),
            (
                f"{JOB_ID}/logs?off=1",
                "off",
                "is not known here; did you mean `offset`? known are: rank, attempt",
            ),
        ],
    )
    async def test_a_bad_query_parameter_is_named(
        self, query: str, field: str, sentence: str, client: httpx.AsyncClient, registry: RecordingRegistry
    ) -> None:
        """A parameter that is dropped silently answers another question than was asked."""
        problem = problem_of(await client.get(f"{SUBMIT}/{query}"))
        assert (problem.status, problem.errors[0].field) == (422, field)
        assert problem.errors[0].message.startswith(sentence)
        assert registry.calls == []

    @pytest.mark.parametrize("key", ["", "two words", "k" * 201, "Schlüssel"])
    async def test_a_bad_idempotency_key_is_refused(self, key: str, client: httpx.AsyncClient) -> None:
        """A key that is cut or dropped would make two jobs of one."""
        headers = {"Idempotency-Key": key.encode()}
        problem = problem_of(await client.post(SUBMIT, content=spec(), headers=headers))
        assert problem.errors[0].field == "Idempotency-Key"
        assert "1 to 200 visible ASCII characters" in problem.errors[0].message

    async def test_a_wrong_method_names_the_right_one(self, client: httpx.AsyncClient) -> None:
        """A bare 405 leaves the reader with the manual."""
        response = await client.delete(f"{SUBMIT}/{JOB_ID}/cancel")
        problem = problem_of(response)
        assert (problem.status, response.headers["allow"]) == (405, "POST")
        assert problem.detail == f"DELETE is not possible on '{SUBMIT}/{JOB_ID}/cancel'; use POST"

    async def test_an_unknown_path_says_where_the_paths_are_listed(self, client: httpx.AsyncClient) -> None:
        """A bare 404 could as well be a missing job."""
        problem = problem_of(await client.get("/api/trainings"))
        assert (problem.status, problem.code) == (404, "unknown_path")
        assert "/docs" in problem.detail


class TestRefusals:
    @pytest.mark.parametrize(
        ("error", "status", "code"),
        [
            (NotAllowed("the job is completed"), 400, "not_allowed"),
            (JournalUnwritable("the disk is full"), 503, "journal_unwritable"),
            (RegistryUnavailable("ask again"), 503, "registry_unavailable"),
        ],
    )
    async def test_the_registrys_refusal_is_told_in_its_words(
        self, error: Exception, status: int, code: str, client: httpx.AsyncClient, registry: RecordingRegistry
    ) -> None:
        """L4: why a job may not be started is known only there; a 503 says when to ask again."""
        registry.refuses = error
        response = await client.post(f"{SUBMIT}/{JOB_ID}/force-start")
        problem = problem_of(response)
        assert (problem.status, problem.code, problem.detail) == (status, code, str(error))
        assert ("retry-after" in response.headers) == (status == 503)

    async def test_the_fields_that_the_registry_names_are_kept(
        self, client: httpx.AsyncClient, registry: RecordingRegistry
    ) -> None:
        """A missing dataset is found behind the door; its author needs the field all the same."""
        registry.refuses = InvalidSpec.of(Problem("config.dataset", "no such file; give one below /data"))
        problem = problem_of(await client.post(SUBMIT, content=spec()))
        assert problem.status == 422
        assert [one.field for one in problem.errors] == ["config.dataset"]

    async def test_a_mishap_is_a_problem_document_without_its_insides(
        self, registry: RecordingRegistry
    ) -> None:
        """A traceback belongs to the log, not to whoever asked."""
        registry.refuses = RuntimeError("password=hunter2")
        async with client_of(registry, mishaps=False) as client:
            response = await client.get(f"{SUBMIT}/loops")
        problem = problem_of(response)
        assert (problem.status, problem.code) == (500, "internal_error")
        assert "hunter2" not in response.text


class TestToken:
    @pytest.fixture
    async def client(self, registry: RecordingRegistry) -> AsyncIterator[httpx.AsyncClient]:
        async with client_of(registry, token=TOKEN, host="0.0.0.0") as client:
            yield client

    @pytest.mark.parametrize("path", ["/health", "/openapi.json", f"{SUBMIT}/jobs", "/nowhere", "/", "/docs"])
    @pytest.mark.parametrize(
        "given", [None, "Bearer wrong", "Bearer", "Basic !!!", "Digest x", "Bearer \xff"]
    )
    async def test_nothing_is_told_without_the_token(
        self, path: str, given: str | None, client: httpx.AsyncClient, registry: RecordingRegistry
    ) -> None:
        """Whoever reaches the port could otherwise see and stop every job."""
        headers = {"Authorization": given.encode("latin-1")} if given else {}
        response = await client.get(path, headers=headers)
        assert problem_of(response).status == 401
        assert response.headers["www-authenticate"].endswith('realm="training-scheduler"')
        assert "token" in problem_of(response).detail
        assert registry.calls == []

    async def test_the_token_opens_the_api_under_any_host_name(self, client: httpx.AsyncClient) -> None:
        """With a token the name by which the server is reached proves nothing."""
        headers = {"Authorization": f"Bearer {TOKEN}", "Host": "trainer.example"}
        assert (await client.post(SUBMIT, content=spec(), headers=headers)).status_code == 201

    async def test_a_browser_gives_the_token_as_a_password_to_pages_only(
        self, client: httpx.AsyncClient
    ) -> None:
        """A browser cannot send a bearer token; and what it sends by itself must not reach the API."""
        assert (await client.get("/", auth=("any", TOKEN))).status_code == 200
        assert (await client.get("/", auth=("any", "wrong"))).status_code == 401
        assert (await client.get(f"{SUBMIT}/jobs", auth=("any", TOKEN))).status_code == 401


class TestBrowsers:
    @pytest.mark.parametrize(
        "headers",
        [
            {"Origin": "https://evil.example"},
            {"Origin": "null"},
            {"Origin": "http://127.0.0.1:9999"},
            {"Sec-Fetch-Site": "cross-site"},
            {"Sec-Fetch-Site": "same-site"},
        ],
        ids=str,
    )
    async def test_a_page_of_another_site_changes_nothing(
        self, headers: dict[str, str], client: httpx.AsyncClient, registry: RecordingRegistry
    ) -> None:
        """Any page that a user visits could otherwise submit and cancel jobs on his loopback."""
        for path in (SUBMIT, f"{SUBMIT}/batch", f"{SUBMIT}/{JOB_ID}/cancel"):
            problem = problem_of(await client.post(path, content=spec(), headers=headers))
            assert (problem.status, problem.code) == (403, "forbidden")
        assert registry.calls == []

    async def test_a_page_of_this_site_may(self, client: httpx.AsyncClient) -> None:
        """The buttons of the monitor are such pages."""
        headers = {"Origin": SITE, "Sec-Fetch-Site": "same-origin"}
        assert (await client.post(SUBMIT, content=spec(), headers=headers)).status_code == 201

    @pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "[", ""])
    async def test_a_foreign_name_that_leads_here_is_refused(
        self, host: str, client: httpx.AsyncClient, registry: RecordingRegistry
    ) -> None:
        """DNS rebinding: a page under that name could read every job."""
        response = await client.get(f"{SUBMIT}/jobs", headers={"Host": host})
        assert problem_of(response).status == 403
        assert registry.calls == []

    @pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost:1234", "[::1]:8000", "LOCALHOST"])
    async def test_loopback_names_are_welcome(self, host: str, client: httpx.AsyncClient) -> None:
        """Tunnels and proxies on this machine use other ports."""
        assert (await client.get("/health", headers={"Host": host})).status_code == 200

    @pytest.mark.parametrize("path", ["/", "/health", "/nowhere", "/static/style.css"])
    async def test_every_answer_forbids_scripts_frames_and_sniffing(
        self, path: str, client: httpx.AsyncClient
    ) -> None:
        """A text that slips through the escaping would otherwise run."""
        headers = (await client.get(path)).headers
        assert headers["content-security-policy"].startswith("default-src 'none'")
        assert (headers["x-content-type-options"], headers["x-frame-options"]) == ("nosniff", "DENY")


HOSTILE = "<script>alert(1)</script>\"'"


class TestPages:
    async def test_the_list_shows_what_backs_each_state(
        self, client: httpx.AsyncClient, registry: RecordingRegistry
    ) -> None:
        """U1: a status without its reason and the age of its proof is a claim."""
        registry.known[JOB_ID] = a_document(
            status=Status.RUNNING,
            phase="training",
            attempt=2,
            progress={"step": 12, "total_steps": 60, "loss": 2.31},
            reason=ReasonDocument(code="x", message="attempt 2 is training"),
            verified_at=datetime.now(UTC) - timedelta(minutes=5),
        )
        page = (await client.get("/")).text
        for told in (
            "running",
            "attempt 2 is training",
            "step 12 of 60, loss 2.31",
            "5 min ago",
            'value="20"',
        ):
            assert told in page
        assert f'href="/api/training/status/{JOB_ID}"' in page
        assert '<meta http-equiv="refresh"' in page

    async def test_nothing_is_fetched_from_elsewhere(
        self, client: httpx.AsyncClient, registry: RecordingRegistry
    ) -> None:
        """A cluster without internet would show a bare page."""
        registry.known[JOB_ID] = a_document()
        for path in ("/", "/docs", f"/training/monitor?jobId={JOB_ID}", "/static/style.css"):
            text = (await client.get(path)).text
            assert "http://" not in text
            assert "https://" not in text
            assert "<script" not in text

    async def test_what_users_wrote_is_escaped(
        self, client: httpx.AsyncClient, registry: RecordingRegistry
    ) -> None:
        """A job's name would otherwise run in the browser of whoever looks."""
        registry.known[JOB_ID] = a_document(
            name=HOSTILE,
            spec=JobSpec(loop=HOSTILE, user=HOSTILE),
            reason=ReasonDocument(code="x", message=HOSTILE, detail=HOSTILE),
            evidence=HOSTILE,
            progress={"step": HOSTILE, "total_steps": HOSTILE, "loss": HOSTILE},
        )
        for path in ("/", f"/training/monitor?jobId={JOB_ID}", "/training/monitor?jobId=<script>"):
            text = (await client.get(path)).text
            assert "<script" not in text
            assert "&lt;script&gt;" in text

    async def test_the_page_stands_while_the_registry_is_away(
        self, client: httpx.AsyncClient, registry: RecordingRegistry
    ) -> None:
        """Exactly then somebody looks at it."""
        registry.refuses = RegistryUnavailable("the scheduler actor does not answer")
        response = await client.get("/")
        assert response.status_code == 200
        assert "The scheduler does not answer" in response.text

    async def test_a_degraded_scheduler_says_so_above_the_jobs(
        self, client: httpx.AsyncClient, registry: RecordingRegistry, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Rows under a silent banner would be believed."""

        async def degraded() -> Health:
            return Health(status="degraded", problems=["the database refuses"], version="1")

        monkeypatch.setattr(registry, "health", degraded)
        assert "the database refuses" in (await client.get("/")).text

    async def test_one_job_is_shown_with_its_history_and_log(
        self, client: httpx.AsyncClient, registry: RecordingRegistry
    ) -> None:
        """U2: the first look after a failure."""
        registry.known[JOB_ID] = a_document(
            status=Status.FAILED,
            reason=ReasonDocument(code="x", message="the loop raised", detail="Traceback: boom"),
            phases={"loading": NOW},
        )
        page = (await client.get(f"/training/monitor?jobId={JOB_ID}")).text
        for told in ("the loop raised", "Traceback: boom", "Submitted by ada", "log of job", "loading"):
            assert told in page
        assert "http-equiv" not in page, "a page of a finished job has nothing to renew"

    @pytest.mark.parametrize(("job_id", "status"), [("", 422), ("x", 422), (JOB_ID, 404)])
    async def test_a_job_that_is_not_there_is_a_page_too(
        self, job_id: str, status: int, client: httpx.AsyncClient
    ) -> None:
        """People follow old links with browsers."""
        response = await client.get(f"/training/monitor?jobId={job_id}")
        assert response.status_code == status
        assert "This job cannot be shown" in response.text

    async def test_the_page_of_paths_lists_every_operation(self, client: httpx.AsyncClient) -> None:
        """The 404 sends people there."""
        page = (await client.get("/docs")).text
        assert all(path in page for path in (await client.get("/openapi.json")).json()["paths"])
