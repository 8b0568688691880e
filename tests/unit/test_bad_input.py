"""What is refused before the registry hears of it: always with the field and the remedy."""

from __future__ import annotations

import tracemalloc
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from tests.unit.edge import SUBMIT, client_of, problem_of, spec
from tests.unit.recording_registry import JOB_ID, RecordingRegistry


@pytest.fixture
def registry() -> RecordingRegistry:
    return RecordingRegistry()


@pytest.fixture
def client(registry: RecordingRegistry) -> httpx.AsyncClient:
    return client_of(registry)


def nested(levels: int) -> bytes:
    return b'{"loop": "a", "config": ' + b'{"a": ' * levels + b"1" + b"}" * levels + b"}"


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

    async def test_a_body_over_the_limit_is_not_kept(self, registry: RecordingRegistry) -> None:
        """It is read to its end, so that the client sees the answer, but must not fill the memory."""
        block = b" " * 1_000_000

        async def chunks() -> AsyncIterator[bytes]:
            for _ in range(100):
                yield block

        client = client_of(registry, max_body_bytes=3_000_000)
        tracemalloc.start()
        try:
            response = await client.post(SUBMIT, content=chunks())
            peak_bytes = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert problem_of(response).status == 413
        assert peak_bytes < 10_000_000

    @pytest.mark.parametrize(
        "call",
        [
            "GET status/{}",
            "GET {}/events",
            "GET {}/logs",
            "GET {}/metrics",
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
            ("jobs?cursor=" + "x" * 2001, "cursor", "is 2,001 characters long; at most 2000 are allowed"),
            (
                "jobs?sort=age",
                "sort",
                "'age' is no order of jobs; known are: -submitted, submitted, name, -name",
            ),
            ("jobs?search=a%00b", "search", ""),
            (f"{JOB_ID}/logs?rank=-1", "rank", "is '-1'; it must be 0 or more"),
            (f"{JOB_ID}/metrics?points=1", "points", "is '1'; it must be 2 or more"),
            (f"{JOB_ID}/metrics?points=5001", "points", "is '5001'; it must be 5000 or less"),
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
        assert (problem.status, response.headers["allow"]) == (405, "POST, OPTIONS")
        assert problem.detail == f"DELETE is not possible on '{SUBMIT}/{JOB_ID}/cancel'; use POST"

    async def test_an_unknown_path_says_where_the_paths_are_listed(self, client: httpx.AsyncClient) -> None:
        """A bare 404 could as well be a missing job."""
        problem = problem_of(await client.get("/api/trainings"))
        assert (problem.status, problem.code) == (404, "unknown_path")
        assert "/docs" in problem.detail
