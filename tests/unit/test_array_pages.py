"""The page of an array: complete without a script, and true (S8)."""

from __future__ import annotations

import re

import httpx
import pytest

from scheduler.core.model import ArrayPlace, JobSpec, Status
from scheduler.errors import RegistryUnavailable
from tests.unit.edge import SUBMIT, client_of, problem_of
from tests.unit.recording_registry import (
    ARRAY_ID,
    JOB_ID,
    RecordingRegistry,
    a_document,
    a_job_array,
    an_array_job,
)

PAGE = f"/training/array/{ARRAY_ID}"
HOSTILE = "<script>alert(1)</script>\"'"


@pytest.fixture
def registry() -> RecordingRegistry:
    registry = RecordingRegistry()
    jobs = [
        an_array_job(1, status=Status.COMPLETED, values={"lr": 1e-4, "init": "zeros"}, metric=0.5),
        an_array_job(2, values={"lr": 3e-4, "init": None}, metric=0.25, reason="attempt 1 is training"),
        an_array_job(3, status=Status.QUEUED, values={"lr": 1e-3, "init": True}, reason="2 of 2 jobs run"),
    ]
    message = "3 jobs, 2 at once at most: 1 completed, 1 running, 1 queued; best loss so far: 0.25, of job 2"
    registry.known_arrays[ARRAY_ID] = a_job_array(jobs=jobs, best=2, message=message)
    return registry


@pytest.fixture
def client(registry: RecordingRegistry) -> httpx.AsyncClient:
    return client_of(registry)


def rows(page: str) -> list[str]:
    return re.findall(r"<tr>\s*<td data-label=\"No\".*?</tr>", page, re.DOTALL)


async def test_the_group_is_shown_with_each_job_its_values_and_the_best(client: httpx.AsyncClient) -> None:
    page = (await client.get(PAGE)).text
    assert "3 jobs, 2 at once at most: 1 completed, 1 running, 1 queued; best loss so far: 0.25" in page
    assert '<progress max="3" value="1"' in page
    first, second, third = rows(page)
    assert '"lr">0.0001<' in first and '"init">zeros<' in first and "best" not in first
    assert '"init">null<' in second and '<span class="tag">best</span>' in second
    assert '"init">true<' in third and "2 of 2 jobs run" in third
    assert f"jobId={an_array_job(2).job_id}" in second
    assert f"/training?search=array%3D{ARRAY_ID}" in page
    assert f'href="{PAGE}/cancel"' in page


async def test_the_part_is_the_same_without_the_layout(client: httpx.AsyncClient) -> None:
    part = (await client.get(PAGE, headers={"hx-request": "true"})).text
    assert len(rows(part)) == 3 and "<html" not in part


async def test_a_cancel_asks_first_and_works_without_a_script(
    client: httpx.AsyncClient, registry: RecordingRegistry
) -> None:
    asked = (await client.get(f"{PAGE}/cancel")).text
    assert "Cancel 2 jobs of sweep?" in asked
    assert "cancel_array" not in [call[0] for call in registry.calls]
    (csrf,) = re.findall(r'<section class="confirm">.*?name="csrf" value="([^"]+)"', asked, re.DOTALL)
    done = await client.post(f"{PAGE}/cancel", data={"csrf": csrf})
    assert (done.status_code, done.headers["location"]) == (303, PAGE)
    assert ("cancel_array", ARRAY_ID, "page") in registry.calls


async def test_a_form_of_another_site_cancels_nothing(
    client: httpx.AsyncClient, registry: RecordingRegistry
) -> None:
    client.cookies.set("scheduler_csrf", "known")
    for csrf in ("", "guessed"):
        assert (await client.post(f"{PAGE}/cancel", data={"csrf": csrf})).status_code == 403
    assert registry.calls == []


async def test_one_that_has_ended_has_nothing_to_cancel(
    client: httpx.AsyncClient, registry: RecordingRegistry
) -> None:
    jobs = [an_array_job(1, status=Status.FAILED)]
    registry.known_arrays[ARRAY_ID] = a_job_array(jobs=jobs)
    assert f"{PAGE}/cancel" not in (await client.get(PAGE)).text
    asked = (await client.get(f"{PAGE}/cancel")).text
    assert "sweep has ended" in asked and '<button class="danger"' not in asked


async def test_what_users_wrote_is_escaped(client: httpx.AsyncClient, registry: RecordingRegistry) -> None:
    job = an_array_job(1, name=HOSTILE, reason=HOSTILE, values={HOSTILE: HOSTILE, "x": [HOSTILE]})
    registry.known_arrays[ARRAY_ID] = a_job_array(
        jobs=[job], name=HOSTILE, message=HOSTILE, metric=HOSTILE, user=HOSTILE, project=HOSTILE
    )
    for path in (PAGE, f"{PAGE}/cancel"):
        text = (await client.get(path)).text
        assert "<script>alert" not in text and "&lt;script&gt;alert(1)" in text
        assert not re.findall(r"<style|\sstyle=|\son[a-z]+=", text)
        assert not re.findall(r'(?:src|href)="(?:[a-z]+:)?//[^"]*"', text)


@pytest.mark.parametrize(("array_id", "status"), [(JOB_ID, 404), ("nonsense", 422), ("<script>", 422)])
async def test_what_is_no_array_is_said_to_be_none(
    array_id: str, status: int, client: httpx.AsyncClient
) -> None:
    for path in (f"/training/array/{array_id}", f"/training/array/{array_id}/cancel"):
        answer = await client.get(path)
        assert (answer.status_code, "This array cannot be shown" in answer.text) == (status, True)
        assert "<script>" not in answer.text.partition("<main")[2]


async def test_a_scheduler_that_is_away_is_said_to_be(
    client: httpx.AsyncClient, registry: RecordingRegistry
) -> None:
    """And a page that renews itself stays as it is."""
    registry.refuses = RegistryUnavailable("the actor is away")
    answer = await client.get(PAGE)
    assert (answer.status_code, "the actor is away" in answer.text) == (503, True)
    assert (await client.get(PAGE, headers={"hx-request": "true"})).status_code == 503


async def test_the_page_of_a_job_leads_to_its_array(
    client: httpx.AsyncClient, registry: RecordingRegistry
) -> None:
    place = ArrayPlace(id=ARRAY_ID, index=2, size=3, at_most=2, keys=["lr"])
    spec = JobSpec(loop="torch_ddp", config={"lr": 3e-4}, array=place)
    registry.known[JOB_ID] = a_document(spec=spec)
    page = (await client.get(f"/training/monitor?jobId={JOB_ID}")).text
    assert f'<a href="{PAGE}">job 2 of 3</a>' in page
    submitted = (await client.get(f"/training/spec?jobId={JOB_ID}")).text
    assert "at_most" not in submitted, "what is submitted again is a job by itself"
    assert [call[1].array for call in registry.calls if call[0] == "plan"] == [None]


class TestOverHttp:
    BODY = {"spec": {"loop": "torch_ddp"}, "parameters": {"seed": [1, 2]}, "at_most": 1}

    async def test_a_submit_is_signed_and_says_where_the_array_is(
        self, client: httpx.AsyncClient, registry: RecordingRegistry
    ) -> None:
        headers = {"X-User": "ann", "Idempotency-Key": "night"}
        answer = await client.post(f"{SUBMIT}/arrays", json=self.BODY, headers=headers)
        ((_, array_id, wanted, key),) = registry.calls
        assert answer.status_code == 201
        assert answer.headers["location"] == f"{SUBMIT}/arrays/{array_id}"
        assert (wanted.spec.user, wanted.parameters, wanted.at_most, key) == (
            "ann",
            {"seed": [1, 2]},
            1,
            "night",
        )

    @pytest.mark.parametrize(
        ("change", "field"),
        [
            ({"parameters": {}}, "parameters"),
            ({"parameters": {"seed": []}}, "parameters.seed"),
            ({"parameters": {"seed": "1,2"}}, "parameters.seed"),
            ({"at_most": 0}, "at_most"),
            ({"at_most": "2"}, "at_most"),
            ({"metric_is": "most"}, "metric_is"),
            ({"spec": {}}, "spec.loop"),
            ({"params": {}}, "params"),
        ],
    )
    async def test_a_body_that_is_no_array_is_refused_by_its_field(
        self, change: dict[str, object], field: str, client: httpx.AsyncClient, registry: RecordingRegistry
    ) -> None:
        problem = problem_of(await client.post(f"{SUBMIT}/arrays", json=self.BODY | change))
        assert (problem.status, [one.field for one in problem.errors]) == (422, [field])
        assert registry.calls == []

    async def test_it_is_cancelled_in_the_name_of_who_asks(
        self, client: httpx.AsyncClient, registry: RecordingRegistry
    ) -> None:
        answer = await client.post(f"{SUBMIT}/arrays/{ARRAY_ID}/cancel", headers={"X-User": "ann"})
        assert (answer.status_code, answer.json()["array_id"]) == (200, ARRAY_ID)
        assert registry.calls[0] == ("cancel_array", ARRAY_ID, "ann")
        assert problem_of(await client.get(f"{SUBMIT}/arrays/{JOB_ID}")).code == "array_not_found"
