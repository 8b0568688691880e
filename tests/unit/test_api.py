"""The HTTP edge: what is asked of the registry, and how its answers come out."""

from __future__ import annotations

import json

import httpx
import pytest

from scheduler.api.cursors import cursor_of
from scheduler.api.health import Health
from scheduler.api.repairs import ReconcileAnswer
from scheduler.core.commands import JobAction
from scheduler.core.model import JobId, Status
from scheduler.errors import (
    InvalidSpec,
    JournalUnwritable,
    MirrorRefused,
    NotAllowed,
    Problem,
    RegistryUnavailable,
)
from scheduler.ports import JobQuery, Place, Sort
from tests.unit.edge import SUBMIT, client_of, problem_of, spec
from tests.unit.recording_registry import JOB_ID, NOW, RecordingRegistry, a_document, a_repair


@pytest.fixture
def registry() -> RecordingRegistry:
    return RecordingRegistry()


@pytest.fixture
def client(registry: RecordingRegistry) -> httpx.AsyncClient:
    return client_of(registry)


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

    @pytest.mark.parametrize("action", JobAction)
    async def test_an_action_says_who_asked(
        self, action: JobAction, client: httpx.AsyncClient, registry: RecordingRegistry
    ) -> None:
        """L7: the history of a job would not know who touched it."""
        registry.known[JOB_ID] = a_document()
        await client.post(f"{SUBMIT}/{JOB_ID}/{action}")
        await client.post(f"{SUBMIT}/{JOB_ID}/{action}", headers={"X-User": "Jörg".encode()})
        assert [call[:4] for call in registry.calls] == [
            ("act", JOB_ID, action, "api"),
            ("act", JOB_ID, action, "Jörg"),
        ]

    async def test_a_checkpoint_may_be_chosen(
        self, client: httpx.AsyncClient, registry: RecordingRegistry
    ) -> None:
        """L8: a choice that is dropped goes on from another; one that cannot be an id is refused by name."""
        registry.known[JOB_ID] = a_document()
        await client.post(f"{SUBMIT}/{JOB_ID}/resume?checkpoint=2.3")
        assert registry.calls == [("act", JOB_ID, JobAction.RESUME, "api", "2.3")]
        refused = await client.post(f"{SUBMIT}/{JOB_ID}/resume?checkpoint=../x")
        assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "checkpoint")

    async def test_what_the_loop_measured_comes_as_columns(
        self, client: httpx.AsyncClient, registry: RecordingRegistry
    ) -> None:
        """U2: a chart draws them as they are; null where a row has no such number."""
        registry.known[JOB_ID] = a_document()
        said = (await client.get(f"{SUBMIT}/{JOB_ID}/metrics?points=50")).json()
        assert (said["step"], said["series"]) == ([1, 2], {"loss": [2.5, None]})
        await client.get(f"{SUBMIT}/{JOB_ID}/metrics")
        assert registry.calls == [("metrics", JOB_ID, 50), ("metrics", JOB_ID, 1000)]

    async def test_attempts_and_checkpoints_are_rows(
        self, client: httpx.AsyncClient, registry: RecordingRegistry
    ) -> None:
        """L8: what can be chosen, and what was lost."""
        registry.known[JOB_ID] = a_document()
        (attempt,) = (await client.get(f"{SUBMIT}/{JOB_ID}/attempts")).json()["attempts"]
        assert (attempt["attempt"], attempt["reason"]["code"], attempt["steps_lost"]) == (1, "killed", 10)
        (checkpoint,) = (await client.get(f"{SUBMIT}/{JOB_ID}/checkpoints")).json()["checkpoints"]
        assert (checkpoint["checkpoint"], checkpoint["step"], checkpoint["next"]) == ("1.2", 20, True)

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
        after = Place(NOW, JobId(JOB_ID), "llama 8b")
        query = "status=running,queued&user=ada&project=p&search=llama&sort=-name&limit=7"
        query += f"&cursor={cursor_of(after, Sort.NAME_DOWN)}"
        assert (await client.get(f"{SUBMIT}/jobs?{query}")).status_code == 200
        await client.get(f"{SUBMIT}/jobs")
        both = frozenset({Status.RUNNING, Status.QUEUED})
        asked = JobQuery(
            statuses=both, user="ada", project="p", search="llama", sort=Sort.NAME_DOWN, after=after, limit=7
        )
        assert registry.calls == [("jobs", asked), ("jobs", JobQuery())]

    @pytest.mark.parametrize("sort", list(Sort))
    async def test_a_cursor_of_a_list_in_another_order_is_refused(
        self, sort: Sort, client: httpx.AsyncClient, registry: RecordingRegistry
    ) -> None:
        """It would begin anywhere, and hide jobs."""
        value = NOW if sort.by == "updated" else "" if sort.by == "submitted" else "a b  c"
        place = Place(NOW, JobId(JOB_ID), value)
        cursor = cursor_of(place, sort)
        for other in Sort:
            response = await client.get(f"{SUBMIT}/jobs?sort={other}&cursor={cursor}")
            if other is sort:
                assert registry.calls.pop()[1].after == place
            else:
                problem = problem_of(response)
                assert (problem.status, problem.errors[0].field) == (422, "cursor")
                assert f"sorted by {sort}, and this one is sorted by {other}" in problem.detail
        assert registry.calls == []

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

    @pytest.mark.parametrize(
        ("query", "dry_run"), [("", False), ("?dry_run=true", True), ("?dry_run=0", False)]
    )
    async def test_a_reconcile_says_what_it_did_or_only_would_do(
        self, query: str, dry_run: bool, client: httpx.AsyncClient, registry: RecordingRegistry
    ) -> None:
        """L10: a dry run that is taken for a real one changes jobs that somebody only wanted to look at."""
        registry.put_right = [a_repair()]
        response = await client.post(f"{SUBMIT}/reconcile{query}")
        answer = ReconcileAnswer.model_validate_json(response.content)
        assert registry.calls == [("reconcile", dry_run)]
        assert (answer.dry_run, answer.repairs) == (dry_run, [a_repair()])

    @pytest.mark.parametrize(("query", "save"), [("", True), ("?save=true", True), ("?save=false", False)])
    async def test_a_scheduler_that_is_to_be_ended_is_told_whether_runs_are_saved(
        self, query: str, save: bool, client: httpx.AsyncClient, registry: RecordingRegistry
    ) -> None:
        """B3: they are, unless somebody said otherwise."""
        response = await client.post(f"{SUBMIT}/shutdown{query}", headers={"X-User": "ann"})
        assert response.json() == {"running": 2, "grace_s": 60.0 if save else 0.0}
        assert registry.calls == [("shutdown", save, "ann")]

    async def test_repairs_are_paged(self, client: httpx.AsyncClient, registry: RecordingRegistry) -> None:
        """L10: what was repaired is kept and shown; the second page must not be the first again."""
        registry.put_right = [a_repair(why=f"reason {number}") for number in range(3)]
        first = (await client.get(f"{SUBMIT}/repairs?limit=2")).json()
        second = (await client.get(f"{SUBMIT}/repairs?limit=2&cursor={first['next_cursor']}")).json()
        assert [one["why"] for one in first["repairs"] + second["repairs"]] == [
            *("reason 0", "reason 1", "reason 2")
        ]
        assert second["next_cursor"] is None

    @pytest.mark.parametrize(
        ("method", "path", "field"),
        [
            ("POST", "reconcile?dry_run=maybe", "dry_run"),
            ("POST", "reconcile?dryrun=true", "dryrun"),
            ("POST", "shutdown?save=perhaps", "save"),
            ("POST", "shutdown?now=true", "now"),
            ("GET", "repairs?limit=0", "limit"),
        ],
    )
    async def test_a_misspelt_wish_is_refused_not_ignored(
        self, method: str, path: str, field: str, client: httpx.AsyncClient, registry: RecordingRegistry
    ) -> None:
        """L10: `?dryrun=true` would otherwise be a real pass."""
        problem = problem_of(await client.request(method, f"{SUBMIT}/{path}"))
        assert (problem.status, [one.field for one in problem.errors]) == (422, [field])
        assert registry.calls == []

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


class TestRefusals:
    async def test_a_parameter_that_is_given_twice_is_refused(self, client: httpx.AsyncClient) -> None:
        """Whichever of the two was taken, it might be the one that was not meant."""
        answer = await client.get("/api/training/jobs?user=ann&user=bob")
        assert answer.status_code == 422
        assert "more than once" in answer.json()["detail"]

    @pytest.mark.parametrize(
        ("error", "status", "code"),
        [
            (NotAllowed("the job is completed"), 400, "not_allowed"),
            (JournalUnwritable("the disk is full"), 503, "journal_unwritable"),
            (MirrorRefused("the key is wrong"), 502, "mirror_refused"),
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
