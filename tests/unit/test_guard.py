"""Who may ask: the token, and the requests that a foreign page makes in a browser."""

from __future__ import annotations

import httpx
import pytest

from tests.unit.edge import SITE, SUBMIT, client_of, problem_of, spec
from tests.unit.recording_registry import JOB_ID, RecordingRegistry

TOKEN = "correct-horse"


@pytest.fixture
def registry() -> RecordingRegistry:
    return RecordingRegistry()


@pytest.fixture
def client(registry: RecordingRegistry) -> httpx.AsyncClient:
    return client_of(registry)


class TestToken:
    @pytest.fixture
    def client(self, registry: RecordingRegistry) -> httpx.AsyncClient:
        return client_of(registry, token=TOKEN, host="0.0.0.0")

    @pytest.mark.parametrize(
        "path", ["/health", "/openapi.json", f"{SUBMIT}/jobs", "/nowhere", "/", "/training", "/docs"]
    )
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
        assert (await client.get("/training", auth=("any", TOKEN))).status_code == 200
        assert (await client.get("/training", auth=("any", "wrong"))).status_code == 401
        assert (await client.get(f"{SUBMIT}/jobs", auth=("any", TOKEN))).status_code == 401

    async def test_whoever_gives_no_token_is_told_how_to(self, client: httpx.AsyncClient) -> None:
        """A person cannot put a header into a browser, and a client has no form for a password."""
        assert "as the password" in problem_of(await client.get("/training")).detail
        assert "Bearer" in problem_of(await client.get(f"{SUBMIT}/jobs")).detail


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

    @pytest.mark.parametrize("path", ["/", "/training", "/health", "/nowhere", "/static/style.css"])
    async def test_every_answer_forbids_scripts_frames_and_sniffing(
        self, path: str, client: httpx.AsyncClient
    ) -> None:
        """A text that slips through the escaping would otherwise run."""
        headers = (await client.get(path)).headers
        assert headers["content-security-policy"].startswith("default-src 'none'")
        assert (headers["x-content-type-options"], headers["x-frame-options"]) == ("nosniff", "DENY")
