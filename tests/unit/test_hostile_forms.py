"""What a hostile hand sends to the pages: each is answered in words, and none is a mishap of the server."""

from __future__ import annotations

from urllib.parse import quote

import httpx
import pytest

from serve_app.pages.rendering import counted, printed
from tests.unit.edge import client_of
from tests.unit.recording_registry import JOB_ID, RecordingRegistry, a_document


@pytest.fixture
def registry() -> RecordingRegistry:
    return RecordingRegistry()


@pytest.fixture
def client(registry: RecordingRegistry) -> httpx.AsyncClient:
    return client_of(registry)


async def send(client: httpx.AsyncClient, path: str, body: str) -> httpx.Response:
    """As one of our pages sends it."""
    await client.get("/training")
    given = f"csrf={client.cookies['scheduler_csrf']}&{body}"
    return await client.post(path, content=given)


async def test_a_way_back_that_is_no_address_leads_to_the_list(
    client: httpx.AsyncClient, registry: RecordingRegistry
) -> None:
    registry.known[JOB_ID] = a_document()
    page = await client.get(f"/training/confirm?action=cancel&jobs={JOB_ID}&back=//[")
    assert page.status_code == 200
    assert 'href="/training" data-close' in page.text


async def test_a_form_of_thousands_of_fields_is_refused(client: httpx.AsyncClient) -> None:
    page = await send(client, "/training/me", "a=1&" * 3000)
    assert page.status_code in (400, 413, 422)
    assert "more than 2,000 fields" in page.text


async def test_a_config_as_deep_as_the_form_allows_is_refused_by_its_field(client: httpx.AsyncClient) -> None:
    page = await send(client, "/training/submit", f"own_loop=x:y&do=check&config={'%5B' * 90_000}")
    assert page.status_code == 422
    assert "Not accepted" in page.text


async def test_a_name_leaves_out_what_no_history_can_hold(client: httpx.AsyncClient) -> None:
    """NUL breaks the database, an escape the terminal, and U+202E turns what stands after it round."""
    await send(client, "/training/me", "name=" + quote(" a\x00n\x1b[31ma\u202e "))
    assert client.cookies["scheduler_me"] == quote("an[31ma")
    client.cookies.set("scheduler_me", "b%00o")
    assert 'value="bo"' in (await client.get("/training")).text


@pytest.mark.parametrize("path", ["/training/nothing", "/training/act", "/training/marked"])
async def test_a_page_that_is_not_there_is_a_page_too(path: str, client: httpx.AsyncClient) -> None:
    """Where only a form leads, a browser that is given the address again asks for it."""
    page = await client.get(path)
    assert (page.status_code, page.headers["content-type"]) == (404, "text/html; charset=utf-8")
    assert 'href="/training">All jobs' in page.text


async def test_a_last_slash_leads_to_the_list(client: httpx.AsyncClient) -> None:
    assert (await client.get("/training/")).headers["location"] == "/training"


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
async def test_a_page_of_another_site_may_link_here_and_load_nothing(
    site: str, client: httpx.AsyncClient
) -> None:
    """It cannot read what it loads; but streams that it opens in a visitor's browser are work for the server."""
    loads = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "cors"}
    for path in ("/training/live", "/training/monitor/live", "/api/training/jobs", "/training"):
        assert (await client.get(path, headers=loads)).status_code == 403
    links = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "navigate"}
    assert (await client.get("/training", headers=links)).status_code == 200


def test_what_was_printed_is_told_as_a_terminal_would_leave_it() -> None:
    text = "\x1b[1;31mred\x1b[0m\r\n 1%|#\r 2%|##\nplain\n\x1b]0;title\x07end"
    assert printed(text) == "red\n 2%|##\nplain\nend"


def test_one_is_not_told_as_many() -> None:
    assert [counted(number, "step") for number in (0, 1, 2000)] == ["0 steps", "1 step", "2,000 steps"]
