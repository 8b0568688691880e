"""The names under which a server is asked, the pages that may use it, and what a proxy before it says."""

from __future__ import annotations

import httpx
import pytest
from pydantic import ValidationError

from scheduler.settings import Settings
from tests.unit.edge import SUBMIT, client_of, problem_of, spec
from tests.unit.recording_registry import RecordingRegistry

APP = "https://app.example"
JOBS = f"{SUBMIT}/jobs"


def client(**settings: object) -> httpx.AsyncClient:
    return client_of(RecordingRegistry(), **settings)


class TestNames:
    async def test_a_refusal_names_what_was_seen_and_what_to_set(self) -> None:
        """C: whoever sets up a proxy has to know which name arrived."""
        problem = problem_of(await client().get(JOBS, headers={"Host": "trainer.example"}))
        assert problem.status == 403
        for words in (
            "'trainer.example'",
            "SCHEDULER_TRUSTED_HOSTS",
            "SCHEDULER_TOKEN",
            "SCHEDULER_TRUST_PROXY",
        ):
            assert words in problem.detail

    @pytest.mark.parametrize("host", ["trainer.example", "trainer.example:8443", "TRAINER.example"])
    async def test_a_name_that_was_named_is_answered(self, host: str) -> None:
        answer = await client(trusted_hosts=("trainer.example",)).get(JOBS, headers={"Host": host})
        assert answer.status_code == 200

    @pytest.mark.parametrize("host", ["evil.example", "trainer.example.evil.example", "xtrainer.example", ""])
    async def test_every_other_name_stays_closed(self, host: str) -> None:
        """DNS rebinding: a page under that name could read every job."""
        answer = await client(trusted_hosts=("trainer.example",)).get(JOBS, headers={"Host": host})
        assert answer.status_code == 403

    async def test_a_page_behind_a_proxy_that_changes_the_host_may_act_once_its_name_is_named(self) -> None:
        """C: its buttons were refused as those of another site."""
        headers = {"Origin": "https://trainer.example", "Host": "127.0.0.1:8000"}
        refused = problem_of(await client().post(SUBMIT, content=spec(), headers=headers))
        assert refused.status == 403
        for words in ("https://trainer.example", "127.0.0.1:8000", "SCHEDULER_TRUSTED_HOSTS"):
            assert words in refused.detail
        named = client(trusted_hosts=("trainer.example",))
        assert (await named.post(SUBMIT, content=spec(), headers=headers)).status_code == 201
        elsewhere = headers | {"Origin": "https://trainer.example:9999"}
        assert (await named.post(SUBMIT, content=spec(), headers=elsewhere)).status_code == 403


class TestProxy:
    PROXIED = {"X-Forwarded-Host": "trainer.example", "X-Forwarded-Prefix": "/trainer"}

    async def test_what_a_proxy_says_counts_only_where_it_is_trusted(self) -> None:
        """Anybody can send these headers."""
        trusting = client(trust_proxy=True, trusted_hosts=("trainer.example",))
        believed = await trusting.get("/training", headers=self.PROXIED)
        assert 'href="/trainer/training/health"' in believed.text
        assert "Path=/trainer;" in believed.headers["set-cookie"]
        assert "/trainer" not in (await client().get("/training", headers=self.PROXIED)).text

    @pytest.mark.parametrize("path", ["", "/trainer"])
    async def test_below_a_root_path_every_way_on_has_it(self, path: str) -> None:
        """C: a proxy may take the path away, or leave it."""
        rooted = client(root_path="/trainer")
        assert (await rooted.get(f"{path}/")).headers["location"] == "/trainer/training"
        made = await rooted.post(f"{path}{SUBMIT}", content=spec())
        assert made.headers["location"].startswith(f"/trainer{SUBMIT}/status/")
        assert (await rooted.get(f"{path}/openapi.json")).json()["servers"] == [{"url": "/trainer"}]
        assert "/trainer/docs" in problem_of(await rooted.get(f"{path}/nowhere")).detail

    async def test_the_host_that_a_trusted_proxy_tells_is_the_one_that_counts(self) -> None:
        """Rebinding through the proxy: what it sends as Host is loopback then."""
        trusting = client(trust_proxy=True)
        evil = {"X-Forwarded-Host": "evil.example", "Host": "127.0.0.1:8000"}
        assert (await trusting.get(JOBS, headers=evil)).status_code == 403
        page = {"X-Forwarded-Host": "trainer.example", "Origin": "https://trainer.example"}
        named = client(trust_proxy=True, trusted_hosts=("trainer.example",))
        assert (await named.post(SUBMIT, content=spec(), headers=page)).status_code == 201

    @pytest.mark.parametrize(
        "prefix", ["//evil.example", "/a/../b", "https://evil.example", "/a\\b", "/a b", "a"]
    )
    async def test_a_prefix_that_is_no_path_is_refused(self, prefix: str) -> None:
        """It would stand in redirects: `//evil.example/training` leads elsewhere."""
        answer = await client(trust_proxy=True).get("/", headers={"X-Forwarded-Prefix": prefix})
        assert problem_of(answer).status == 422


class TestOrigins:
    @pytest.fixture
    def client(self) -> httpx.AsyncClient:
        return client_of(RecordingRegistry(), cors_origins=(APP,), token="correct-horse")

    async def test_a_named_origin_may_use_the_api(self, client: httpx.AsyncClient) -> None:
        headers = {"Origin": APP, "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors"}
        asked = {
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization,idempotency-key",
        }
        preflight = await client.options(SUBMIT, headers=headers | asked)
        assert preflight.status_code == 200
        assert preflight.headers["access-control-allow-origin"] == APP
        assert "POST" in preflight.headers["access-control-allow-methods"]
        answer = await client.post(
            SUBMIT, content=spec(), headers=headers | {"Authorization": "Bearer correct-horse"}
        )
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (201, APP)
        assert "Location" in answer.headers["access-control-expose-headers"]
        assert "access-control-allow-credentials" not in answer.headers
        refused = await client.get(JOBS, headers=headers)
        assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, APP)

    async def test_its_pages_stay_for_themselves(self, client: httpx.AsyncClient) -> None:
        """A form of ours acts with what the browser sends by itself."""
        headers = {"Origin": APP, "Sec-Fetch-Site": "cross-site"}
        answer = await client.post("/training/act", auth=("ada", "correct-horse"), headers=headers)
        assert problem_of(answer).code == "forbidden"
        assert "access-control-allow-origin" not in answer.headers

    @pytest.mark.parametrize(
        "origin", ["https://evil.example", "http://app.example", "https://app.example:8443", "null"]
    )
    async def test_no_other_origin_is(self, origin: str, client: httpx.AsyncClient) -> None:
        headers = {"Origin": origin, "Authorization": "Bearer correct-horse"}
        for answer in (
            await client.post(SUBMIT, content=spec(), headers=headers),
            await client.options(SUBMIT, headers=headers | {"Access-Control-Request-Method": "POST"}),
        ):
            assert "access-control-allow-origin" not in answer.headers
        assert problem_of(await client.post(SUBMIT, content=spec(), headers=headers)).code == "forbidden"


@pytest.mark.parametrize(
    "wrong",
    [
        {"cors_origins": ("*",)}, {"cors_origins": ("https://app.example/",)}, {"cors_origins": ("app.example",)},
        {"root_path": "trainer"}, {"root_path": "//evil.example"}, {"root_path": "/training"}, {"root_path": "/api/x"},
    ],
    ids=str,
)  # fmt: skip
def test_a_setting_that_cannot_be_meant_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Settings(**wrong)  # type: ignore[arg-type]
