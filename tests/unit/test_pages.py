"""The plain pages: true, escaped, and there when nothing else answers."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from scheduler.api.base import ReasonDocument
from scheduler.api.health import Health
from scheduler.api.metrics import MetricsDocument
from scheduler.core.model import JobId, JobSpec, Status
from scheduler.engine.periodic import SystemClock
from scheduler.errors import (
    RegistryUnavailable,
)
from scheduler.testing.memory_mirror import Database, MemoryMirror
from serve_app.pages.visitor import MAX_FIELDS
from tests.unit.edge import client_of
from tests.unit.recording_registry import (
    JOB_ID,
    NOW,
    RecordingRegistry,
    a_document,
    a_holding_job,
    a_queue,
    a_share,
    a_waiting_job,
)


@pytest.fixture
def registry() -> RecordingRegistry:
    return RecordingRegistry()


@pytest.fixture
def client(registry: RecordingRegistry) -> httpx.AsyncClient:
    return client_of(registry)


HOSTILE = "<script>alert(1)</script>\"'"
OTHER_PAGES = ("/training/repairs", "/training/health", "/training/queue", "/training/usage")


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
        page = (await client.get("/training")).text
        for told in (
            "running",
            "attempt 2 is training",
            "step 12 of 60, loss 2.31",
            "5 min ago",
            'value="20"',
        ):
            assert told in page
        assert f'href="/training/monitor?jobId={JOB_ID}"' in page
        assert "http-equiv" not in page, "a page that loads itself anew loses what a person has marked"

    async def test_the_root_leads_to_the_list(self, client: httpx.AsyncClient) -> None:
        response = await client.get("/")
        assert (response.status_code, response.headers["location"]) == (307, "/training")

    async def test_nothing_is_fetched_from_elsewhere(
        self, client: httpx.AsyncClient, registry: RecordingRegistry
    ) -> None:
        """A cluster without internet would show a bare page; and an inline script would be refused."""
        registry.known[JOB_ID] = a_document()
        for path in ("/training", "/docs", *OTHER_PAGES, f"/training/monitor?jobId={JOB_ID}"):
            text = (await client.get(path)).text
            assert not re.findall(r'(?:src|href)="(?:[a-z]+:)?//[^"]*"', text), path
            assert not re.findall(r"<script(?![^>]*(?: src=| type=\"application/json\"))", text), path
            assert not re.findall(r"<style|\sstyle=|\son[a-z]+=", text), path

    async def test_a_page_and_all_it_loads_have_one_version(self, client: httpx.AsyncClient) -> None:
        """A module under two URLs would be two modules, and a key pressed once would count twice."""
        names = re.findall(r'"(/static/[^"]+)"', (await client.get("/training")).text)
        assert len({name.split("/")[2] for name in names}) == 1
        for name in names:
            response = await client.get(name)
            assert response.status_code == 200
            assert "immutable" in response.headers["cache-control"]
        old = re.sub(r"/static/[0-9a-f]{12}/", "/static/000000000000/", names[0])
        assert (await client.get(old)).headers["cache-control"] == "no-store"

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
        hostile = "&lt;script&gt;alert(1)"
        for path in (
            "/training",
            f"/training/monitor?jobId={JOB_ID}",
            "/training/monitor?jobId=<script>alert(1)",
        ):
            text = (await client.get(path)).text
            assert "<script>" not in text
            assert hostile in text
        for name in ("status", "user", "project", "search", "sort", "cursor"):
            text = (await client.get("/training", params={name: HOSTILE})).text
            assert "<script>" not in text

    async def test_the_page_stands_while_the_registry_is_away(
        self, client: httpx.AsyncClient, registry: RecordingRegistry
    ) -> None:
        """Exactly then somebody looks at it."""
        registry.refuses = RegistryUnavailable("the scheduler actor does not answer")
        response = await client.get("/training")
        assert response.status_code == 200
        assert "The scheduler does not answer" in response.text
        for path in OTHER_PAGES:
            response = await client.get(path)
            assert response.status_code == 200
            assert "the scheduler actor does not answer" in response.text

    async def test_a_degraded_scheduler_says_so_above_the_jobs(
        self, client: httpx.AsyncClient, registry: RecordingRegistry, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Rows under a silent banner would be believed."""

        async def degraded() -> Health:
            return Health(status="degraded", problems=["the database refuses"], version="1")

        monkeypatch.setattr(registry, "health", degraded)
        assert "the database refuses" in (await client.get("/training")).text

    async def test_a_stale_row_shows_both_words(
        self, client: httpx.AsyncClient, registry: RecordingRegistry
    ) -> None:
        """L6, U1: a badge beside the true state; a reader of the database learns why they differ."""
        registry.known[JOB_ID] = a_document(status=Status.FAILED, stale=True, database_status="running")
        for path in ("/training", f"/training/monitor?jobId={JOB_ID}"):
            page = (await client.get(path)).text
            assert '<span class="status failed">failed</span>' in page
            assert "tale: the database says running" in page

    @pytest.mark.parametrize(("verified", "is_alarm"), [(True, False), (False, True)])
    async def test_what_was_not_verified_or_compared_is_said_above_the_jobs(
        self, verified: bool, is_alarm: bool, client: httpx.AsyncClient, registry: RecordingRegistry
    ) -> None:
        """L6, U1: old rows under no banner would be believed; a database that is away is no such alarm."""
        registry.known[JOB_ID] = a_document(verified=verified)
        registry.says_of_pages = {"verified": verified, "note": "because <it> is away"}
        page = (await client.get("/training")).text
        assert "because &lt;it&gt; is away" in page
        assert ("<strong>Not verified.</strong>" in page) == is_alarm
        assert ('<span class="doubt">not verified</span>' in page) == is_alarm

    async def test_a_job_is_shown_without_its_history_while_the_registry_is_away(self) -> None:
        """L6: its row is there all the same; what is missing says so in its place."""
        registry, database = RecordingRegistry(), Database(SystemClock())
        registry.refuses = RegistryUnavailable("the actor is restarting")
        database.insert(JobId(JOB_ID), status="running", name="alone")
        async with client_of(registry, MemoryMirror(database)) as client:
            response = await client.get(f"/training/monitor?jobId={JOB_ID}")
        assert response.status_code == 200
        for told in ("alone", "not verified.", "as the database has it", "the actor is restarting"):
            assert told in response.text.lower()

    async def test_one_job_is_shown_with_its_history_and_log(
        self, client: httpx.AsyncClient, registry: RecordingRegistry
    ) -> None:
        """U2: the first look after a failure."""
        registry.known[JOB_ID] = a_document(
            status=Status.FAILED,
            attempt=1,
            reason=ReasonDocument(code="x", message="the loop raised", detail="Traceback: boom"),
            phases={"loading": NOW},
        )
        page = (await client.get(f"/training/monitor?jobId={JOB_ID}")).text
        for told in ("the loop raised", "traceback: boom", "submitted by ada", "log of job", "loading"):
            assert told in page.lower()
        assert "http-equiv" not in page, "a page of a finished job has nothing to renew"

    @pytest.mark.parametrize(("name", "is_loss"), [("accuracy", False), ("train_loss", True)])
    async def test_no_other_curve_is_called_the_loss(self, name: str, is_loss: bool) -> None:
        class Measured(RecordingRegistry):
            async def metrics(self, job_id: str, points: int) -> MetricsDocument:
                found = await super().metrics(job_id, points)
                return found.model_copy(update={"series": {name: [0.25, 0.75]}})

        registry = Measured()
        registry.known[JOB_ID] = a_document(attempt=1)
        async with client_of(registry) as client:
            page = (await client.get(f"/training/monitor?jobId={JOB_ID}")).text
        assert ("oss from 0.25 to 0.75" in page) == is_loss

    @pytest.mark.parametrize(("job_id", "status"), [("", 422), ("x", 422), (JOB_ID, 404)])
    async def test_a_job_that_is_not_there_is_a_page_too(
        self, job_id: str, status: int, client: httpx.AsyncClient
    ) -> None:
        """People follow old links with browsers."""
        response = await client.get(f"/training/monitor?jobId={job_id}")
        assert response.status_code == status
        assert "This job cannot be shown" in response.text

    @pytest.mark.parametrize("path", ["/training/repairs", "/training/marked"])
    async def test_a_form_of_another_site_does_nothing(
        self, path: str, client: httpx.AsyncClient, registry: RecordingRegistry
    ) -> None:
        """It can send our cookie, but does not know what stands in it."""
        client.cookies.set("scheduler_csrf", "known")
        for csrf in ("", "guessed"):
            fields = {"csrf": csrf, "really": "yes", "action": "cancel", "jobs": JOB_ID}
            response = await client.post(path, data=fields)
            assert response.status_code == 403
            assert "load it again" in response.text
            assert response.headers["content-type"].startswith("text/html")
        assert ("reconcile", False) not in registry.calls

    async def test_a_form_with_more_fields_than_any_page_has_is_refused(
        self, client: httpx.AsyncClient
    ) -> None:
        client.cookies.set("scheduler_csrf", "known")
        response = await client.post("/training/marked", content=b"csrf=known" + b"&jobs=1" * MAX_FIELDS)
        assert response.status_code == 422
        assert "more than 2,000 fields" in response.text

    @pytest.mark.parametrize("fields", [{"action": "cancel"}, {"action": "explode", "jobs": JOB_ID}])
    async def test_nothing_marked_leads_back_to_the_list(
        self, fields: dict[str, str], client: httpx.AsyncClient
    ) -> None:
        client.cookies.set("scheduler_csrf", "known")
        back = "/training?user=ana"
        response = await client.post("/training/marked", data={"csrf": "known", "back": back} | fields)
        assert (response.status_code, response.headers["location"]) == (303, back)

    async def test_marked_jobs_lead_to_one_question_about_all_of_them(
        self, client: httpx.AsyncClient
    ) -> None:
        """Without a script: the boxes of a form become the ids in one URL."""
        client.cookies.set("scheduler_csrf", "known")
        other = JOB_ID.replace("1", "2")
        fields = {"csrf": "known", "back": "//evil.example", "action": "fail", "jobs": [JOB_ID, other]}
        response = await client.post("/training/marked", data=fields)
        assert response.headers["location"] == (
            f"/training/confirm?action=fail&jobs={JOB_ID}%2C{other}&back=%2Ftraining"
        )

    async def test_curves_are_drawn_for_the_jobs_that_have_one(
        self, client: httpx.AsyncClient, registry: RecordingRegistry
    ) -> None:
        registry.known[JOB_ID] = a_document()
        text = (await client.get(f"/training/trends?jobs={JOB_ID},{JOB_ID.replace('1', '2')}")).text
        assert text.count("<polyline") == 1
        assert f'data-trend="{JOB_ID}"' in text

    async def test_the_page_of_paths_lists_every_operation(self, client: httpx.AsyncClient) -> None:
        """The 404 sends people there."""
        page = (await client.get("/docs")).text
        assert all(path in page for path in (await client.get("/openapi.json")).json()["paths"])


class TestUnreadableJobs:
    """B2: a document that cannot be drawn is shown as such, alone."""

    @pytest.fixture
    def registry(self) -> RecordingRegistry:
        registry = RecordingRegistry()
        broken = a_document(JOB_ID, JobSpec(loop="a", name="broken")).model_copy(
            update={"created_at": "yesterday"}
        )
        whole = a_document("0b2f1c9e-2a55-4d0c-8c4f-6a1f1a1c0002", JobSpec(loop="a", name="whole"))
        registry.known.update({one.job_id: one for one in (broken, whole)})
        return registry

    async def test_the_list_goes_on_around_one(self, registry: RecordingRegistry) -> None:
        answer = await client_of(registry).get("/training")
        assert answer.status_code == 200
        assert ">whole</a>" in answer.text
        assert f'id="job-{JOB_ID}"' in answer.text
        assert "unreadable" in answer.text

    async def test_its_page_shows_the_parts_that_can_be_drawn(self, registry: RecordingRegistry) -> None:
        answer = await client_of(registry).get(f"/training/monitor?jobId={JOB_ID}")
        assert answer.status_code == 200
        assert "cannot be shown" in answer.text
        assert 'id="attempts"' in answer.text


class TestQueue:
    async def test_shares_and_turns_are_told_in_words_beside_every_picture(
        self, client: httpx.AsyncClient, registry: RecordingRegistry
    ) -> None:
        """S1: whoever does not see the bars reads the same."""
        registry.known_queue = a_queue(
            projects=[a_share("vision", quota=8.0, limit=16.0)],
            waiting=[
                a_waiting_job(kept=True),
                a_waiting_job(position=2, starts_in_s=None, starts_after_s=5400.0),
            ],
            holding=[a_holding_job(on_loan=True), a_holding_job(left_s=None), a_holding_job(left_s=9000.0)],
        )
        page = (await client.get("/training/queue")).text
        for told in (
            'aria-label="vision: holds 12 GPUs, is entitled to 10, 2 on loan, quota 8, limit 16"',
            'aria-label="runs: runs for about 6 min more"',
            'aria-label="runs: runs; nobody can tell how long"',
            'aria-label="waits: starts in about 6 min"',
            "in more than 1.5 h",
            "behind 1 job with less left",
            "nodes kept",
            "3 jobs run, 2 jobs wait",
            f'href="/training/monitor?jobId={JOB_ID}"',
        ):
            assert told in page

    async def test_an_empty_queue_says_what_to_do(self, client: httpx.AsyncClient) -> None:
        page = (await client.get("/training/queue")).text
        assert 'href="/training/submit">Submit a job' in page
        assert "scheduler projects set" in page

    async def test_under_fifo_nothing_is_claimed_of_shares(
        self, client: httpx.AsyncClient, registry: RecordingRegistry
    ) -> None:
        share = a_share(entitled=None, lent=None, usage_h=None)
        waits = a_waiting_job(starts_in_s=None)
        registry.known_queue = a_queue(policy="fifo", rules=None, projects=[share], waiting=[waits])
        page = (await client.get("/training/queue")).text
        assert "Entitled" not in page
        assert "not known" in page

    async def test_names_are_escaped_and_the_part_alone_is_renewed(
        self, client: httpx.AsyncClient, registry: RecordingRegistry
    ) -> None:
        """A project's name would otherwise run in the browser of whoever looks."""
        registry.known_queue = a_queue(
            projects=[a_share(HOSTILE)],
            waiting=[
                a_waiting_job(
                    name=HOSTILE,
                    project=HOSTILE,
                    user=HOSTILE,
                    reason=ReasonDocument(code=HOSTILE, message=HOSTILE),
                )
            ],
            holding=[a_holding_job(name=HOSTILE, project=HOSTILE, user=HOSTILE)],
        )
        part = (await client.get("/training/queue", headers={"hx-request": "true"})).text
        assert "<html" not in part
        for text in ((await client.get("/training/queue")).text, part):
            assert "<script>" not in text
            assert "&lt;script&gt;alert(1)" in text
            assert not re.findall(r"<style|\sstyle=|\son[a-z]+=", text)


async def test_what_hides_in_a_text_is_shown_and_an_input_keeps_it(registry: RecordingRegistry) -> None:
    """D: U+202E turns the rest of a line round.  What an input sends back is what was in it."""
    name = "invoice\u202egpj"
    shown = a_document(JOB_ID, JobSpec(loop="a", name=name, user="\u05e2\u05d5\u05dc\u05dd"))
    registry.known[JOB_ID] = shown.model_copy(update={"reason": ReasonDocument(code="x", message="a\u200bb")})
    client = client_of(registry)
    for path in (
        "/training",
        f"/training/monitor?jobId={JOB_ID}",
        f"/training/confirm?action=cancel&jobs={JOB_ID}",
    ):
        page = (await client.get(path)).text
        assert "invoice‹U+202E›gpj" in page, path
        assert "\u202e" not in page, path
    assert "a‹U+200B›b" in (await client.get("/training")).text
    assert "\u05e2\u05d5\u05dc\u05dd" in (await client.get("/training")).text
    assert f'value="{name}"' in (await client.get("/training", params={"search": name})).text
